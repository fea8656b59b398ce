//! A histogram of durations in microseconds with a fixed size and about 3 % of error.

/// Steps in each power of two.
const STEPS: u64 = 32;
const STEP_BITS: u32 = STEPS.ilog2();
/// Values of 2^36 µs (19 hours) and more share the last bucket.
const BITS_MAX: u32 = 36;
const BUCKETS: usize = (((BITS_MAX - STEP_BITS) as u64 + 1) * STEPS) as usize;

/// Counts of durations in microseconds, in buckets that grow with the value.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    buckets: Vec<u32>,
    count: u64,
    sum_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Histogram({} values, p99 {:?} us)", self.count, self.quantile_us(0.99))
    }
}

impl Histogram {
    /// An empty one.
    pub fn new() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, sum_us: 0 }
    }

    /// Counts one duration.
    pub fn record(&mut self, value_us: u64) {
        let bucket = &mut self.buckets[index(value_us)];
        *bucket = bucket.saturating_add(1);
        self.count = self.count.saturating_add(1);
        self.sum_us = self.sum_us.saturating_add(value_us);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The sum of all in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// The upper end of the bucket that holds quantile `q` (0 to 1); `None` without a value.
    pub fn quantile_us(&self, q: f64) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        let rank = ((self.count as f64 * q).ceil() as u64).clamp(1, self.count);
        let mut seen = 0;
        for (at, &count) in self.buckets.iter().enumerate() {
            seen += u64::from(count);
            if seen >= rank {
                return Some(upper_us(at));
            }
        }
        Some(upper_us(BUCKETS - 1))
    }

    /// How many are at most `bound_us`, to the bucket.
    pub fn count_at_most(&self, bound_us: u64) -> u64 {
        self.buckets[..=index(bound_us)].iter().map(|&count| u64::from(count)).sum()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.buckets.fill(0);
        self.count = 0;
        self.sum_us = 0;
    }
}

fn index(value_us: u64) -> usize {
    if value_us < STEPS {
        return value_us as usize;
    }
    let bits = value_us.ilog2();
    if bits >= BITS_MAX {
        return BUCKETS - 1;
    }
    let shift = bits - STEP_BITS;
    let step = (value_us >> shift) - STEPS;
    (u64::from(shift + 1) * STEPS + step) as usize
}

fn upper_us(index: usize) -> u64 {
    let index = index as u64;
    if index < STEPS {
        return index;
    }
    let shift = index / STEPS - 1;
    ((STEPS + index % STEPS + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_counted_has_no_quantile() {
        assert_eq!(Histogram::new().quantile_us(0.5), None);
    }

    proptest! {
        #[test]
        fn quantiles_are_within_a_bucket_of_the_exact_ones(
            mut values in prop::collection::vec(0u64..2_000_000, 1..300),
            q in 0.0f64..1.0,
        ) {
            let mut histogram = Histogram::new();
            values.iter().for_each(|&value| histogram.record(value));
            values.sort_unstable();
            let rank = ((values.len() as f64 * q).ceil() as usize).clamp(1, values.len());
            let exact = values[rank - 1];
            let got = histogram.quantile_us(q).unwrap();
            prop_assert!(got >= exact && got <= exact + exact / STEPS + 1, "{got} for {exact}");
        }

        #[test]
        fn every_value_has_a_bucket_that_holds_it(value: u64) {
            let at = index(value);
            prop_assert!(at < BUCKETS);
            prop_assert!(value <= upper_us(at) || value >= 1 << BITS_MAX);
        }
    }
}
