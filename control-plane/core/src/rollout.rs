//! Rollouts: what one is, and the planner that says what happens next.
//!
//! The planner is a function of the rollout as it is, the fleet as it is seen, the evidence and the time. Waves are
//! fixed when a rollout is made, unless its membership follows the labels of devices. A wave opens when the one before
//! is closed, the pause has passed, every gate behind it is open, and it is approved where it needs that. It is closed
//! when no member is under way, none that is online still waits, and at least one has committed. Members that are
//! offline stay pending and get the version as soon as they are seen, as long as the rollout runs. In an open wave a
//! member is asked within its windows, the rate and the disruption budget.
//!
//! The rollout stops at once when the share of failed members of any wave is over what is allowed: of all its
//! members while it is under way, of those that finished once nobody is. It stops, too, when nobody is left who
//! could commit the version. Then members that failed or had not finished get back what they had, pending ones never
//! see the version, committed ones keep it unless the policy says otherwise.

mod attention;
mod bounds;
mod counts;
mod disruption;
mod evidence;
mod explain;
mod gate;
mod hold;
mod membership;
mod observe;
mod planner;
mod policy;
mod preview;
mod rate;
mod tally;
mod verdict;
mod wave;
mod windows;

pub use attention::Attention;
pub use counts::MemberCounts;
pub use disruption::{Amount, Disruption};
pub use evidence::{Evidence, Sample, Stored};
pub use explain::{Explained, Why, explain, glance, why};
pub use gate::{Gate, Reading, Scope, Signal, Then, Verdict};
pub use planner::{Action, Input, Plan, RECONNECT_MS, Rejected, plan};
pub use policy::{MEMBERS_MAX, Membership, Policy, WAIT_MS_MAX};
pub use preview::{
    DevicePreview, GatePreview, Preview, Problem, Proposal, Severity, WavePreview, preview, problems,
};
pub use rate::{Constant, Exponential, Rate};
pub use wave::{Candidate, Label, Wave, WaveSize, divide};
pub use windows::{Day, Time, Window};

use serde::{Deserialize, Serialize};
use shared::{
    DeviceId, Timestamp,
    wire::{Phase, SlotReport, TrialCounts, WaitsFor},
};
use std::collections::{BTreeMap, BTreeSet};

/// Labels of a device.
pub type Labels = BTreeMap<String, String>;

/// Where a device is in a rollout. The last four are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// Has not been asked yet.
    Pending,
    /// Has the assignment; the outcome is open.
    Assigned,
    /// Passed its trial.
    Committed,
    /// Refused it, rolled it back, or took too long.
    Failed,
    /// Had not finished, or had committed, when the rollout ended, and got back what it had.
    Reverted,
    /// The rollout ended before it was asked, or the device was revoked.
    Skipped,
}

impl MemberState {
    /// Will nothing change any more?
    pub fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::Assigned => false,
            Self::Committed | Self::Failed | Self::Reverted | Self::Skipped => true,
        }
    }
}

/// A device in a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Member {
    pub device: DeviceId,
    /// From 0.
    pub wave: u32,
    pub state: MemberState,
    /// Why it is in this state, for people.
    pub reason: String,
    /// The desired generation that carries the assignment.
    pub generation: Option<u64>,
    pub assigned_at: Option<Timestamp>,
    /// Until then it had no budget for what it needs: its time counts from here.
    #[serde(default)]
    pub waited_until: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// What its trial counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<TrialCounts>,
    /// What a gate on health found, once it looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
}

/// Where a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum State {
    Running,
    /// By an operator: nobody is asked; who was asked goes on, and gates still hold.
    Paused,
    /// Every device committed or failed within what is allowed, and at least one committed.
    Completed,
    /// By a gate.
    Stopped,
    /// By an operator.
    Aborted,
}

impl State {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Stopped => "stopped",
            Self::Aborted => "aborted",
        }
    }

    /// Will nothing change any more?
    pub fn is_final(self) -> bool {
        match self {
            Self::Running | Self::Paused => false,
            Self::Completed | Self::Stopped | Self::Aborted => true,
        }
    }
}

/// How far a rollout is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Status {
    pub state: State,
    /// The newest open wave, from 0.
    pub wave: u32,
    /// When that wave was closed, and the pause began.
    pub wave_closed_at: Option<Timestamp>,
    /// Why it is as it is, for people.
    pub reason: String,
    /// Waves that an operator has approved, from 0.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub approved: BTreeSet<u32>,
    /// Waves behind which an operator needs no more evidence, from 0. What a gate stops is stopped still.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub waived: BTreeSet<u32>,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            state: State::Running,
            wave: 0,
            wave_closed_at: None,
            reason: "started".to_owned(),
            approved: BTreeSet::new(),
            waived: BTreeSet::new(),
        }
    }
}

/// What an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    Pause,
    Resume,
    Abort,
    /// Let a wave that needs it begin; without a number the next that needs it.
    #[serde(skip)]
    Approve {
        wave: Option<u32>,
    },
    /// Let the gates behind a wave do without more evidence; without a number the newest open wave.
    #[serde(skip)]
    Waive {
        wave: Option<u32>,
    },
}

/// What is seen of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub online: bool,
    pub revoked: bool,
    /// The newest desired generation that was made for it.
    pub desired_generation: u64,
    /// The newest that it has accepted.
    pub reported_generation: u64,
    /// Its report on the rollout's slot.
    pub slot: Option<SlotReport>,
    pub labels: Labels,
    /// Is it of the board that the version is for?
    pub fits: bool,
    /// Does the rollout's selector name it?
    pub selected: bool,
    /// Some slot of it is on the way to another version.
    pub busy: bool,
    /// Starts of its agent since it committed the version.
    pub starts: u64,
}

impl Default for Observed {
    /// Online and idle, of the right board, selected, without a label.
    fn default() -> Self {
        Self {
            online: true,
            revoked: false,
            desired_generation: 0,
            reported_generation: 0,
            slot: None,
            labels: Labels::new(),
            fits: true,
            selected: true,
            busy: false,
            starts: 0,
        }
    }
}

impl Observed {
    /// Has it not yet come to rest at what it shall run?
    fn is_on_its_way(&self) -> bool {
        self.busy || self.reported_generation < self.desired_generation
    }

    /// Waits until it may receive more.
    fn waits_for_budget(&self) -> bool {
        self.slot
            .as_ref()
            .is_some_and(|slot| matches!(&slot.phase, Phase::Waiting { waits_for: WaitsFor::Budget, .. }))
    }
}

/// What is seen of the fleet: the members of a rollout at least, all devices where its policy has a disruption budget.
pub type Fleet = BTreeMap<DeviceId, Observed>;

#[cfg(test)]
mod tests;
