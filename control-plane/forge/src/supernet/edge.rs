//! The candidates of one edge with their parameters.

use super::generator::{Generator, Kernel};
use crate::{
    genotype::{Operation, OperationKind, Skeleton},
    layers::{self, Attention, Reach, SqueezeExcite},
    params::{Builder, Init, ParamId, Params},
};
use tch::Tensor;

/// BatchNorm's scale and shift.
#[derive(Clone, Copy, Debug)]
pub(super) struct Norm {
    gamma: ParamId,
    beta: ParamId,
}

impl Norm {
    /// Normalises by the statistics of the batch; `share` weighs what comes out.
    fn weighted(self, p: &Params, y: &Tensor, share: &Tensor) -> Tensor {
        layers::batch_norm(y, &(&p[self.gamma] * share), &(&p[self.beta] * share))
    }

    fn plain(self, p: &Params, y: &Tensor) -> Tensor {
        layers::batch_norm(y, &p[self.gamma], &p[self.beta])
    }
}

/// What an operation computes with.
#[derive(Clone, Copy, Debug)]
enum Parts {
    Conv(Kernel, Norm),
    SepConv([Kernel; 2], Norm),
    Gated(Kernel, Norm),
    SqueezeExcite(SqueezeExcite),
    Attention(Attention),
    /// Pools, the skip connection and nothing have no parameters.
    Bare,
}

/// A candidate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    dilation: i64,
    reach: Reach,
    parts: Parts,
}

/// Kernels are added before scales and shifts.
enum Kernels {
    One(Kernel),
    Two([Kernel; 2]),
    None,
}

/// Adds the parameters of all candidates of an edge of `c` channels; `share` of the output channels of their convolutions
/// are generated.
pub(super) fn candidates(
    b: &mut Builder,
    name: &str,
    skeleton: &Skeleton,
    operations: &[Operation],
    c: i64,
    share: f64,
) -> Vec<Candidate> {
    let named =
        |operation: &Operation, part: &str| format!("{name}.{}.{part}", operation.label(skeleton.dim));
    let mut kernels = Vec::with_capacity(operations.len());
    for operation in operations {
        let [h, w] = layers::window(skeleton.dim, operation.kernel(skeleton.dim));
        let mut kernel = |part: &str, shape| Kernel::new(b, &named(operation, part), shape, share);
        kernels.push(match operation.kind() {
            OperationKind::Conv => Kernels::One(kernel("weight", [c, c, h, w])),
            OperationKind::SepConv => {
                Kernels::Two([kernel("depthwise", [c, 1, h, w]), kernel("weight", [c, c, 1, 1])])
            }
            OperationKind::Gated => Kernels::One(kernel("weight", [2 * c, c, h, w])),
            OperationKind::SqueezeExcite
            | OperationKind::Attention
            | OperationKind::MaxPool
            | OperationKind::AvgPool
            | OperationKind::Skip
            | OperationKind::Zero => Kernels::None,
        });
    }
    let norm = |b: &mut Builder, operation: &Operation, channels: i64| Norm {
        gamma: b.add(named(operation, "gamma"), &[channels], Init::Constant(1.0), false),
        beta: b.add(named(operation, "beta"), &[channels], Init::Constant(0.0), false),
    };
    let mut candidates = Vec::with_capacity(operations.len());
    for (operation, kernels) in operations.iter().zip(kernels) {
        let label = format!("{name}.{}", operation.label(skeleton.dim));
        let parts = match (operation.kind(), kernels) {
            (OperationKind::Gated, Kernels::One(kernel)) => Parts::Gated(kernel, norm(b, operation, 2 * c)),
            (_, Kernels::One(kernel)) => Parts::Conv(kernel, norm(b, operation, c)),
            (_, Kernels::Two(kernels)) => Parts::SepConv(kernels, norm(b, operation, c)),
            (OperationKind::SqueezeExcite, Kernels::None) => {
                Parts::SqueezeExcite(SqueezeExcite::new(b, &label, c))
            }
            (OperationKind::Attention, Kernels::None) => {
                let window = layers::window(skeleton.dim, operation.kernel(skeleton.dim));
                Parts::Attention(Attention::new(b, &label, c, window))
            }
            (_, Kernels::None) => Parts::Bare,
        };
        candidates.push(Candidate { dilation: operation.dilation(), reach: skeleton.reach(), parts });
    }
    candidates
}

