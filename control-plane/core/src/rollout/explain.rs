//! Where a rollout and its members are, in words.

use super::{
    Fleet, Member, MemberCounts, MemberState, Observed, Policy, Reading, State, Status, Verdict, evidence,
    hold::{Hold, Turns},
    planner::Input,
    tally::{Tally, tally},
};
use serde::{Deserialize, Serialize};
use shared::{DeviceId, Timestamp, wire::Phase};
use std::collections::BTreeMap;

/// A rollout with its reasons.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    pub status: Status,
    pub members: Vec<Member>,
    /// What the gates behind the newest wave say.
    pub gates: Vec<Reading>,
}

/// Why a device is where it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Why {
    #[serde(flatten)]
    pub member: Member,
    /// The rollout's own reason.
    pub rollout: String,
    /// Everything that has to change before the device is asked, what comes first in front.
    pub waits_for: Vec<String>,
    /// The gates behind the newest wave.
    pub gates: Vec<Reading>,
}

/// Says of every member that is not through why it is where it is, and of the rollout what it waits for. Changes
/// nothing but reasons. It is for whoever looks: what it says of a download changes with every chunk and is nothing
/// to keep.
pub fn explain(input: Input<'_>) -> Explained {
    let Input { policy, fleet, evidence, now, .. } = input;
    let (mut status, mut members) = (input.status.clone(), input.members.to_vec());
    let gates = evidence::read(policy, evidence, &members, status.wave);
    if status.state.is_final() {
        return Explained { status, members, gates };
    }
    let mut turns = Turns::new(policy, fleet, &members, now);
    let mut held = Held::default();
    for member in &mut members {
        let seen = fleet.get(&member.device);
        match member.state {
            MemberState::Assigned => member.reason = progress(member, seen),
            MemberState::Pending => {
                let holds = turns.holds(&status, member, seen);
                let first = holds.first();
                member.reason = first.map_or_else(|| "gets the version next".to_owned(), ToString::to_string);
                if let Some(hold) = first {
                    held.count(hold);
                }
            }
            MemberState::Committed | MemberState::Failed | MemberState::Reverted | MemberState::Skipped => {}
        }
    }
    if status.state == State::Running {
        status.reason = waits(&status, policy, &members, fleet, &gates, now) + &held.to_string();
    }
    Explained { status, members, gates }
}

/// Why a device is where it is; nothing for one that is no member.
pub fn why(input: Input<'_>, device: &DeviceId) -> Option<Why> {
    let Explained { status, members, gates } = explain(input);
    let member = members.iter().find(|member| member.device == *device)?.clone();
    let mut waits_for = Vec::new();
    if member.state == MemberState::Pending && !status.state.is_final() {
        let mut turns = Turns::new(input.policy, input.fleet, &members, input.now);
        let holds = turns.holds(&status, &member, input.fleet.get(device));
        waits_for.extend(holds.iter().map(ToString::to_string));
    }
    Some(Why { member, rollout: status.reason, waits_for, gates })
}

/// Why a rollout is as it is, as far as that takes neither its members nor the fleet: for lists of many. Who is offline,
/// which gate is shut and what holds whom, [`explain`] says of one.
pub fn glance(status: &Status, policy: &Policy, members: &MemberCounts, now: Timestamp) -> String {
    if status.state != State::Running {
        return status.reason.clone();
    }
    let unapproved = |wave: u32| policy.needs_approval(wave) && !status.approved.contains(&wave);
    let approval =
        |wave: u32| format!("wave {} waits for an approval: `edgewright rollout approve`", wave + 1);
    let (wave, number) = (status.wave, status.wave + 1);
    let Some(closed_at) = status.wave_closed_at else {
        if unapproved(wave) {
            return approval(wave);
        }
        let MemberCounts { assigned, pending, .. } = members;
        return format!("wave {number}: {assigned} devices under way, {pending} not asked yet");
    };
    let gated = policy.gates.iter().any(|gate| gate.from_wave <= number) && !status.waived.contains(&wave);
    if now.since_ms(closed_at) < policy.pause_ms {
        format!("pause after wave {number}")
    } else if unapproved(number) {
        approval(number)
    } else if gated {
        format!("wave {number} is through and waits for its gates")
    } else {
        format!("pause after wave {number}")
    }
}

/// Members of open waves that wait for something else than to be seen, by what that is.
#[derive(Default)]
struct Held(BTreeMap<&'static str, u64>);

impl Held {
    fn count(&mut self, hold: &Hold) {
        let what = match hold {
            Hold::Approval(_) => "an approval",
            Hold::Window(_) => "their window",
            Hold::Disruption(..) => "the disruption budget",
            Hold::Rate(_) => "their turn",
            Hold::Wave(_) | Hold::Offline | Hold::Paused => return,
        };
        *self.0.entry(what).or_default() += 1;
    }
}

impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|(what, count)| write!(f, ", {count} wait for {what}"))
    }
}

/// What a running rollout waits for.
fn waits(
    status: &Status,
    policy: &Policy,
    members: &[Member],
    fleet: &Fleet,
    gates: &[Reading],
    now: Timestamp,
) -> String {
    let waves = tally(members, fleet, false);
    let number = status.wave + 1;
    if let Some(closed_at) = status.wave_closed_at {
        let shut = gates.iter().filter(|reading| {
            let holds = policy.gates.get(reading.gate).is_some_and(|gate| gate.from_wave <= number);
            holds && reading.verdict != Verdict::Open && !status.waived.contains(&status.wave)
        });
        let shut: Vec<_> = shut.map(|reading| reading.text.as_str()).collect();
        let unapproved = policy.needs_approval(number) && !status.approved.contains(&number);
        return match (shut.is_empty(), now.since_ms(closed_at) < policy.pause_ms) {
            (false, _) => format!("wave {number} is through and waits for its gates: {}", shut.join("; ")),
            (true, true) => format!("pause after wave {number}"),
            (true, false) if unapproved => {
                format!("wave {} waits for an approval: `edgewright rollout approve`", number + 1)
            }
            (true, false) => format!("pause after wave {number}"),
        };
    }
    let assigned: u64 = waves.values().map(|wave| wave.assigned).sum();
    let offline: u64 = waves.range(..=status.wave).map(|(_, wave)| wave.pending - wave.reachable).sum();
    let newest: Tally = waves.get(&status.wave).copied().unwrap_or_default();
    let is_last = waves.keys().next_back().is_none_or(|&last| last <= status.wave);
    if newest.is_under_way() || newest.committed > 0 || is_last {
        format!("wave {number}: {assigned} devices under way, {offline} offline")
    } else {
        format!("wave {number} waits for a device that proves the version; {offline} are offline")
    }
}

/// How far a device is that has the assignment.
pub(super) fn progress(member: &Member, seen: Option<&Observed>) -> String {
    let Some(seen) = seen else { return "not seen".to_owned() };
    if !seen.online {
        return "went offline with the assignment".to_owned();
    }
    if member.generation.is_some_and(|generation| seen.reported_generation < generation) {
        return "has not accepted the assignment yet".to_owned();
    }
    match seen.slot.as_ref().map(|slot| &slot.phase) {
        None | Some(Phase::Idle) => "accepted the assignment".to_owned(),
        Some(Phase::Fetching { chunks_done, chunks_total, .. }) => {
            format!("fetching, {chunks_done} of {chunks_total} chunks")
        }
        Some(Phase::Testing { .. }) => "testing the golden inputs".to_owned(),
        Some(Phase::Trial { .. }) => "in its trial".to_owned(),
        Some(Phase::Waiting { reason, .. }) => format!("waiting: {reason}"),
    }
}
