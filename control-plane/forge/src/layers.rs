//! Building blocks that the supernet and the derived network share. Every tensor is `[N, C, H, W]`, channels last;
//! a series has a height of 1.

use crate::{
    genotype::{Adapter, Dim, Operation, Skeleton},
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

/// A convolution without bias that keeps `ceil(size / stride)` elements along each axis.
pub fn conv(x: &Tensor, weight: &Tensor, stride: [i64; 2], groups: i64) -> Tensor {
    dilated(x, weight, stride, 1, groups)
}

/// The same with taps so far apart.
pub fn dilated(x: &Tensor, weight: &Tensor, stride: [i64; 2], dilation: i64, groups: i64) -> Tensor {
    let size = weight.size();
    let padding = [size[2] / 2 * dilation, size[3] / 2 * dilation];
    x.conv2d(weight, None::<&Tensor>, stride, padding, [dilation, dilation], groups)
}

/// BatchNorm by the statistics of the batch.
pub fn batch_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor) -> Tensor {
    x.batch_norm(Some(gamma), Some(beta), None, None, true, BN_MOMENTUM, BN_EPSILON, false)
}

/// Maximum over `taps` along each axis that the network slides over.
pub fn max_pool(dim: Dim, x: &Tensor, taps: i64) -> Tensor {
    let kernel = window(dim, taps);
    x.max_pool2d(kernel, [1, 1], kernel.map(|taps| taps / 2), [1, 1], false)
}

/// Mean over `taps` along each axis, padding counted.
pub fn avg_pool(dim: Dim, x: &Tensor, taps: i64) -> Tensor {
    let kernel = window(dim, taps);
    x.avg_pool2d(kernel, [1, 1], kernel.map(|taps| taps / 2), false, true, None)
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
    pub fn forward(&self, p: &Params, x: &Tensor) -> Tensor {
        batch_norm(&conv(x, &p[self.weight], self.stride, 1), &p[self.gamma], &p[self.beta]).relu_()
    }
}

/// The gate of a squeeze-excite: mean over space, a bottleneck with ReLU, a sigmoid.
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
        let squeezed = space_mean(x).linear(&p[self.down], Some(&p[self.down_bias])).relu();
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
    pub fn gate(&self, p: &Params, x: &Tensor) -> Tensor {
        let bias = p[self.bias].view([1, 1, 1, 1]);
        (conv(x, &p[self.weight], [1, 1], 1) + bias).sigmoid()
    }
}

/// `[N, C]` for channels-last `[N, C, H, W]`: the mean over a view in the order of the memory, so that its gradient is
/// channels last too.
fn space_mean(x: &Tensor) -> Tensor {
    let size = x.size();
    let rows = x.permute([0, 2, 3, 1]).reshape([size[0], -1, size[1]]);
    rows.mean_dim([1i64].as_slice(), false, tch::Kind::Float)
}

/// The last layer.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// `[classes, features]`.
    pub weight: ParamId,
    /// `[classes]`.
    pub bias: ParamId,
}

impl Head {
    /// Adds its parameters.
    pub fn new(b: &mut Builder, s: &Skeleton) -> Self {
        let deviation = (1.0 / s.features as f32).sqrt();
        Self {
            weight: b.add("head.weight", &[s.classes, s.features], Init::Normal(deviation), true),
            bias: b.add("head.bias", &[s.classes], Init::Constant(0.0), false),
        }
    }

    /// Channels-last `[N, C, H, W]`, together of as many channels as the layer has features, to logits
    /// `[N, classes]`: mean over space, then linear.
    ///
    /// The nodes are joined when they are small.
    pub fn forward(&self, p: &Params, nodes: &[Tensor]) -> Tensor {
        let means: Vec<Tensor> = nodes.iter().map(space_mean).collect();
        Tensor::cat(&means, 1).linear(&p[self.weight], Some(&p[self.bias]))
    }
}
