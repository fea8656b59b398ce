//! First-order bilevel search (Liu, Simonyan and Yang 2019): each step trains the supernet's weights on one half of
//! the training data and its architecture weights on the other. Operations are removed in stages, the weakest first,
//! down to two an edge. Then the cell is decided: one operation an edge, the two strongest edges a node; the steps that
//! remain train just that cell, so that the accuracy reported last is the found cell's.
//!
//! What still separates it from the network that is trained afterwards: its width, by [`WIDTH_FACTOR`] at most, weights
//! that begin anew, and BatchNorm's running statistics.

use crate::{
    batch::{Augment, Order, Samples},
    genotype::{Architecture, Edge, Genotype, Operation, Skeleton},
    network::load_on,
    optim::{self, Adam, Sgd},
    params::to_vec,
    seeds::{self, Purpose},
    supernet::{Candidates, Space, Supernet, costs},
};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use shared::{board::Board, job::Budget};
use tch::{Kind, Tensor};

/// How much wider the derived network is than the supernet, where the board allows it.
pub const WIDTH_FACTOR: usize = 2;
/// Share of additional weight steps before the architecture moves: young convolutions would lose to skips.
const WARM_UP_SHARE: f64 = 0.2;
/// After which share of the architecture steps at most how many operations stay on an edge.
const PRUNING: [(f64, usize); 3] = [(0.35, 4), (0.55, 3), (0.75, 2)];
/// Share of additional weight steps after the architecture has been decided.
const SETTLE_SHARE: f64 = 0.1;
/// Temperature of the softmax at the beginning and at the end.
const TEMPERATURE: (f64, f64) = (1.0, 0.4);
const WEIGHT_RATE: f64 = 0.05;
const ARCH_RATE: f64 = 0.02;
const GRADIENT_NORM_MAX: f64 = 5.0;
/// Weight of the mean entropy of the edges at the end of the search; it grows from zero.
const ENTROPY_WEIGHT: f64 = 0.1;
/// Weight of the mean cost of the edges for a board that the heaviest network would just fill.
const COST_WEIGHT: f64 = 0.3;

/// Least and greatest share of the board by which [`COST_WEIGHT`] is multiplied.
const PRESSURE: (f64, f64) = (0.1, 3.0);

/// What a search's checkpoint says beside its tensors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchState {
    /// Steps done, warm-up included.
    pub step: u64,
    /// Steps of the architecture's optimiser.
    pub arch_steps: u64,
    /// [`Candidates::masks`].
    pub masks: Vec<u8>,
}

/// What one step saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOutcome {
    /// Cross entropy on the training half.
    pub loss: f64,
    /// Cross entropy on the validation half; `None` where the architecture does not move.
    pub validation_loss: Option<f64>,
    /// Whether both losses and the architecture's gradient are finite.
    pub finite: bool,
}

/// A search in progress.
#[derive(Debug)]
pub struct Search<'a> {
    samples: &'a Samples,
    net: Supernet,
    alpha: Tensor,
    candidates: Candidates,
    sgd: Sgd,
    adam: Adam,
    halves: [Vec<i64>; 2],
    orders: [Order; 2],
    /// The pass that each half is in, and its batches.
    passes: [Option<(u64, Vec<Vec<i64>>)>; 2],
    augment: Augment,
    seed: u64,
    step: u64,
    warm_up: u64,
    /// Steps that move the architecture.
    arch_total: u64,
    total: u64,
    cost: Tensor,
    architecture: Architecture,
}

