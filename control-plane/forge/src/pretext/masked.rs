//! Masked reconstruction: a share of each sample is hidden, and the network fills it in. What it is told is the error on
//! the hidden part alone (He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners").

use super::Objective;
use crate::{
    batch::Samples,
    genotype::{Dim, Skeleton},
    network::Network,
    params::{Builder, Init, ParamId, Params, channels_last},
    precision::Precision,
    seeds,
};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

/// Share of the patches that are hidden.
pub const MASK_SHARE: f64 = 0.3;
/// Keeps data without variance from dividing by zero.
const VARIANCE_MIN: f64 = 1e-12;

/// A linear decoder: each position of the last cell's output gives the patch of the input that it stands for.
#[derive(Debug)]
pub struct Masked {
    params: Params,
    weight: ParamId,
    bias: ParamId,
    /// Height and width of a patch.
    patch: [i64; 2],
    /// What stands in place of what is hidden.
    mean: f64,
    variance: f64,
}

impl Masked {
    /// For a network of this layout.
    pub fn new(skeleton: &Skeleton, samples: &Samples, rng: &mut ChaCha8Rng) -> Self {
        let patch = patch(skeleton);
        let values = skeleton.input.first().map_or(1, |channels| *channels as i64) * patch[0] * patch[1];
        let mut builder = Builder::default();
        let shape = [values, skeleton.features, 1, 1];
        let deviation = (1.0 / skeleton.features as f32).sqrt();
        let weight = builder.add("decoder.weight", &shape, Init::Normal(deviation), true);
        let bias = builder.add("decoder.bias", &[values], Init::Constant(0.0), false);
        let (mean, variance) = samples.moments();
        let variance = variance.max(VARIANCE_MIN);
        Self { params: builder.build(rng, true), weight, bias, patch, mean, variance }
    }

    /// Which values of `[N, C, height, width]` are hidden, as 1 and 0, `[N, 1, height, width]`.
    pub(super) fn mask(&self, size: &[i64], rng: &mut ChaCha8Rng) -> Tensor {
        let (n, h, w) = (size[0], size[2], size[3]);
        let [ph, pw] = self.patch;
        let (rows, columns) = (upwards(h, ph), upwards(w, pw));
        let each = usize::try_from(rows * columns).unwrap_or(1).max(1);
        let hidden = ((each as f64 * MASK_SHARE) as usize).max(1);
        let mut values = vec![0f32; usize::try_from(n).unwrap_or(0) * each];
        for sample in values.chunks_exact_mut(each) {
            sample[..hidden].fill(1.0);
            seeds::shuffle(sample, rng);
        }
        let patches = Tensor::from_slice(&values).reshape([n, 1, rows, 1, columns, 1]);
        let whole = patches.expand([n, 1, rows, ph, columns, pw], false);
        whole.reshape([n, 1, rows * ph, columns * pw]).narrow(2, 0, h).narrow(3, 0, w)
    }

    /// From the nodes of the last cell to `[N, C, height, width]`.
    pub(super) fn decode(&self, nodes: &[Tensor], size: &[i64]) -> Tensor {
        let p = &self.params;
        let features = Tensor::cat(nodes, 1);
        let patches = features.conv2d(&p[self.weight], Some(&p[self.bias]), 1, 0, 1, 1);
        let (n, c) = (size[0], size[1]);
        let [ph, pw] = self.patch;
        let (rows, columns) = (patches.size()[2], patches.size()[3]);
        let whole = patches.reshape([n, c, ph, pw, rows, columns]).permute([0, 1, 4, 2, 5, 3]).reshape([
            n,
            c,
            rows * ph,
            columns * pw,
        ]);
        whole.narrow(2, 0, size[2]).narrow(3, 0, size[3])
    }
}

impl Objective for Masked {
    fn head(&self) -> &Params {
        &self.params
    }

    fn loss(&self, net: &Network, samples: &Samples, chosen: &[i64], rng: &mut ChaCha8Rng) -> Tensor {
        let (x, _) = samples.batch(chosen);
        let size = x.size();
        let mask = self.mask(&size, rng).to_device(x.device());
        let seen = channels_last(&(&x * (1.0 - &mask) + &mask * self.mean));
        let pass = || self.decode(&net.features(&seen, true), &size);
        let found = Precision::of(x.device()).compute(pass).to_kind(Kind::Float);
        let hidden = mask.sum(Kind::Float) * size[1];
        ((found - x).square() * mask).sum(Kind::Float) / (hidden * self.variance)
    }
}

/// Height and width of the input that one position of the last cell's output stands for.
fn patch(skeleton: &Skeleton) -> [i64; 2] {
    let stride = skeleton.cells.iter().fold(skeleton.stem_stride, |all, cell| all * cell.adapters[1].stride);
    match skeleton.dim {
        Dim::Image => [stride, stride],
        Dim::Series => [1, stride],
    }
}

fn upwards(length: i64, step: i64) -> i64 {
    (length + step - 1) / step.max(1)
}
