//! How many devices are asked in a time.

use super::{Member, MemberState, WAIT_MS_MAX};
use serde::{Deserialize, Serialize};
use shared::Timestamp;

/// Shortest period: a second.
const PERIOD_MS_MIN: u64 = 1000;
/// Largest growth at one time.
const FACTOR_MAX: f64 = 100.0;

/// At most so many devices are asked in any stretch of `period_ms`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Rate {
    /// Always as many.
    Constant(Constant),
    /// More, the more have committed.
    Exponential(Exponential),
}

/// The same number in each period.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Constant {
    pub devices: u32,
    pub period_ms: u64,
}

/// `devices`, times `factor` for each `successes` devices that have committed, at most `devices_max`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Exponential {
    pub devices: u32,
    pub period_ms: u64,
    pub factor: f64,
    pub devices_max: u32,
    pub successes: u32,
}

impl Rate {
    pub(super) fn validate(&self) -> Result<(), String> {
        let (devices, period_ms) = match self {
            Self::Constant(rate) => (rate.devices, rate.period_ms),
            Self::Exponential(rate) => (rate.devices, rate.period_ms),
        };
        if devices == 0 {
            return Err("policy.rate has devices = 0, at least 1".to_owned());
        }
        if !(PERIOD_MS_MIN..=WAIT_MS_MAX).contains(&period_ms) {
            return Err(format!(
                "policy.rate has period_ms = {period_ms}, allowed are {PERIOD_MS_MIN} to {WAIT_MS_MAX}"
            ));
        }
        let Self::Exponential(rate) = self else { return Ok(()) };
        if !(rate.factor > 1.0 && rate.factor <= FACTOR_MAX) {
            return Err(format!(
                "policy.rate has factor = {}, allowed are over 1 to {FACTOR_MAX}",
                rate.factor
            ));
        }
        if rate.devices_max < devices {
            return Err(format!(
                "policy.rate has devices_max = {}, at least its devices, {devices}",
                rate.devices_max
            ));
        }
        if rate.successes == 0 {
            return Err("policy.rate has successes = 0, at least 1".to_owned());
        }
        Ok(())
    }

    fn period_ms(&self) -> u64 {
        match self {
            Self::Constant(rate) => rate.period_ms,
            Self::Exponential(rate) => rate.period_ms,
        }
    }

    /// Devices in a period once so many have committed.
    fn allowed(&self, committed: u64) -> u64 {
        match self {
            Self::Constant(rate) => rate.devices.into(),
            Self::Exponential(rate) => {
                let times = i32::try_from(committed / u64::from(rate.successes)).unwrap_or(i32::MAX);
                let devices = f64::from(rate.devices) * rate.factor.powi(times);
                // Kept at a whole number of 32 bits by the upper end.
                devices.min(f64::from(rate.devices_max)).floor() as u64
            }
        }
    }
}

/// What the rate leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quota {
    pub(super) left: u64,
    pub(super) allowed: u64,
    pub(super) period_ms: u64,
    /// When the first of those asked within the period leaves it.
    pub(super) next_at: Option<Timestamp>,
}

impl Quota {
    pub(super) fn new(rate: &Rate, members: &[Member], now: Timestamp) -> Self {
        let period_ms = rate.period_ms();
        let committed = members.iter().filter(|member| member.state == MemberState::Committed).count();
        let allowed = rate.allowed(committed as u64);
        let recent = members.iter().filter_map(|member| member.assigned_at).map(|at| at.min(now));
        let recent = recent.filter(|at| now.since_ms(*at) < period_ms);
        let (mut used, mut first) = (0, None::<Timestamp>);
        for at in recent {
            used += 1;
            first = Some(first.map_or(at, |first| first.min(at)));
        }
        let next_at = first.map(|first| first.plus_ms(period_ms));
        Self { left: allowed.saturating_sub(used), allowed, period_ms, next_at }
    }

    pub(super) fn take(&mut self, now: Timestamp) {
        self.left = self.left.saturating_sub(1);
        self.next_at.get_or_insert(now.plus_ms(self.period_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_with_each_so_many_that_committed_up_to_its_limit() {
        let rate = Rate::Exponential(Exponential {
            devices: 2,
            period_ms: 1000,
            factor: 2.5,
            devices_max: 20,
            successes: 3,
        });
        rate.validate().unwrap();
        let allowed: Vec<u64> = [0, 2, 3, 5, 6, 9, u64::MAX].map(|committed| rate.allowed(committed)).into();
        assert_eq!(allowed, [2, 2, 5, 5, 12, 20, 20]);
    }

    #[test]
    fn a_stretch_of_a_period_has_at_most_as_many() {
        let rate = Rate::Constant(Constant { devices: 3, period_ms: 1000 });
        let asked = |at| Member { assigned_at: Some(Timestamp(at)), ..Member::new("d".parse().unwrap(), 0) };
        let members = [asked(10), asked(500), asked(900)];
        let quota = |now| Quota::new(&rate, &members, Timestamp(now));
        assert_eq!((quota(1009).left, quota(1009).next_at), (0, Some(Timestamp(1010))));
        assert_eq!((quota(1010).left, quota(1010).next_at), (1, Some(Timestamp(1500))));
        // A clock that was set back: they count as asked at this moment.
        assert_eq!((quota(5).left, quota(5).next_at), (0, Some(Timestamp(1005))));
    }
}
