//! Waiting longer after each failure, with jitter so that a fleet does not come back at one moment.

/// A deterministic stream of numbers (SplitMix64, Steele et al. 2014); the seed comes from outside.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// A stream that depends on `seed` alone.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Delays that double from `first_ms` to `max_ms`. Each is drawn from the upper half of its step.
#[derive(Clone, Debug)]
pub struct Backoff {
    first_ms: u64,
    max_ms: u64,
    tries: u32,
    jitter: Jitter,
}

impl Backoff {
    /// Starts at `first_ms`; no delay is over `max_ms`.
    pub fn new(first_ms: u64, max_ms: u64, seed: u64) -> Self {
        Self { first_ms: first_ms.max(1), max_ms: max_ms.max(1), tries: 0, jitter: Jitter::new(seed) }
    }

    /// The delay before the next try; counts it.
    pub fn next_ms(&mut self) -> u64 {
        let step_ms = self.first_ms.saturating_mul(1 << self.tries.min(32)).min(self.max_ms);
        self.tries = self.tries.saturating_add(1);
        let half_ms = step_ms / 2;
        step_ms - half_ms + self.jitter.next_u64() % (half_ms + 1)
    }

    /// Delays given since the last [`Backoff::reset`].
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// After a success: the next failure starts from the first delay again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn delays_stay_in_the_upper_half_of_a_doubling_step(first in 1u64..5000, max in 1u64..600_000, seed: u64) {
            let mut backoff = Backoff::new(first, max, seed);
            for try_index in 0..80u32 {
                let step = first.saturating_mul(1 << try_index.min(32)).min(max);
                let delay = backoff.next_ms();
                prop_assert!(delay <= step && delay >= step - step / 2, "{delay} of {step}");
                prop_assert!(delay > 0);
            }
        }
    }

    #[test]
    fn a_success_starts_over() {
        let mut backoff = Backoff::new(100, 10_000, 1);
        (0..9).for_each(|_| {
            backoff.next_ms();
        });
        backoff.reset();
        assert!(backoff.next_ms() <= 100);
    }

    #[test]
    fn two_devices_do_not_wait_the_same() {
        let delays = |seed| {
            let mut backoff = Backoff::new(1000, 60_000, seed);
            (0..8).map(|_| backoff.next_ms()).collect::<Vec<_>>()
        };
        assert_ne!(delays(1), delays(2));
        assert_eq!(delays(1), delays(1));
    }
}
