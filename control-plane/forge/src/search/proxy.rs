//! How good an untrained network promises to be, at the price of one forward pass (Mellor et al. 2021, "NASWOT").

use crate::network::Network;
use tch::{Device, Kind, Tensor, no_grad};

/// How well the ReLUs of an untrained network tell samples `x` `[N, C, H, W]` apart: the logarithm of the determinant of
/// the matrix that counts, for each two samples, the ReLUs that treat them alike. Higher is better; minus infinity where
/// two samples are the same to it. Moves BatchNorm's running statistics.
pub(super) fn distinctness(net: &Network, x: &Tensor) -> f64 {
    no_grad(|| {
        let count = x.size()[0];
        let mut alike = Tensor::zeros([count, count], (Kind::Double, x.device()));
        let _ = net.forward_seen(x, true, &mut |activations| {
            let on = activations.gt(0.0).reshape([count, -1]).to_kind(Kind::Float);
            let off = on.ones_like() - &on;
            alike += (on.mm(&on.tr()) + off.mm(&off.tr())).to_kind(Kind::Double);
        });
        // Of a small matrix; on a GPU it would take a library of its own.
        let (sign, log) = alike.to_device(Device::Cpu).slogdet();
        if sign.double_value(&[]) > 0.0 { log.double_value(&[]) } else { f64::NEG_INFINITY }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        genotype::{Architecture, Dim, Edge, Genotype, Operation},
        params::channels_last,
        seeds::{self, Purpose},
    };

    #[test]
    fn a_network_that_learns_features_promises_more_than_one_that_passes_its_input_on() {
        let network = |op| {
            let nodes = vec![vec![Edge { from: 0, op }, Edge { from: 1, op }]; 2];
            let architecture = Architecture {
                dim: Dim::Image,
                input: vec![1, 8, 8],
                classes: 2,
                channels: 4,
                cells: 2,
                answer: Default::default(),
                genotype: Genotype { nodes },
                layout: None,
            };
            Network::new(architecture, &mut seeds::stream(1, Purpose::NetworkWeights, 0)).unwrap()
        };
        let mut rng = seeds::stream(1, Purpose::Samples, 0);
        let values: Vec<f32> = (0..16 * 64).map(|_| seeds::normal(&mut rng)).collect();
        let x = channels_last(&Tensor::from_slice(&values).reshape([16, 1, 8, 8]));
        let [conv, skip] = [Operation::CONV3, Operation::SKIP].map(|op| distinctness(&network(op), &x));
        assert!(conv > skip && skip > 0.0, "{conv} and {skip}");
        let same = x.narrow(0, 0, 1).expand([16, 1, 8, 8], false);
        assert!(distinctness(&network(Operation::CONV3), &channels_last(&same)) < skip);
    }
}
