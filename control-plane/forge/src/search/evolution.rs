//! Evolution on shared or generated weights (Guo et al. 2020; Brock et al. 2018, "SMASH"): a supernet is trained along one
//! path at a time, each equally likely; then cells that fit the board are judged with its weights, first random ones, then
//! children of the best.

use super::{
    FOREIGN, Search, SearchState, Setting, StepOutcome,
    feed::Feed,
    guard::skips_max,
    judge::{Judged, best},
    path,
    schedule::Schedule,
};
use crate::{
    checkpoint,
    genotype::{Architecture, Genotype},
    network::load_on,
    optim::Sgd,
    seeds::{self, Purpose},
    supernet::{Candidates, Space, Supernet},
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

/// Most cells that are judged before there are children.
const POPULATION_MAX: usize = 24;
/// Of all cells that are judged, the share that is random.
const RANDOM_SHARE: usize = 4;
/// Cells that have children.
const PARENTS: usize = 6;
/// Children until one is new and fits the board.
const TRIES_MAX: usize = 32;

/// A search by evolution in progress.
#[derive(Debug)]
pub(super) struct Evolution<'a> {
    setting: Setting<'a>,
    feed: Feed<'a>,
    net: Supernet,
    sgd: Sgd,
    /// A path weighs 1.
    ones: Tensor,
    judged: Vec<Judged>,
    step: u64,
    /// Steps that train the supernet.
    training: u64,
    /// Cells that are judged after it, one a step.
    judgements: usize,
}

impl<'a> Evolution<'a> {
    /// On weights that all cells share.
    pub(super) fn new(setting: Setting<'a>) -> Self {
        let mut rng = seeds::stream(setting.seed, Purpose::SupernetWeights, 0);
        Self::on(Supernet::new(setting.skeleton(), setting.space(), &mut rng), setting)
    }

    /// On kernels that are generated.
    pub(super) fn generated(setting: Setting<'a>) -> Self {
        let mut rng = seeds::stream(setting.seed, Purpose::SupernetWeights, 0);
        let generated = &setting.choices.hypernetwork;
        Self::on(Supernet::generated(setting.skeleton(), setting.space(), generated, &mut rng), setting)
    }

    fn on(net: Supernet, setting: Setting<'a>) -> Self {
        let feed = Feed::new(setting.samples, setting.skeleton().dim, setting.batch(), setting.seed);
        let schedule = Schedule::new(setting.budget.search_steps);
        Self {
            setting,
            feed,
            sgd: Sgd::new(net.params.len(), 0.9, 3e-4),
            ones: path::ones(net.space()),
            net,
            judged: Vec::new(),
            step: 0,
            training: schedule.total,
            // As many as the other methods take architecture steps.
            judgements: schedule.arch as usize,
        }
    }

    /// One weight step along a random path; its loss.
    fn train(&mut self) -> f64 {
        let batch = self.feed.training(self.step);
        let mut rng = seeds::stream(self.setting.seed, Purpose::Path, self.step);
        let drawn = path::draw(self.net.space(), &mut rng);
        let rate = Schedule::rate(self.step, self.training);
        path::step(&self.net, &mut self.sgd, &batch, &self.ones, &drawn, rate)
    }

    /// Judges the next cell; its loss.
    fn judge(&mut self) -> f64 {
        let cell = self.next_cell();
        let path = Candidates::only(&cell, self.net.space());
        let judged = Judged::new(cell, &self.feed, |x| self.net.forward(x, &self.ones, &path));
        let loss = f64::from(judged.loss);
        self.judged.push(judged);
        loss
    }

    /// A cell that was not judged yet and whose network fits the board in its full width; the lightest of those that
    /// were tried, where none does.
    fn next_cell(&self) -> Genotype {
        let mut rng = seeds::stream(self.setting.seed, Purpose::Evolution, self.judged.len() as u64);
        let skips = skips_max(self.net.space());
        let mut lightest: Option<(f64, Genotype)> = None;
        for _ in 0..TRIES_MAX {
            let cell = self.offer(&mut rng);
            if cell.skips() > skips || self.judged.iter().any(|judged| judged.cell == cell) {
                continue;
            }
            let load = load_on(&self.setting.wide(cell.clone()), self.setting.board).unwrap_or(f64::INFINITY);
            if load <= 1.0 {
                return cell;
            }
            if lightest.as_ref().is_none_or(|(least, _)| load < *least) {
                lightest = Some((load, cell));
            }
        }
        lightest.map_or_else(|| self.net.space().draw(&mut rng), |(_, cell)| cell)
    }

