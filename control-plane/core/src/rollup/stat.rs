//! Statistics that merge, and their form in the store.

use super::{Measure, Sketch};
use shared::Timestamp;
use std::collections::BTreeMap;

/// Values are whole numbers of these parts of one, so that sums do not depend on their order.
const PARTS: f64 = 1e6;
const PARTS_WHOLE: i64 = 1_000_000;
/// Larger values are taken as this.
const VALUE_MAX: f64 = 1e12;
const WHOLE_MAX: u64 = 1_000_000_000_000;
/// The form of the bytes.
const FORM: u8 = 1;
/// Most buckets of a sketch that are read: more than there can be.
const BUCKETS_MAX: u64 = 1024;

/// What is known of many values of one measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    count: u64,
    sum: i128,
    min: i64,
    max: i64,
    /// The last in time, and when that was.
    last: i64,
    last_at: Timestamp,
    /// Of a gauge.
    sketch: Option<Sketch>,
}

/// A statistic for each measure of one roll-up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats(BTreeMap<Measure, Stat>);

/// Bytes that are no statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("statistics end early, or are of another form")]
pub struct Damaged;

fn whole(parts: i64) -> f64 {
    parts as f64 / PARTS
}

impl Stat {
    fn of(parts: i64, at: Timestamp, gauge: bool) -> Self {
        let sketch = gauge.then(|| {
            let mut sketch = Sketch::default();
            sketch.add(whole(parts));
            sketch
        });
        Self { count: 1, sum: i128::from(parts), min: parts, max: parts, last: parts, last_at: at, sketch }
    }

    /// Adds what another knows.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        // Of two at one time the larger: the order in which they come must not matter.
        (self.last_at, self.last) = (self.last_at, self.last).max((other.last_at, other.last));
        match (&mut self.sketch, &other.sketch) {
            (Some(sketch), Some(other)) => sketch.merge(other),
            (sketch @ None, Some(other)) => *sketch = Some(other.clone()),
            (_, None) => {}
        }
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn sum(&self) -> f64 {
        self.sum as f64 / PARTS
    }

    pub fn min(&self) -> f64 {
        whole(self.min)
    }

    pub fn max(&self) -> f64 {
        whole(self.max)
    }

    pub fn last(&self) -> f64 {
        whole(self.last)
    }

    /// Of a gauge, the value that a share of all are at or below.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let value = self.sketch.as_ref()?.quantile(share)?;
        Some(value.clamp(self.min(), self.max()))
    }
}

impl Stats {
    /// Adds a whole number.
    pub fn add_whole(&mut self, measure: Measure, value: u64, at: Timestamp) {
        // Within the bound it fits.
        self.put(measure, value.min(WHOLE_MAX) as i64 * PARTS_WHOLE, at);
    }

    /// Adds a value; what is no number is left out.
    pub fn add(&mut self, measure: Measure, value: f64, at: Timestamp) {
        if value.is_finite() {
            self.put(measure, (value.clamp(-VALUE_MAX, VALUE_MAX) * PARTS).round() as i64, at);
        }
    }

    fn put(&mut self, measure: Measure, parts: i64, at: Timestamp) {
        let stat = Stat::of(parts, at, measure.is_gauge());
        match self.0.get_mut(&measure) {
            Some(there) => there.merge(&stat),
            None => {
                self.0.insert(measure, stat);
            }
        }
    }

    /// Adds what another knows.
    pub fn merge(&mut self, other: &Self) {
        for (measure, stat) in &other.0 {
            match self.0.get_mut(measure) {
                Some(there) => there.merge(stat),
                None => {
                    self.0.insert(*measure, stat.clone());
                }
            }
        }
    }

    /// Adds what another knows of some measures.
    pub fn merge_some(&mut self, other: &Self, measures: &[Measure]) {
        for measure in measures {
            if let Some(stat) = other.0.get(measure) {
                match self.0.get_mut(measure) {
                    Some(there) => there.merge(stat),
                    None => {
                        self.0.insert(*measure, stat.clone());
                    }
                }
            }
        }
    }

    /// Of one measure.
    pub fn get(&self, measure: Measure) -> Option<&Stat> {
        self.0.get(&measure)
    }

