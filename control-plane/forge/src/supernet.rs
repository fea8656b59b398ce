//! The network that holds every candidate at once (Liu, Simonyan and Yang 2019, "DARTS").
//!
//! A node sums its incoming edges and applies a ReLU; an edge is the mean of its operations, weighted by a softmax
//! over architecture weights. It is computed restructured, with the same result as operation by operation:
//!
//! - the maximum over a window of a state is computed once, whatever reads it;
//! - averages (padding counted) and the state itself, each by its weight, are one depthwise convolution whose kernel those
//!   weights make;
//! - the softmax weight of a convolution is folded into BatchNorm's scale and shift, that of a gated state into its gate;
//! - the terms of a node are added in place;
//! - activations and weights are channels last.
//!
//! A partial supernet (Xu et al. 2020, "PC-DARTS") sends one channel in `partial` through the operations of an edge and
//! lets the others pass by it; the channels are then shuffled. What an edge gives is weighted by its share of its node.
//!
//! A generated supernet ([`Supernet::generated`]) has kernels that come from a network of their own, in part or whole.

mod candidates;
mod edge;
mod generator;
mod latency;
mod partial;
mod size;
mod space;

pub use candidates::Candidates;
pub use latency::costs_by_profile;
pub use partial::channel_share;
pub use size::{generator_bytes, largest_state, search_bytes, training_bytes, weights};
pub use space::{Space, costs};

use crate::{
    device,
    genotype::{OperationKind, Skeleton},
    layers::{self, ConvBn, Head, Reach},
    params::{Builder, Params},
    precision::Precision,
};
use edge::Candidate;
use generator::Generator;
use rand_chacha::ChaCha8Rng;
use shared::space::Generated;
use std::collections::BTreeMap;
use tch::Tensor;

#[derive(Clone, Debug)]
struct Cell {
    adapters: [ConvBn; 2],
    /// For each edge its candidates, by column.
    edges: Vec<Vec<Candidate>>,
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
    /// Where kernels are generated.
    generator: Option<Generator>,
    /// Of [`Self::loss`].
    precision: Precision,
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
        Self::made(skeleton, space, partial, None, rng)
    }

    /// A supernet whose candidate convolutions are generated as `generated` says.
    pub fn generated(skeleton: Skeleton, space: Space, generated: &Generated, rng: &mut ChaCha8Rng) -> Self {
        Self::made(skeleton, space, 1, Some(generated), rng)
    }

    fn made(
        skeleton: Skeleton,
        space: Space,
        partial: i64,
        generated: Option<&Generated>,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let mut b = Builder::default();
        let generator = generated.map(|_| Generator::new(&mut b, &skeleton, &space));
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
                    let share = generated.map_or(0.0, |generated| generated.share(index));
                    let channels = plan.channels / partial;
                    edge::candidates(&mut b, &name, &skeleton, space.operations(), channels, share)
                })
                .collect();
            cells.push(Cell { adapters, edges });
        }
        let head = Head::new(&mut b, &skeleton);
        let (precision, params) = (Precision::of(device::get()), b.build(rng, true));
        Self { skeleton, space, partial, stem, cells, head, generator, precision, params }
    }

    /// The same, trained in f32 wherever it is.
    pub fn in_full_precision(self) -> Self {
        Self { precision: Precision::Full, ..self }
    }

    /// In which numbers its loss is computed.
    pub fn precision(&self) -> Precision {
        self.precision
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
        let mut maxima = BTreeMap::new();
        for edge in self.space.readers(state) {
            let to = self.space.edges()[edge].1;
            let shares = mix.get(edge as i64);
            for column in candidates.left(edge) {
                let share = shares.get(column as i64);
                let candidate = &cell.edges[edge][column];
                terms.extend(
                    candidate
                        .weighted(&self.params, self.generator.as_ref(), x, &share)
                        .map(|term| (to, term)),
                );
            }
            let mut smoothed = self.smoothed(edge, x, &shares, candidates);
            for column in candidates.left(edge) {
                let operation = self.space.operations()[column];
                if operation.kind() != OperationKind::MaxPool {
                    continue;
                }
                let (dim, taps) = (self.skeleton.dim, operation.kernel(self.skeleton.dim));
                let top = &*maxima.entry(taps).or_insert_with(|| layers::max_pool(dim, reach, x, taps));
                let share = shares.get(column as i64);
                smoothed = Some(match smoothed {
                    Some(mut sum) => sum.addcmul_(top, &share),
                    None => top * share,
                });
            }
            terms.extend(smoothed.map(|term| (to, term)));
        }
        terms
    }

    /// The average pools and the skip connection of one edge by their weights; `None` where none of them is left.
    fn smoothed(&self, edge: usize, x: &Tensor, shares: &Tensor, candidates: &Candidates) -> Option<Tensor> {
        let (dim, reach) = (self.skeleton.dim, self.skeleton.reach());
        let of_kind = |kind: OperationKind| {
            let operations = self.space.operations();
            candidates.left(edge).filter(move |column| operations[*column].kind() == kind)
        };
        let skip = of_kind(OperationKind::Skip).map(|column| shares.get(column as i64)).next();
        let averages: Vec<(i64, Tensor)> = of_kind(OperationKind::AvgPool)
            .map(|column| (self.space.operations()[column].kernel(dim), shares.get(column as i64)))
            .collect();
        let Some(most) = averages.iter().map(|(taps, _)| *taps).max() else {
            return skip.map(|share| x * share);
        };
        let [h, w] = layers::window(dim, most);
        // A smaller window lies around the same place as the largest, or ends there.
        let widened = |taps: i64, share: &Tensor| {
            let [kh, kw] = layers::window(dim, taps);
            let even = (share / (kh * kw) as f64).expand([1, 1, kh, kw], false);
            let ([dh, dw], [half_h, half_w]) = ([h - kh, w - kw], [(h - kh) / 2, (w - kw) / 2]);
            match reach {
                _ if taps == most => even,
                Reach::Around => even.constant_pad_nd([half_w, half_w, half_h, half_h]),
                Reach::Before => even.constant_pad_nd([dw, 0, dh, 0]),
            }
        };
        let all = averages.iter().map(|(taps, share)| widened(*taps, share));
        // There is one at least.
        let mut kernel = all.reduce(|sum, other| sum + other)?;
        if let Some(skip) = skip {
            let mut centre = vec![0f32; (h * w) as usize];
            let at = match reach {
                Reach::Around => h * w / 2,
                Reach::Before => h * w - 1,
            };
            centre[at as usize] = 1.0;
            let centre = Tensor::from_slice(&centre).to_device(x.device());
            kernel = centre.view([1, 1, h, w]) * skip + kernel;
        }
        let channels = x.size()[1];
        let kernel = kernel.expand([channels, 1, h, w], false);
        Some(layers::conv(x, &kernel, [1, 1], channels, reach))
    }

    /// Cross entropy of a batch, in f32 whatever the pass was computed in.
    pub fn loss(&self, x: &Tensor, labels: &Tensor, mix: &Tensor, candidates: &Candidates) -> Tensor {
        let logits = self.precision.compute(|| self.forward(x, mix, candidates));
        self.skeleton.answer.loss(&logits, labels, 0.0)
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