    fn offer(&self, rng: &mut ChaCha8Rng) -> Genotype {
        let random = (self.judgements / RANDOM_SHARE).clamp(1, POPULATION_MAX);
        if self.judged.len() < random {
            return self.net.space().draw(rng);
        }
        let mut ranked: Vec<&Judged> = self.judged.iter().collect();
        ranked.sort_by(|a, b| b.compare(a));
        let parents = &ranked[..ranked.len().min(PARENTS)];
        let [a, b] = [0, 1].map(|_| &parents[rng.random_range(0..parents.len())].cell);
        if rng.random() { cross(a, b, rng) } else { mutate(a, self.net.space(), rng) }
    }
}

/// Each node from either parent.
fn cross(a: &Genotype, b: &Genotype, rng: &mut ChaCha8Rng) -> Genotype {
    let pick = |(a, b): (&Vec<_>, &Vec<_>)| if rng.random() { a.clone() } else { b.clone() };
    Genotype { nodes: a.nodes.iter().zip(&b.nodes).map(pick).collect() }
}

/// `cell` with one node of a random one, or with another operation on one edge.
fn mutate(cell: &Genotype, space: &Space, rng: &mut ChaCha8Rng) -> Genotype {
    let fresh = space.draw(rng);
    let mut cell = cell.clone();
    let node = rng.random_range(0..cell.nodes.len());
    if rng.random() {
        cell.nodes[node].clone_from(&fresh.nodes[node]);
    } else {
        let edge = rng.random_range(0..cell.nodes[node].len());
        cell.nodes[node][edge].op = space.draw_operation(rng);
    }
    cell
}

impl Search for Evolution<'_> {
    fn progress(&self) -> (u64, u64) {
        (self.step, self.training + self.judgements as u64)
    }

    /// One weight step, or one cell that is judged.
    fn step(&mut self) -> StepOutcome {
        let loss = if self.step < self.training { self.train() } else { self.judge() };
        self.step += 1;
        StepOutcome { loss, validation_loss: None, finite: loss.is_finite(), repaired: false }
    }

    fn accuracy(&self) -> Option<f64> {
        best(&self.judged).map(Judged::accuracy)
    }

    fn derive(&self) -> Architecture {
        let found = best(&self.judged).map(|judged| judged.cell.clone());
        self.setting.wide(found.unwrap_or_else(|| self.next_cell()))
    }

    fn judged(&self) -> Vec<Judged> {
        self.judged.clone()
    }

    fn save(&self) -> (SearchState, Vec<(&'static str, Tensor)>) {
        let state = SearchState { step: self.step, judged: self.judged.clone(), ..SearchState::default() };
        let tensors =
            vec![("weights", self.net.params.flat()), ("velocity", self.sgd.velocity.shallow_clone())];
        (state, tensors)
    }

    fn restore(
        &mut self,
        state: &SearchState,
        tensor: &mut dyn FnMut(&str) -> Option<Tensor>,
    ) -> Result<(), String> {
        let judged = state.step.saturating_sub(self.training);
        let dim = self.setting.choices.dim;
        let known: Vec<Judged> = state.judged.iter().map(|judged| judged.over(dim)).collect();
        if state.judged.len() as u64 != judged
            || state.judged.len() > self.judgements
            || !known.iter().all(|judged| self.net.space().has(&judged.cell))
        {
            return Err(FOREIGN.to_owned());
        }
        checkpoint::copy_back(&self.save().1, tensor)?;
        self.judged = known;
        self.step = state.step;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_valid_and_resemble_their_parents() {
        let space = Space::all_earlier(4);
        let mut rng = seeds::stream(1, Purpose::Evolution, 0);
        for _ in 0..50 {
            let [a, b] = [0; 2].map(|_| space.draw(&mut rng));
            let child = cross(&a, &b, &mut rng);
            child.validate().unwrap();
            let from = |node: usize| child.nodes[node] == a.nodes[node] || child.nodes[node] == b.nodes[node];
            assert!((0..4).all(from));
            let mutant = mutate(&a, &space, &mut rng);
            mutant.validate().unwrap();
            assert!((0..4).filter(|node| mutant.nodes[*node] != a.nodes[*node]).count() <= 1);
        }
    }
}
