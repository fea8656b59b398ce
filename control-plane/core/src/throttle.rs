//! How often somebody may ask: a bucket for each name, as many as there is room for.

use crate::bucket::Bucket;
use shared::{Timestamp, limits::COUNTED_MAX};
use std::{collections::HashMap, hash::Hash};

/// Lets each name take `burst` at once and `per_s` a second after that. Names beyond [`COUNTED_MAX`] share one bucket.
#[derive(Debug)]
pub struct Throttle<K> {
    per_s: u64,
    burst: u64,
    names: HashMap<K, Bucket>,
    others: Bucket,
}

impl<K: Eq + Hash> Throttle<K> {
    /// Nothing was taken so far.
    pub fn new(per_s: u64, burst: u64) -> Self {
        Self { per_s, burst, names: HashMap::new(), others: Bucket::new(per_s, burst) }
    }

    /// Takes `amount`.
    ///
    /// # Errors
    /// There is less; in so many milliseconds there will be enough.
    pub fn take(&mut self, name: K, amount: u64, now: Timestamp) -> Result<(), u64> {
        let bucket = self.bucket_of(name, now);
        bucket.fill(now);
        if bucket.take(amount) { Ok(()) } else { Err(bucket.ready_at(amount).since_ms(now).max(1)) }
    }

    /// Puts back what was taken for nothing.
    pub fn give_back(&mut self, name: &K, amount: u64) {
        match self.names.get_mut(name) {
            Some(bucket) => bucket.give_back(amount),
            None => self.others.give_back(amount),
        }
    }

    fn bucket_of(&mut self, name: K, now: Timestamp) -> &mut Bucket {
        if !self.names.contains_key(&name) && self.names.len() >= COUNTED_MAX {
            self.names.retain(|_, bucket| {
                bucket.fill(now);
                !bucket.is_full()
            });
            if self.names.len() >= COUNTED_MAX {
                return &mut self.others;
            }
        }
        let (per_s, burst) = (self.per_s, self.burst);
        self.names.entry(name).or_insert_with(|| Bucket::new(per_s, burst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_too_often_is_told_when_to_ask_again_and_holds_up_nobody_else() {
        let mut throttle = Throttle::new(2, 3);
        for _ in 0..3 {
            assert_eq!(throttle.take("a", 1, Timestamp(0)), Ok(()));
        }
        assert_eq!(throttle.take("a", 1, Timestamp(0)), Err(500));
        assert_eq!(throttle.take("b", 1, Timestamp(0)), Ok(()));
        assert_eq!(throttle.take("a", 1, Timestamp(500)), Ok(()));
        assert!(throttle.take("a", 1, Timestamp(500)).is_err());
    }

    #[test]
    fn what_was_taken_for_nothing_can_be_taken_again() {
        let mut throttle = Throttle::new(1, 5);
        assert_eq!(throttle.take("a", 5, Timestamp(0)), Ok(()));
        throttle.give_back(&"a", 5);
        assert_eq!(throttle.take("a", 5, Timestamp(0)), Ok(()));
    }

    #[test]
    fn names_without_end_share_one_bucket_and_calm_ones_are_forgotten() {
        let mut throttle = Throttle::new(1, 1);
        let taken =
            (0..COUNTED_MAX + 100).filter(|name| throttle.take(*name, 1, Timestamp(0)).is_ok()).count();
        assert_eq!(taken, COUNTED_MAX + 1);
        assert_eq!(throttle.take(usize::MAX, 1, Timestamp(1000)), Ok(()));
        assert!(throttle.names.len() < 10);
    }
}
