//! Classes of which some are rare, and what their samples then count for.

/// How many times as frequent as the rarest class the commonest may be before samples are weighed.
pub const IMBALANCE_MAX: u64 = 4;
/// With weights no class counts for less than this share of the commonest.
const SHARE_MIN: f32 = 0.5;
/// Largest weight: a few samples of a class alone cannot stand for it.
const WEIGHT_MAX: f32 = 20.0;

/// Samples of each of `classes`.
pub fn counts(labels: &[i64], classes: usize) -> Vec<u64> {
    let mut counts = vec![0; classes];
    for label in labels {
        if let Some(count) = usize::try_from(*label).ok().and_then(|class| counts.get_mut(class)) {
            *count += 1;
        }
    }
    counts
}

/// What a sample of each class counts for in training, 1 or more; `None` where no class is more than [`IMBALANCE_MAX`] times
/// as frequent as another that has samples at all.
pub fn weights(labels: &[i64], classes: usize) -> Option<Vec<f32>> {
    let counts = counts(labels, classes);
    let most = counts.iter().copied().max()?;
    let least = counts.iter().copied().filter(|count| *count > 0).min()?;
    let weight = |count: &u64| match count {
        0 => 1.0,
        count => (SHARE_MIN * most as f32 / *count as f32).clamp(1.0, WEIGHT_MAX),
    };
    (most > least.saturating_mul(IMBALANCE_MAX)).then(|| counts.iter().map(weight).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_weighed_beyond_a_stated_imbalance_and_no_further_than_half_of_the_commonest() {
        let labels = |counts: &[usize]| -> Vec<i64> {
            (0..).zip(counts).flat_map(|(class, count)| vec![class; *count]).collect()
        };
        assert_eq!(weights(&labels(&[40, 10]), 2), None);
        assert_eq!(weights(&labels(&[41, 10, 30]), 3), Some(vec![1.0, 2.05, 1.0]));
        assert_eq!(weights(&labels(&[4000, 1, 0]), 3), Some(vec![1.0, WEIGHT_MAX, 1.0]));
        assert_eq!((weights(&[], 2), counts(&[0, 1, 1, 7, -100], 2)), (None, vec![1, 2]));
    }
}
