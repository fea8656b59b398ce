//! Bilevel search by gradients (Liu, Simonyan and Yang 2019): each step trains the supernet's weights on one half of
//! the training data and its architecture weights on the other. Operations are removed in stages, the weakest first,
//! down to two an edge. Then the cell is decided: one operation an edge, the two strongest edges a node; the steps that
//! remain train just that cell, so that the accuracy reported last is the found cell's (in a partial supernet, with the
//! channels that pass by).
//!
//! The architecture's loss is the cross entropy, the entropy of the edges, their cost for the board, and the squares of
//! the architecture weights. [`super::guard`] keeps skip connections from taking over.

use super::{
    FOREIGN, Search, SearchState, Setting, StepOutcome,
    feed::Feed,
    guard::{Guard, skips_max},
    judge::Judged,
    relaxed::{Form, GRADIENT_NORM_MAX, Mix, Relaxed},
    schedule::Schedule,
};
use crate::{
    checkpoint, device,
    genotype::{Architecture, Genotype},
    network::load_on,
    optim::{Adam, LossScale, Sgd},
    params::to_vec,
    seeds::{self, Purpose},
    supernet::{Candidates, Supernet, channel_share, costs, costs_by_profile},
};
use shared::board::Board;
use tch::{Kind, Tensor};

/// After which share of the architecture steps at most which share of the operations stays on an edge, two at least.
const PRUNING: [(f64, f64); 3] = [(0.35, 2.0 / 3.0), (0.55, 0.5), (0.75, 0.0)];
/// Temperature of the softmax at the beginning and at the end.
const TEMPERATURE: (f64, f64) = (1.0, 0.4);
const ARCH_RATE: f64 = 0.02;
/// Weight of the mean entropy of the edges at the end of the search; it grows from zero.
const ENTROPY_WEIGHT: f64 = 0.1;
/// Weight of the mean cost of the edges for a board that the heaviest network would just fill.
const COST_WEIGHT: f64 = 0.3;
/// Least and greatest share of the board by which [`COST_WEIGHT`] is multiplied.
const PRESSURE: (f64, f64) = (0.1, 3.0);

/// How much more the dearest operation has to weigh than one that costs nothing, as powers of e, for the cells that are
/// compared with the found one.
const LEANINGS: [f32; 9] = [-2.0, -0.5, 0.0, 0.5, 2.0, 8.0, 32.0, 128.0, 512.0];

/// The two passes of a step; each draws from a stream of its own.
#[derive(Clone, Copy)]
enum Pass {
    Weights = 0,
    Architecture = 1,
}

/// A search by gradients in progress.
#[derive(Debug)]
pub(super) struct Bilevel<'a> {
    form: Form,
    feed: Feed<'a>,
    net: Supernet,
    /// `[edges, columns]`.
    alpha: Tensor,
    candidates: Candidates,
    sgd: Sgd,
    adam: Adam,
    /// Of the architecture's loss.
    scale: LossScale,
    guard: Guard,
    seed: u64,
    step: u64,
    schedule: Schedule,
    /// Of each operation, weighted.
    cost: Tensor,
    /// The derived network, but for its cell.
    wide: Architecture,
    alpha_l2: f64,
}

impl<'a> Bilevel<'a> {
    /// # Errors
    /// A sentence, if the supernet cannot be laid out.
    pub(super) fn new(form: Form, setting: Setting<'a>) -> Result<Self, String> {
        let seed = setting.seed;
        let skeleton = setting.skeleton();
        let wide = setting.heaviest();
        let pressure = pressure(&wide, setting.board)?;
        let widths = wide.skeleton();
        let space = setting.space();
        let operations = space.operations().len();
        let by_weights = || {
            let channels = widths.cells.iter().map(|cell| cell.channels.unsigned_abs());
            costs(space.operations(), widths.dim, channels)
        };
        let relative =
            costs_by_profile(space.operations(), &widths, setting.board).unwrap_or_else(by_weights);
        let partial = if form == Form::Partial { channel_share(skeleton.stem_channels) } else { 1 };
        let feed = Feed::new(setting.samples, skeleton.dim, setting.batch(), seed);
        let mut rng = seeds::stream(seed, Purpose::SupernetWeights, 0);
        let net = Supernet::partial(skeleton, space, partial, &mut rng);
        // Between the weights whose gradients it takes the difference of there is less than f16 tells apart.
        let net = if form == Form::SecondOrder { net.in_full_precision() } else { net };
        let edges = net.space().edges().len();
        let mut rng = seeds::stream(seed, Purpose::Alpha, 0);
        let first: Vec<f32> =
            (0..edges as i64 * form.columns(operations)).map(|_| 1e-3 * seeds::normal(&mut rng)).collect();
        let alpha =
            device::put(&Tensor::from_slice(&first).reshape([edges as i64, -1])).set_requires_grad(true);
        let schedule = Schedule::new(setting.budget.search_steps);
        Ok(Self {
            form,
            feed,
            candidates: Candidates::all(net.space()),
            sgd: Sgd::new(net.params.len(), 0.9, 3e-4),
            adam: Adam::new(alpha.numel(), (0.5, 0.999), 0.0),
            scale: LossScale::of(net.precision()),
            guard: Guard::new(seed, schedule.arch, setting.choices.regularise),
            net,
            alpha,
            seed,
            step: 0,
            schedule,
            cost: device::put(&Tensor::from_slice(&relative)) * (COST_WEIGHT * pressure),
            wide,
            alpha_l2: setting.choices.regularise.alpha_l2,
        })
    }

