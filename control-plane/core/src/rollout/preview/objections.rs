//! What speaks against a rollout before it runs.

use super::Proposal;
use crate::rollout::{Member, Membership, Policy, Scope, Then, WaveSize, divide, windows::is_zone};
use serde::{Deserialize, Serialize};
use shared::DeviceId;
use std::collections::BTreeSet;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Such a rollout is refused.
    Error,
    Warning,
}

/// Something that is probably not meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "Objection"))]
pub struct Problem {
    pub severity: Severity,
    pub text: String,
}

fn error(text: String) -> Problem {
    Problem { severity: Severity::Error, text }
}

pub(super) fn warning(text: String) -> Problem {
    Problem { severity: Severity::Warning, text }
}

/// What speaks against a rollout whose policy is valid, before anything runs.
pub fn problems(proposal: Proposal<'_>) -> Vec<Problem> {
    let Proposal { policy, devices, .. } = proposal;
    let members = divide(&policy.waves, devices.iter().cloned());
    let mut found = Vec::new();
    empty_waves(proposal, &members, &mut found);
    gates_without_enough(policy, &members, &mut found);
    for (at, window) in policy.windows.iter().enumerate() {
        let Some(key) = &window.zone_label else { continue };
        let mut named = devices.iter().filter_map(|device| device.labels.get(key).map(|zone| (device, zone)));
        if let Some((device, zone)) = named.find(|(_, zone)| !is_zone(zone)) {
            found.push(warning(format!(
                "label {key}={zone} of {} names no time zone: {} holds for it in policy.windows[{at}]",
                device.device, window.zone
            )));
        }
    }
    if let Some(key) = policy.disruption.as_ref().and_then(|disruption| disruption.group_by.as_ref())
        && !devices.iter().any(|device| device.labels.contains_key(key))
    {
        found.push(warning(format!(
            "no device has a label {key}: the disruption budget takes them as one group"
        )));
    }
    found
}

fn empty_waves(proposal: Proposal<'_>, members: &[Member], found: &mut Vec<Problem>) {
    let Proposal { policy, devices, .. } = proposal;
    let taken: BTreeSet<&DeviceId> = members.iter().map(|member| &member.device).collect();
    for (at, wave) in policy.waves.iter().enumerate() {
        if members.iter().any(|member| member.wave as usize == at) {
            continue;
        }
        let number = at + 1;
        found.push(match &wave.size {
            WaveSize::Label(label) => {
                let text = format!(
                    "wave {number} matches nothing: no device left has the label {}={}",
                    label.key, label.value
                );
                match policy.membership {
                    Membership::Follow => warning(text),
                    Membership::Fixed => {
                        error(format!("{text}; see `edgewright device list`, or set membership = \"follow\""))
                    }
                }
            }
            WaveSize::Count(_) | WaveSize::Percent(_) => warning(format!(
                "wave {number} is empty: the waves before take all {} devices",
                devices.len()
            )),
        });
    }
    let left: Vec<_> = devices.iter().filter(|device| !taken.contains(&device.device)).collect();
    if let Some(first) = left.first() {
        found.push(warning(format!(
            "{} devices are in no wave, as {}: end with a wave of 100 % for the rest",
            left.len(),
            first.device
        )));
    }
}

/// Gates on devices that the waves have too few of.
fn gates_without_enough(policy: &Policy, members: &[Member], found: &mut Vec<Problem>) {
    let sizes = |wave: u32| members.iter().filter(|member| member.wave == wave).count() as u64;
    for (at, gate) in policy.gates.iter().enumerate() {
        if !gate.signal.counts_devices() || gate.then == Then::Open {
            continue;
        }
        for wave in 0..policy.waves.len() as u32 {
            let of = match gate.scope {
                Scope::Rollout => (0..=wave).map(sizes).sum(),
                Scope::Wave => sizes(wave),
            };
            if wave + 1 >= gate.from_wave && sizes(wave) > 0 && of < gate.needed() {
                found.push(error(format!(
                    "policy.gates[{at}], {}: can never open behind wave {}: it needs {} devices without a failure, \
                     and there are {of}; set from_wave, a looser limit or then = \"open\"",
                    gate.signal,
                    wave + 1,
                    gate.needed()
                )));
                break;
            }
        }
    }
}