    /// As bytes for the store.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORM];
        for (measure, stat) in &self.0 {
            bytes.push(measure.code());
            put(&mut bytes, u128::from(stat.count));
            put(&mut bytes, zigzag(stat.sum));
            for value in [stat.min, stat.max, stat.last] {
                put(&mut bytes, zigzag(i128::from(value)));
            }
            put(&mut bytes, u128::from(stat.last_at.0));
            let buckets = stat.sketch.as_ref().map_or(0, |sketch| sketch.buckets.len() as u128 + 1);
            put(&mut bytes, buckets);
            if let Some(sketch) = &stat.sketch {
                put(&mut bytes, u128::from(sketch.none));
                for (bucket, count) in &sketch.buckets {
                    put(&mut bytes, zigzag(i128::from(*bucket)));
                    put(&mut bytes, u128::from(*count));
                }
            }
        }
        bytes
    }

    /// From the bytes of [`Stats::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let (&form, mut rest) = bytes.split_first().ok_or(Damaged)?;
        if form != FORM {
            return Err(Damaged);
        }
        let mut stats = BTreeMap::new();
        while let Some((&code, after)) = rest.split_first() {
            rest = after;
            let (count, sum) = (small(&mut rest)?, signed(&mut rest)?);
            let mut value = || i64::try_from(signed(&mut rest)?).map_err(|_| Damaged);
            let (min, max, last) = (value()?, value()?, value()?);
            let last_at = Timestamp(small(&mut rest)?);
            let sketch = match small(&mut rest)? {
                0 => None,
                buckets if buckets > BUCKETS_MAX => return Err(Damaged),
                buckets => {
                    let mut sketch = Sketch { none: small(&mut rest)?, buckets: BTreeMap::new() };
                    for _ in 1..buckets {
                        let bucket = i16::try_from(signed(&mut rest)?).map_err(|_| Damaged)?;
                        sketch.buckets.insert(bucket, small(&mut rest)?);
                    }
                    Some(sketch)
                }
            };
            let stat = Stat { count, sum, min, max, last, last_at, sketch };
            stats.insert(Measure::of_code(code), stat);
        }
        Ok(Self(stats))
    }
}

fn zigzag(value: i128) -> u128 {
    ((value << 1) ^ (value >> 127)) as u128
}

/// Seven bits a byte, the lowest first (LEB128).
fn put(bytes: &mut Vec<u8>, mut value: u128) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

fn take(rest: &mut &[u8]) -> Result<u128, Damaged> {
    let mut value = 0u128;
    for shift in (0..=126).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or(Damaged)?;
        *rest = after;
        value |= u128::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Damaged)
}

fn small(rest: &mut &[u8]) -> Result<u64, Damaged> {
    u64::try_from(take(rest)?).map_err(|_| Damaged)
}

fn signed(rest: &mut &[u8]) -> Result<i128, Damaged> {
    let value = take(rest)?;
    Ok((value >> 1) as i128 ^ -((value & 1) as i128))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AT: Timestamp = Timestamp(1_790_000_000_000);

    #[test]
    fn what_is_no_number_is_left_out_and_what_is_too_large_is_cut() {
        let mut stats = Stats::default();
        stats.add(Measure::DWELL, f64::NAN, AT);
        stats.add(Measure::DWELL, f64::INFINITY, AT);
        assert_eq!(stats, Stats::default());
        stats.add(Measure::DWELL, 1e300, AT);
        stats.add_whole(Measure::RSS, u64::MAX, AT);
        assert_eq!(stats.get(Measure::DWELL).unwrap().max(), VALUE_MAX);
        assert_eq!(stats.get(Measure::RSS).unwrap().sum(), VALUE_MAX);
    }

    #[test]
    fn the_last_is_the_last_in_time_whatever_comes_last() {
        let mut stats = Stats::default();
        stats.add_whole(Measure::RSS, 7, AT.plus_ms(5));
        stats.add_whole(Measure::RSS, 9, AT);
        let stat = stats.get(Measure::RSS).unwrap();
        assert_eq!((stat.last(), stat.count(), stat.min(), stat.max()), (7.0, 2, 7.0, 9.0));
    }

    proptest! {
        #[test]
        fn statistics_come_back_from_their_bytes(
            values in prop::collection::vec((0usize..11, -1e13f64..1e13, any::<u32>()), 0..40),
        ) {
            let mut stats = Stats::default();
            for (measure, value, at) in values {
                let measure = Measure::named(&Measure::all()[measure].name).unwrap();
                stats.add(measure, value, Timestamp(u64::from(at)));
            }
            prop_assert_eq!(Stats::decode(&stats.encode()), Ok(stats));
        }

        #[test]
        fn bytes_of_strangers_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Stats::decode(&bytes);
            let mut bytes = bytes;
            bytes.insert(0, FORM);
            let _ = Stats::decode(&bytes);
        }
    }
}
