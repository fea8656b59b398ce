//! The network that holds every candidate at once (Liu, Simonyan and Yang 2019, "DARTS").
//!
//! A node sums its incoming edges and applies a ReLU; an edge is the mean of its operations, weighted by a softmax
//! over architecture weights. It is computed restructured, with the same result as operation by operation:
//!
//! - the two pools of a state are computed once, whatever reads it, and mixed with the state itself for all readers
//!   by one matrix product;
//! - the dense convolutions of one state run as one, their outputs normalised together;
//! - the softmax weight of a convolution is folded into BatchNorm's scale and shift;
//! - activations and weights are channels last.

mod space;

pub use space::{Candidates, Space, costs};

use crate::{
    genotype::{Operation, Skeleton},
    layers::{self, ConvBn, Head},
    params::{Builder, Init, ParamId, Params},
};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

/// Parameters of one edge in one cell.
#[derive(Clone, Copy, Debug)]
struct EdgeParams {
    conv: ParamId,
    conv_gamma: ParamId,
    conv_beta: ParamId,
    depthwise: ParamId,
    pointwise: ParamId,
    sep_gamma: ParamId,
    sep_beta: ParamId,
}

impl EdgeParams {
    fn new(b: &mut Builder, name: &str, skeleton: &Skeleton, c: i64) -> Self {
        let kernel = |op: Operation| layers::window(skeleton.dim, op.kernel(skeleton.dim));
        let ([h, w], [dh, dw]) = (kernel(Operation::Conv), kernel(Operation::SepConv));
        let mut weight =
            |part: &str, shape: [i64; 4]| b.add(format!("{name}.{part}"), &shape, Init::he(&shape), true);
        let conv = weight("conv", [c, c, h, w]);
        let depthwise = weight("depthwise", [c, 1, dh, dw]);
        let pointwise = weight("pointwise", [c, c, 1, 1]);
        let mut vector =
            |part: &str, value| b.add(format!("{name}.{part}"), &[c], Init::Constant(value), false);
        Self {
            conv,
            depthwise,
            pointwise,
            conv_gamma: vector("conv_gamma", 1.0),
            conv_beta: vector("conv_beta", 0.0),
            sep_gamma: vector("sep_gamma", 1.0),
            sep_beta: vector("sep_beta", 0.0),
        }
    }
}

#[derive(Clone, Debug)]
struct Cell {
    adapters: [ConvBn; 2],
    edges: Vec<EdgeParams>,
}

/// What has been added to a node so far.
#[derive(Debug, Default)]
enum Sum {
    #[default]
    Nothing,
    /// One term, which may be a view that must not be written to.
    One(Tensor),
    /// A sum of its own, added to in place: the backward pass of an addition needs none of its operands.
    Many(Tensor),
}

impl Sum {
    fn add(&mut self, term: Tensor) {
        *self = match std::mem::take(self) {
            Self::Nothing => Self::One(term),
            Self::One(first) => Self::Many(first + term),
            Self::Many(mut sum) => Self::Many(sum.g_add_(&term)),
        };
    }

    /// The node's value; zeros shaped like `like` if nothing was added.
    fn relu(self, like: &Tensor) -> Tensor {
        match self {
            Self::Nothing => like.zeros_like(),
            Self::One(term) => term.relu(),
            Self::Many(mut sum) => sum.relu_(),
        }
    }
}

/// A supernet: the layout, its weights, and what is left of its candidates.
#[derive(Debug)]
pub struct Supernet {
    skeleton: Skeleton,
    space: Space,
    stem: ConvBn,
    cells: Vec<Cell>,
    head: Head,
    /// Weights of all candidates.
    pub params: Params,
}

