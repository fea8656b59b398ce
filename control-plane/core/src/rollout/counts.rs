//! The members of a rollout in numbers.

use super::MemberState;
use serde::{Deserialize, Serialize};

/// Members by where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MemberCounts {
    /// All of them: the sum of the others.
    pub total: u64,
    pub pending: u64,
    pub assigned: u64,
    pub committed: u64,
    pub failed: u64,
    pub reverted: u64,
    pub skipped: u64,
}

impl MemberCounts {
    /// Counts so many more in a state.
    pub fn add(&mut self, state: MemberState, members: u64) {
        let of = match state {
            MemberState::Pending => &mut self.pending,
            MemberState::Assigned => &mut self.assigned,
            MemberState::Committed => &mut self.committed,
            MemberState::Failed => &mut self.failed,
            MemberState::Reverted => &mut self.reverted,
            MemberState::Skipped => &mut self.skipped,
        };
        *of += members;
        self.total += members;
    }
}
