//! Building blocks that the supernet and the derived network share. Every tensor is `[N, C, H, W]`, channels last;
//! a series has a height of 1.

use crate::{
    answer::Answer,
    genotype::{Adapter, Dim, Operation, Skeleton},
    params::{Builder, Init, ParamId, Params},
};
use tch::{Kind, Tensor};

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
    /// `x` as it must be for a window of `kernel`, taps `dilation` apart, to reach so far without padding of its own, and
    /// that padding.
    fn padded(self, x: &Tensor, kernel: [i64; 2], dilation: i64) -> (Tensor, [i64; 2]) {
        match self {
            Self::Around => (x.shallow_clone(), kernel.map(|taps| taps / 2 * dilation)),
            Self::Before if kernel[1] == 1 => (x.shallow_clone(), [0, 0]),
            Self::Before => (x.constant_pad_nd([(kernel[1] - 1) * dilation, 0, 0, 0]), [0, 0]),
        }
    }
}

/// A convolution without bias that keeps `ceil(size / stride)` elements along each axis.
pub fn conv(x: &Tensor, weight: &Tensor, stride: [i64; 2], groups: i64, reach: Reach) -> Tensor {
    dilated(x, weight, stride, 1, groups, reach)
}

/// The same with taps so far apart.
pub fn dilated(
    x: &Tensor,
    weight: &Tensor,
    stride: [i64; 2],
    dilation: i64,
    groups: i64,
    reach: Reach,
) -> Tensor {
    let size = weight.size();
    let (x, padding) = reach.padded(x, [size[2], size[3]], dilation);
    x.conv2d(weight, None::<&Tensor>, stride, padding, [dilation, dilation], groups)
}

/// BatchNorm by the statistics of the batch.
pub fn batch_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor) -> Tensor {
    x.batch_norm(Some(gamma), Some(beta), None, None, true, BN_MOMENTUM, BN_EPSILON, false)
}

/// Maximum over `taps` along each axis that the network slides over, of what is never negative.
pub fn max_pool(dim: Dim, reach: Reach, x: &Tensor, taps: i64) -> Tensor {
    let kernel = window(dim, taps);
    let (x, padding) = reach.padded(x, kernel, 1);
    x.max_pool2d(kernel, [1, 1], padding, [1, 1], false)
}

/// Mean over `taps` along each axis, padding counted.
pub fn avg_pool(dim: Dim, reach: Reach, x: &Tensor, taps: i64) -> Tensor {
    let kernel = window(dim, taps);
    let (x, padding) = reach.padded(x, kernel, 1);
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

/// The gate of a squeeze-excite: mean over space, a bottleneck with ReLU, a sigmoid. It sees all positions, so that no
/// network of [`Reach::Before`] can have it.
#[derive(Clone, Copy, Debug)]
pub struct SqueezeExcite {
    /// `[squeezed, c]`.
    pub down: ParamId,
    /// `[squeezed]`.
    pub down_bias: ParamId,
    /// `[c, squeezed]`.
    pub up: ParamId,
    /// `[c]`.
    pub up_bias: ParamId,
}

impl SqueezeExcite {
    /// Adds the parameters of one over `channels`.
    pub fn new(b: &mut Builder, name: &str, channels: i64) -> Self {
        let squeezed = Operation::squeezed(channels.unsigned_abs()) as i64;
        let (down, up) = ([squeezed, channels], [channels, squeezed]);
        Self {
            down: b.add(format!("{name}.down"), &down, Init::he(&down), true),
            up: b.add(format!("{name}.up"), &up, Init::he(&up), true),
            down_bias: b.add(format!("{name}.down_bias"), &[squeezed], Init::Constant(0.0), false),
            up_bias: b.add(format!("{name}.up_bias"), &[channels], Init::Constant(0.0), false),
        }
    }

    /// `[N, c, 1, 1]`, 0 to 1, for `[N, c, H, W]`.
    pub fn gate(&self, p: &Params, x: &Tensor) -> Tensor {
        let size = x.size();
        let squeezed = mean_of_rows(&space_rows(x)).linear(&p[self.down], Some(&p[self.down_bias])).relu();
        let gate = squeezed.linear(&p[self.up], Some(&p[self.up_bias])).sigmoid();
        gate.reshape([size[0], size[1], 1, 1])
    }
}

/// The gate of a spatial attention: a convolution to one channel, a sigmoid.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// `[1, c, h, w]`.
    pub weight: ParamId,
    /// `[1]`.
    pub bias: ParamId,
}

impl Attention {
    /// Adds the parameters of one over `channels`, `[h, w]` taps.
    pub fn new(b: &mut Builder, name: &str, channels: i64, [h, w]: [i64; 2]) -> Self {
        let shape = [1, channels, h, w];
        Self {
            weight: b.add(format!("{name}.weight"), &shape, Init::he(&shape), true),
            bias: b.add(format!("{name}.bias"), &[1], Init::Constant(0.0), false),
        }
    }

    /// `[N, 1, H, W]`, 0 to 1, for `[N, c, H, W]`.
    pub fn gate(&self, p: &Params, x: &Tensor, reach: Reach) -> Tensor {
        let bias = p[self.bias].view([1, 1, 1, 1]);
        (conv(x, &p[self.weight], [1, 1], 1, reach) + bias).sigmoid()
    }
}

/// `[N, H * W, C]` for channels-last `[N, C, H, W]`: a view in the order of the memory, so that the gradient of what is
/// made of it is channels last too.
fn space_rows(x: &Tensor) -> Tensor {
    let size = x.size();
    x.permute([0, 2, 3, 1]).reshape([size[0], -1, size[1]])
}

/// `[N, C]` for `[N, positions, C]`.
fn mean_of_rows(rows: &Tensor) -> Tensor {
    rows.mean_dim([1i64].as_slice(), false, Kind::Float)
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
    /// describes them: mean over space, then linear; or linear at each position. They are f32 whatever the nodes are.
    ///
    /// The nodes are joined when they are small.
    pub fn forward(&self, p: &Params, nodes: &[Tensor]) -> Tensor {
        self.logits(p, nodes).to_kind(Kind::Float)
    }

    fn logits(&self, p: &Params, nodes: &[Tensor]) -> Tensor {
        let rows: Vec<Tensor> = nodes.iter().map(space_rows).collect();
        let at_each = |[weight, bias]: [ParamId; 2]| Tensor::cat(&rows, 2).linear(&p[weight], Some(&p[bias]));
        if self.answer.is_causal() {
            return at_each([self.weight, self.bias]);
        }
        let means: Vec<Tensor> = rows.iter().map(mean_of_rows).collect();
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
