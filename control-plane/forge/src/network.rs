//! A derived network: the found cell repeated, trained for itself, and turned into the graph that is exported.

mod export;
mod fit;
pub mod latency;
#[cfg(test)]
mod tests;

pub use fit::{BrokenLimit, FitError, broken_limit, cost_on, load_on};

use crate::{
    device,
    genotype::{Architecture, Operation, OperationKind, Skeleton},
    layers::{self, Attention, ConvBn, Head, SqueezeExcite},
    params::{Builder, Init, ParamId, Params},
};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

/// A convolution with BatchNorm and its running statistics.
#[derive(Clone, Copy, Debug)]
struct Unit {
    conv: ConvBn,
    mean: ParamId,
    variance: ParamId,
}

/// Collects trained parameters and running statistics side by side.
#[derive(Default)]
struct Builders {
    params: Builder,
    stats: Builder,
}

impl Builders {
    fn unit(&mut self, name: &str, channels: i64, make: impl FnOnce(&mut Builder) -> ConvBn) -> Unit {
        Unit {
            conv: make(&mut self.params),
            mean: self.stats.add(format!("{name}.mean"), &[channels], Init::Constant(0.0), false),
            variance: self.stats.add(format!("{name}.variance"), &[channels], Init::Constant(1.0), false),
        }
    }
}

/// One edge with its parameters.
#[derive(Clone, Copy, Debug)]
enum EdgeOp {
    Conv {
        unit: Unit,
        dilation: i64,
    },
    SepConv {
        depthwise: ParamId,
        dilation: i64,
        pointwise: Unit,
    },
    /// A unit of twice the channels; the second half gates the first.
    Gated {
        unit: Unit,
        dilation: i64,
    },
    SqueezeExcite(SqueezeExcite),
    Attention(Attention),
    /// Over so many taps.
    MaxPool(i64),
    AvgPool(i64),
    Skip,
}

#[derive(Clone, Debug)]
struct Cell {
    /// `None` where no node reads that input.
    adapters: [Option<Unit>; 2],
    /// For each node the states that it reads, and how.
    nodes: Vec<Vec<(usize, EdgeOp)>>,
}

/// The answer of a network, and where it looked.
#[derive(Debug)]
pub struct Traced {
    /// As [`crate::answer`] describes them.
    pub logits: Tensor,
    /// Of each cell, `[N, positions]` of length one: how much each position of its output is active.
    pub attention: Vec<Tensor>,
}

/// The activation-based attention of Zagoruyko and Komodakis 2017, section 3.1: squares summed over channels, made a
/// vector of length one. It needs no channels in common, so that a narrow network can be held against a wide one.
fn attention_of(nodes: &[Tensor]) -> Tensor {
    let squares = |x: &Tensor| {
        // The square of what f16 holds may be more than it holds.
        let x = x.to_kind(Kind::Float);
        (&x * &x).sum_dim_intlist([1i64].as_slice(), false, Kind::Float).flatten(1, -1)
    };
    let sum = nodes.iter().map(squares).reduce(|sum, next| sum + next);
    let sum = sum.unwrap_or_else(|| Tensor::zeros([1, 1], (Kind::Float, device::get())));
    let norm = sum.norm_scalaropt_dim(2, [1i64].as_slice(), true).clamp_min(ATTENTION_NORM_MIN);
    sum / norm
}

/// Keeps a cell that is not active at all from dividing by zero.
const ATTENTION_NORM_MIN: f64 = 1e-12;

/// A network with its weights.
#[derive(Debug)]
pub struct Network {
    architecture: Architecture,
    skeleton: Skeleton,
    stem: Unit,
    cells: Vec<Cell>,
    head: Head,
    /// Trained.
    pub params: Params,
    /// BatchNorm's running mean and variance.
    pub stats: Params,
}

