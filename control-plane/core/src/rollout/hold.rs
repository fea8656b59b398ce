//! What keeps a member of an open rollout from being asked at this moment.

use super::{
    Fleet, Member, Observed, Policy, State, Status,
    disruption::{Full, Groups},
    rate::Quota,
    windows::{Calendar, Opening, utc_text},
};
use shared::Timestamp;
use std::fmt;

/// Why a pending member is not asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// Its wave, from 0, is not open.
    Wave(u32),
    Offline,
    Paused,
    /// Its wave needs an approval.
    Approval(u32),
    Window(Option<Timestamp>),
    Disruption(Full, Option<String>),
    Rate(Quota),
}

impl Hold {
    /// When time alone may change it.
    pub(super) fn until(&self) -> Option<Timestamp> {
        match self {
            Self::Window(opens_at) => *opens_at,
            Self::Rate(quota) => quota.next_at,
            Self::Wave(_) | Self::Offline | Self::Paused | Self::Approval(_) | Self::Disruption(..) => None,
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wave(wave) => write!(f, "waits for wave {}", wave + 1),
            Self::Offline => f.write_str("offline; gets the version when it is seen"),
            Self::Paused => f.write_str("waits for the rollout to be resumed"),
            Self::Approval(wave) => {
                write!(f, "waits for wave {} to be approved: `edgewright rollout approve`", wave + 1)
            }
            Self::Window(Some(at)) => write!(f, "waits for its window, which opens at {}", utc_text(*at)),
            Self::Window(None) => f.write_str("waits for its window; the server's clock is out of range"),
            Self::Disruption(full, key) => {
                let group = match (key, &full.group) {
                    (Some(key), Some(value)) => format!("{key}={value}"),
                    (Some(key), None) => format!("the devices without a label {key}"),
                    (None, _) => "the fleet".to_owned(),
                };
                let names: Vec<_> = full.devices.iter().map(ToString::to_string).collect();
                let more = if full.unavailable > names.len() as u64 { ", ..." } else { "" };
                write!(
                    f,
                    "waits for the disruption budget: of {group} {} are unavailable ({}{more}), allowed are {}",
                    full.unavailable,
                    names.join(", "),
                    full.allowed
                )
            }
            Self::Rate(quota) => {
                let (allowed, seconds) = (quota.allowed, quota.period_ms / 1000);
                write!(f, "waits for its turn: {allowed} devices in {seconds} s")
            }
        }
    }
}

/// Who may be asked at one moment; whoever is asked is counted.
pub(super) struct Turns<'a> {
    policy: &'a Policy,
    now: Timestamp,
    calendar: Calendar<'a>,
    groups: Option<Groups<'a>>,
    quota: Option<Quota>,
}

impl<'a> Turns<'a> {
    pub(super) fn new(policy: &'a Policy, fleet: &'a Fleet, members: &[Member], now: Timestamp) -> Self {
        Self {
            policy,
            now,
            calendar: Calendar::new(&policy.windows, now),
            groups: policy.disruption.as_ref().map(|disruption| Groups::new(disruption, fleet, members)),
            quota: policy.rate.as_ref().map(|rate| Quota::new(rate, members, now)),
        }
    }

    /// Everything that keeps a pending member from being asked, what would have to change first in front.
    pub(super) fn holds(&mut self, status: &Status, member: &Member, seen: Option<&Observed>) -> Vec<Hold> {
        let mut holds = Vec::new();
        if member.wave > status.wave {
            holds.push(Hold::Wave(member.wave));
        }
        let seen = seen.filter(|seen| seen.online && !seen.revoked);
        if seen.is_none() {
            holds.push(Hold::Offline);
        }
        if status.state == State::Paused {
            holds.push(Hold::Paused);
        }
        if self.policy.needs_approval(member.wave) && !status.approved.contains(&member.wave) {
            holds.push(Hold::Approval(member.wave));
        }
        if let Some(seen) = seen {
            if let Opening::Closed(opens_at) = self.calendar.opening(&seen.labels) {
                holds.push(Hold::Window(opens_at));
            }
            if let Some(full) = self.groups.as_ref().and_then(|groups| groups.full(&member.device, seen)) {
                let key = self.policy.disruption.as_ref().and_then(|disruption| disruption.group_by.clone());
                holds.push(Hold::Disruption(full, key));
            }
        }
        if let Some(quota) = self.quota.filter(|quota| quota.left == 0) {
            holds.push(Hold::Rate(quota));
        }
        holds
    }

    /// The member is asked.
    pub(super) fn take(&mut self, fleet: &'a Fleet, member: &Member) {
        if let (Some(groups), Some((device, seen))) = (&mut self.groups, fleet.get_key_value(&member.device))
        {
            groups.take(device, seen);
        }
        if let Some(quota) = &mut self.quota {
            quota.take(self.now);
        }
    }
}
