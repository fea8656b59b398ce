//! Ways to find the cell of a network, behind one trait. For one budget all of them take equally many weight steps.
//!
//! All learn on one half of the training data and choose by the other. What still separates what they find from the
//! network that is trained afterwards: its width, by [`WIDTH_FACTOR`] at most, weights that begin anew, and BatchNorm's
//! running statistics.

mod bilevel;
mod evolution;
mod feed;
mod front;
mod guard;
mod gumbel;
mod judge;
pub mod path;
mod proxy;
mod relaxed;
mod rounds;
mod schedule;
mod second_order;

pub use front::{Point, front, points};
pub use gumbel::noise;
pub use judge::Judged;
pub use relaxed::{Form, Mix, Relaxed};

use crate::{
    answer::Answer,
    batch::Samples,
    genotype::{Architecture, Genotype, Layout, Operation, Skeleton},
    supernet::{self, Space},
};
use bilevel::Bilevel;
use evolution::Evolution;
use rounds::Rounds;
use serde::{Deserialize, Serialize};
use shared::{
    board::Board,
    job::{Budget, SearchMethod},
    space::SearchSpace,
};
use std::fmt;
use tch::Tensor;

/// How much wider the derived network is than what is searched with, where the board allows it.
pub const WIDTH_FACTOR: usize = 2;

/// What a search is for and what it may take.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    pub samples: &'a Samples,
    /// Shape of a sample, `[C, L]` or `[C, H, W]`.
    pub input: &'a [usize],
    pub classes: usize,
    pub budget: &'a Budget,
    /// The network that is derived shall fit it.
    pub board: &'a Board,
    /// What may be found; made for samples of this number of axes.
    pub choices: &'a SearchSpace,
    pub seed: u64,
}

impl Setting<'_> {
    /// What a network is around its cells.
    fn layout(&self) -> Layout {
        layout(self.choices, self.samples.answer(), self.input, self.budget.cells as usize)
    }

    /// What is searched with: as wide as the budget says.
    pub fn skeleton(&self) -> Skeleton {
        let [channels, nodes] = [self.budget.channels, self.budget.nodes].map(|count| count as usize);
        let answer = self.samples.answer();
        Skeleton::laid_out(answer, self.input, self.classes, channels, nodes, &self.layout())
    }

    /// The cells that can be found.
    pub fn space(&self) -> Space {
        let SearchSpace { cell, operations, dim, .. } = self.choices;
        let reads = cell.reads.map_or(usize::MAX, |reads| reads as usize);
        let operations = operations.iter().map(|operation| operation.over(*dim)).collect();
        Space::new(self.budget.nodes as usize, reads, cell.fan_in as usize, operations)
    }

    /// Samples in one step.
    pub fn batch(&self) -> usize {
        (self.budget.search_batch as usize).min(self.samples.len())
    }

    /// The network of a cell, [`WIDTH_FACTOR`] times as wide as what is searched with.
    fn wide(&self, genotype: Genotype) -> Architecture {
        Architecture {
            dim: self.choices.dim,
            input: self.input.to_vec(),
            classes: self.classes,
            channels: self.budget.channels as usize * WIDTH_FACTOR,
            cells: self.budget.cells as usize,
            answer: self.samples.answer(),
            genotype,
            layout: Some(self.layout()),
        }
    }

    /// The network of the cell that costs most.
    fn heaviest(&self) -> Architecture {
        self.wide(self.space().heaviest(self.choices.dim))
    }
}

fn layout(space: &SearchSpace, answer: Answer, input: &[usize], cells: usize) -> Layout {
    let usual = Layout::usual(answer, input, cells);
    let network = &space.network;
    Layout {
        stem_kernel: network.stem_kernel.map_or(usual.stem_kernel, |taps| taps as usize),
        stem_stride: network.stem_stride.map_or(usual.stem_stride, |stride| stride as usize),
        stages: if network.stages.is_empty() { usual.stages } else { network.stages.clone() },
    }
}

/// What may be found in samples of shape `input` for `answer`: what is `asked` for, or what is usual, without operations
/// that the answer does not allow.
///
/// # Errors
/// A sentence, if it is for samples of another number of axes, has stages that the answer does not allow, or nothing but
/// such operations.
pub fn choices(asked: Option<&SearchSpace>, answer: Answer, input: &[usize]) -> Result<SearchSpace, String> {
    let mut space = match asked {
        Some(space) => space.clone(),
        None => SearchSpace::usual_for(input),
    };
    space.check_samples(input)?;
    let told = |message: &str| Err(format!("the space {:?} {message}", space.name));
    if let Err(message) = layout(&space, answer, input, 1).check_keeps_positions(answer) {
        return told(&format!("does not fit this task: {message}"));
    }
    let does = |one: &Operation| answer.allows(*one) && ![Operation::SKIP, Operation::ZERO].contains(one);
    if !space.operations.iter().any(does) {
        return told("has only operations that see what comes later: a network that writes needs others");
    }
    space.operations.retain(|operation| answer.allows(*operation));
    Ok(space)
}

