//! Devices that come, go, and change while a rollout is open.

use super::{
    Candidate, Fleet, MEMBERS_MAX, Member, MemberState, Membership, Observed, Policy,
    wave::{is_of_label, wave_of},
};
use shared::Timestamp;
use std::collections::BTreeSet;

/// Takes members out, moves and adds them as the devices are; says what it did. Only who was not asked yet is touched.
pub(super) fn follow(
    members: &mut Vec<Member>,
    policy: &Policy,
    fleet: &Fleet,
    candidates: &[Candidate],
    now: Timestamp,
) -> Vec<String> {
    let mut notes = Vec::new();
    for member in members.iter_mut().filter(|member| member.state == MemberState::Pending) {
        let Some(seen) = fleet.get(&member.device) else { continue };
        if let Some(reason) = foreign(seen, policy) {
            notes.push(format!("{} is skipped: {reason}", member.device));
            member.state = MemberState::Skipped;
            reason.clone_into(&mut member.reason);
            member.finished_at = Some(now);
        } else if policy.membership == Membership::Follow {
            moved(member, seen, policy, &mut notes, now);
        }
    }
    if policy.membership == Membership::Follow {
        join(members, policy, candidates, &mut notes);
    }
    notes
}

/// Why the device is no member any more, if it is none.
fn foreign(seen: &Observed, policy: &Policy) -> Option<&'static str> {
    if !seen.fits {
        return Some("it is of another board than the version by now");
    }
    (policy.membership == Membership::Follow && !seen.selected)
        .then_some("the rollout's selector does not name it any more")
}

fn moved(member: &mut Member, seen: &Observed, policy: &Policy, notes: &mut Vec<String>, now: Timestamp) {
    let own = wave_of(&policy.waves, &seen.labels);
    // Who is in a wave by its size leaves it only for one of a label.
    let named = own.filter(|own| is_of_label(&policy.waves, *own));
    let wave = if is_of_label(&policy.waves, member.wave) { own } else { named.or(Some(member.wave)) };
    match wave {
        Some(wave) if wave == member.wave => {}
        Some(wave) => {
            notes.push(format!("{} moved from wave {} to {}", member.device, member.wave + 1, wave + 1));
            member.wave = wave;
        }
        None => {
            let reason = "it has the label of no wave any more";
            notes.push(format!("{} is skipped: {reason}", member.device));
            member.state = MemberState::Skipped;
            reason.clone_into(&mut member.reason);
            member.finished_at = Some(now);
        }
    }
}

fn join(members: &mut Vec<Member>, policy: &Policy, candidates: &[Candidate], notes: &mut Vec<String>) {
    let mut known: BTreeSet<_> = members.iter().map(|member| member.device.clone()).collect();
    for Candidate { device, labels } in candidates {
        let Some(wave) = wave_of(&policy.waves, labels) else { continue };
        if known.len() >= MEMBERS_MAX || !known.insert(device.clone()) {
            continue;
        }
        notes.push(format!("{device} joined wave {}", wave + 1));
        members.push(Member::new(device.clone(), wave));
    }
}
