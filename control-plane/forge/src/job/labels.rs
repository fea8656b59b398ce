//! A training split of which only a share has labels.

use crate::{
    data::Split,
    seeds::{self, Purpose},
};
use std::collections::BTreeMap;

/// The samples that keep their labels: `percent` of each class, at least one, drawn by `seed`; in the order of the split. Not
/// for text.
pub(super) fn part(train: &Split, percent: u32, seed: u64) -> Split {
    let mut classes: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (sample, label) in train.labels.iter().enumerate() {
        classes.entry(*label).or_default().push(sample);
    }
    let mut rng = seeds::stream(seed, Purpose::Labelled, 0);
    let mut kept: Vec<usize> = Vec::new();
    for samples in classes.values_mut() {
        seeds::shuffle(samples, &mut rng);
        let count = (samples.len() as u64 * u64::from(percent)).div_ceil(100).max(1);
        kept.extend(samples.iter().take(usize::try_from(count).unwrap_or(usize::MAX)));
    }
    kept.sort_unstable();
    train.part(&kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_keeps_its_share_and_a_rare_one_at_least_one_sample() {
        let labels: Vec<i64> =
            (0..210).map(|sample| i64::from(sample >= 200) + i64::from(sample == 209)).collect();
        let samples = (0..420).map(|value| value as f32).collect();
        let train = Split { samples, labels, ..Split::default() };
        let found = part(&train, 10, 1);
        let count = |class: i64| found.labels.iter().filter(|label| **label == class).count();
        assert_eq!((count(0), count(1), count(2)), (20, 1, 1));
        for (pair, label) in found.samples.chunks(2).zip(&found.labels) {
            let sample = (pair[0] / 2.0) as usize;
            assert_eq!((pair[1], *label), (pair[0] + 1.0, train.labels[sample]));
        }
        assert_eq!(part(&train, 10, 1), found);
        assert_ne!(part(&train, 10, 2), found);
        assert_eq!(part(&train, 100, 1), train);
    }
}
