//! The network that holds every candidate at once (Liu, Simonyan and Yang 2019, "DARTS").
//!
//! A node sums its incoming edges and applies a ReLU; an edge is the mean of its operations, weighted by a softmax
//! over architecture weights. It is computed restructured, with the same result as operation by operation:
//!
//! - the maximum over a state is computed once, whatever reads it;
//! - an average (padding counted) and the state itself, each by its weight, are one depthwise convolution over 3 whose
//!   kernel those two weights make;
//! - the softmax weight of a convolution is folded into BatchNorm's scale and shift;
//! - the terms of a node are added in place;
//! - activations and weights are channels last.
//!
//! A partial supernet (Xu et al. 2020, "PC-DARTS") sends one channel in `partial` through the operations of an edge and
//! lets the others pass by it; the channels are then shuffled. What an edge gives is weighted by its share of its node.

mod partial;
mod size;
mod space;

pub use partial::channel_share;
pub use size::{largest_state, search_bytes, training_bytes, weights};
pub use space::{Candidates, Space, costs};

use crate::{
    genotype::{Operation, Skeleton},
    layers::{self, ConvBn, Head, Reach},
    params::{Builder, Init, ParamId, Params},
};
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

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

/// What has been added to a node so far. Every term is a tensor of its own, and no backward pass needs what it adds up
/// to, so the first one takes the others in.
#[derive(Debug, Default)]
struct Sum(Option<Tensor>);

impl Sum {
    fn add(&mut self, term: Tensor) {
        self.0 = Some(match self.0.take() {
            Some(mut sum) => sum.g_add_(&term),
            None => term,
        });
    }

    /// The node's value; zeros shaped like `like` if nothing was added.
    fn relu(self, like: &Tensor) -> Tensor {
        self.0.map_or_else(|| like.zeros_like(), |mut sum| sum.relu_())
    }
}

/// A supernet: the layout, its weights, and what is left of its candidates.
#[derive(Debug)]
pub struct Supernet {
    skeleton: Skeleton,
    space: Space,
    /// Of how many channels one goes through the operations; 1 where all do.
    partial: i64,
    stem: ConvBn,
    cells: Vec<Cell>,
    head: Head,
    /// Weights of all candidates.
    pub params: Params,
}

impl Supernet {
    /// A supernet with random weights.
    pub fn new(skeleton: Skeleton, space: Space, rng: &mut ChaCha8Rng) -> Self {
        Self::partial(skeleton, space, 1, rng)
    }

