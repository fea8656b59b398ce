//! Cells drawn at random, each trained for itself as a network of its own, the best on the validation half wins: in
//! one round (random search), or in several, after each of which the better half is trained on (successive halving,
//! Jamieson and Talwalkar 2016).
//!
//! Each is trained at the width that the board leaves it, so that a heavy cell is judged as narrow as it would be.
//! Successive halving begins with those of four times as many that promise most untrained ([`super::proxy`]); random
//! search with what was drawn.

use super::{
    FOREIGN, Search, SearchState, Setting, StepOutcome, WIDTH_FACTOR,
    feed::{Batch, Feed},
    guard::skips_max,
    judge::{Judged, best},
    proxy,
    relaxed::GRADIENT_NORM_MAX,
    schedule::Schedule,
};
use crate::{
    answer::Answer,
    checkpoint, device,
    genotype::{Architecture, Genotype},
    network::Network,
    optim::Sgd,
    precision::Precision,
    seeds::{self, Purpose},
    supernet,
};
use std::{cmp::Ordering, collections::BTreeMap};
use tch::{Kind, Tensor};

/// Most cells of one search.
const CELLS_MAX: usize = 16;
/// Steps that random search gives each cell, where the budget has as many.
const STEPS_MIN: u64 = 16;
/// Steps that successive halving gives each cell in its first round, where the budget has as many.
const FIRST_STEPS_MIN: u64 = 4;
/// Cells that are drawn for each that successive halving begins with.
const DRAWN_FOR_ONE: usize = 4;
/// Samples on which an untrained network is looked at.
const PROXY_SAMPLES: i64 = 64;
/// Draws until a cell fits the board in some width, and has no more skip connections than it may.
const DRAWS_MAX: usize = 64;

/// A round: so many cells, each trained for so many steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rung {
    cells: usize,
    steps: u64,
}

/// One round for `total` steps.
fn one(total: u64) -> Vec<Rung> {
    let cells = (total / STEPS_MIN).clamp(2, CELLS_MAX as u64);
    vec![Rung { cells: cells as usize, steps: total / cells }]
}

/// Rounds that have equal shares of `total` steps, down to two cells.
fn halved(total: u64) -> Vec<Rung> {
    let rungs_max = CELLS_MAX.ilog2();
    let fits = |rungs: &u32| total / u64::from(*rungs) >= FIRST_STEPS_MIN << rungs;
    let rungs = (2..=rungs_max).rev().find(fits).unwrap_or(1);
    let share = total / u64::from(rungs);
    (1..=rungs).rev().map(|left| Rung { cells: 1 << left, steps: share >> left }).collect()
}

/// Where a search is: the round, the how manieth of its cells, and that one's steps in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    rung: usize,
    nth: usize,
    step: u64,
}

/// A network in training.
#[derive(Debug)]
struct Trained {
    net: Network,
    sgd: Sgd,
}

impl Trained {
    fn new(architecture: &Architecture, seed: u64, cell: usize) -> Self {
        let mut rng = seeds::stream(seed, Purpose::NetworkWeights, 1 + cell as u64);
        let net = Network::new(architecture.clone(), &mut rng)
            .unwrap_or_else(|error| unreachable!("a cell of the space is valid: {error}"));
        Self { sgd: Sgd::new(net.params.len(), 0.9, 3e-4), net }
    }

    /// The loss before the step.
    fn step(&mut self, (x, labels): &Batch, answer: Answer, rate: f64) -> f64 {
        let logits = Precision::of(x.device()).compute(|| self.net.forward(x, true));
        let loss = answer.loss(&logits, labels, 0.0);
        self.sgd.learn(&self.net.params, &loss, GRADIENT_NORM_MAX, rate);
        loss.double_value(&[])
    }
}

/// A search by rounds in progress.
#[derive(Debug)]
pub(super) struct Rounds<'a> {
    setting: Setting<'a>,
    feed: Feed<'a>,
    /// The networks as they are trained.
    cells: Vec<Architecture>,
    rungs: Vec<Rung>,
    /// Those whose weights are needed, by their place among the cells.
    trained: BTreeMap<usize, Trained>,
    judged: Vec<Judged>,
    step: u64,
}

impl<'a> Rounds<'a> {
    /// One round.
    pub(super) fn random(setting: Setting<'a>) -> Self {
        let rungs = one(Schedule::new(setting.budget.search_steps).total);
        let cells = (0..rungs[0].cells).map(|number| draw(&setting, number)).collect();
        Self::new(setting, rungs, cells)
    }

    /// The better half is trained on.
    pub(super) fn halving(setting: Setting<'a>) -> Self {
        let rungs = halved(Schedule::new(setting.budget.search_steps).total);
        let drawn = (0..DRAWN_FOR_ONE * rungs[0].cells).map(|number| draw(&setting, number)).collect();
        let mut search = Self::new(setting, rungs, drawn);
        search.keep_promising();
        search
    }

