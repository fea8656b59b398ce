//! What a search learns from and what it is judged on: two halves of the training data.

use crate::{
    answer::Answer,
    batch::{Augment, Batches, Change, Order, Samples},
    genotype::Dim,
    seeds::{self, Purpose},
};
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

/// Samples of one forward pass that judges, and of a look at the accuracy.
const LOOK: usize = 256;
/// Most samples by which a cell is judged.
const JUDGED_MAX: usize = 1024;

/// Samples `[N, C, H, W]` and their labels, as [`Answer`] takes them.
pub(super) type Batch = (Tensor, Tensor);

/// The halves and the place in each. Batches are numbered, so that a resumed search goes on alike.
#[derive(Debug)]
pub(super) struct Feed<'a> {
    samples: &'a Samples,
    halves: [Vec<i64>; 2],
    batches: [Batches; 2],
    augment: Augment,
    seed: u64,
}

impl<'a> Feed<'a> {
    pub(super) fn new(samples: &'a Samples, dim: Dim, batch: usize, seed: u64) -> Self {
        let halves = halves(&samples.classes(), &mut seeds::stream(seed, Purpose::Split, 0));
        // The halves draw from streams of their own.
        let batches = [(seed, &halves[0]), (!seed, &halves[1])]
            .map(|(seed, half)| Batches::new(Order::new(seed, Purpose::SearchOrder, half.len(), batch)));
        // A running text that is cut elsewhere would reach into the other half.
        let augment = Augment { text: Change::Inside, ..Augment::for_dim(dim) };
        Self { samples, halves, batches, augment, seed }
    }

    /// A batch of the training half, augmented.
    pub(super) fn training(&mut self, number: u64) -> Batch {
        let chosen = self.chosen(0, number);
        let mut rng = seeds::stream(self.seed, Purpose::Augment, number);
        self.samples.augmented(&chosen, &self.augment, &mut rng)
    }

    /// A batch of the validation half.
    pub(super) fn validation(&mut self, number: u64) -> Batch {
        let chosen = self.chosen(1, number);
        self.samples.batch(&chosen)
    }

    fn chosen(&mut self, half: usize, number: u64) -> Vec<i64> {
        self.batches[half].get(number).iter().map(|at| self.halves[half][*at as usize]).collect()
    }

    /// What is to be answered to a sample.
    pub(super) fn answer(&self) -> Answer {
        self.samples.answer()
    }

    /// Up to 256 samples of the validation half, always the same.
    pub(super) fn look(&self) -> Batch {
        let half = &self.halves[1];
        self.samples.batch(&half[..half.len().min(LOOK)])
    }

    /// The part of the validation half that cells are judged on, always the same, in batches of one size.
    pub(super) fn judges(&self) -> impl Iterator<Item = Batch> + '_ {
        let half = &self.halves[1];
        let part = &half[..half.len().min(JUDGED_MAX)];
        part.chunks_exact(LOOK.min(part.len().max(1))).map(|chunk| self.samples.batch(chunk))
    }

    #[cfg(test)]
    pub(super) fn validation_half(&self) -> &[i64] {
        &self.halves[1]
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_halves_share_every_class_and_no_sample() {
        let classes: Vec<i64> = (0..101).map(|sample| if sample < 70 { 0 } else { 1 + sample % 3 }).collect();
        let draw = |step| halves(&classes, &mut seeds::stream(1, Purpose::Split, step));
        let [a, b] = draw(0);
        assert_eq!(draw(0), [a.clone(), b.clone()]);
        assert_ne!(draw(1)[0], a);
        let all: BTreeSet<i64> = a.iter().chain(&b).copied().collect();
        assert_eq!((all.len(), a.len() + b.len()), (classes.len(), classes.len()));
        for class in 0..4 {
            let count = |half: &[i64]| half.iter().filter(|at| classes[**at as usize] == class).count();
            assert!(count(&a).abs_diff(count(&b)) <= 1, "class {class}: {} and {}", count(&a), count(&b));
        }
        // The first of a half are of all classes: the accuracy is measured on them.
        let first: BTreeSet<i64> = b.iter().take(20).map(|at| classes[*at as usize]).collect();
        assert!(first.len() > 1);
        assert_eq!(halves(&[0], &mut seeds::stream(1, Purpose::Split, 0)), [[0], [0]]);
    }
}
