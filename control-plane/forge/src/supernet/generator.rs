//! Kernels that one small network generates, from a code for each kernel (Ha, Dai and Le 2017, "HyperNetworks", section
//! 3.1; Brock et al. 2018, "SMASH"). All candidate convolutions share that network; it and the codes are trained with
//! everything else, end to end.
//!
//! A hidden vector stands for each pair of an output and an input channel of a kernel: a ReLU of the sum of what the code
//! gives and of what stands for the two channels in every kernel. From it the taps are read; a kernel smaller than the
//! largest takes those in the middle.

use crate::{
    genotype::{Dim, Skeleton},
    layers,
    params::{Builder, Init, ParamId, Params},
    supernet::Space,
};
use tch::Tensor;

/// Values of a code.
const CODE: i64 = 16;
/// Values of a hidden vector.
pub(super) const HIDDEN: i64 = 32;

/// A kernel of a candidate: what it has of its own, and what it is generated from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernel {
    /// `[out, in, h, w]`.
    shape: [i64; 4],
    /// The last output channels.
    own: Option<ParamId>,
    /// The first ones: how many, and the code.
    generated: Option<(i64, ParamId)>,
}

impl Kernel {
    /// Adds the parameters of one; `share` of its output channels are generated.
    pub(super) fn new(b: &mut Builder, name: &str, shape: [i64; 4], share: f64) -> Self {
        let count = ((shape[0] as f64 * share).round() as i64).clamp(0, shape[0]);
        let own = [shape[0] - count, shape[1], shape[2], shape[3]];
        Self {
            shape,
            own: (own[0] > 0).then(|| b.add(name, &own, Init::he(&own), true)),
            generated: (count > 0)
                .then(|| (count, b.add(format!("{name}.code"), &[CODE], Init::Normal(1.0), false))),
        }
    }

    /// Its values, differentiable with respect to all that they come from.
    pub(super) fn values(&self, p: &Params, generator: Option<&Generator>) -> Tensor {
        let own = self.own.map(|own| p[own].shallow_clone());
        let made = self.generated.zip(generator).map(|((count, code), generator)| {
            let [_, inputs, h, w] = self.shape;
            generator.kernel(p, &p[code], [count, inputs, h, w])
        });
        match (made, own) {
            (Some(made), Some(own)) => Tensor::cat(&[made, own], 0),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => unreachable!("every output channel is generated or not"),
        }
    }
}

/// The network that all generated kernels come from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Generator {
    /// `[HIDDEN, CODE]`.
    code: ParamId,
    /// `[HIDDEN]`.
    bias: ParamId,
    /// `[channels, HIDDEN]`: what stands for an output channel.
    outputs: ParamId,
    /// The same for an input channel.
    inputs: ParamId,
    /// `[HIDDEN, h * w]` of the largest kernel.
    taps: ParamId,
    window: [i64; 2],
}

impl Generator {
    /// Adds the parameters of one for all candidates of `space` in `skeleton`.
    pub(super) fn new(b: &mut Builder, skeleton: &Skeleton, space: &Space) -> Self {
        let (dim, widest) =
            (skeleton.dim, skeleton.cells.iter().map(|cell| cell.channels).max().unwrap_or(1));
        let window = layers::window(dim, largest(space, dim));
        let mut add = |name: &str, shape: [i64; 2], deviation: f32, decay| {
            b.add(format!("generator.{name}"), &shape, Init::Normal(deviation), decay)
        };
        // The sum of three standard normal numbers behind a ReLU has a mean square of 1.5: taps begin with one of 1.
        let code = add("code", [HIDDEN, CODE], (1.0 / CODE as f32).sqrt(), true);
        let taps = add("taps", [HIDDEN, window[0] * window[1]], (1.0 / (1.5 * HIDDEN as f32)).sqrt(), true);
        let outputs = add("outputs", [2 * widest, HIDDEN], 1.0, false);
        let inputs = add("inputs", [widest, HIDDEN], 1.0, false);
        let bias = b.add("generator.bias", &[HIDDEN], Init::Constant(0.0), false);
        Self { code, bias, outputs, inputs, taps, window }
    }

    /// A kernel of that shape for `code`, as large at first as one that begins by itself (He et al. 2015).
    fn kernel(&self, p: &Params, code: &Tensor, shape: [i64; 4]) -> Tensor {
        let [count, inputs, h, w] = shape;
        let of_code = code.unsqueeze(0).linear(&p[self.code], Some(&p[self.bias]));
        let of_outputs = (p[self.outputs].narrow(0, 0, count) + of_code).unsqueeze(1);
        let hidden = (of_outputs + p[self.inputs].narrow(0, 0, inputs).unsqueeze(0)).relu();
        let [most_h, most_w] = self.window;
        let taps = p[self.taps].view([HIDDEN, most_h, most_w]);
        let taps =
            taps.narrow(1, (most_h - h) / 2, h).narrow(2, (most_w - w) / 2, w).reshape([HIDDEN, h * w]);
        let deviation = (2.0 / (inputs * h * w) as f64).sqrt();
        (hidden.reshape([-1, HIDDEN]).mm(&taps) * deviation).reshape(shape)
    }
}

fn largest(space: &Space, dim: Dim) -> i64 {
    space.operations().iter().map(|operation| operation.kernel(dim)).max().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        params::to_vec,
        seeds::{self, Purpose},
    };

    #[test]
    fn a_kernel_is_generated_to_its_share_begins_as_large_as_its_own_part_and_learns_through_its_code() {
        let skeleton = Skeleton::new(&[1, 9, 9], 2, 16, 1, 2);
        let mut b = Builder::default();
        let generator = Generator::new(&mut b, &skeleton, &Space::all_earlier(2));
        let kernels =
            [0.0, 0.5, 1.0].map(|share| Kernel::new(&mut b, &format!("k{share}"), [16, 16, 3, 3], share));
        let p = b.build(&mut seeds::stream(3, Purpose::SupernetWeights, 0), true);
        let spread = |kernel: &Kernel| {
            let values = to_vec(&kernel.values(&p, Some(&generator)));
            assert_eq!(values.len(), 16 * 16 * 9);
            (values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32).sqrt()
        };
        let expected = (2.0f32 / 144.0).sqrt();
        for kernel in &kernels {
            assert!((spread(kernel) / expected - 1.0).abs() < 0.5, "{} of {expected}", spread(kernel));
        }
        let half = kernels[1].values(&p, Some(&generator));
        let own = to_vec(&p[kernels[1].own.unwrap()]);
        assert_eq!(to_vec(&half.narrow(0, 8, 8)), own);
        // Two codes give two kernels; the loss of one moves its code and the generator.
        let [a, b] = [1, 2].map(|at| to_vec(&kernels[at].values(&p, Some(&generator)).narrow(0, 0, 8)));
        assert_ne!(a, b);
        let loss = kernels[2].values(&p, Some(&generator)).square().sum(tch::Kind::Float);
        let gradient = |id: ParamId| {
            let kernel = kernels[2].values(&p, Some(&generator)).square().sum(tch::Kind::Float);
            Tensor::run_backward(&[kernel], &[&p[id]], false, false).remove(0).abs().sum(tch::Kind::Float)
        };
        assert!(loss.double_value(&[]) > 0.0);
        for id in [kernels[2].generated.unwrap().1, generator.taps, generator.inputs] {
            assert!(gradient(id).double_value(&[]) > 0.0);
        }
    }
}
