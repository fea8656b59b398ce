//! What the control plane keeps: data sets, jobs, versions, devices, rollouts. The JSON of these types is the API's.

use crate::rollout::{self, Member, MemberCounts, Policy, Reading, Status};
use serde::{Deserialize, Serialize};
use shared::{
    BoardId, DatasetId, DeviceId, Digest, JobId, ModelName, ModelVersionId, RolloutId, SlotName, Timestamp,
    VersionLabel,
    job::{Budget, DatasetSchema, FrontRef, JobReport, SearchMethod, Stage},
    latency::BoardLatency,
    space::SearchSpace,
    wire::{Assignment, EventKind, Reported, TrialPolicy},
};
use std::{collections::BTreeMap, path::PathBuf};
use uuid::Uuid;

/// A registered data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Dataset {
    pub id: DatasetId,
    pub path: PathBuf,
    pub schema: DatasetSchema,
    pub registered_at: Timestamp,
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum JobTask {
    Search,
    Retrain,
    /// Train a network that a search judged.
    Train,
}

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for its turn.
    Queued,
    /// A worker runs it, or will again after a restart.
    Running,
    /// A version came out of it.
    Done,
    /// Ended without a version; `error` says why.
    Failed,
    /// Ended by an operator.
    Cancelled,
}

impl JobState {
    /// Will nothing change any more?
    pub fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Done | Self::Failed | Self::Cancelled => true,
        }
    }
}

/// A job of the forge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Job {
    pub id: JobId,
    pub task: JobTask,
    pub model: ModelName,
    pub dataset: DatasetId,
    pub board: BoardId,
    pub seed: u64,
    pub threads: u32,
    pub budget: Budget,
    /// How a search finds its cell; `None` for a retraining or a training.
    #[serde(default)]
    pub method: Option<SearchMethod>,
    /// What a search may find; `None` where it is what is usual for the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<SearchSpace>,
    /// The judged network that a training takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<FrontRef>,
    /// What was measured on devices of the board when the job was queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<BoardLatency>,
    /// The version that a retraining starts from.
    pub parent: Option<ModelVersionId>,
    pub state: JobState,
    pub progress: JobProgress,
    /// Why the job failed.
    pub error: Option<String>,
    /// The version that came out, as in `mnist@v1.0`.
    pub version: Option<String>,
    /// What the worker measured.
    pub report: Option<JobReport>,
    /// The found cell as text.
    pub cell: Option<String>,
    /// The worker's process, while there is one.
    pub pid: Option<u32>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

/// The newest of what a worker said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobProgress {
    pub stage: Option<Stage>,
    pub step: u64,
    pub total: u64,
    pub loss: Option<f64>,
    pub accuracy: Option<f64>,
    pub resumed_from: Option<u64>,
    pub message: Option<String>,
}

/// Where a version of a model is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum VersionState {
    /// Signed, on no device yet.
    Draft,
    /// A rollout is under way, or one ended early and left it on some devices.
    Canary,
    /// A rollout of it was completed: of each model and board the newest such version.
    Live,
    /// Another version took its place.
    Retired,
}

impl VersionState {
    /// What a version becomes when a rollout of it is created.
    pub fn at_rollout(self) -> Self {
        match self {
            Self::Draft | Self::Retired | Self::Canary => Self::Canary,
            Self::Live => Self::Live,
        }
    }

    /// What a version becomes when a rollout of it has ended. `before` is what it was before it became a canary,
    /// `open` says whether another rollout of it is under way, `held` whether devices shall still run it.
    pub fn after_rollout(self, ended: rollout::State, before: Self, open: bool, held: bool) -> Self {
        match (ended, self) {
            (rollout::State::Completed, _) => Self::Live,
            (rollout::State::Stopped | rollout::State::Aborted, Self::Canary) => {
                if open || (held && before == Self::Draft) { Self::Canary } else { before }
            }
            (rollout::State::Stopped | rollout::State::Aborted, Self::Draft | Self::Live | Self::Retired)
            | (rollout::State::Running | rollout::State::Paused, _) => self,
        }
    }
}

