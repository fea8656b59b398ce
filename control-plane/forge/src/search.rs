//! First-order bilevel search (Liu, Simonyan and Yang 2019): each step trains the supernet's weights on one half of
//! the training data and its architecture weights on the other. Operations are removed in stages, the weakest first,
//! so that the supernet becomes the network it will be derived to.

use crate::{
    batch::{Augment, Order, Samples},
    genotype::{Architecture, Edge, Genotype, Operation, Skeleton},
    network::Network,
    optim::{self, Adam, Sgd},
    params::to_vec,
    seeds::{self, Purpose},
    supernet::{Candidates, Space, Supernet, costs},
};
use serde::{Deserialize, Serialize};
use shared::{board::ModelLimits, job::Budget};
use tch::{Kind, Tensor};

/// Share of additional weight steps before the architecture moves: young convolutions would lose to skips.
const WARM_UP_SHARE: f64 = 0.2;
/// After which share of the architecture steps at most how many operations stay on an edge.
const PRUNING: [(f64, usize); 3] = [(0.35, 4), (0.55, 3), (0.75, 2)];
/// Temperature of the softmax at the beginning and at the end.
const TEMPERATURE: (f64, f64) = (1.0, 0.4);
const WEIGHT_RATE: f64 = 0.05;
const ARCH_RATE: f64 = 0.02;
const GRADIENT_NORM_MAX: f64 = 5.0;
/// Weight of the mean entropy of the edges at the end of the search; it grows from zero.
const ENTROPY_WEIGHT: f64 = 0.1;
/// Weight of the mean cost of the edges for a board that the heaviest cell would just fill.
const COST_WEIGHT: f64 = 0.3;

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
    /// Cross entropy on the validation half; `None` while warming up.
    pub validation_loss: Option<f64>,
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
    total: u64,
    cost: Tensor,
    architecture: Architecture,
}