impl Supernet {
    /// A supernet with random weights.
    pub fn new(skeleton: Skeleton, space: Space, rng: &mut ChaCha8Rng) -> Self {
        let mut b = Builder::default();
        let stem = ConvBn::stem(&mut b, &skeleton);
        let mut cells = Vec::with_capacity(skeleton.cells.len());
        for (index, plan) in skeleton.cells.iter().enumerate() {
            let adapters = [0, 1].map(|side| {
                let name = format!("cell{index}.adapter{side}");
                ConvBn::adapter(&mut b, &name, skeleton.dim, plan.channels, &plan.adapters[side])
            });
            let edges = space
                .edges()
                .iter()
                .map(|(from, to)| {
                    EdgeParams::new(&mut b, &format!("cell{index}.edge{from}_{to}"), &skeleton, plan.channels)
                })
                .collect();
            cells.push(Cell { adapters, edges });
        }
        let head = Head::new(&mut b, &skeleton);
        Self { skeleton, space, stem, cells, head, params: b.build(rng, true) }
    }

    /// Its edges.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// Logits `[N, classes]` for channels-last `x` of `[N, C, H, W]`; `mix` is [`Candidates::weights`].
    pub fn forward(&self, x: &Tensor, mix: &Tensor, candidates: &Candidates) -> Tensor {
        let stem = self.stem.forward(&self.params, x);
        let mut outputs = [stem.shallow_clone(), stem];
        for cell in &self.cells {
            let inputs = [0, 1].map(|side| cell.adapters[side].forward(&self.params, &outputs[side]));
            let out = self.cell(cell, inputs, mix, candidates);
            let [_, previous] = outputs;
            outputs = [previous, out];
        }
        self.head.forward(&self.params, &outputs[1])
    }

    fn cell(&self, cell: &Cell, inputs: [Tensor; 2], mix: &Tensor, candidates: &Candidates) -> Tensor {
        let mut sums: Vec<Sum> = Vec::new();
        sums.resize_with(self.space.nodes(), Sum::default);
        let mut nodes = Vec::with_capacity(self.space.nodes());
        let [first, second] = inputs;
        for state in 0..self.space.nodes() + 1 {
            let value = match state {
                0 => first.shallow_clone(),
                1 => second.shallow_clone(),
                _ => {
                    let value = std::mem::take(&mut sums[state - 2]).relu(&first);
                    nodes.push(value.shallow_clone());
                    value
                }
            };
            for (to, term) in self.outgoing(cell, state, &value, mix, candidates) {
                sums[to - 2].add(term);
            }
        }
        nodes.push(sums.pop().unwrap_or_default().relu(&first));
        Tensor::cat(&nodes, 1)
    }

    /// What one state contributes to each state that reads it.
    fn outgoing(
        &self,
        cell: &Cell,
        state: usize,
        x: &Tensor,
        mix: &Tensor,
        candidates: &Candidates,
    ) -> Vec<(usize, Tensor)> {
        let readers: Vec<usize> = self.space.readers(state).collect();
        let to = |edge: usize| self.space.edges()[edge].1;
        let mut terms = Vec::new();
        let with = |op: Operation| -> Vec<usize> {
            readers.iter().copied().filter(|edge| candidates.is_active(*edge, op)).collect()
        };

        let dense = with(Operation::Conv);
        if !dense.is_empty() {
            let joined = self.dense(cell, &dense, x, mix);
            let parts = if dense.len() == 1 { vec![joined] } else { joined.chunk(dense.len() as i64, 1) };
            terms.extend(dense.iter().map(|edge| to(*edge)).zip(parts));
        }
        for edge in with(Operation::SepConv) {
            let p = &cell.edges[edge];
            let groups = x.size()[1];
            let depthwise = layers::conv(x, &self.params[p.depthwise], [1, 1], groups);
            let y = layers::conv(&depthwise, &self.params[p.pointwise], [1, 1], 1);
            let weight = mix.get(edge as i64).get(Operation::SepConv as i64);
            let (gamma, beta) = (&self.params[p.sep_gamma] * &weight, &self.params[p.sep_beta] * &weight);
            terms.push((to(edge), layers::batch_norm(&y, &gamma, &beta)));
        }
        terms.extend(
            self.linear(&readers, x, mix, candidates).into_iter().map(|(edge, term)| (to(edge), term)),
        );
        terms
    }