/// A version of a model: one signed bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Version {
    pub id: ModelVersionId,
    /// As in `mnist@v1.0`.
    pub name: String,
    pub model: ModelName,
    pub version: VersionLabel,
    pub board: BoardId,
    pub dataset: Option<DatasetId>,
    pub state: VersionState,
    /// SHA-256 of the signed manifest's envelope.
    pub bundle: Digest,
    /// Size of that envelope.
    pub bundle_bytes: u64,
    /// Bytes of all files of the bundle.
    pub size_bytes: u64,
    pub job: Option<JobId>,
    pub parent: Option<ModelVersionId>,
    /// Was published without the check of its golden outputs.
    pub check_skipped: bool,
    pub report: Option<JobReport>,
    pub files: Vec<shared::manifest::FileEntry>,
    pub created_at: Timestamp,
}

impl Version {
    /// What a device is told to run this version in `slot`; `rollout` is the one that put it there.
    pub fn assignment(&self, slot: SlotName, rollout: Option<RolloutId>, trial: TrialPolicy) -> Assignment {
        Assignment {
            slot,
            model: self.model.clone(),
            version: self.version,
            version_id: self.id,
            bundle: self.bundle,
            bundle_bytes: self.bundle_bytes,
            rollout,
            trial,
            deltas: Vec::new(),
            update_bytes_max: None,
        }
    }
}

/// A device of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Device {
    pub id: DeviceId,
    pub board: BoardId,
    pub agent_version: String,
    pub labels: BTreeMap<String, String>,
    pub online: bool,
    pub enrolled_at: Timestamp,
    pub seen_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    /// The newest desired generation.
    pub generation: u64,
    /// When that generation was made.
    pub desired_at: Timestamp,
    /// Bytes of one chunk in that generation.
    pub chunk_bytes: u32,
    /// What it shall run.
    pub assignments: Vec<Assignment>,
    /// What it said last.
    pub reported: Option<Reported>,
}

/// Where a device is on its way to what it shall run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DeviceState {
    /// It has accepted its newest desired state, or there is none.
    Current,
    /// It has not.
    Behind,
    /// It may not connect any more.
    Revoked,
}

impl DeviceState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Current, Self::Behind, Self::Revoked];

    /// The wire's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Behind => "behind",
            Self::Revoked => "revoked",
        }
    }
}

impl std::str::FromStr for DeviceState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|state| state.name() == text);
        found.ok_or_else(|| format!("{text:?} is no state of a device; there are {}", known()))
    }
}

impl Device {
    /// Where it is on its way to what it shall run.
    pub fn state(&self) -> DeviceState {
        let reported = self.reported.as_ref().map_or(0, |reported| reported.generation);
        match self.revoked_at {
            Some(_) => DeviceState::Revoked,
            None if reported < self.generation => DeviceState::Behind,
            None => DeviceState::Current,
        }
    }
}

/// Board of a device that has a certificate and has not said what it is. No board has that id, so no version goes there.
pub const BOARD_UNKNOWN: &str = "unknown";

/// A one-time token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Token {
    pub id: Uuid,
    /// The one device that may use it.
    pub device: Option<DeviceId>,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub used_at: Option<Timestamp>,
    /// Who used it.
    pub used_by: Option<DeviceId>,
}

/// Something that a device told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeviceEvent {
    pub id: Uuid,
    pub device: DeviceId,
    pub at: Timestamp,
    pub received_at: Timestamp,
    pub slot: Option<SlotName>,
    pub bundle: Option<Digest>,
    pub kind: EventKind,
    pub detail: String,
}

/// Something that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SecurityEvent {
    /// In the order in which they were kept; zero before that.
    #[serde(default)]
    pub number: u64,
    pub at: Timestamp,
    /// Who tried, as far as known.
    pub subject: String,
    /// As in `foreign_topic`.
    pub kind: String,
    /// Of the newest.
    pub detail: String,
    /// How often, where it was refused again and again.
    pub count: u64,
}