/// What a search's checkpoint says beside its tensors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SearchState {
    /// Steps done, warm-up included.
    pub step: u64,
    /// Steps of the architecture's optimiser.
    pub arch_steps: u64,
    /// The candidates that are left, one bit mask an edge; none where the method has no such candidates.
    pub masks: Vec<u32>,
    /// Architecture steps at which skip connections had taken over and were set back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repairs: Vec<u64>,
    /// The cells that were judged one by one, in that order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub judged: Vec<Judged>,
}

/// What one step saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOutcome {
    /// Cross entropy on the training half; where a step only judges a cell, on the validation half.
    pub loss: f64,
    /// Cross entropy on the validation half; `None` where the architecture does not move.
    pub validation_loss: Option<f64>,
    /// Whether both losses and the architecture's gradient are finite.
    pub finite: bool,
    /// Skip connections had taken over, and were set back.
    pub repaired: bool,
}

/// A search in progress. It repeats by its seed, and goes on from what [`Self::save`] gave as if it had not stopped.
pub trait Search: fmt::Debug {
    /// Steps done and steps in all.
    fn progress(&self) -> (u64, u64);

    /// The next step; not to be called after the last one.
    fn step(&mut self) -> StepOutcome;

    /// Share of right answers on samples of the validation half, 0 to 1, of what the search stands at; `None` while it
    /// stands at nothing.
    fn accuracy(&self) -> Option<f64>;

    /// The network of the cell that is the best so far, [`WIDTH_FACTOR`] times as wide as what is searched with.
    fn derive(&self) -> Architecture;

    /// How the architecture stands, `[edges, operations]`, the operations of each edge adding up to 1; `None` where the
    /// method has no architecture weights.
    fn shares(&self) -> Option<Vec<f32>> {
        None
    }

    /// Cells with how they did, for the front: at the end of the search those that it judged, or cells that it could have
    /// found, judged by what it has learned.
    fn judged(&self) -> Vec<Judged>;

    /// What a checkpoint needs.
    fn save(&self) -> (SearchState, Vec<(&'static str, Tensor)>);

    /// Goes on from a checkpoint; `tensor` gives its tensors by name.
    ///
    /// # Errors
    /// A sentence, if it is not one of this search.
    fn restore(
        &mut self,
        state: &SearchState,
        tensor: &mut dyn FnMut(&str) -> Option<Tensor>,
    ) -> Result<(), String>;
}

/// Begins a search.
///
/// # Errors
/// A sentence, if the networks of the setting cannot be laid out.
pub fn begin<'a>(method: SearchMethod, setting: Setting<'a>) -> Result<Box<dyn Search + 'a>, String> {
    let bilevel = |form| Ok(Box::new(Bilevel::new(form, setting)?) as Box<dyn Search + 'a>);
    match method {
        SearchMethod::Darts => bilevel(Form::FirstOrder),
        SearchMethod::DartsSecondOrder => bilevel(Form::SecondOrder),
        SearchMethod::Gdas => bilevel(Form::Gumbel),
        SearchMethod::PartialChannels => bilevel(Form::Partial),
        SearchMethod::Random => Ok(Box::new(Rounds::random(setting))),
        SearchMethod::SuccessiveHalving => Ok(Box::new(Rounds::halving(setting))),
        SearchMethod::Evolution => Ok(Box::new(Evolution::new(setting))),
        SearchMethod::Hypernetwork => Ok(Box::new(Evolution::generated(setting))),
    }
}

/// About how many bytes one step of a search takes.
pub fn bytes(method: SearchMethod, setting: &Setting<'_>) -> u64 {
    let (skeleton, space, batch) = (setting.skeleton(), setting.space(), setting.batch() as u64);
    let supernet = supernet::search_bytes(&skeleton, &space, batch);
    match method {
        SearchMethod::Darts
        | SearchMethod::Gdas
        | SearchMethod::PartialChannels
        | SearchMethod::Evolution => supernet,
        SearchMethod::Hypernetwork => supernet + supernet::generator_bytes(&skeleton, &space),
        SearchMethod::DartsSecondOrder => supernet + second_order::more_bytes(&skeleton, &space),
        SearchMethod::Random | SearchMethod::SuccessiveHalving => rounds::bytes(setting, batch),
    }
}

/// What [`Search::restore`] says of a state that it cannot have given.
const FOREIGN: &str = "the checkpoint is of another search";

#[cfg(test)]
mod tests;
