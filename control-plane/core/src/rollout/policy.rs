//! How a rollout goes on, and the waves that follow from it.

use super::{Member, MemberState};
use serde::{Deserialize, Serialize};
use shared::{DeviceId, wire::TrialPolicy};

/// Most waves of one rollout.
const WAVES_MAX: usize = 32;
/// Longest pause and longest device time-out: a week.
pub const WAIT_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1000;
/// Most devices of one rollout.
pub const MEMBERS_MAX: usize = 100_000;
/// What a device gets at least to fetch and test a bundle, beside the trial.
pub(super) const INSTALL_MS_MIN: u64 = 10_000;

/// How many devices a wave takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaveSize {
    Count(u32),
    /// Of all eligible devices, rounded up, at least one.
    Percent(u32),
}

/// How a rollout goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// In order; the last takes all the rest, whatever its size.
    pub waves: Vec<WaveSize>,
    /// Between the close of a wave and the opening of the next.
    pub pause_ms: u64,
    /// Failed devices in a thousand of a wave that are still accepted.
    pub failed_permille_max: u16,
    /// A device that has not finished this long after its assignment has failed.
    pub device_timeout_ms: u64,
    /// When stopped, take the version from devices that committed it, too.
    pub rollback_committed: bool,
    /// Most chunk bytes that a device may receive for this version; none is as many as it takes. Where it does not
    /// suffice the device waits, and has not failed.
    #[serde(default)]
    pub update_bytes_max: Option<u64>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            waves: vec![WaveSize::Percent(10), WaveSize::Percent(100)],
            pause_ms: 10_000,
            failed_permille_max: 0,
            device_timeout_ms: 15 * 60 * 1000,
            rollback_committed: false,
            update_bytes_max: None,
        }
    }
}

impl Policy {
    /// Names the field that is out of range and what is allowed. A device that takes all of its trial must not run
    /// out of time.
    pub fn validate(&self, trial: &TrialPolicy) -> Result<(), String> {
        if self.waves.is_empty() || self.waves.len() > WAVES_MAX {
            return Err(format!("policy.waves has {} waves, allowed are 1 to {WAVES_MAX}", self.waves.len()));
        }
        for wave in &self.waves {
            match wave {
                WaveSize::Count(0) => {
                    return Err("policy.waves has a wave of 0 devices, at least 1".to_owned());
                }
                WaveSize::Percent(percent) if !(1..=100).contains(percent) => {
                    return Err(format!("policy.waves has a wave of {percent} %, allowed are 1 to 100"));
                }
                WaveSize::Count(_) | WaveSize::Percent(_) => {}
            }
        }
        if self.pause_ms > WAIT_MS_MAX {
            return Err(format!("policy.pause_ms is {}, at most {WAIT_MS_MAX}", self.pause_ms));
        }
        if self.failed_permille_max > 1000 {
            return Err(format!("policy.failed_permille_max is {}, at most 1000", self.failed_permille_max));
        }
        if !(1..=WAIT_MS_MAX).contains(&self.device_timeout_ms) {
            return Err(format!(
                "policy.device_timeout_ms is {}, allowed are 1 to {WAIT_MS_MAX}",
                self.device_timeout_ms
            ));
        }
        if self.update_bytes_max == Some(0) {
            return Err("policy.update_bytes_max is 0, at least 1".to_owned());
        }
        let needed_ms = trial.duration_ms.saturating_add(INSTALL_MS_MIN);
        if self.device_timeout_ms < needed_ms {
            return Err(format!(
                "policy.device_timeout_ms is {}, with a trial of {} ms at least {needed_ms}",
                self.device_timeout_ms, trial.duration_ms
            ));
        }
        Ok(())
    }
}

/// Puts devices, in the order of their ids, into waves.
pub fn divide(policy: &Policy, mut devices: Vec<DeviceId>) -> Vec<Member> {
    devices.sort();
    devices.dedup();
    let total = devices.len();
    let mut rest = devices.into_iter();
    let mut members = Vec::with_capacity(total);
    for (wave, size) in policy.waves.iter().enumerate() {
        let last = wave + 1 == policy.waves.len();
        let size = match size {
            _ if last => total,
            WaveSize::Count(count) => *count as usize,
            WaveSize::Percent(percent) => (total * *percent as usize).div_ceil(100).max(1),
        };
        for device in rest.by_ref().take(size) {
            members.push(Member {
                device,
                wave: u32::try_from(wave).unwrap_or(u32::MAX),
                state: MemberState::Pending,
                reason: "waits for its wave".to_owned(),
                generation: None,
                assigned_at: None,
                waited_until: None,
                finished_at: None,
            });
        }
    }
    members
}
