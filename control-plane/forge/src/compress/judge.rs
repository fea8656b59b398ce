//! Which samples a compression learns from and which it is judged by, and the judgement.

use super::{Error, Trainable};
use crate::{
    answer::Answer,
    batch::{Samples, picked},
    data::{Dataset, Split},
    finish,
    graph::Graph,
    seeds::{self, Purpose},
};
use runtime::{LoadOptions, Ort, Runtime};
use tch::Tensor;

/// One of so many training samples is held back.
const HELD_ONE_OF: usize = 5;
/// Most samples that are held back.
const HELD_MAX: usize = 2000;
/// Samples of one pass.
const BATCH: usize = 500;

/// The training split in two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// What a compression learns from.
    pub used: Vec<i64>,
    /// What it is judged by.
    pub held: Vec<i64>,
}

impl Parts {
    /// Of `count` samples; the same for one seed.
    pub fn of(count: usize, seed: u64) -> Self {
        let mut used: Vec<i64> = (0..count as i64).collect();
        seeds::shuffle(&mut used, &mut seeds::stream(seed, Purpose::HeldBack, 0));
        let held = used.split_off(count - (count / HELD_ONE_OF).clamp(count.min(1), HELD_MAX));
        if used.is_empty() {
            used.clone_from(&held);
        }
        Self { used, held }
    }
}

/// Says how many of the samples held back a form of the network answers right.
#[derive(Debug)]
pub struct Judge<'a> {
    samples: &'a Samples,
    held: Vec<i64>,
    split: Split,
    classes: usize,
    ort: &'a Ort,
}

impl<'a> Judge<'a> {
    /// Over the training samples of `set` at `parts.held`; `samples` are the same.
    pub fn new(set: &Dataset, samples: &'a Samples, parts: &Parts, ort: &'a Ort) -> Self {
        let held = parts.held.iter().filter_map(|index| usize::try_from(*index).ok());
        let split = picked(&set.train, &set.schema.shape, held);
        Self { samples, held: parts.held.clone(), split, classes: set.schema.labels.len(), ort }
    }

    /// Share of right answers of a network as it is, 0 to 1.
    pub fn of_graph(&self, graph: &Graph) -> f64 {
        let net = Trainable::new(graph);
        let mut right = 0;
        for indices in self.held.chunks(BATCH) {
            let (x, labels) = self.samples.batch(indices);
            let found = net.probabilities(&x).argmax(1, false);
            right += found.eq_tensor(&labels).sum(tch::Kind::Int64).int64_value(&[]);
        }
        right as f64 / self.held.len().max(1) as f64
    }

    /// Share of right answers of a file on ONNX Runtime, 0 to 1.
    ///
    /// # Errors
    /// ONNX Runtime does not run it.
    pub fn of_model(&self, model: &[u8]) -> Result<f64, Error> {
        let model = self.ort.load(model, &LoadOptions::default())?;
        Ok(finish::accuracy(model.as_ref(), &self.split, self.classes)?)
    }

    /// How many samples judge.
    pub fn count(&self) -> usize {
        self.held.len()
    }
}

/// The labels' mean loss, by the weights of the classes where there are some, and the logits behind it.
pub(super) fn hard_loss(
    net: &Trainable,
    x: &Tensor,
    labels: &Tensor,
    smoothing: f64,
    weights: Option<&Tensor>,
) -> (Tensor, Tensor) {
    let logits = net.logits(x);
    (Answer::Class.weighted_loss(&logits, labels, smoothing, weights), logits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_judges_is_not_learned_from_and_one_sample_alone_does_both() {
        let parts = Parts::of(103, 4);
        assert_eq!((parts.used.len(), parts.held.len()), (83, 20));
        let mut all = [parts.used.clone(), parts.held.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..103).collect::<Vec<i64>>());
        assert_eq!(Parts::of(103, 4), parts);
        assert_ne!(Parts::of(103, 5), parts);
        assert_eq!(Parts::of(50_000, 1).held.len(), 2000);
        let one = Parts::of(1, 1);
        assert_eq!((one.used, one.held), (vec![0], vec![0]));
    }
}