impl<'a> Search<'a> {
    /// A search over `samples` of shape `input` for a network that fits `board`.
    ///
    /// # Errors
    /// A sentence, if the supernet cannot be laid out.
    pub fn new(
        samples: &'a Samples,
        input: &[usize],
        classes: usize,
        budget: &Budget,
        board: &Board,
        seed: u64,
    ) -> Result<Self, String> {
        let nodes = budget.nodes as usize;
        let (channels, cells) = (budget.channels as usize, budget.cells as usize);
        let space = Space::all_earlier(nodes);
        let skeleton = Skeleton::new(input, classes, channels, cells, nodes);
        let architecture = Architecture {
            dim: skeleton.dim,
            input: input.to_vec(),
            classes,
            channels: channels * WIDTH_FACTOR,
            cells,
            genotype: heaviest(nodes),
        };
        let pressure = pressure(&architecture, board)?;
        let wide = architecture.skeleton();
        let relative = costs(wide.dim, wide.cells.iter().map(|cell| cell.channels.unsigned_abs()));
        let cost = Tensor::from_slice(&relative) * (COST_WEIGHT * pressure);
        let augment = Augment::for_dim(skeleton.dim);
        let net = Supernet::new(skeleton, space, &mut seeds::stream(seed, Purpose::SupernetWeights, 0));
        let edges = net.space().edges().len();
        let mut rng = seeds::stream(seed, Purpose::Alpha, 0);
        let first: Vec<f32> =
            (0..edges * Operation::ALL.len()).map(|_| 1e-3 * seeds::normal(&mut rng)).collect();
        let alpha = Tensor::from_slice(&first).reshape([edges as i64, -1]).set_requires_grad(true);
        let halves = halves(&samples.classes(), &mut seeds::stream(seed, Purpose::Split, 0));
        let batch = budget.search_batch as usize;
        // The halves draw from streams of their own.
        let orders = [(seed, &halves[0]), (!seed, &halves[1])]
            .map(|(seed, half)| Order::new(seed, Purpose::SearchOrder, half.len(), batch));
        let arch_total = u64::from(budget.search_steps);
        let more = |share: f64| (arch_total as f64 * share).ceil() as u64;
        let warm_up = more(WARM_UP_SHARE);
        Ok(Self {
            samples,
            candidates: Candidates::all(edges),
            sgd: Sgd::new(net.params.len(), 0.9, 3e-4),
            adam: Adam::new(alpha.numel(), (0.5, 0.999), 1e-3),
            net,
            alpha,
            halves,
            orders,
            passes: [None, None],
            augment,
            seed,
            step: 0,
            warm_up,
            arch_total,
            total: warm_up + arch_total + more(SETTLE_SHARE),
            cost,
            architecture,
        })
    }

    /// Steps done and steps in all, those that move no architecture included.
    pub fn progress(&self) -> (u64, u64) {
        (self.step, self.total)
    }

    /// Steps that moved the architecture.
    pub fn arch_steps(&self) -> u64 {
        self.adam.steps
    }

    /// One weight step and, between warm-up and settling, one architecture step before it.
    pub fn step(&mut self) -> StepOutcome {
        let arch_step = self.step.saturating_sub(self.warm_up);
        let position = (arch_step as f64 / self.arch_total as f64).min(1.0);
        let temperature = TEMPERATURE.0 + (TEMPERATURE.1 - TEMPERATURE.0) * position;
        for (from, keep) in PRUNING {
            if position >= from && self.candidates.most() > keep {
                let weights = to_vec(&self.candidates.weights(&self.alpha, temperature));
                self.candidates.prune(&weights, keep);
            }
        }
        if arch_step >= self.arch_total {
            // The cell is what it will be; once decided, deciding again changes nothing.
            self.candidates = Candidates::only(&self.cell(), self.net.space());
        }
        let moves = self.step >= self.warm_up && arch_step < self.arch_total;
        let validation = moves.then(|| self.arch_step(temperature, position));
        let (x, labels) = self.batch(0);
        let mix = tch::no_grad(|| self.candidates.weights(&self.alpha, temperature));
        let loss = self.net.loss(&x, &labels, &mix, &self.candidates);
        let gradient = optim::clip(&self.net.params.gradients(&loss), GRADIENT_NORM_MAX);
        let rate = optim::one_cycle(WEIGHT_RATE, self.step, self.total, 0.1).max(WEIGHT_RATE * 0.02);
        let mut flat = self.net.params.flat();
        self.sgd.step(&mut flat, &gradient, self.net.params.decay(), rate);
        self.step += 1;
        let loss = loss.double_value(&[]);
        StepOutcome {
            loss,
            validation_loss: validation.map(|(loss, _)| loss),
            finite: loss.is_finite() && validation.is_none_or(|(loss, norm)| (loss + norm).is_finite()),
        }
    }

    /// The loss, and the norm of the architecture's gradient.
    fn arch_step(&mut self, temperature: f64, position: f64) -> (f64, f64) {
        let (x, labels) = self.batch(1);
        let mix = self.candidates.weights(&self.alpha, temperature);
        let loss = self.net.loss(&x, &labels, &mix, &self.candidates);
        let entropy = -(&mix * (&mix + 1e-12).log()).sum(Kind::Float) / mix.size()[0] as f64;
        let cost = (&mix * &self.cost).sum(Kind::Float) / mix.size()[0] as f64;
        let total = &loss + entropy * (ENTROPY_WEIGHT * position) + cost;
        let gradient = Tensor::run_backward(&[total], &[&self.alpha], false, false).remove(0);
        let decay = self.alpha.ones_like();
        let alpha = self.alpha.detach();
        self.adam.step(&mut alpha.view(-1), &gradient.view(-1), &decay.view(-1), ARCH_RATE);
        (loss.double_value(&[]), gradient.norm().double_value(&[]))
    }