impl<'a> Search<'a> {
    /// A search over `samples` of shape `input`.
    ///
    /// # Errors
    /// A sentence, if the supernet cannot be laid out.
    pub fn new(
        samples: &'a Samples,
        input: &[usize],
        classes: usize,
        budget: &Budget,
        limits: &ModelLimits,
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
            channels,
            cells,
            genotype: heaviest(nodes),
        };
        let pressure = pressure(&architecture, limits)?;
        let relative = costs(skeleton.dim, channels as u64);
        let cost = Tensor::from_slice(&relative) * (COST_WEIGHT * pressure);
        let augment = Augment::for_dim(skeleton.dim);
        let net = Supernet::new(skeleton, space, &mut seeds::stream(seed, Purpose::SupernetWeights, 0));
        let edges = net.space().edges().len();
        let mut rng = seeds::stream(seed, Purpose::Alpha, 0);
        let first: Vec<f32> =
            (0..edges * Operation::ALL.len()).map(|_| 1e-3 * seeds::normal(&mut rng)).collect();
        let alpha = Tensor::from_slice(&first).reshape([edges as i64, -1]).set_requires_grad(true);
        let mut all: Vec<i64> = (0..samples.len() as i64).collect();
        seeds::shuffle(&mut all, &mut seeds::stream(seed, Purpose::Split, 0));
        let validation = all.split_off(all.len().div_ceil(2));
        // A set of one sample still has two halves.
        let validation = if validation.is_empty() { all.clone() } else { validation };
        let batch = budget.search_batch as usize;
        // The halves draw from streams of their own.
        let orders = [(seed, &all), (!seed, &validation)]
            .map(|(seed, half)| Order::new(seed, Purpose::SearchOrder, half.len(), batch));
        let warm_up = (f64::from(budget.search_steps) * WARM_UP_SHARE).ceil() as u64;
        Ok(Self {
            samples,
            candidates: Candidates::all(edges),
            sgd: Sgd::new(net.params.len(), 0.9, 3e-4),
            adam: Adam::new(alpha.numel(), (0.5, 0.999), 1e-3),
            net,
            alpha,
            halves: [all, validation],
            orders,
            passes: [None, None],
            augment,
            seed,
            step: 0,
            warm_up,
            total: warm_up + u64::from(budget.search_steps),
            cost,
            architecture,
        })
    }

    /// Steps done and steps in all, warm-up included.
    pub fn progress(&self) -> (u64, u64) {
        (self.step, self.total)
    }

    /// Steps that moved the architecture.
    pub fn arch_steps(&self) -> u64 {
        self.adam.steps
    }

    /// One weight step and, after the warm-up, one architecture step before it.
    pub fn step(&mut self) -> StepOutcome {
        let arch_total = (self.total - self.warm_up).max(1);
        let arch_step = self.step.checked_sub(self.warm_up);
        let position = arch_step.unwrap_or(0) as f64 / arch_total as f64;
        let temperature = TEMPERATURE.0 + (TEMPERATURE.1 - TEMPERATURE.0) * position;
        for (from, keep) in PRUNING {
            if position >= from && self.candidates.most() > keep {
                let weights = to_vec(&self.candidates.weights(&self.alpha, temperature));
                self.candidates.prune(&weights, keep);
            }
        }
        let validation_loss = arch_step.map(|_| self.arch_step(temperature, position));
        let (x, labels) = self.batch(0);
        let mix = tch::no_grad(|| self.candidates.weights(&self.alpha, temperature));
        let loss = self.net.loss(&x, &labels, &mix, &self.candidates);
        let gradient = optim::clip(&self.net.params.gradients(&loss), GRADIENT_NORM_MAX);
        let rate = optim::one_cycle(WEIGHT_RATE, self.step, self.total, 0.1).max(WEIGHT_RATE * 0.02);
        let mut flat = self.net.params.flat();
        self.sgd.step(&mut flat, &gradient, self.net.params.decay(), rate);
        self.step += 1;
        StepOutcome { loss: loss.double_value(&[]), validation_loss }
    }

    fn arch_step(&mut self, temperature: f64, position: f64) -> f64 {
        let (x, labels) = self.batch(1);
        let mix = self.candidates.weights(&self.alpha, temperature);
        let loss = self.net.loss(&x, &labels, &mix, &self.candidates);
        let entropy = -(&mix * (&mix + 1e-12).log()).sum(Kind::Float) / mix.size()[0] as f64;
        let cost = (&mix * &self.cost).sum(Kind::Float) / mix.size()[0] as f64;
        let total = &loss + entropy * (ENTROPY_WEIGHT * position) + cost;
        let gradient = Tensor::run_backward(&[total], &[&self.alpha], false, false).remove(0);
        let decay = self.alpha.ones_like();
        let mut alpha = self.alpha.detach();
        self.adam.step(&mut alpha.view(-1), &gradient.view(-1), &decay.view(-1), ARCH_RATE);
        let _ = tch::no_grad(|| alpha.nan_to_num_(0.0, None, None));
        loss.double_value(&[])
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

    /// The cell, as the architecture weights stand.
    pub fn derive(&self) -> Architecture {
        let weights = tch::no_grad(|| to_vec(&self.candidates.weights(&self.alpha, TEMPERATURE.1)));
        Architecture {
            genotype: self.candidates.derive(self.net.space(), &weights),
            ..self.architecture.clone()
        }
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
        let candidates = Candidates::from_masks(&state.masks)
            .filter(|_| state.masks.len() == self.net.space().edges().len() && state.step <= self.total)
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

/// The cell that costs most.
fn heaviest(nodes: usize) -> Genotype {
    let edge = |from| Edge { from, op: Operation::Conv };
    Genotype { nodes: (0..nodes).map(|node| vec![edge(node), edge(node + 1)]).collect() }
}

/// How much of the board the heaviest cell would take, 0.1 to 3.
fn pressure(heaviest: &Architecture, limits: &ModelLimits) -> Result<f64, String> {
    let mut rng = seeds::stream(0, Purpose::NetworkWeights, 0);
    let graph = Network::new(heaviest.clone(), &mut rng)?.to_graph().map_err(|error| error.to_string())?;
    let share = |needed: u64, allowed: u64| needed as f64 / allowed.max(1) as f64;
    let most = share(graph.weight_bytes_int8() as u64, limits.weight_bytes_max)
        .max(share(graph.macs(), limits.macs_max))
        .max(share(graph.peak_activation_bytes() as u64, limits.activation_bytes_max));
    Ok(most.clamp(0.1, 3.0))
}
