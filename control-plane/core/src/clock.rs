//! The server's clock as it is believed: it goes on steadily where the wall clock jumps.
//!
//! A jump is believed once the wall clock has gone on from it for [`STEADY_MS`]. Until then time is what it was before the jump
//! and what has passed since by the monotonic clock.

use shared::Timestamp;

/// Differences up to this are corrections, and are taken at once.
pub const CORRECTION_MS_MAX: u64 = 5 * 60 * 1000;
/// So long a clock that has jumped has to go steadily.
pub const STEADY_MS: u64 = 60 * 60 * 1000;
/// A server may have been off for so long: less ahead of what was believed last is no jump.
pub const OUTAGE_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1000;

/// The clock as it is believed.
#[derive(Clone, Copy, Debug)]
pub struct SteadyClock {
    /// What the time was at `passed_ms` of the monotonic clock.
    at: Timestamp,
    passed_ms: u64,
    /// The wall clock goes elsewhere: by how much, and since when by the monotonic clock.
    stray: Option<(i128, u64)>,
}

fn apart(wall: Timestamp, believed: Timestamp) -> i128 {
    i128::from(wall.0) - i128::from(believed.0)
}

impl SteadyClock {
    /// Begins with what was believed when it was noted last, if that is known, and the wall clock.
    pub fn new(saved: Option<Timestamp>, wall: Timestamp, passed_ms: u64) -> Self {
        let (correction, outage) = (i128::from(CORRECTION_MS_MAX), i128::from(OUTAGE_MS_MAX));
        match saved {
            Some(saved) if !(-correction..=outage).contains(&apart(wall, saved)) => {
                Self { at: saved, passed_ms, stray: Some((apart(wall, saved), passed_ms)) }
            }
            Some(_) | None => Self { at: wall, passed_ms, stray: None },
        }
    }

    /// The time, where the wall clock shows `wall` and the monotonic clock `passed_ms`.
    pub fn read(&mut self, wall: Timestamp, passed_ms: u64) -> Timestamp {
        let believed = self.at.plus_ms(passed_ms.saturating_sub(self.passed_ms));
        let off = apart(wall, believed);
        let close = |difference: i128| difference.unsigned_abs() <= u128::from(CORRECTION_MS_MAX);
        if close(off) {
            *self = Self { at: wall, passed_ms, stray: None };
            return wall;
        }
        match self.stray {
            Some((before, since)) if close(off - before) => {
                if passed_ms.saturating_sub(since) >= STEADY_MS {
                    *self = Self { at: wall, passed_ms, stray: None };
                    return wall;
                }
            }
            Some(_) | None => self.stray = Some((off, passed_ms)),
        }
        believed
    }

    /// Does the wall clock show another time than is believed?
    pub fn is_stray(&self) -> bool {
        self.stray.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_790_000_000_000);
    const YEAR_MS: u64 = 365 * 24 * 60 * 60 * 1000;

    #[test]
    fn a_jump_changes_nothing_and_is_over_when_the_clock_is_set_right() {
        for jumped in [Timestamp(0), NOW.plus_ms(10 * YEAR_MS)] {
            let mut clock = SteadyClock::new(None, NOW, 0);
            assert_eq!(clock.read(jumped, 1000), NOW.plus_ms(1000));
            assert!(clock.is_stray());
            assert_eq!(clock.read(jumped.plus_ms(1000), 2000), NOW.plus_ms(2000));
            assert_eq!(clock.read(NOW.plus_ms(3000), 3000), NOW.plus_ms(3000));
            assert!(!clock.is_stray());
        }
    }

    #[test]
    fn a_clock_that_goes_on_from_its_jump_is_believed_in_the_end() {
        let mut clock = SteadyClock::new(None, NOW, 0);
        let ahead = NOW.plus_ms(YEAR_MS);
        assert_eq!(clock.read(ahead, 0), NOW);
        assert_eq!(clock.read(ahead.plus_ms(STEADY_MS - 1), STEADY_MS - 1), NOW.plus_ms(STEADY_MS - 1));
        assert_eq!(clock.read(ahead.plus_ms(STEADY_MS), STEADY_MS), ahead.plus_ms(STEADY_MS));
    }

    #[test]
    fn a_start_with_a_wrong_clock_goes_on_from_what_was_noted() {
        let saved = Some(NOW);
        assert_eq!(SteadyClock::new(saved, Timestamp(0), 0).read(Timestamp(5), 5), NOW.plus_ms(5));
        let after_a_week = NOW.plus_ms(7 * 24 * 60 * 60 * 1000);
        assert_eq!(SteadyClock::new(saved, after_a_week, 0).read(after_a_week, 0), after_a_week);
        let far = NOW.plus_ms(OUTAGE_MS_MAX + 1);
        assert_eq!(SteadyClock::new(saved, far, 0).read(far, 0), NOW);
    }

    proptest! {
        #[test]
        fn between_two_looks_time_moves_by_what_has_passed_or_to_the_wall(
            looks in prop::collection::vec((any::<u64>(), 0u64..10_000_000), 1..40),
        ) {
            let (mut clock, mut passed, mut before) = (SteadyClock::new(None, NOW, 0), 0, NOW);
            for (wall, more) in looks {
                passed += more;
                let at = clock.read(Timestamp(wall), passed);
                prop_assert!(at == before.plus_ms(more) || at == Timestamp(wall));
                before = at;
            }
        }
    }
}
