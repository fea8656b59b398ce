//! Where a rollout and its members are, in words.

use super::{Fleet, Member, MemberState, Observed, State, Status, tally::tally};
use shared::wire::Phase;

/// Says of every member that is not through why it is where it is, and of the rollout what it waits for. Changes
/// nothing but reasons. It is for whoever looks: what it says of a download changes with every chunk and is nothing
/// to keep.
pub fn explain(status: &mut Status, members: &mut [Member], fleet: &Fleet) {
    if status.state.is_final() {
        return;
    }
    for member in members.iter_mut() {
        let seen = fleet.get(&member.device);
        let online = seen.is_some_and(|seen| seen.online);
        match member.state {
            MemberState::Assigned => member.reason = progress(member, seen),
            MemberState::Pending if member.wave > status.wave => {
                member.reason = format!("waits for wave {}", member.wave + 1);
            }
            MemberState::Pending if !online => {
                "offline; gets the version when it is seen".clone_into(&mut member.reason);
            }
            MemberState::Pending if status.state == State::Paused => {
                "waits for the rollout to be resumed".clone_into(&mut member.reason);
            }
            MemberState::Pending => "gets the version next".clone_into(&mut member.reason),
            MemberState::Committed | MemberState::Failed | MemberState::Reverted | MemberState::Skipped => {}
        }
    }
    if status.state == State::Paused {
        return;
    }
    let waves = tally(members, fleet, false);
    let number = status.wave + 1;
    if status.wave_closed_at.is_some() {
        status.reason = format!("pause after wave {number}");
        return;
    }
    let assigned: u64 = waves.values().map(|wave| wave.assigned).sum();
    let offline: u64 = waves.range(..=status.wave).map(|(_, wave)| wave.pending - wave.reachable).sum();
    let newest = waves.get(&status.wave).copied().unwrap_or_default();
    let is_last = waves.keys().next_back().is_none_or(|&last| last <= status.wave);
    status.reason = if newest.is_under_way() || newest.committed > 0 || is_last {
        format!("wave {number}: {assigned} devices under way, {offline} offline")
    } else {
        format!("wave {number} waits for a device that proves the version; {offline} are offline")
    };
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