    fn relaxed(&self) -> Relaxed<'_> {
        let Self { form, net, candidates, alpha, scale, .. } = self;
        Relaxed { form: *form, net, candidates, alpha, scale: *scale }
    }

    fn temperature(&self) -> f64 {
        TEMPERATURE.0 + (TEMPERATURE.1 - TEMPERATURE.0) * self.schedule.position(self.step)
    }

    /// Removes what the stage of the search leaves no room for.
    fn prune(&mut self) {
        let position = self.schedule.position(self.step);
        let operations = self.candidates.operations().len() as f64;
        for (from, share) in PRUNING {
            let keep = ((operations * share).round() as usize).max(2);
            if position >= from && self.candidates.most() > keep {
                let weights = to_vec(&tch::no_grad(|| self.relaxed().shares(self.temperature())));
                self.candidates.prune(&weights, keep);
            }
        }
        if self.schedule.is_decided(self.step) {
            // The cell is what it will be; once decided, deciding again changes nothing.
            self.candidates = Candidates::only(&self.cell(), self.net.space());
        }
    }

    /// Sets the search back if skip connections have taken over; whether it did.
    fn repair(&mut self) -> bool {
        let arch_step = self.schedule.arch_step(self.step);
        let taken = self.guard.taken_over(&self.candidates, self.net.space(), &self.strengths(), arch_step);
        if let Some(edges) = &taken {
            self.guard.repair(edges, &self.candidates, &self.alpha, &mut self.adam, arch_step);
        }
        taken.is_some()
    }

    /// What one pass computes with; the same at each call in a step.
    fn mix(&self, pass: Pass) -> Mix {
        let number = 2 * self.step + pass as u64;
        let decided = self.schedule.is_decided(self.step);
        let dropped = (!decided).then(|| {
            let arch_step = self.schedule.arch_step(self.step);
            self.guard.drop(self.net.space(), arch_step, number)
        });
        let mut rng = seeds::stream(self.seed, Purpose::Gumbel, number);
        self.relaxed().mix(self.temperature(), self.schedule.position(self.step), dropped.as_ref(), &mut rng)
    }

    /// The loss, and the norm of the architecture's gradient; 0 where its step was left out.
    fn arch_step(&mut self) -> (f64, f64) {
        let validation = self.feed.validation(self.step - self.schedule.warm_up);
        // The weight step that follows takes the same batch.
        let training = (self.form == Form::SecondOrder).then(|| self.feed.training(self.step));
        let rate = Schedule::rate(self.step, self.schedule.total);
        let shares = self.relaxed().shares(self.temperature());
        let edges = shares.size()[0] as f64;
        let entropy = -(&shares * (&shares + 1e-12).log()).sum(Kind::Float) / edges;
        let cost = (&shares * &self.cost).sum(Kind::Float) / edges;
        let squares = self.alpha.square().sum(Kind::Float) * (self.alpha_l2 / 2.0);
        let penalty = entropy * (ENTROPY_WEIGHT * self.schedule.position(self.step)) + cost + squares;
        let (loss, gradient) = self.relaxed().gradient(
            || self.mix(Pass::Architecture),
            &validation,
            training.as_ref().map(|batch| (batch, rate)),
            Some(&penalty),
        );
        let norm = gradient.norm().double_value(&[]);
        if !self.scale.admits(norm.is_finite()) {
            return (loss, 0.0);
        }
        let decay = self.alpha.zeros_like();
        let alpha = self.alpha.detach();
        self.adam.step(&mut alpha.view(-1), &gradient.view(-1), &decay.view(-1), ARCH_RATE);
        (loss, norm)
    }

    fn strengths(&self) -> Vec<f32> {
        to_vec(&self.relaxed().strengths(TEMPERATURE.1))
    }

    /// The shares of the candidates as if nothing had been removed, `[edges, operations]`.
    fn whole_shares(&self) -> Vec<f32> {
        let all = Candidates::all(self.net.space());
        let relaxed = Relaxed { candidates: &all, ..self.relaxed() };
        to_vec(&tch::no_grad(|| relaxed.shares(TEMPERATURE.1)))
    }

    /// The found cell, and those that would be found if costs weighed more or less.
    fn leanings(&self) -> Vec<Genotype> {
        let (space, shares) = (self.net.space(), self.whole_shares());
        let all = Candidates::all(space);
        let costs = to_vec(&self.cost);
        let dearest = costs.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        let mut cells = vec![self.cell()];
        for leaning in LEANINGS {
            let leant: Vec<f32> = shares
                .iter()
                .zip(costs.iter().cycle())
                .map(|(share, cost)| share * (-leaning * cost / dearest).exp())
                .collect();
            let cell = all.derive_with(space, &leant, skips_max(space));
            if !cells.contains(&cell) {
                cells.push(cell);
            }
        }
        cells
    }

    fn cell(&self) -> Genotype {
        self.guard.derive(&self.candidates, self.net.space(), &self.strengths())
    }
}

