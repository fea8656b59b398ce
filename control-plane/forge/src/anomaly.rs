//! Learning what is normal from normal samples alone: anomalies are made of them, so that finding anomalies is a
//! classification of two classes, and everything that makes a classifier makes a detector (CutPaste: Li et al. 2021;
//! negative sampling of tables: Sipple 2020).

mod make;

pub use make::Maker;

use crate::{
    batch::picked,
    data::Split,
    seeds::{self, Purpose},
};

/// One of so many normal samples is held back from training, to draw the line by.
const HELD_ONE_OF: usize = 5;
/// Most and fewest of these.
const HELD_MAX: usize = 2000;
const HELD_MIN: usize = 10;

/// Label of a normal sample and of an anomaly.
pub const NORMAL: i64 = 0;
pub const ANOMALY: i64 = 1;

/// Takes normal samples out of `train`, drawn by `seed`, and gives them.
pub fn hold_back(train: &mut Split, shape: &[usize], seed: u64) -> Split {
    let count = train.len();
    let mut order: Vec<usize> = (0..count).collect();
    seeds::shuffle(&mut order, &mut seeds::stream(seed, Purpose::NormalHeldBack, 0));
    let held = (count / HELD_ONE_OF).clamp(HELD_MIN, HELD_MAX).min(count);
    let mut held = order.split_off(count - held);
    held.sort_unstable();
    order.sort_unstable();
    let taken = picked(train, shape, held);
    *train = picked(train, shape, order);
    taken
}

/// The normal samples of `normal`, and behind them an anomaly made of each, in the same order; the same for one seed and
/// `part`.
pub fn with_made(normal: &Split, shape: &[usize], seed: u64, part: u64) -> Split {
    let mut split = picked(normal, shape, 0..normal.len());
    let each: usize = shape.iter().product();
    let pool = split.samples.clone();
    let maker = Maker::new(shape, &pool);
    let mut made = pool.clone();
    let mut rng = seeds::stream(seed, Purpose::Anomalies, part);
    made.chunks_exact_mut(each.max(1)).for_each(|sample| maker.make(sample, &pool, &mut rng));
    split.samples.append(&mut made);
    split.labels =
        [NORMAL, ANOMALY].into_iter().flat_map(|label| std::iter::repeat_n(label, normal.len())).collect();
    split
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(count: usize, each: usize) -> Split {
        let samples = (0..count * each).map(|at| ((at * at) as f32 * 0.37).sin()).collect();
        Split { samples, labels: vec![NORMAL; count], ..Split::default() }
    }

    #[test]
    fn what_is_held_back_is_not_trained_on() {
        let all = normal(103, 2);
        let mut train = all.clone();
        let held = hold_back(&mut train, &[2, 1], 4);
        assert_eq!((train.len(), held.len()), (83, 20));
        let rows = |split: &Split| {
            split.samples.chunks(2).map(|row| [row[0].to_bits(), row[1].to_bits()]).collect::<Vec<_>>()
        };
        let mut found = [rows(&train), rows(&held)].concat();
        let mut known = rows(&all);
        found.sort_unstable();
        known.sort_unstable();
        assert_eq!(found, known);
        let mut again = all.clone();
        assert_eq!(hold_back(&mut again, &[2, 1], 4), held);
        let mut few = normal(12, 2);
        assert_eq!((hold_back(&mut few, &[2, 1], 4).len(), few.len()), (10, 2));
    }

    #[test]
    fn an_anomaly_is_made_of_each_normal_sample_and_the_seed_repeats() {
        for shape in [vec![6, 1], vec![2, 16], vec![1, 8, 8]] {
            let each: usize = shape.iter().product();
            let all = normal(60, each);
            let made = with_made(&all, &shape, 3, 0);
            assert_eq!((made.len(), made.labels.iter().sum::<i64>()), (120, 60));
            assert_eq!(made.samples[..60 * each], all.samples);
            for (anomaly, normal) in made.samples[60 * each..].chunks(each).zip(all.samples.chunks(each)) {
                assert!(anomaly.iter().all(|value| value.is_finite()));
                assert_ne!(anomaly, normal);
            }
            assert_eq!(with_made(&all, &shape, 3, 0), made);
            assert_ne!(with_made(&all, &shape, 4, 0), made);
            assert_ne!(with_made(&all, &shape, 3, 1), made);
        }
    }
}