    fn new(setting: Setting<'a>, rungs: Vec<Rung>, cells: Vec<Architecture>) -> Self {
        let feed = Feed::new(setting.samples, setting.skeleton().dim, setting.batch(), setting.seed);
        Self { setting, feed, cells, rungs, trained: BTreeMap::new(), judged: Vec::new(), step: 0 }
    }

    /// Keeps as many of the cells as the first round takes.
    fn keep_promising(&mut self) {
        let (x, _) = self.feed.look();
        let x = x.narrow(0, 0, x.size()[0].min(PROXY_SAMPLES));
        let score = |(number, cell): (usize, Architecture)| {
            let trained = Trained::new(&cell, self.setting.seed, number);
            (proxy::distinctness(&trained.net, &x), cell)
        };
        let cells = std::mem::take(&mut self.cells);
        let mut scored: Vec<(f64, Architecture)> = cells.into_iter().enumerate().map(score).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        scored.truncate(self.rungs[0].cells);
        self.cells = scored.into_iter().map(|(_, cell)| cell).collect();
    }

    fn total(&self) -> u64 {
        self.rungs.iter().map(|rung| rung.cells as u64 * rung.steps).sum()
    }

    /// `None` at the end.
    fn place(&self) -> Option<Place> {
        let mut left = self.step;
        for (rung, Rung { cells, steps }) in self.rungs.iter().copied().enumerate() {
            if left < cells as u64 * steps {
                return Some(Place { rung, nth: (left / steps) as usize, step: left % steps });
            }
            left -= cells as u64 * steps;
        }
        None
    }

    /// What was judged in a round so far.
    fn judged_in(&self, rung: usize) -> &[Judged] {
        let before: usize = self.rungs[..rung].iter().map(|rung| rung.cells).sum();
        let judged = self.judged.get(before..).unwrap_or_default();
        &judged[..judged.len().min(self.rungs[rung].cells)]
    }

    /// The cells of a round that has begun, in the order in which they are trained.
    fn cells_in(&self, rung: usize) -> Vec<usize> {
        let mut cells: Vec<usize> = (0..self.rungs[0].cells).collect();
        for (before, next) in self.rungs[1..=rung].iter().enumerate() {
            let judged = self.judged_in(before);
            let mut ranks: Vec<usize> = (0..cells.len()).collect();
            ranks.sort_by(|a, b| judged[*b].compare(&judged[*a]));
            cells = ranks.into_iter().take(next.cells).map(|rank| cells[rank]).collect();
        }
        cells
    }

    /// The cells whose weights the next steps need.
    fn needed(&self) -> Vec<usize> {
        let Some(place) = self.place() else { return Vec::new() };
        let last = place.rung + 1 == self.rungs.len();
        let needed = |nth: usize| match nth.cmp(&place.nth) {
            Ordering::Less => !last,
            Ordering::Equal => place.rung > 0 || place.step > 0,
            Ordering::Greater => place.rung > 0,
        };
        let cells = self.cells_in(place.rung).into_iter().enumerate();
        cells.filter(|(nth, _)| needed(*nth)).map(|(_, cell)| cell).collect()
    }

    /// The best of the newest round.
    fn standing(&self) -> Option<&Judged> {
        (0..self.rungs.len()).rev().find_map(|rung| best(self.judged_in(rung)))
    }
}