impl Network {
    /// A network with random weights.
    ///
    /// # Errors
    /// The architecture is not valid ([`Architecture::validate`]).
    pub fn new(architecture: Architecture, rng: &mut ChaCha8Rng) -> Result<Self, String> {
        architecture.validate()?;
        let skeleton = architecture.skeleton();
        let mut b = Builders::default();
        let stem = b.unit("stem", skeleton.stem_channels, |params| ConvBn::stem(params, &skeleton));
        let mut cells = Vec::with_capacity(skeleton.cells.len());
        for (index, plan) in skeleton.cells.iter().enumerate() {
            let c = plan.channels;
            let adapters = [0, 1].map(|side| {
                let name = format!("cell{index}.adapter{side}");
                architecture.reads(side).then(|| {
                    let adapter = &plan.adapters[side];
                    b.unit(&name, c, |params| ConvBn::adapter(params, &name, skeleton.dim, c, adapter))
                })
            });
            let mut nodes = Vec::new();
            for (node, edges) in architecture.genotype.nodes.iter().enumerate() {
                let made = edges.iter().map(|edge| {
                    let name = format!("cell{index}.edge{}_{}", edge.from, node + 2);
                    (edge.from, edge_op(&mut b, &name, &skeleton, c, edge.op))
                });
                nodes.push(made.collect());
            }
            cells.push(Cell { adapters, nodes });
        }
        let head = Head::new(&mut b.params, &skeleton);
        let (params, stats) = (b.params.build(rng, true), b.stats.build(rng, false));
        Ok(Self { architecture, skeleton, stem, cells, head, params, stats })
    }

    /// The same on the processor, whose f32 is that of the exported file; not to be trained on.
    pub fn on_cpu(self) -> Self {
        Self { params: self.params.on_cpu(), stats: self.stats.on_cpu(), ..self }
    }

    /// How it is laid out.
    pub fn skeleton(&self) -> &Skeleton {
        &self.skeleton
    }

    /// What it is.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Logits, as [`crate::answer`] describes them, for channels-last `x` of `[N, C, H, W]`. `train` normalises by the batch and updates the
    /// running statistics; otherwise those are used.
    pub fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        self.forward_seen(x, train, &mut |_| ())
    }

    /// As [`Self::forward`]; `see` gets what each ReLU gives, `[N, C, H, W]`.
    pub fn forward_seen(&self, x: &Tensor, train: bool, see: &mut dyn FnMut(&Tensor)) -> Tensor {
        self.head.forward(&self.params, &self.body(x, train, see, &mut |_| ()))
    }

    /// As [`Self::forward`], with what each cell looks at.
    pub fn traced(&self, x: &Tensor, train: bool) -> Traced {
        let mut attention = Vec::with_capacity(self.cells.len());
        let nodes = self.body(x, train, &mut |_| (), &mut |nodes| attention.push(attention_of(nodes)));
        Traced { logits: self.head.forward(&self.params, &nodes), attention }
    }

    /// What the last cell gives: its nodes, each `[N, C, H, W]`, together of as many channels as the skeleton has
    /// features.
    pub fn features(&self, x: &Tensor, train: bool) -> Vec<Tensor> {
        self.body(x, train, &mut |_| (), &mut |_| ())
    }

    /// The nodes of the last cell. `see` gets what each ReLU gives, `cell_done` the nodes of each cell.
    fn body(
        &self,
        x: &Tensor,
        train: bool,
        see: &mut dyn FnMut(&Tensor),
        cell_done: &mut dyn FnMut(&[Tensor]),
    ) -> Vec<Tensor> {
        let (dim, reach) = (self.skeleton.dim, self.skeleton.reach());
        let stem = self.unit(&self.stem, x, train).relu_();
        see(&stem);
        let mut outputs = [stem.shallow_clone(), stem.shallow_clone()];
        let mut nodes = vec![stem];
        for (index, cell) in self.cells.iter().enumerate() {
            let mut states: Vec<Option<Tensor>> = [0, 1]
                .map(|side| {
                    cell.adapters[side].as_ref().map(|unit| self.unit(unit, &outputs[side], train).relu_())
                })
                .into();
            states.iter().flatten().for_each(&mut *see);
            for edges in &cell.nodes {
                let mut sum: Option<Tensor> = None;
                for (from, op) in edges {
                    let Some(x) = &states[*from] else { continue };
                    let term = match op {
                        EdgeOp::Conv { unit, dilation } => self.dilated(unit, *dilation, x, train),
                        EdgeOp::SepConv { depthwise, dilation, pointwise } => {
                            let (weight, groups) = (&self.params[*depthwise], x.size()[1]);
                            let y = layers::dilated(x, weight, [1, 1], *dilation, groups, reach);
                            self.unit(pointwise, &y, train)
                        }
                        EdgeOp::Gated { unit, dilation } => self.dilated(unit, *dilation, x, train).glu(1),
                        EdgeOp::SqueezeExcite(gate) => x * gate.gate(&self.params, x),
                        EdgeOp::Attention(gate) => x * gate.gate(&self.params, x, reach),
                        EdgeOp::MaxPool(taps) => layers::max_pool(dim, reach, x, *taps),
                        EdgeOp::AvgPool(taps) => layers::avg_pool(dim, reach, x, *taps),
                        EdgeOp::Skip => x.shallow_clone(),
                    };
                    sum = Some(match sum {
                        Some(sum) => sum + term,
                        None => term,
                    });
                }
                let value = sum.map(|sum| sum.relu());
                value.iter().for_each(&mut *see);
                states.push(value);
            }
            nodes = states.split_off(2).into_iter().flatten().collect();
            cell_done(&nodes);
            if index + 1 < self.cells.len() {
                let [_, previous] = outputs;
                outputs = [previous, Tensor::cat(&nodes, 1)];
            }
        }
        nodes
    }

    fn unit(&self, unit: &Unit, x: &Tensor, train: bool) -> Tensor {
        self.dilated(unit, 1, x, train)
    }

    fn dilated(&self, unit: &Unit, dilation: i64, x: &Tensor, train: bool) -> Tensor {
        let p = &self.params;
        let (stride, reach) = (unit.conv.stride, self.skeleton.reach());
        let y = layers::dilated(x, &p[unit.conv.weight], stride, dilation, 1, reach);
        y.batch_norm(
            Some(&p[unit.conv.gamma]),
            Some(&p[unit.conv.beta]),
            Some(&self.stats[unit.mean]),
            Some(&self.stats[unit.variance]),
            train,
            layers::BN_MOMENTUM,
            layers::BN_EPSILON,
            false,
        )
    }

    /// Probabilities `[N, outputs]` as the exported model gives them: with the running statistics, without gradients.
    pub fn probabilities(&self, x: &Tensor) -> Tensor {
        let length = self.skeleton.input.last().map_or(1, |length| *length as i64);
        tch::no_grad(|| self.skeleton.answer.probabilities(&self.forward(x, false), length))
    }

    /// With the running statistics, how many of the labels that count are met, and how many there are.
    pub fn right(&self, x: &Tensor, labels: &Tensor) -> (i64, i64) {
        tch::no_grad(|| self.skeleton.answer.right(&self.forward(x, false), labels))
    }

    /// Copies all weights and statistics from named values, such as an earlier result's.
    ///
    /// # Errors
    /// The name of what is missing or has another shape.
    pub fn load(
        &mut self,
        mut values: impl FnMut(&str) -> Option<(Vec<usize>, Vec<f32>)>,
    ) -> Result<(), String> {
        self.params.load(&mut values)?;
        self.stats.load(&mut values)
    }
}

