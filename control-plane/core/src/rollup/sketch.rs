//! A distribution in little room: counts in buckets whose bounds grow by a constant factor (DDSketch, Masson et al. 2019,
//! section 2). A quantile is off by at most [`ERROR`] of itself, and two sketches merge by adding their counts.

use std::collections::BTreeMap;

/// Each bucket ends at so many times its beginning.
const GROWTH: f64 = 1.1;
/// What a quantile may be off, as a share of it.
pub const ERROR: f64 = (GROWTH - 1.0) / (GROWTH + 1.0);
/// Values below it are taken as nothing.
const SMALLEST: f64 = 1e-6;

/// Counts by bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sketch {
    /// Values that are nothing, or less.
    pub(super) none: u64,
    pub(super) buckets: BTreeMap<i16, u64>,
}

impl Sketch {
    /// Adds a value.
    pub fn add(&mut self, value: f64) {
        if value < SMALLEST {
            self.none = self.none.saturating_add(1);
            return;
        }
        let bucket = libm::ceil(libm::log(value) / libm::log(GROWTH));
        let count = self.buckets.entry(bucket as i16).or_default();
        *count = count.saturating_add(1);
    }

    /// Adds what another has counted.
    pub fn merge(&mut self, other: &Self) {
        self.none = self.none.saturating_add(other.none);
        for (bucket, more) in &other.buckets {
            let count = self.buckets.entry(*bucket).or_default();
            *count = count.saturating_add(*more);
        }
    }

    /// The value that a share of all are at or below; none of none.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let total = self.buckets.values().fold(self.none, |sum, count| sum.saturating_add(*count));
        if total == 0 {
            return None;
        }
        let rank = (share * (total - 1) as f64).round() as u64;
        let mut seen = self.none;
        if rank < seen {
            return Some(0.0);
        }
        for (bucket, count) in &self.buckets {
            seen = seen.saturating_add(*count);
            if rank < seen {
                return Some(2.0 * libm::pow(GROWTH, f64::from(*bucket)) / (GROWTH + 1.0));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_has_no_quantile_and_what_is_nothing_is_nothing() {
        let mut sketch = Sketch::default();
        assert_eq!(sketch.quantile(0.5), None);
        sketch.add(0.0);
        sketch.add(-3.0);
        assert_eq!(sketch.quantile(0.99), Some(0.0));
    }

    proptest! {
        #[test]
        fn a_quantile_is_off_by_no_more_than_it_says(
            mut values in prop::collection::vec(1.0f64..1e9, 1..200),
            share in 0.0f64..=1.0,
        ) {
            let mut sketch = Sketch::default();
            for value in &values {
                sketch.add(*value);
            }
            values.sort_by(f64::total_cmp);
            let exact = values[(share * (values.len() - 1) as f64).round() as usize];
            let found = sketch.quantile(share).unwrap();
            prop_assert!((found - exact).abs() <= exact * (ERROR + 1e-9), "{found} for {exact}");
        }
    }
}
