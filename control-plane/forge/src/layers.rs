//! Building blocks that the supernet and the derived network share. Every tensor is `[N, C, H, W]`, channels last;
//! a series has a height of 1.

use crate::{
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

/// A convolution without bias that keeps `ceil(size / stride)` elements along each axis.
pub fn conv(x: &Tensor, weight: &Tensor, stride: [i64; 2], groups: i64) -> Tensor {
    let size = weight.size();
    let padding = [size[2] / 2, size[3] / 2];
    x.conv2d(weight, None::<&Tensor>, stride, padding, [1, 1], groups)
}

/// BatchNorm by the statistics of the batch.
pub fn batch_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor) -> Tensor {
    x.batch_norm(Some(gamma), Some(beta), None, None, true, BN_MOMENTUM, BN_EPSILON, false)
}

/// Maximum over 3 along each axis that the network slides over.
pub fn max_pool(dim: Dim, x: &Tensor) -> Tensor {
    let kernel = window(dim, 3);
    x.max_pool2d(kernel, [1, 1], kernel.map(|taps| taps / 2), [1, 1], false)
}

/// Mean over 3, padding counted.
pub fn avg_pool(dim: Dim, x: &Tensor) -> Tensor {
    let kernel = window(dim, 3);
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
    /// The mean is taken over a view in the order of the memory, so that its gradient is channels last too; the nodes
    /// are joined when they are small.
    pub fn forward(&self, p: &Params, nodes: &[Tensor]) -> Tensor {
        let means: Vec<Tensor> = nodes
            .iter()
            .map(|x| {
                let size = x.size();
                let rows = x.permute([0, 2, 3, 1]).reshape([size[0], -1, size[1]]);
                rows.mean_dim([1i64].as_slice(), false, tch::Kind::Float)
            })
            .collect();
        Tensor::cat(&means, 1).linear(&p[self.weight], Some(&p[self.bias]))
    }
}
