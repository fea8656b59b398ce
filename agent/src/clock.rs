//! The device's two clocks. A board without a battery starts in the past and is put right once there is a network,
//! so the clock on the wall may step at any time; waits and durations are measured by one that does not.

use shared::Timestamp;
use std::time::{Instant, SystemTime};

/// A step of the wall clock below this is drift, which nobody has to hear of.
const STEP_MS: i64 = 1_000;

/// The wall clock, read afresh: for stamps that others see.
pub fn wall() -> Timestamp {
    SystemTime::now().into()
}

/// A clock that never steps: for waits and durations.
#[derive(Debug)]
pub struct Clock {
    origin: Timestamp,
    start: Instant,
    ahead_ms: i64,
}

impl Clock {
    /// Starts at what the wall clock shows.
    pub fn start() -> Self {
        Self { origin: wall(), start: Instant::now(), ahead_ms: 0 }
    }

    /// The time at the start, moved on by what has passed since.
    pub fn monotonic(&self) -> Timestamp {
        self.origin.plus_ms(elapsed_ms(self.start))
    }

    /// How far the wall clock is ahead of [`Clock::monotonic`], negative where it is behind. It changes only when
    /// the wall clock has stepped.
    pub fn wall_ahead_ms(&mut self) -> i64 {
        self.ahead_ms = ahead_ms(self.ahead_ms, self.monotonic(), wall());
        self.ahead_ms
    }
}

/// Milliseconds since `start`.
pub fn elapsed_ms(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn ahead_ms(known_ms: i64, monotonic: Timestamp, wall: Timestamp) -> i64 {
    let ms = |time: Timestamp| i64::try_from(time.0).unwrap_or(i64::MAX);
    let ahead_ms = ms(wall).saturating_sub(ms(monotonic));
    if ahead_ms.abs_diff(known_ms) < STEP_MS.unsigned_abs() { known_ms } else { ahead_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_clock_is_noticed_and_its_drift_is_not() {
        let monotonic = Timestamp(1_000_000);
        assert_eq!(ahead_ms(0, monotonic, Timestamp(1_000_900)), 0);
        assert_eq!(ahead_ms(0, monotonic, Timestamp(1_700_000_000_000)), 1_699_999_000_000);
        assert_eq!(ahead_ms(0, monotonic, Timestamp(0)), -1_000_000);
        assert_eq!(ahead_ms(5_000, monotonic, Timestamp(1_004_100)), 5_000);
    }

    #[test]
    fn the_monotonic_clock_starts_with_the_wall_clock() {
        let before = wall();
        let clock = Clock::start();
        assert!(clock.monotonic().since_ms(before) < 60_000);
    }
}