    /// A supernet of whose channels one in `partial`, which divides the channels of every cell, goes through the
    /// operations.
    pub fn partial(skeleton: Skeleton, space: Space, partial: i64, rng: &mut ChaCha8Rng) -> Self {
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
                    let name = format!("cell{index}.edge{from}_{to}");
                    EdgeParams::new(&mut b, &name, &skeleton, plan.channels / partial)
                })
                .collect();
            cells.push(Cell { adapters, edges });
        }
        let head = Head::new(&mut b, &skeleton);
        Self { skeleton, space, partial, stem, cells, head, params: b.build(rng, true) }
    }

    /// Its edges.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// Logits, as [`crate::answer`] describes them, for channels-last `x` of `[N, C, H, W]`; `mix` is [`Candidates::weights`], for a partial
    /// supernet with the edges' shares ([`Candidates::with_edge_shares`]).
    pub fn forward(&self, x: &Tensor, mix: &Tensor, candidates: &Candidates) -> Tensor {
        let reach = self.skeleton.reach();
        let stem = self.stem.forward(&self.params, x, reach);
        let mut outputs = [stem.shallow_clone(), stem.shallow_clone()];
        let mut nodes = vec![stem];
        for (index, cell) in self.cells.iter().enumerate() {
            let inputs = [0, 1].map(|side| cell.adapters[side].forward(&self.params, &outputs[side], reach));
            nodes = self.cell(cell, inputs, mix, candidates);
            if index + 1 < self.cells.len() {
                let [_, previous] = outputs;
                outputs = [previous, Tensor::cat(&nodes, 1)];
            }
        }
        self.head.forward(&self.params, &nodes)
    }

    /// The values of a cell's nodes.
    fn cell(&self, cell: &Cell, inputs: [Tensor; 2], mix: &Tensor, candidates: &Candidates) -> Vec<Tensor> {
        if self.partial > 1 {
            return self.partial_cell(cell, inputs, mix, candidates);
        }
        let mut sums: Vec<Sum> = Vec::new();
        sums.resize_with(self.space.nodes(), Sum::default);
        let mut nodes = Vec::with_capacity(self.space.nodes());
        let [first, second] = inputs;
        for state in 0..self.space.nodes() + 2 {
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
        nodes
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
        let reach = self.skeleton.reach();
        let mut terms = Vec::new();
        let mut pooled = None;
        for edge in self.space.readers(state) {
            let to = self.space.edges()[edge].1;
            let p = &cell.edges[edge];
            let share = |op: Operation| mix.get(edge as i64).get(op as i64);
            let norm = |y: &Tensor, gamma: ParamId, beta: ParamId, op: Operation| {
                let share = share(op);
                layers::batch_norm(y, &(&self.params[gamma] * &share), &(&self.params[beta] * &share))
            };
            if candidates.is_active(edge, Operation::Conv) {
                let y = layers::conv(x, &self.params[p.conv], [1, 1], 1, reach);
                terms.push((to, norm(&y, p.conv_gamma, p.conv_beta, Operation::Conv)));
            }
            if candidates.is_active(edge, Operation::SepConv) {
                let depthwise = layers::conv(x, &self.params[p.depthwise], [1, 1], x.size()[1], reach);
                let y = layers::conv(&depthwise, &self.params[p.pointwise], [1, 1], 1, reach);
                terms.push((to, norm(&y, p.sep_gamma, p.sep_beta, Operation::SepConv)));
            }
            let smoothed = self.smoothed(edge, x, mix, candidates);
            if candidates.is_active(edge, Operation::MaxPool) {
                let top = &*pooled.get_or_insert_with(|| layers::max_pool(self.skeleton.dim, reach, x));
                let share = share(Operation::MaxPool);
                terms.push((
                    to,
                    match smoothed {
                        Some(mut sum) => sum.addcmul_(top, &share),
                        None => top * share,
                    },
                ));
            } else if let Some(smoothed) = smoothed {
                terms.push((to, smoothed));
            }
        }
        terms
    }

    /// The average pool and the skip connection of one edge by their weights; `None` where neither is left.
    fn smoothed(&self, edge: usize, x: &Tensor, mix: &Tensor, candidates: &Candidates) -> Option<Tensor> {
        let left =
            |op: Operation| candidates.is_active(edge, op).then(|| mix.get(edge as i64).get(op as i64));
        let (average, skip) = (left(Operation::AvgPool), left(Operation::Skip));
        let Some(average) = average else { return skip.map(|share| x * share) };
        let [h, w] = layers::window(self.skeleton.dim, Operation::AvgPool.kernel(self.skeleton.dim));
        let mut kernel = (average / (h * w) as f64).expand([1, 1, h, w], false);
        if let Some(skip) = skip {
            let mut centre = vec![0f32; (h * w) as usize];
            let at = match self.skeleton.reach() {
                Reach::Around => h * w / 2,
                Reach::Before => h * w - 1,
            };
            centre[at as usize] = 1.0;
            kernel = Tensor::from_slice(&centre).view([1, 1, h, w]) * skip + kernel;
        }
        let channels = x.size()[1];
        let kernel = kernel.expand([channels, 1, h, w], false);
        Some(layers::conv(x, &kernel, [1, 1], channels, self.skeleton.reach()))
    }

    /// Cross entropy of a batch.
    pub fn loss(&self, x: &Tensor, labels: &Tensor, mix: &Tensor, candidates: &Candidates) -> Tensor {
        self.skeleton.answer.loss(&self.forward(x, mix, candidates), labels, 0.0)
    }

    /// Share of right answers in a batch.
    pub fn accuracy(&self, x: &Tensor, labels: &Tensor, mix: &Tensor, candidates: &Candidates) -> f64 {
        tch::no_grad(|| {
            let (right, of) = self.skeleton.answer.right(&self.forward(x, mix, candidates), labels);
            right as f64 / of.max(1) as f64
        })
    }
}

#[cfg(test)]
mod plain;
#[cfg(test)]
mod tests;