impl Candidate {
    /// What it gives for `x`, times `share`; `None` for an operation without parameters. The weight is folded into
    /// BatchNorm's scale and shift, or into the gate.
    pub(super) fn weighted(
        &self,
        p: &Params,
        generator: Option<&Generator>,
        x: &Tensor,
        share: &Tensor,
    ) -> Option<Tensor> {
        Some(match &self.parts {
            Parts::Conv(_, norm) | Parts::SepConv(_, norm) => {
                norm.weighted(p, &self.convolved(p, generator, x), share)
            }
            Parts::Gated(_, norm) => norm.plain(p, &self.convolved(p, generator, x)).glu(1) * share,
            Parts::SqueezeExcite(gate) => x * (gate.gate(p, x) * share),
            Parts::Attention(gate) => x * (gate.gate(p, x, self.reach) * share),
            Parts::Bare => return None,
        })
    }

    /// The convolutions, before BatchNorm.
    fn convolved(&self, p: &Params, generator: Option<&Generator>, x: &Tensor) -> Tensor {
        match &self.parts {
            Parts::Conv(kernel, _) | Parts::Gated(kernel, _) => {
                layers::dilated(x, &kernel.values(p, generator), [1, 1], self.dilation, 1, self.reach)
            }
            Parts::SepConv([depthwise, pointwise], _) => {
                let (weight, groups) = (depthwise.values(p, generator), x.size()[1]);
                let y = layers::dilated(x, &weight, [1, 1], self.dilation, groups, self.reach);
                layers::conv(&y, &pointwise.values(p, generator), [1, 1], 1, self.reach)
            }
            Parts::SqueezeExcite(_) | Parts::Attention(_) | Parts::Bare => x.shallow_clone(),
        }
    }

    /// What it, the candidate of `operation`, gives for `x` by the book; `dim` decides over the windows of pools.
    #[cfg(test)]
    pub(super) fn plain(
        &self,
        (p, generator): (&Params, Option<&Generator>),
        operation: Operation,
        dim: crate::genotype::Dim,
        x: &Tensor,
    ) -> Tensor {
        let taps = operation.kernel(dim);
        match (&self.parts, operation.kind()) {
            (Parts::Conv(_, norm) | Parts::SepConv(_, norm), _) => {
                norm.plain(p, &self.convolved(p, generator, x))
            }
            (Parts::Gated(_, norm), _) => {
                let y = norm.plain(p, &self.convolved(p, generator, x));
                let c = x.size()[1];
                y.narrow(1, 0, c) * y.narrow(1, c, c).sigmoid()
            }
            (Parts::SqueezeExcite(gate), _) => {
                let mean = x.mean_dim([2i64, 3].as_slice(), false, tch::Kind::Float);
                let squeezed = mean.linear(&p[gate.down], Some(&p[gate.down_bias])).relu();
                let scale = squeezed.linear(&p[gate.up], Some(&p[gate.up_bias])).sigmoid();
                x * scale.unsqueeze(2).unsqueeze(3)
            }
            (Parts::Attention(gate), _) => {
                let [h, w] = layers::window(dim, taps);
                let bias = Some(&p[gate.bias]);
                let (seen, padding) = match self.reach {
                    Reach::Around => (x.shallow_clone(), [h / 2, w / 2]),
                    Reach::Before => (x.constant_pad_nd([w - 1, 0, 0, 0]), [0, 0]),
                };
                x * seen.conv2d(&p[gate.weight], bias, [1, 1], padding, [1, 1], 1).sigmoid()
            }
            (Parts::Bare, OperationKind::MaxPool) => layers::max_pool(dim, self.reach, x, taps),
            (Parts::Bare, OperationKind::AvgPool) => layers::avg_pool(dim, self.reach, x, taps),
            (Parts::Bare, OperationKind::Skip) => x.shallow_clone(),
            (Parts::Bare, _) => x.zeros_like(),
        }
    }
}
