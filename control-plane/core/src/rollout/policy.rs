//! How a rollout goes on.

use super::{
    disruption::Disruption,
    gate::{self, Gate, Signal},
    rate::Rate,
    wave::{self, Wave, WaveSize},
    windows::{WINDOWS_MAX, Window},
};
use serde::{Deserialize, Serialize};
use shared::wire::TrialPolicy;

/// Longest pause and longest device time-out: a week.
pub const WAIT_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1000;
/// Most devices of one rollout.
pub const MEMBERS_MAX: usize = 100_000;
/// What a device gets at least to fetch and test a bundle, beside the trial.
pub(super) const INSTALL_MS_MIN: u64 = 10_000;

/// Who is a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Membership {
    /// Whom the selector named when the rollout was made, in the wave of then.
    #[default]
    Fixed,
    /// Whom the selector names: new devices join; of those that were not asked yet, who is named no more is skipped, and
    /// who got the label of another wave moves there.
    Follow,
}

impl Membership {
    fn is_fixed(&self) -> bool {
        *self == Self::Fixed
    }
}

/// How a rollout goes on. Every field has a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// In order; the last takes all the rest, unless it is one of a label. Written as a list, or as rings.
    #[serde(deserialize_with = "wave::read")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "wave::schema"))]
    pub waves: Vec<Wave>,
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
    pub update_bytes_max: Option<u64>,
    #[serde(skip_serializing_if = "Membership::is_fixed")]
    pub membership: Membership,
    /// None is as many as there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// When devices may be asked; none is always. Gates, time-outs and a rollback wait for no window.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disruption: Option<Disruption>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<Gate>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            waves: vec![WaveSize::Percent(10).into(), WaveSize::Percent(100).into()],
            pause_ms: 10_000,
            failed_permille_max: 0,
            device_timeout_ms: 15 * 60 * 1000,
            rollback_committed: false,
            update_bytes_max: None,
            membership: Membership::Fixed,
            rate: None,
            windows: Vec::new(),
            disruption: None,
            gates: Vec::new(),
        }
    }
}

impl Policy {
    /// Names the field that is out of range and what is allowed. A device that takes all of its trial must not run
    /// out of time.
    pub fn validate(&self, trial: &TrialPolicy) -> Result<(), String> {
        wave::validate(&self.waves)?;
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
        if let Some(rate) = &self.rate {
            rate.validate()?;
        }
        if self.windows.len() > WINDOWS_MAX {
            return Err(format!("policy.windows has {} windows, at most {WINDOWS_MAX}", self.windows.len()));
        }
        for (at, window) in self.windows.iter().enumerate() {
            window.validate(at)?;
        }
        if let Some(disruption) = &self.disruption {
            disruption.validate()?;
        }
        gate::validate(&self.gates, self.waves.len(), trial)
    }

    /// Does the wave, from 0, need an operator's approval?
    pub(super) fn needs_approval(&self, wave: u32) -> bool {
        let wave = usize::try_from(wave).ok().and_then(|at| self.waves.get(at));
        wave.is_some_and(|wave| wave.approval)
    }

    /// The gate on the health of devices, where there is one.
    pub fn health(&self) -> Option<&Gate> {
        self.gates.iter().find(|gate| gate.signal == Signal::Health)
    }
}