/// Whom a rollout is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Selector {
    /// These devices; empty is every device.
    #[serde(default)]
    pub devices: Vec<DeviceId>,
    /// Only devices with all these labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl Selector {
    /// Does the device belong to it?
    pub fn matches(&self, device: &Device) -> bool {
        self.names(&device.id, &device.labels)
    }

    /// Does a device with these labels belong to it?
    pub fn names(&self, device: &DeviceId, labels: &BTreeMap<String, String>) -> bool {
        (self.devices.is_empty() || self.devices.contains(device))
            && self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// Devices under a name: those that a selector names at this moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Group {
    pub name: String,
    pub selector: Selector,
    /// How many there are, without those that were revoked.
    pub devices: u64,
    pub created_at: Timestamp,
}

/// A rollout with everything that is known of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Rollout {
    pub id: RolloutId,
    /// As in `mnist@v1.0`.
    pub version: String,
    pub version_id: ModelVersionId,
    pub model: ModelName,
    /// The board that the version is for.
    pub board: BoardId,
    pub slot: SlotName,
    pub bundle: Digest,
    pub selector: Selector,
    pub policy: Policy,
    pub trial: TrialPolicy,
    #[serde(flatten)]
    pub status: Status,
    pub devices: Vec<Member>,
    /// What the gates behind the newest wave say while it is open, and after they stopped the rollout.
    #[serde(default)]
    pub gates: Vec<Reading>,
    pub history: Vec<HistoryEntry>,
    /// Payload bytes that delivery published for its bundle while it ran.
    pub bytes_published: u64,
    pub created_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    /// Counts its changes: a plan is carried out on the rollout that it was made for.
    #[serde(default)]
    pub revision: u64,
}

/// A rollout as a list shows it: its members in numbers, its reason as far as those say, and no history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RolloutSummary {
    pub id: RolloutId,
    /// As in `mnist@v1.0`.
    pub version: String,
    pub version_id: ModelVersionId,
    pub model: ModelName,
    /// The board that the version is for.
    pub board: BoardId,
    pub slot: SlotName,
    pub bundle: Digest,
    pub selector: Selector,
    pub policy: Policy,
    #[serde(flatten)]
    pub status: Status,
    /// Devices by where they are in it.
    pub members: MemberCounts,
    /// Payload bytes that delivery published for its bundle while it ran.
    pub bytes_published: u64,
    pub created_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    /// Counts its changes.
    pub revision: u64,
}

impl RolloutSummary {
    /// Of a rollout whose members were counted; those that it holds itself are not looked at.
    pub fn new(rollout: Rollout, members: MemberCounts) -> Self {
        Self {
            id: rollout.id,
            version: rollout.version,
            version_id: rollout.version_id,
            model: rollout.model,
            board: rollout.board,
            slot: rollout.slot,
            bundle: rollout.bundle,
            selector: rollout.selector,
            policy: rollout.policy,
            status: rollout.status,
            members,
            bytes_published: rollout.bytes_published,
            created_at: rollout.created_at,
            finished_at: rollout.finished_at,
            revision: rollout.revision,
        }
    }
}

/// One thing that happened in a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HistoryEntry {
    pub at: Timestamp,
    pub text: String,
}

/// What ingest has counted since the store was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct IngestCounts {
    /// Events, feedback and telemetry that were stored.
    pub events: u64,
    pub feedback: u64,
    pub telemetry: u64,
    /// Records that came again under their id and were not stored again.
    pub redelivered: u64,
    /// Records that were stored although one of the same content, under another id, was there already.
    pub duplicate_rows: u64,
    /// Messages that were refused.
    pub refused: u64,
}

#[cfg(test)]
mod tests {
    use super::VersionState::{Canary, Draft, Live, Retired};
    use crate::rollout::State::{Aborted, Completed, Stopped};

    #[test]
    fn a_version_goes_back_to_what_it_was_unless_devices_still_run_it() {
        assert_eq!(Canary.after_rollout(Completed, Draft, false, true), Live);
        assert_eq!(Canary.after_rollout(Stopped, Draft, false, false), Draft);
        assert_eq!(Canary.after_rollout(Stopped, Draft, false, true), Canary);
        assert_eq!(Canary.after_rollout(Aborted, Draft, true, false), Canary);
        assert_eq!(Canary.after_rollout(Aborted, Retired, false, true), Retired);
        assert_eq!(Live.after_rollout(Stopped, Draft, false, true), Live);
    }
}
