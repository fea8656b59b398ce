//! The disruption budget: how many devices of a group may be unavailable at one time.

use super::{Fleet, Labels, Member, MemberState, Observed};
use serde::{Deserialize, Serialize};
use shared::DeviceId;
use std::collections::{BTreeMap, BTreeSet};

/// So many devices are named where a group is full.
const NAMED_MAX: usize = 3;

/// No device of a group is asked while as many as allowed are unavailable: offline, on the way to another version, or
/// not yet back at what they had. All devices of the fleet count, members or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Disruption {
    /// Devices with the same value of this label are a group, those without it one more; without a key the whole fleet
    /// is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_by: Option<String>,
    pub unavailable_max: Amount,
}

/// A number of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    Count(u32),
    /// Of the group, rounded down, at least one.
    Percent(u32),
}

impl Disruption {
    pub(super) fn validate(&self) -> Result<(), String> {
        if self.group_by.as_ref().is_some_and(String::is_empty) {
            return Err("policy.disruption.group_by is empty; leave it out for the whole fleet".to_owned());
        }
        match self.unavailable_max {
            Amount::Count(0) => {
                Err("policy.disruption.unavailable_max is 0, so that nobody is ever asked; at least 1"
                    .to_owned())
            }
            Amount::Percent(percent) if !(1..=100).contains(&percent) => {
                Err(format!("policy.disruption.unavailable_max is {percent} %, allowed are 1 to 100"))
            }
            Amount::Count(_) | Amount::Percent(_) => Ok(()),
        }
    }

    pub(super) fn allowed(&self, size: u64) -> u64 {
        match self.unavailable_max {
            Amount::Count(count) => count.into(),
            Amount::Percent(percent) => (size * u64::from(percent) / 100).max(1),
        }
    }

    /// The group of a device with these labels.
    pub(super) fn group<'a>(&self, labels: &'a Labels) -> Option<&'a str> {
        self.group_by.as_ref().and_then(|key| labels.get(key)).map(String::as_str)
    }
}

/// A group at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group<'a> {
    pub(super) size: u64,
    pub(super) unavailable: BTreeSet<&'a DeviceId>,
}

/// All groups of the fleet.
#[derive(Debug)]
pub(super) struct Groups<'a> {
    disruption: &'a Disruption,
    groups: BTreeMap<Option<&'a str>, Group<'a>>,
}

impl<'a> Groups<'a> {
    pub(super) fn new(disruption: &'a Disruption, fleet: &'a Fleet, members: &[Member]) -> Self {
        let assigned: BTreeSet<&DeviceId> = members
            .iter()
            .filter(|member| member.state == MemberState::Assigned)
            .map(|member| &member.device)
            .collect();
        let mut groups: BTreeMap<Option<&str>, Group<'_>> = BTreeMap::new();
        for (device, seen) in fleet.iter().filter(|(_, seen)| !seen.revoked) {
            let group = groups.entry(disruption.group(&seen.labels)).or_default();
            group.size += 1;
            if !seen.online || seen.is_on_its_way() || assigned.contains(device) {
                group.unavailable.insert(device);
            }
        }
        Self { disruption, groups }
    }

    /// What keeps the device from being asked, if anything does.
    pub(super) fn full(&self, device: &DeviceId, seen: &Observed) -> Option<Full> {
        let name = self.disruption.group(&seen.labels);
        let group = self.groups.get(&name)?;
        let allowed = self.disruption.allowed(group.size);
        // One that is unavailable already disturbs nobody more.
        let own = usize::from(group.unavailable.contains(device));
        let unavailable = (group.unavailable.len() - own) as u64;
        let others = || group.unavailable.iter().filter(|other| **other != device);
        (unavailable >= allowed).then(|| Full {
            group: name.map(str::to_owned),
            unavailable,
            allowed,
            devices: others().take(NAMED_MAX).map(|other| (*other).clone()).collect(),
        })
    }

    pub(super) fn take(&mut self, device: &'a DeviceId, seen: &'a Observed) {
        self.groups.entry(self.disruption.group(&seen.labels)).or_default().unavailable.insert(device);
    }
}

/// A group in which no more may be unavailable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) group: Option<String>,
    pub(super) unavailable: u64,
    pub(super) allowed: u64,
    /// Some of those that are.
    pub(super) devices: Vec<DeviceId>,
}