impl Search for Rounds<'_> {
    fn progress(&self) -> (u64, u64) {
        (self.step, self.total())
    }

    /// One weight step of one network. In each round all see the same batches, at the same rates.
    fn step(&mut self) -> StepOutcome {
        let Some(Place { rung, nth, step }) = self.place() else { unreachable!("the search is over") };
        let cell = self.cells_in(rung)[nth];
        let before: u64 = self.rungs[..rung].iter().map(|rung| rung.steps).sum();
        let longest = self.rungs.iter().map(|rung| rung.steps).sum();
        let batch = self.feed.training(before + step);
        let architecture = &self.cells[cell];
        let trained =
            self.trained.entry(cell).or_insert_with(|| Trained::new(architecture, self.setting.seed, cell));
        let loss = trained.step(&batch, self.feed.answer(), Schedule::rate(before + step, longest));
        if step + 1 == self.rungs[rung].steps {
            // By the statistics of the batch: after few steps the running ones lag behind.
            let logits = |x: &Tensor| trained.net.forward(x, true);
            self.judged.push(Judged::new(architecture.genotype.clone(), &self.feed, logits));
        }
        self.step += 1;
        let needed = self.needed();
        self.trained.retain(|cell, _| needed.contains(cell));
        StepOutcome { loss, validation_loss: None, finite: loss.is_finite(), repaired: false }
    }

    fn accuracy(&self) -> Option<f64> {
        self.standing().map(Judged::accuracy)
    }

    fn derive(&self) -> Architecture {
        let cell = self.standing().map_or(&self.cells[0].genotype, |judged| &judged.cell);
        self.setting.wide(cell.clone())
    }

    /// Each cell by what it did in its last round.
    fn judged(&self) -> Vec<Judged> {
        let mut newest: Vec<Judged> = Vec::new();
        for judged in self.judged.iter().rev() {
            if !newest.iter().any(|known| known.cell == judged.cell) {
                newest.push(judged.clone());
            }
        }
        newest
    }

    fn save(&self) -> (SearchState, Vec<(&'static str, Tensor)>) {
        let state = SearchState { step: self.step, judged: self.judged.clone(), ..SearchState::default() };
        let joined = |part: fn(&Trained) -> Tensor| {
            let nothing = Tensor::zeros([0], (Kind::Float, device::get()));
            let parts: Vec<Tensor> = [nothing].into_iter().chain(self.trained.values().map(part)).collect();
            Tensor::cat(&parts, 0)
        };
        let tensors = vec![
            ("weights", joined(|trained| trained.net.params.flat())),
            ("velocity", joined(|trained| trained.sgd.velocity.shallow_clone())),
        ];
        (state, tensors)
    }

    fn restore(
        &mut self,
        state: &SearchState,
        tensor: &mut dyn FnMut(&str) -> Option<Tensor>,
    ) -> Result<(), String> {
        self.step = state.step;
        self.judged = state.judged.iter().map(|judged| judged.over(self.setting.choices.dim)).collect();
        let judged = self.place().map_or_else(
            || self.rungs.iter().map(|rung| rung.cells).sum(),
            |place| self.rungs[..place.rung].iter().map(|rung| rung.cells).sum::<usize>() + place.nth,
        );
        if state.step > self.total() || state.judged.len() != judged {
            return Err(FOREIGN.to_owned());
        }
        let reached = self.place().map_or(self.rungs.len(), |place| place.rung + 1);
        for rung in 0..reached {
            let mut cells = self.judged_in(rung).iter().zip(self.cells_in(rung));
            if cells.any(|(judged, cell)| judged.cell != self.cells[cell].genotype) {
                return Err(FOREIGN.to_owned());
            }
        }
        self.trained = self
            .needed()
            .into_iter()
            .map(|cell| (cell, Trained::new(&self.cells[cell], self.setting.seed, cell)))
            .collect();
        let (_, joined) = self.save();
        checkpoint::copy_back(&joined, tensor)?;
        let [(_, weights), (_, velocities)] = joined.as_slice() else {
            unreachable!("there are two tensors");
        };
        let mut at = 0;
        for trained in self.trained.values_mut() {
            let len = trained.net.params.len() as i64;
            trained.net.params.set_flat(&weights.narrow(0, at, len));
            trained.sgd.velocity = velocities.narrow(0, at, len).copy();
            at += len;
        }
        Ok(())
    }
}

/// A random cell as the network that is trained: as wide against the derived one as anything that is searched with.
fn draw(setting: &Setting<'_>, number: usize) -> Architecture {
    let space = setting.space();
    let skips = skips_max(&space);
    let mut rng = seeds::stream(setting.seed, Purpose::Cells, number as u64);
    let mut cells = std::iter::repeat_with(|| space.draw(&mut rng)).take(DRAWS_MAX);
    let fitting = |cell: Genotype| setting.wide(cell).fit(setting.board).ok();
    let wide = cells.by_ref().filter(|cell| cell.skips() <= skips).find_map(fitting);
    // Where nothing fits, whatever is found will be refused, with the reason.
    let wide = wide.unwrap_or_else(|| setting.heaviest());
    Architecture { channels: wide.channels.div_ceil(WIDTH_FACTOR), ..wide }
}

/// About how many bytes one step takes, with all networks that may be kept.
pub(super) fn bytes(setting: &Setting<'_>, batch: u64) -> u64 {
    /// Weights and their velocity.
    const COPIES: u64 = 2;
    let narrow = Architecture { channels: setting.budget.channels as usize, ..setting.heaviest() };
    let kept = CELLS_MAX as u64 * COPIES * size_of::<f32>() as u64 * narrow.weights();
    supernet::training_bytes(&narrow, batch) + kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_search_gives_each_cell_as_many_steps_and_no_more_than_there_are() {
        assert_eq!(one(156), [Rung { cells: 9, steps: 17 }]);
        assert_eq!(one(3), [Rung { cells: 2, steps: 1 }]);
        assert_eq!(one(100_000), [Rung { cells: 16, steps: 6250 }]);
    }

    #[test]
    fn each_round_has_half_the_cells_and_as_many_steps() {
        let rung = |cells, steps| Rung { cells, steps };
        assert_eq!(halved(156), [rung(8, 6), rung(4, 13), rung(2, 26)]);
        assert_eq!(halved(3), [rung(2, 1)]);
        assert_eq!(halved(6400), [rung(16, 100), rung(8, 200), rung(4, 400), rung(2, 800)]);
    }
}
