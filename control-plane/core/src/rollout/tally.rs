//! How the members of each wave stand, in numbers.

use super::{Fleet, Member, MemberState};
use std::collections::BTreeMap;

/// One wave in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// All members.
    pub(super) size: u64,
    pub(super) pending: u64,
    /// Those of the pending that could be asked at once.
    pub(super) reachable: u64,
    pub(super) assigned: u64,
    pub(super) committed: u64,
    pub(super) failed: u64,
}

impl Tally {
    /// Is anybody on the way to an outcome, or could be at once?
    pub(super) fn is_under_way(&self) -> bool {
        self.assigned > 0 || self.reachable > 0
    }

    /// Members whose outcome is open.
    pub(super) fn open(&self) -> u64 {
        self.pending + self.assigned
    }

    /// Members that have shown what the version does.
    pub(super) fn tried(&self) -> u64 {
        self.committed + self.failed
    }
}

/// The waves that have members. With `returning`, whoever is offline is expected back at any moment.
pub(super) fn tally(members: &[Member], fleet: &Fleet, returning: bool) -> BTreeMap<u32, Tally> {
    let mut waves: BTreeMap<u32, Tally> = BTreeMap::new();
    for member in members {
        let wave = waves.entry(member.wave).or_default();
        wave.size += 1;
        match member.state {
            MemberState::Pending => {
                wave.pending += 1;
                let online = fleet.get(&member.device).is_some_and(|seen| seen.online);
                wave.reachable += u64::from(online || returning);
            }
            MemberState::Assigned => wave.assigned += 1,
            MemberState::Committed => wave.committed += 1,
            MemberState::Failed => wave.failed += 1,
            MemberState::Reverted | MemberState::Skipped => {}
        }
    }
    waves
}