    /// The dense convolutions of several edges that read `x`, as one.
    fn dense(&self, cell: &Cell, edges: &[usize], x: &Tensor, mix: &Tensor) -> Tensor {
        let pick = |id: fn(&EdgeParams) -> ParamId| -> Vec<&Tensor> {
            edges.iter().map(|edge| &self.params[id(&cell.edges[*edge])]).collect()
        };
        let weight = Tensor::cat(&pick(|p| p.conv), 0);
        let y = layers::conv(x, &weight, [1, 1], 1);
        let index = Tensor::from_slice(&edges.iter().map(|edge| *edge as i64).collect::<Vec<_>>());
        let share = mix.select(1, Operation::Conv as i64).index_select(0, &index).unsqueeze(1);
        let gamma = (Tensor::stack(&pick(|p| p.conv_gamma), 0) * &share).reshape([-1]);
        let beta = (Tensor::stack(&pick(|p| p.conv_beta), 0) * &share).reshape([-1]);
        layers::batch_norm(&y, &gamma, &beta)
    }

    /// The operations without weights (both pools and skip): a matrix product of what readers want with what `x` gives.
    fn linear(
        &self,
        readers: &[usize],
        x: &Tensor,
        mix: &Tensor,
        candidates: &Candidates,
    ) -> Vec<(usize, Tensor)> {
        let free = [Operation::MaxPool, Operation::AvgPool, Operation::Skip];
        let ops: Vec<Operation> = free
            .into_iter()
            .filter(|op| readers.iter().any(|edge| candidates.is_active(*edge, *op)))
            .collect();
        let edges: Vec<usize> = readers
            .iter()
            .copied()
            .filter(|edge| free.iter().any(|op| candidates.is_active(*edge, *op)))
            .collect();
        if edges.is_empty() {
            return Vec::new();
        }
        let size = x.size();
        let nhwc = [size[0], size[2], size[3], size[1]];
        // Channels last, a permuted view is contiguous: rows of the product are whole activations.
        let flat = |value: &Tensor| value.permute([0, 2, 3, 1]).reshape([-1]);
        let rows: Vec<Tensor> = ops
            .iter()
            .map(|op| match op {
                Operation::MaxPool => flat(&layers::max_pool(self.skeleton.dim, x)),
                Operation::AvgPool => flat(&layers::avg_pool(self.skeleton.dim, x)),
                _ => flat(x),
            })
            .collect();
        let indices = |list: Vec<i64>| Tensor::from_slice(&list);
        let wanted = mix
            .index_select(0, &indices(edges.iter().map(|edge| *edge as i64).collect()))
            .index_select(1, &indices(ops.iter().map(|op| *op as i64).collect()));
        let product = wanted.matmul(&Tensor::stack(&rows, 0));
        edges
            .into_iter()
            .zip(product.unbind(0))
            .map(|(edge, row)| (edge, row.view(nhwc).permute([0, 3, 1, 2])))
            .collect()
    }

    /// Cross entropy of a batch.
    pub fn loss(&self, x: &Tensor, labels: &Tensor, mix: &Tensor, candidates: &Candidates) -> Tensor {
        self.forward(x, mix, candidates).cross_entropy_loss::<&Tensor>(
            labels,
            None,
            tch::Reduction::Mean,
            -100,
            0.0,
        )
    }

    /// Share of right answers in a batch.
    pub fn accuracy(&self, x: &Tensor, labels: &Tensor, mix: &Tensor, candidates: &Candidates) -> f64 {
        tch::no_grad(|| {
            let right = self.forward(x, mix, candidates).argmax(1, false).eq_tensor(labels);
            right.to_kind(Kind::Float).mean(Kind::Float).double_value(&[])
        })
    }
}

#[cfg(test)]
mod plain;
#[cfg(test)]
mod tests;
