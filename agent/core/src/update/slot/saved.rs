//! What a slot keeps on disk.

use serde::{Deserialize, Serialize};
use shared::{
    Digest, SlotName,
    wire::{Assignment, Attempt, VersionRef},
};

/// What the slot shall run, and who says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub assignment: Assignment,
    /// The desired generation in which this assignment came up.
    pub generation: u64,
    pub chunk_bytes: u32,
}

impl Target {
    pub(super) fn version(&self) -> VersionRef {
        let Assignment { model, version, version_id, bundle, .. } = &self.assignment;
        VersionRef { model: model.clone(), version: *version, version_id: *version_id, bundle: *bundle }
    }

    pub(super) fn bundle(&self) -> Digest {
        self.assignment.bundle
    }
}

/// What survives a restart of a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotSaved {
    pub slot: SlotName,
    pub target: Option<Target>,
    /// The version that answers requests.
    pub active: Option<VersionRef>,
    /// The last that passed its trial.
    pub last_good: Option<VersionRef>,
    /// How the newest finished attempt ended.
    pub attempt: Option<Attempt>,
    /// There while `active` has to prove itself.
    pub trial: Option<TrialSaved>,
    /// Bundle under test and how often a test of it was begun.
    pub test_starts: Option<(Digest, u32)>,
    pub runtime: Option<String>,
    /// Chunk bytes that came for the target, or were asked for.
    #[serde(default)]
    pub update_bytes: u64,
    /// The fleet was told that the budget of the target, or of the day, is spent.
    #[serde(default)]
    pub budget_told: bool,
    /// Deltas to files of the target that are of no use.
    #[serde(default)]
    pub deltas_refused: Vec<Digest>,
}

impl SlotSaved {
    /// A slot that never held anything.
    pub fn empty(slot: SlotName) -> Self {
        Self {
            slot,
            target: None,
            active: None,
            last_good: None,
            attempt: None,
            trial: None,
            test_starts: None,
            runtime: None,
            update_bytes: 0,
            budget_told: false,
            deltas_refused: Vec::new(),
        }
    }

    /// Another update begins.
    pub(super) fn forget_update(&mut self) {
        self.update_bytes = 0;
        self.budget_told = false;
        self.deltas_refused.clear();
    }
}

/// What survives a restart within a trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialSaved {
    /// What asked for the version on trial.
    pub target: Target,
    /// The version to go back to.
    pub fallback: Option<VersionRef>,
    /// Restarts of the agent since the trial began.
    pub restarts: u32,
    /// It was told that the version answers.
    #[serde(default)]
    pub announced: bool,
}
