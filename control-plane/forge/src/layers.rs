//! Building blocks that the supernet and the derived network share. Every tensor is `[N, C, H, W]`, channels last;
//! a series has a height of 1.

use crate::{
    answer::Answer,
    genotype::{Adapter, Dim, Skeleton},
    params::{Builder, Init, ParamId, Params},
};
use tch::Tensor;

/// Keeps a variance of zero from dividing by zero; folded into weights on export.
pub const BN_EPSILON: f64 = 1e-5;
/// Weight of the newest batch in BatchNorm's running statistics.
pub const BN_MOMENTUM: f64 = 0.1;

/// Height and width of a kernel of `taps` taps.
pub fn window(dim: Dim, taps: i64) -> [i64; 2] {
    match dim {
        Dim::Series => [1, taps],
        Dim::Image => [taps, taps],
    }
}

/// How far a convolution moves along each axis.
pub fn strides(dim: Dim, stride: i64) -> [i64; 2] {
    match dim {
        Dim::Series => [1, stride],
        Dim::Image => [stride, stride],
    }
}

/// Where a window over a position lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Around it.
    Around,
    /// Before it, itself the last: nothing that comes later along the last axis is seen.
    Before,
}

impl Reach {
    /// `x` as it must be for a window of `kernel` to reach so far without padding of its own, and that padding.
    fn padded(self, x: &Tensor, kernel: [i64; 2]) -> (Tensor, [i64; 2]) {
        match self {
            Self::Around => (x.shallow_clone(), kernel.map(|taps| taps / 2)),
            Self::Before if kernel[1] == 1 => (x.shallow_clone(), [0, 0]),
            Self::Before => (x.constant_pad_nd([kernel[1] - 1, 0, 0, 0]), [0, 0]),
        }
    }
}

/// A convolution without bias that keeps `ceil(size / stride)` elements along each axis.
pub fn conv(x: &Tensor, weight: &Tensor, stride: [i64; 2], groups: i64, reach: Reach) -> Tensor {
    let size = weight.size();
    let (x, padding) = reach.padded(x, [size[2], size[3]]);
    x.conv2d(weight, None::<&Tensor>, stride, padding, [1, 1], groups)
}

/// BatchNorm by the statistics of the batch.
pub fn batch_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor) -> Tensor {
    x.batch_norm(Some(gamma), Some(beta), None, None, true, BN_MOMENTUM, BN_EPSILON, false)
}

/// Maximum over 3 along each axis that the network slides over, of what is never negative.
pub fn max_pool(dim: Dim, reach: Reach, x: &Tensor) -> Tensor {
    let kernel = window(dim, 3);
    let (x, padding) = reach.padded(x, kernel);
    x.max_pool2d(kernel, [1, 1], padding, [1, 1], false)
}

/// Mean over 3, padding counted.
pub fn avg_pool(dim: Dim, reach: Reach, x: &Tensor) -> Tensor {
    let kernel = window(dim, 3);
    let (x, padding) = reach.padded(x, kernel);
    x.avg_pool2d(kernel, [1, 1], padding, false, true, None)
}

/// A convolution with BatchNorm.
#[derive(Clone, Copy, Debug)]
pub struct ConvBn {
    /// `[out, in, h, w]`.
    pub weight: ParamId,
    /// `[out]`.
    pub gamma: ParamId,
    /// `[out]`.
    pub beta: ParamId,
    /// Along each axis.
    pub stride: [i64; 2],
}

impl ConvBn {
    /// Adds the parameters of one.
    pub fn new(b: &mut Builder, name: &str, shape: [i64; 4], stride: [i64; 2]) -> Self {
        Self {
            weight: b.add(format!("{name}.weight"), &shape, Init::he(&shape), true),
            gamma: b.add(format!("{name}.gamma"), &[shape[0]], Init::Constant(1.0), false),
            beta: b.add(format!("{name}.beta"), &[shape[0]], Init::Constant(0.0), false),
            stride,
        }
    }

    /// The stem of a network.
    pub fn stem(b: &mut Builder, s: &Skeleton) -> Self {
        let [h, w] = window(s.dim, s.stem_kernel);
        Self::new(b, "stem", [s.stem_channels, s.input[0] as i64, h, w], strides(s.dim, s.stem_stride))
    }

    /// The adapter of one input of a cell.
    pub fn adapter(b: &mut Builder, name: &str, dim: Dim, channels: i64, adapter: &Adapter) -> Self {
        let [h, w] = window(dim, adapter.kernel);
        Self::new(b, name, [channels, adapter.channels_in, h, w], strides(dim, adapter.stride))
    }

    /// With ReLU, by the statistics of the batch.
    pub fn forward(&self, p: &Params, x: &Tensor, reach: Reach) -> Tensor {
        batch_norm(&conv(x, &p[self.weight], self.stride, 1, reach), &p[self.gamma], &p[self.beta]).relu_()
    }
}

/// The last layer.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    answer: Answer,
    /// `[classes, features]`.
    pub weight: ParamId,
    /// `[classes]`.
    pub bias: ParamId,
    /// `[slots, features]` and `[slots]`, where each position gets a label.
    pub slots: Option<[ParamId; 2]>,
}

impl Head {
    /// Adds its parameters.
    pub fn new(b: &mut Builder, s: &Skeleton) -> Self {
        let deviation = (1.0 / s.features as f32).sqrt();
        let mut linear = |name: &str, outputs: i64| {
            let weight =
                b.add(format!("{name}.weight"), &[outputs, s.features], Init::Normal(deviation), true);
            [weight, b.add(format!("{name}.bias"), &[outputs], Init::Constant(0.0), false)]
        };
        let [weight, bias] = linear("head", s.classes);
        let slots = match s.answer {
            Answer::ClassAndSlots { slots } => Some(linear("slots", slots as i64)),
            Answer::Class | Answer::Next => None,
        };
        Self { answer: s.answer, weight, bias, slots }
    }

    /// Channels-last `[N, C, H, W]`, together of as many channels as the layer has features, to logits as [`Answer`]
    /// describes them: mean over space, then linear; or linear at each position.
    ///
    /// The mean is taken over a view in the order of the memory, so that its gradient is channels last too; the nodes
    /// are joined when they are small.
    pub fn forward(&self, p: &Params, nodes: &[Tensor]) -> Tensor {
        let rows: Vec<Tensor> = nodes
            .iter()
            .map(|x| {
                let size = x.size();
                x.permute([0, 2, 3, 1]).reshape([size[0], -1, size[1]])
            })
            .collect();
        let at_each = |[weight, bias]: [ParamId; 2]| Tensor::cat(&rows, 2).linear(&p[weight], Some(&p[bias]));
        if self.answer.is_causal() {
            return at_each([self.weight, self.bias]);
        }
        let means: Vec<Tensor> =
            rows.iter().map(|rows| rows.mean_dim([1i64].as_slice(), false, tch::Kind::Float)).collect();
        let class = Tensor::cat(&means, 1).linear(&p[self.weight], Some(&p[self.bias]));
        match self.slots {
            None => class,
            Some(slots) => {
                let count = class.size()[0];
                Tensor::cat(&[class, at_each(slots).reshape([count, -1])], 1)
            }
        }
    }
}
