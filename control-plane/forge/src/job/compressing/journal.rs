//! What a compression has done so far: enough to go on from any point, and no more.

use super::{Error, lacking, values};
use crate::{
    checkpoint::Named,
    compress::{Outline, sequence::Trial},
    graph::Graph,
};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// What a checkpoint says beside its tensors.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in super::super) struct CompressState {
    /// Steps of all trainings so far.
    pub(super) steps: u64,
    /// Of the sequences that were tried, in their order; `None` where one changes nothing.
    pub(super) trials: Vec<Option<Trial>>,
    /// Sequences that were run in full for nothing, and why.
    refused: Vec<(usize, String)>,
    /// Graphs that are still needed, by what made them. Their numbers are tensors of the checkpoint.
    kept: Vec<(String, Outline)>,
    /// The training or rounding under way: what it is, the graph that it began with, and how far it is.
    under_way: Option<(String, Outline, u64)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Journal {
    pub(super) state: CompressState,
    graphs: Vec<(String, Graph)>,
    /// Of the training under way, where one is gone on with.
    resumed: Option<(String, Graph, u64)>,
    saved: Named,
    /// The uncompressed network.
    pub(super) base: Vec<(String, Tensor)>,
    start: Option<Tensor>,
}

const START: &str = "start";

impl Journal {
    /// From a checkpoint.
    pub(super) fn restore(state: CompressState, saved: &Named) -> Result<Self, Error> {
        let damaged = |error: crate::graph::Error| lacking(&format!("a network ({error})"));
        let mut graphs = Vec::new();
        for (key, outline) in &state.kept {
            let graph = outline.clone().with(values(saved, &kept(key))?).map_err(damaged)?;
            graphs.push((key.clone(), graph));
        }
        let resumed = match &state.under_way {
            Some((key, outline, step)) => {
                let graph = outline.clone().with(values(saved, START)?).map_err(damaged)?;
                Some((key.clone(), graph, *step))
            }
            None => None,
        };
        Ok(Self { state, graphs, resumed, saved: saved.clone(), ..Self::default() })
    }

    /// What this step or rounding gave, if it is done.
    pub(super) fn graph(&self, key: &str) -> Option<&Graph> {
        self.graphs.iter().find(|(known, _)| known == key).map(|(_, graph)| graph)
    }

    /// The graph that this training began with, if the checkpoint is of it.
    pub(super) fn started(&self, key: &str) -> Option<&Graph> {
        self.resumed.as_ref().filter(|(known, ..)| known == key).map(|(_, graph, _)| graph)
    }

    /// Hands the step and the tensors of the checkpoint over, if it is of this training; gives that step.
    pub(super) fn resume(
        &mut self,
        key: &str,
        restore: impl FnOnce(u64, &mut dyn FnMut(&str) -> Option<Tensor>) -> Result<(), String>,
    ) -> Result<Option<u64>, Error> {
        let Some((_, _, step)) = self.resumed.take_if(|(known, ..)| known == key) else { return Ok(None) };
        let saved = std::mem::take(&mut self.saved);
        restore(step, &mut |name| super::super::tensor(&saved, name)).map_err(Error::Input)?;
        Ok(Some(step))
    }

    /// How far a rounding is, if the checkpoint is of it, and its graph.
    pub(super) fn resume_rounding(&mut self, key: &str) -> Option<(Graph, u64)> {
        let (_, graph, step) = self.resumed.take_if(|(known, ..)| known == key)?;
        Some((graph, step))
    }

    /// Notes a training or rounding under way.
    pub(super) fn under_way(&mut self, key: &str, graph: &Graph, step: u64) {
        let (outline, numbers) = Outline::of(graph);
        self.start = Some(Tensor::from_slice(&numbers));
        self.state.under_way = Some((key.to_owned(), outline, step));
    }

    /// Notes what a step gave.
    pub(super) fn keep(&mut self, key: &str, graph: Graph) {
        self.end_under_way();
        self.state.kept.push((key.to_owned(), Outline::of(&graph).0));
        self.graphs.push((key.to_owned(), graph));
    }

    /// Notes what a trial showed; its graphs are not needed any more.
    pub(super) fn trial_done(&mut self, trial: Option<Trial>) {
        self.state.trials.push(trial);
        self.drop_graphs();
    }

    /// Notes that a sequence was run in full for nothing; its graphs are not needed any more.
    pub(super) fn refuse(&mut self, sequence: usize, why: String) {
        self.state.refused.push((sequence, why));
        self.drop_graphs();
    }

    /// Why a sequence that was run in full was not taken.
    pub(super) fn refused(&self, sequence: usize) -> Option<&str> {
        self.state.refused.iter().find(|(of, _)| *of == sequence).map(|(_, why)| why.as_str())
    }

    fn drop_graphs(&mut self) {
        self.end_under_way();
        self.state.kept.clear();
        self.graphs.clear();
    }

    fn end_under_way(&mut self) {
        (self.state.under_way, self.start) = (None, None);
    }

    /// The tensors of a checkpoint, but for those of a training under way.
    pub(super) fn tensors(&self) -> Vec<(String, Tensor)> {
        let mut tensors: Vec<(String, Tensor)> =
            self.base.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        let numbers = |graph: &Graph| Tensor::from_slice(&Outline::of(graph).1);
        tensors.extend(self.graphs.iter().map(|(key, graph)| (kept(key), numbers(graph))));
        tensors.extend(self.start.iter().map(|start| (START.to_owned(), start.shallow_clone())));
        tensors
    }
}

fn kept(key: &str) -> String {
    format!("kept {key}")
}
