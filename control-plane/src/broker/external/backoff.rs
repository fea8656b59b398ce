//! Waiting longer after each failure, with jitter, so that not everybody comes back to a broker at one moment.

use std::time::Duration;

/// Waits that double up to a limit, each drawn from the upper half of its step.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    step: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, step: first }
    }

    /// The next wait; `random` is any number.
    pub(super) fn next(&mut self, random: u32) -> Duration {
        let step = self.step;
        self.step = step.saturating_mul(2).min(self.longest);
        step / 2 + (step / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// After a success: the next failure waits the first step again.
    pub(super) fn reset(&mut self) {
        self.step = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_stay_in_the_upper_half() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(1000));
        for (step, random) in
            [(100, 0), (200, u32::MAX), (400, 7), (800, u32::MAX / 2), (1000, 0), (1000, u32::MAX)]
        {
            let wait = backoff.next(random);
            assert!((ms(step / 2)..=ms(step)).contains(&wait), "{wait:?} of {step}");
        }
        backoff.reset();
        assert_eq!(backoff.next(0), ms(50));
    }
}