    /// The next batch of one half; the passes are numbered by the step, so that a resumed search goes on alike.
    fn batch(&mut self, half: usize) -> (Tensor, Tensor) {
        let step = if half == 0 { self.step } else { self.step - self.warm_up };
        let per_epoch = self.orders[half].steps_per_epoch();
        let (epoch, index) = (step / per_epoch, (step % per_epoch) as usize);
        let pass = match self.passes[half].take() {
            Some(pass) if pass.0 == epoch => pass,
            _ => (epoch, self.orders[half].epoch(epoch)),
        };
        let chosen: Vec<i64> = pass.1[index].iter().map(|at| self.halves[half][*at as usize]).collect();
        self.passes[half] = Some(pass);
        if half == 0 {
            let mut rng = seeds::stream(self.seed, Purpose::Augment, self.step);
            self.samples.augmented(&chosen, &self.augment, &mut rng)
        } else {
            self.samples.batch(&chosen)
        }
    }

    /// Accuracy of the supernet on up to 256 samples of the validation half.
    pub fn accuracy(&self) -> f64 {
        let some = &self.halves[1][..self.halves[1].len().min(256)];
        let (x, labels) = self.samples.batch(some);
        let mix = tch::no_grad(|| self.candidates.weights(&self.alpha, TEMPERATURE.1));
        self.net.accuracy(&x, &labels, &mix, &self.candidates)
    }

    /// The network of the cell as the architecture weights stand, [`WIDTH_FACTOR`] times as wide as the supernet.
    pub fn derive(&self) -> Architecture {
        Architecture { genotype: self.cell(), ..self.architecture.clone() }
    }

    fn cell(&self) -> Genotype {
        let weights = tch::no_grad(|| to_vec(&self.candidates.weights(&self.alpha, TEMPERATURE.1)));
        self.candidates.derive(self.net.space(), &weights)
    }

    /// What a checkpoint needs.
    pub fn save(&self) -> (SearchState, Vec<(&'static str, Tensor)>) {
        let state =
            SearchState { step: self.step, arch_steps: self.adam.steps, masks: self.candidates.masks() };
        let tensors = vec![
            ("weights", self.net.params.flat()),
            ("velocity", self.sgd.velocity.shallow_clone()),
            ("alpha", self.alpha.detach()),
            ("alpha_mean", self.adam.mean.shallow_clone()),
            ("alpha_square", self.adam.square.shallow_clone()),
        ];
        (state, tensors)
    }

    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// A sentence, if it is not one of this search.
    pub fn restore(
        &mut self,
        state: &SearchState,
        mut tensor: impl FnMut(&str) -> Option<Tensor>,
    ) -> Result<(), String> {
        let candidates = Candidates::from_masks(&state.masks, self.net.space())
            .filter(|_| state.step <= self.total)
            .ok_or("the checkpoint is of another search")?;
        let mut take = |name: &str, into: &Tensor| {
            let found = tensor(name).ok_or_else(|| format!("the checkpoint lacks {name}"))?;
            if found.numel() != into.numel() {
                return Err(format!(
                    "{name} in the checkpoint has {} values, not {}",
                    found.numel(),
                    into.numel()
                ));
            }
            tch::no_grad(|| into.detach().copy_(&found.reshape(into.size())));
            Ok(())
        };
        take("weights", &self.net.params.flat())?;
        take("velocity", &self.sgd.velocity)?;
        take("alpha", &self.alpha)?;
        take("alpha_mean", &self.adam.mean)?;
        take("alpha_square", &self.adam.square)?;
        self.candidates = candidates;
        self.step = state.step;
        self.adam.steps = state.arch_steps;
        Ok(())
    }
}

/// Samples in random order, those of each class dealt to the two halves in turn: each half has as many of every class
/// as the other, give or take one.
fn halves(classes: &[i64], rng: &mut ChaCha8Rng) -> [Vec<i64>; 2] {
    let mut all: Vec<i64> = (0..classes.len() as i64).collect();
    seeds::shuffle(&mut all, rng);
    all.sort_by_key(|sample| classes[*sample as usize]);
    let mut halves = [0, 1].map(|half| all.iter().skip(half).step_by(2).copied().collect::<Vec<_>>());
    if halves[1].is_empty() {
        // A set of one sample still has two halves.
        halves[1] = halves[0].clone();
    }
    for half in &mut halves {
        seeds::shuffle(half, rng);
    }
    halves
}

/// The cell that costs most.
fn heaviest(nodes: usize) -> Genotype {
    let edge = |from| Edge { from, op: Operation::Conv };
    Genotype { nodes: (0..nodes).map(|node| vec![edge(node), edge(node + 1)]).collect() }
}

/// How much of the board the heaviest network would take, 0.1 to 3.
fn pressure(heaviest: &Architecture, board: &Board) -> Result<f64, String> {
    Ok(load_on(heaviest, board)?.clamp(PRESSURE.0, PRESSURE.1))
}

#[cfg(test)]
mod tests;
