//! How long what devices say is kept.
//!
//! What is kept ages by a [`Horizon`] and not by the clock: it moves forward with the time that the server has run, so that a
//! clock that is set years ahead retires at most a day of data for each hour until somebody sees it.

use crate::rollup::Period;
use serde::{Deserialize, Serialize};
use shared::Timestamp;

/// Longest that anything is kept.
pub const DAYS_MAX: u32 = 3650;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// The horizon catches up so many times faster than time passes.
const CATCH_UP: u64 = 24;

/// Days that things are kept, each from 1 to 3650.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Events, feedback and telemetry as they came, and the ids by which what comes again is known.
    pub raw_days: u32,
    /// Roll-ups by minute.
    pub minute_days: u32,
    /// Roll-ups by hour.
    pub hour_days: u32,
    /// Roll-ups by day, and incidents that are closed.
    pub day_days: u32,
    /// The audit log.
    pub audit_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { raw_days: 14, minute_days: 3, hour_days: 60, day_days: 1095, audit_days: 365 }
    }
}

impl Retention {
    /// Names the rule that is broken, and what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        for (name, days) in [
            ("raw_days", self.raw_days),
            ("minute_days", self.minute_days),
            ("hour_days", self.hour_days),
            ("day_days", self.day_days),
            ("audit_days", self.audit_days),
        ] {
            if !(1..=DAYS_MAX).contains(&days) {
                return Err(format!("{name} is {days}, allowed are 1 to {DAYS_MAX}"));
            }
        }
        if self.minute_days > self.hour_days || self.hour_days > self.day_days {
            return Err(format!(
                "minute_days is {}, hour_days {}, day_days {}: none may be over the next",
                self.minute_days, self.hour_days, self.day_days
            ));
        }
        Ok(())
    }

    /// How long roll-ups of a period are kept.
    pub fn kept_ms(&self, period: Period) -> u64 {
        let days = match period {
            Period::Minute => self.minute_days,
            Period::Hour => self.hour_days,
            Period::Day => self.day_days,
        };
        u64::from(days) * DAY_MS
    }

    /// Roll-ups of a period that begin before this go.
    pub fn rollups_before(&self, period: Period, horizon: Horizon) -> Timestamp {
        Timestamp(horizon.0.0.saturating_sub(self.kept_ms(period)))
    }

    /// Records that came before this go.
    pub fn raw_before(&self, horizon: Horizon) -> Timestamp {
        Timestamp(horizon.0.0.saturating_sub(u64::from(self.raw_days) * DAY_MS))
    }
}

/// The time by which things age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Horizon(pub Timestamp);

impl Horizon {
    /// Moves it on to `now`, when `elapsed_ms` have passed since it was moved last as far as the server knows. It never goes
    /// back, and never forward by more than a day for each hour that has passed.
    pub fn advanced(saved: Option<Self>, now: Timestamp, elapsed_ms: u64) -> Self {
        match saved {
            None => Self(now),
            Some(Self(saved)) => Self(saved.max(now.min(saved.plus_ms(elapsed_ms.saturating_mul(CATCH_UP))))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_790_000_000_000);
    const HOUR_MS: u64 = 60 * 60 * 1000;

    #[test]
    fn what_is_out_of_range_is_named() {
        assert_eq!(Retention::default().validate(), Ok(()));
        let wrong = Retention { raw_days: 0, ..Retention::default() };
        assert_eq!(wrong.validate().unwrap_err(), "raw_days is 0, allowed are 1 to 3650");
        let wrong = Retention { minute_days: 90, ..Retention::default() };
        assert!(wrong.validate().unwrap_err().contains("none may be over the next"));
    }

    #[test]
    fn a_clock_ten_years_ahead_retires_a_day_in_an_hour_and_nothing_after_it_is_set_right() {
        let ahead = NOW.plus_ms(3650 * DAY_MS);
        let horizon = Horizon::advanced(Some(Horizon(NOW)), ahead, HOUR_MS);
        assert_eq!(horizon, Horizon(NOW.plus_ms(DAY_MS)));
        assert_eq!(Horizon::advanced(Some(horizon), NOW.plus_ms(HOUR_MS), HOUR_MS), horizon);
    }

    #[test]
    fn after_an_outage_the_horizon_catches_up() {
        let (mut horizon, mut now) = (Horizon(NOW), NOW.plus_ms(3 * DAY_MS));
        for _ in 0..4 {
            now = now.plus_ms(HOUR_MS);
            horizon = Horizon::advanced(Some(horizon), now, HOUR_MS);
        }
        assert_eq!(horizon, Horizon(now));
    }

    proptest! {
        #[test]
        fn whatever_the_clock_does_the_horizon_goes_forward_and_not_faster_than_it_may(
            clock in prop::collection::vec((any::<u64>(), 0u64..2 * HOUR_MS), 1..30),
        ) {
            let mut horizon = Horizon(NOW);
            for (now, elapsed_ms) in clock {
                let next = Horizon::advanced(Some(horizon), Timestamp(now), elapsed_ms);
                prop_assert!(next >= horizon && next.0.since_ms(horizon.0) <= elapsed_ms * CATCH_UP);
                horizon = next;
            }
        }
    }
}