fn edge_op(b: &mut Builders, name: &str, skeleton: &Skeleton, c: i64, op: Operation) -> EdgeOp {
    let taps = op.kernel(skeleton.dim);
    let ([h, w], dilation) = (layers::window(skeleton.dim, taps), op.dilation());
    let unit = |b: &mut Builders, channels: i64| {
        b.unit(name, channels, |params| ConvBn::new(params, name, [channels, c, h, w], [1, 1]))
    };
    match op.kind() {
        OperationKind::Conv => EdgeOp::Conv { unit: unit(b, c), dilation },
        OperationKind::SepConv => {
            let shape = [c, 1, h, w];
            let depthwise = b.params.add(format!("{name}.depthwise"), &shape, Init::he(&shape), true);
            let pointwise = b.unit(name, c, |params| ConvBn::new(params, name, [c, c, 1, 1], [1, 1]));
            EdgeOp::SepConv { depthwise, dilation, pointwise }
        }
        OperationKind::Gated => EdgeOp::Gated { unit: unit(b, 2 * c), dilation },
        OperationKind::SqueezeExcite => EdgeOp::SqueezeExcite(SqueezeExcite::new(&mut b.params, name, c)),
        OperationKind::Attention => EdgeOp::Attention(Attention::new(&mut b.params, name, c, [h, w])),
        OperationKind::MaxPool => EdgeOp::MaxPool(taps),
        OperationKind::AvgPool => EdgeOp::AvgPool(taps),
        OperationKind::Skip | OperationKind::Zero => EdgeOp::Skip,
    }
}
