//! Taking in what the members have reported, and who ran out of time.

use super::{
    Fleet, Member, MemberState, Observed, Policy,
    explain::progress,
    verdict::{judge, own_attempt},
};
use shared::{Digest, Timestamp};

/// That a device waits for its budget is noted this often within its time-out.
const WAIT_NOTED_PARTS: u64 = 4;
/// After a break in listening, devices have this long to come back: neither does their time count, nor is a wave
/// closed because they are offline.
pub const RECONNECT_MS: u64 = 60_000;

/// What members are looked at with.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    pub(super) bundle: Digest,
    pub(super) policy: &'a Policy,
    pub(super) fleet: &'a Fleet,
    pub(super) heard_since: Timestamp,
    pub(super) now: Timestamp,
}

/// Brings one member up to date; says what happened to it, if anything did.
pub(super) fn observe(member: &mut Member, look: Look<'_>) -> Option<String> {
    let Look { bundle, policy, fleet, heard_since, now } = look;
    // A clock that was set back: what lies ahead of it begins again.
    for at in [&mut member.assigned_at, &mut member.finished_at].into_iter().flatten() {
        *at = now.min(*at);
    }
    let seen = fleet.get(&member.device);
    if member.state == MemberState::Committed {
        return look_at_health(member, seen, look);
    }
    if member.state.is_final() {
        return None;
    }
    if member.state == MemberState::Assigned {
        wait_for_budget(member, seen, policy, now);
    }
    let gone = seen.is_none_or(|seen| seen.revoked);
    let late = deadline(member, policy, heard_since).is_some_and(|at| at <= now);
    let verdict = match member.state {
        _ if gone => Some((MemberState::Skipped, "the device was revoked".to_owned())),
        MemberState::Assigned => judge(member, seen, bundle).or_else(|| {
            let waited_s = policy.device_timeout_ms / 1000;
            late.then(|| {
                let reason = format!("not finished after {waited_s} s: {}", progress(member, seen));
                (MemberState::Failed, reason)
            })
        }),
        MemberState::Pending
        | MemberState::Committed
        | MemberState::Failed
        | MemberState::Reverted
        | MemberState::Skipped => None,
    };
    let (state, reason) = verdict?;
    let note = format!("{} {}: {reason}", member.device, word(state));
    member.trial = seen.and_then(|seen| own_attempt(member, seen, bundle)).and_then(|attempt| attempt.trial);
    member.state = state;
    member.reason = reason;
    member.finished_at = Some(now);
    Some(note)
}

/// A device that committed is looked at once: a gate on health says when.
fn look_at_health(member: &mut Member, seen: Option<&Observed>, look: Look<'_>) -> Option<String> {
    let gate = look.policy.health()?;
    let due = health_due(member, look.policy, look.heard_since)?;
    if due > look.now {
        return None;
    }
    let seen = seen.filter(|seen| !seen.revoked)?;
    let well = seen.online && seen.starts <= u64::from(gate.restarts_max());
    member.healthy = Some(well);
    let device = &member.device;
    (!well).then(|| match seen.online {
        true => {
            format!("{device} is not well: its agent has started {} times since it committed", seen.starts)
        }
        false => format!("{device} is not well: it is offline"),
    })
}

/// When a device that committed is looked at; only time in which it was listened to counts.
pub(super) fn health_due(member: &Member, policy: &Policy, heard_since: Timestamp) -> Option<Timestamp> {
    let gate = policy.health()?;
    let waits = member.state == MemberState::Committed && member.healthy.is_none();
    let finished_at = member.finished_at.filter(|_| waits)?;
    let from = if finished_at < heard_since { heard_since.plus_ms(RECONNECT_MS) } else { finished_at };
    Some(from.plus_ms(gate.after_ms()))
}

/// A device that waits for its budget loses no time by it. That is noted from time to time, not at every look.
fn wait_for_budget(member: &mut Member, seen: Option<&Observed>, policy: &Policy, now: Timestamp) {
    if let Some(until) = &mut member.waited_until {
        *until = now.min(*until);
    }
    let waits = seen.is_some_and(|seen| {
        seen.waits_for_budget()
            && member.generation.is_some_and(|generation| seen.reported_generation >= generation)
    });
    let noted = member.waited_until.max(member.assigned_at).unwrap_or_default();
    if waits && now.since_ms(noted) >= policy.device_timeout_ms / WAIT_NOTED_PARTS {
        member.waited_until = Some(now);
    }
}

/// When a device that has the assignment has run out of time. Only time in which it was listened to counts.
pub(super) fn deadline(member: &Member, policy: &Policy, heard_since: Timestamp) -> Option<Timestamp> {
    let assigned_at = member.assigned_at.filter(|_| member.state == MemberState::Assigned)?;
    let begun_at = member.waited_until.map_or(assigned_at, |until| until.max(assigned_at));
    let from = if begun_at < heard_since { heard_since.plus_ms(RECONNECT_MS) } else { begun_at };
    Some(from.plus_ms(policy.device_timeout_ms))
}

fn word(state: MemberState) -> &'static str {
    match state {
        MemberState::Pending => "waits",
        MemberState::Assigned => "assigned",
        MemberState::Committed => "committed",
        MemberState::Failed => "failed",
        MemberState::Reverted => "reverted",
        MemberState::Skipped => "skipped",
    }
}