impl Search for Bilevel<'_> {
    fn progress(&self) -> (u64, u64) {
        (self.step, self.schedule.total)
    }

    /// One weight step and, between warm-up and settling, one architecture step before it.
    fn step(&mut self) -> StepOutcome {
        self.prune();
        let moves = self.schedule.moves(self.step);
        let repaired = moves && self.repair();
        let validation = moves.then(|| self.arch_step());
        let (x, labels) = self.feed.training(self.step);
        let (weights, left) = tch::no_grad(|| self.mix(Pass::Weights));
        let loss = self.net.loss(&x, &labels, &weights, &left);
        let rate = Schedule::rate(self.step, self.schedule.total);
        self.sgd.learn(&self.net.params, &loss, GRADIENT_NORM_MAX, rate);
        self.step += 1;
        let loss = loss.double_value(&[]);
        StepOutcome {
            loss,
            validation_loss: validation.map(|(loss, _)| loss),
            finite: loss.is_finite() && validation.is_none_or(|(loss, norm)| (loss + norm).is_finite()),
            repaired,
        }
    }

    /// Of the supernet; where it learns one operation an edge at a time, of the cell that would be derived.
    fn accuracy(&self) -> Option<f64> {
        let (x, labels) = self.feed.look();
        let cell = Candidates::only(&self.cell(), self.net.space());
        let candidates = if self.form == Form::Gumbel { &cell } else { &self.candidates };
        let relaxed = Relaxed { candidates, ..self.relaxed() };
        let mix = tch::no_grad(|| relaxed.normalised(relaxed.shares(TEMPERATURE.1)));
        Some(self.net.accuracy(&x, &labels, &mix, candidates))
    }

    fn derive(&self) -> Architecture {
        Architecture { genotype: self.cell(), ..self.wide.clone() }
    }

    fn shares(&self) -> Option<Vec<f32>> {
        Some(to_vec(&tch::no_grad(|| self.relaxed().shares(self.temperature()))))
    }

    /// By the weights of the supernet, which the operations of cells that it left early have learned for less long.
    fn judged(&self) -> Vec<Judged> {
        let judge = |cell: Genotype| {
            let only = Candidates::only(&cell, self.net.space());
            let relaxed = Relaxed { candidates: &only, ..self.relaxed() };
            let mix = tch::no_grad(|| relaxed.normalised(relaxed.shares(TEMPERATURE.1)));
            Judged::new(cell, &self.feed, |x| self.net.forward(x, &mix, &only))
        };
        self.leanings().into_iter().map(judge).collect()
    }

    fn save(&self) -> (SearchState, Vec<(&'static str, Tensor)>) {
        let state = SearchState {
            step: self.step,
            arch_steps: self.adam.steps,
            masks: self.candidates.masks(),
            repairs: self.guard.repairs.clone(),
            judged: Vec::new(),
        };
        let tensors = vec![
            ("weights", self.net.params.flat()),
            ("velocity", self.sgd.velocity.shallow_clone()),
            ("alpha", self.alpha.detach()),
            ("alpha_mean", self.adam.mean.shallow_clone()),
            ("alpha_square", self.adam.square.shallow_clone()),
        ];
        (state, tensors)
    }

    fn restore(
        &mut self,
        state: &SearchState,
        tensor: &mut dyn FnMut(&str) -> Option<Tensor>,
    ) -> Result<(), String> {
        let candidates = Candidates::from_masks(&state.masks, self.net.space())
            .filter(|_| state.step <= self.schedule.total)
            .ok_or(FOREIGN)?;
        checkpoint::copy_back(&self.save().1, tensor)?;
        self.candidates = candidates;
        self.guard.repairs.clone_from(&state.repairs);
        self.step = state.step;
        self.adam.steps = state.arch_steps;
        Ok(())
    }
}

/// How much of the board the heaviest network would take, 0.1 to 3.
fn pressure(heaviest: &Architecture, board: &Board) -> Result<f64, String> {
    Ok(load_on(heaviest, board)?.clamp(PRESSURE.0, PRESSURE.1))
}

#[cfg(test)]
mod tests;
