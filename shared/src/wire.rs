//! Wire version 1: what goes up and down between control plane and device.
//!
//! Control messages ([`Desired`], [`Reported`], [`Presence`], [`Want`]) are JSON, unknown fields are ignored so
//! that a newer peer is understood. Batches of records are CBOR. Decoders take hostile bytes: size first, then
//! form, then the rules.

use crate::{
    BoardId, DeviceId, Digest, ModelName, ModelVersionId, RolloutId, SlotName, Timestamp, VersionLabel,
    limits, signing,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeSet;
use uuid::Uuid;

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Over the cap for this kind of message.
    #[error("{what} of {size_bytes} bytes is over the limit of {limit_bytes} bytes")]
    TooLarge { what: &'static str, size_bytes: usize, limit_bytes: usize },
    /// Not JSON, or not this message.
    #[error("not a {what}")]
    Json {
        what: &'static str,
        #[source]
        source: serde_json::Error,
    },
    /// Not CBOR, or not this batch.
    #[error("not a {what}: {reason}")]
    Cbor { what: &'static str, reason: String },
    /// The right form, but breaks a rule.
    #[error("{what} is invalid: {reason}")]
    Invalid { what: &'static str, reason: String },
}

/// What the device shall run. Signed by the director; a device refuses a generation older than one it has seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    pub device: DeviceId,
    /// Raised by one with each change.
    pub generation: u64,
    pub issued_at: Timestamp,
    /// Bytes of one chunk when blobs are fetched.
    pub chunk_bytes: u32,
    /// One for each slot; a slot that is not listed is emptied.
    pub assignments: Vec<Assignment>,
}

/// Which bundle shall be in a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Assignment {
    pub slot: SlotName,
    pub model: ModelName,
    pub version: VersionLabel,
    pub version_id: ModelVersionId,
    /// SHA-256 of the signed manifest's envelope.
    pub bundle: Digest,
    /// Size of that envelope.
    pub bundle_bytes: u64,
    /// The rollout that asks for it.
    pub rollout: Option<RolloutId>,
    pub trial: TrialPolicy,
    /// For files of the bundle that the device can make from what it has, at most [`limits::DELTAS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deltas: Vec<DeltaRef>,
    /// Most chunk bytes that the device may receive for this update; the device's own limit holds beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_bytes_max: Option<u64>,
}

/// A file of a bundle as the difference to a file that the device may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeltaRef {
    /// The file that the device has.
    pub from: Digest,
    /// The file of the bundle.
    pub to: Digest,
    /// The blob with the difference.
    pub delta: Digest,
    /// Size of that blob.
    pub bytes: u64,
}

impl Assignment {
    fn validate(&self) -> Result<(), String> {
        let slot = &self.slot;
        if self.bundle_bytes == 0 || self.bundle_bytes > limits::ENVELOPE_BYTES_MAX as u64 {
            return Err(format!("bundle_bytes of slot {slot} is out of range"));
        }
        if self.update_bytes_max == Some(0) {
            return Err(format!("update_bytes_max of slot {slot} is 0, at least 1"));
        }
        if self.deltas.len() > limits::DELTAS_MAX {
            return Err(format!(
                "slot {slot} has {} deltas, at most {}",
                self.deltas.len(),
                limits::DELTAS_MAX
            ));
        }
        let mut made = BTreeSet::new();
        for delta in &self.deltas {
            if delta.bytes == 0 || delta.bytes > limits::DELTA_FILE_BYTES_MAX {
                return Err(format!(
                    "a delta of slot {slot} has {} bytes, allowed are 1 to {}",
                    delta.bytes,
                    limits::DELTA_FILE_BYTES_MAX
                ));
            }
            if delta.from == delta.to || delta.delta == delta.from || delta.delta == delta.to {
                return Err(format!("a delta of slot {slot} names a blob twice"));
            }
            if !made.insert(delta.to) {
                return Err(format!("slot {slot} has two deltas to one file"));
            }
        }
        self.trial.validate()
    }
}

/// How a version proves itself after activation.
///
/// The trial ends after `duration_ms`. It fails at once when at least `requests_min` requests were served and a
/// bound is broken; it fails at its end when a bound is broken over however many requests came. With no live
/// request the golden inputs, run again at the end, decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TrialPolicy {
    pub duration_ms: u64,
    pub requests_min: u64,
    /// Failed requests in a thousand that are still accepted.
    pub failed_permille_max: u16,
    /// Bound on the 99th percentile of one inference in microseconds.
    pub latency_p99_us_max: Option<u64>,
    /// Requests in a thousand on which the version before must agree (same top label); asked of both versions
    /// while the trial runs.
    pub agreement_permille_min: Option<u16>,
}

impl Default for TrialPolicy {
    fn default() -> Self {
        Self {
            duration_ms: 30_000,
            requests_min: 20,
            failed_permille_max: 10,
            latency_p99_us_max: None,
            agreement_permille_min: Some(700),
        }
    }
}

/// Longest trial: a day.
pub const TRIAL_MS_MAX: u64 = 24 * 60 * 60 * 1000;

impl TrialPolicy {
    /// Names the field that is out of range and what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        if self.duration_ms > TRIAL_MS_MAX {
            return Err(format!("trial.duration_ms is {}, at most {TRIAL_MS_MAX}", self.duration_ms));
        }
        if self.failed_permille_max > 1000 {
            return Err(format!("trial.failed_permille_max is {}, at most 1000", self.failed_permille_max));
        }
        match self.agreement_permille_min {
            Some(permille) if permille > 1000 => {
                Err(format!("trial.agreement_permille_min is {permille}, at most 1000"))
            }
            _ => Ok(()),
        }
    }
}

impl signing::Payload for Desired {
    const TYPE: &'static str = "application/vnd.edgewright.desired.v1+json";
    const ROLE: signing::Role = signing::Role::Director;

    fn validate(&self) -> Result<(), String> {
        if !(limits::CHUNK_BYTES_MIN..=limits::CHUNK_BYTES_MAX).contains(&self.chunk_bytes) {
            return Err(format!(
                "chunk_bytes is {}, allowed are {} to {}",
                self.chunk_bytes,
                limits::CHUNK_BYTES_MIN,
                limits::CHUNK_BYTES_MAX
            ));
        }
        if self.assignments.len() > limits::SLOTS_MAX {
            return Err(format!("{} assignments, at most {}", self.assignments.len(), limits::SLOTS_MAX));
        }
        let mut slots = BTreeSet::new();
        for assignment in &self.assignments {
            if !slots.insert(&assignment.slot) {
                return Err(format!("slot {} is assigned twice", assignment.slot));
            }
            assignment.validate()?;
        }
        Ok(())
    }
}

/// What the device runs and how far it is. Retained, so that the newest is there for whoever asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reported {
    pub device: DeviceId,
    pub board: BoardId,
    pub agent_version: String,
    pub at: Timestamp,
    /// The newest desired generation that the device has accepted; zero before the first.
    pub generation: u64,
    pub slots: Vec<SlotReport>,
    /// Free bytes where models are kept.
    pub disk_free_bytes: Option<u64>,
    /// Address of the local API, where it listens.
    pub api: Option<String>,
}

impl Reported {
    /// Names the rule that is broken.
    pub fn validate(&self) -> Result<(), String> {
        if self.slots.len() > limits::REPORTED_SLOTS_MAX {
            return Err(format!("{} slots, at most {}", self.slots.len(), limits::REPORTED_SLOTS_MAX));
        }
        let mut slots = BTreeSet::new();
        if let Some(twice) = self.slots.iter().find(|report| !slots.insert(&report.slot)) {
            return Err(format!("slot {} is there twice", twice.slot));
        }
        let texts = [
            ("agent_version", Some(&self.agent_version), limits::AGENT_VERSION_BYTES_MAX),
            ("api", self.api.as_ref(), limits::API_ADDRESS_BYTES_MAX),
        ];
        for (what, text, bytes_max) in texts.into_iter().chain(self.slots.iter().flat_map(SlotReport::texts))
        {
            if text.is_some_and(|text| text.len() > bytes_max) {
                return Err(format!("{what} is over {bytes_max} bytes"));
            }
        }
        Ok(())
    }
}

impl SlotReport {
    /// Its free texts, each with its name and longest length.
    fn texts(&self) -> [(&'static str, Option<&String>, usize); 3] {
        let reason = match &self.phase {
            Phase::Waiting { reason, .. } => Some(reason),
            Phase::Idle | Phase::Fetching { .. } | Phase::Testing { .. } | Phase::Trial { .. } => None,
        };
        let detail = self.attempt.as_ref().and_then(|attempt| match &attempt.outcome {
            Outcome::Committed => None,
            Outcome::Refused { detail, .. } | Outcome::RolledBack { detail } => Some(detail),
        });
        [
            ("runtime", self.runtime.as_ref(), limits::RUNTIME_NAME_BYTES_MAX),
            ("reason", reason, limits::REASON_BYTES_MAX),
            ("detail", detail, limits::REASON_BYTES_MAX),
        ]
    }
}

/// The state of one slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SlotReport {
    pub slot: SlotName,
    /// The version that answers requests.
    pub active: Option<VersionRef>,
    /// The last one that passed its trial and to which the slot falls back.
    pub last_good: Option<VersionRef>,
    /// The runtime that was chosen: `tract` or `onnxruntime`.
    pub runtime: Option<String>,
    pub phase: Phase,
    /// How the newest finished attempt ended.
    pub attempt: Option<Attempt>,
}

/// A version by all its names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VersionRef {
    pub model: ModelName,
    pub version: VersionLabel,
    pub version_id: ModelVersionId,
    pub bundle: Digest,
}

/// Where a slot is on the way to what it shall run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Phase {
    /// Nothing to do.
    Idle,
    /// Chunks are coming.
    Fetching { bundle: Digest, chunks_done: u32, chunks_total: u32 },
    /// All bytes are there and have their digests; golden inputs are being run.
    Testing { bundle: Digest },
    /// Answers requests and has to prove itself until `ends_at`.
    Trial { bundle: Digest, ends_at: Timestamp },
    /// Waits before the next try.
    Waiting {
        bundle: Digest,
        until: Timestamp,
        reason: String,
        #[serde(default, skip_serializing_if = "WaitsFor::is_default")]
        waits_for: WaitsFor,
    },
}

/// What a slot waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum WaitsFor {
    /// For disk space, or a disk that works.
    #[default]
    Storage,
    /// For bytes that it may receive.
    Budget,
    /// For something that a newer peer knows.
    #[serde(other)]
    Unknown,
}

impl WaitsFor {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One finished attempt to install a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Attempt {
    /// The desired generation that asked for it.
    pub generation: u64,
    pub rollout: Option<RolloutId>,
    pub version: VersionRef,
    pub outcome: Outcome,
    pub at: Timestamp,
    /// What was counted in its trial; none where it had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<TrialCounts>,
}

/// What was counted while a version was on trial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TrialCounts {
    pub requests: u64,
    pub failed: u64,
    /// Requests that were also asked of the version before.
    pub compared: u64,
    /// Of those, the ones on which both gave the same top label.
    pub agreed: u64,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Outcome {
    /// Passed its trial; it is the last good version.
    Committed,
    /// Never answered a request.
    Refused { reason: Refusal, detail: String },
    /// Answered requests, failed its trial, and the version before is back.
    RolledBack { detail: String },
}

/// Why a bundle never answered a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Bytes that do not have the promised digest.
    DigestMismatch,
    /// A manifest that no trusted key signed, or that breaks a rule.
    BadManifest,
    /// A manifest that is not the one that the assignment names.
    WrongVersion,
    /// A bundle for boards of another kind.
    WrongBoard,
    /// No runtime gives the golden outputs.
    GoldenMismatch,
    /// No runtime loads the model.
    NotLoadable,
    /// More tries than allowed.
    Abandoned,
    /// A bundle that the offline keys do not vouch for.
    NotVouchedFor,
    /// A version older than one that the device had and that is still vouched for.
    Older,
}

/// Online or not. Also the last will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    pub online: bool,
}

/// Which chunks of a blob are missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    pub digest: Digest,
    pub chunk_bytes: u32,
    /// Half-open ranges of chunk indices, ascending and apart.
    pub ranges: Vec<(u32, u32)>,
}

impl Want {
    /// Names the rule that is broken.
    pub fn validate(&self) -> Result<(), String> {
        if !(limits::CHUNK_BYTES_MIN..=limits::CHUNK_BYTES_MAX).contains(&self.chunk_bytes) {
            return Err(format!("chunk_bytes is {}", self.chunk_bytes));
        }
        if self.ranges.is_empty() || self.ranges.len() > limits::WANT_RANGES_MAX {
            return Err(format!(
                "{} ranges, allowed are 1 to {}",
                self.ranges.len(),
                limits::WANT_RANGES_MAX
            ));
        }
        let mut chunks = 0u32;
        let mut end_before = None;
        for &(start, end) in &self.ranges {
            if start >= end || end_before.is_some_and(|before| start <= before) {
                return Err("ranges are not ascending and apart".to_owned());
            }
            chunks = chunks.saturating_add(end - start);
            end_before = Some(end);
        }
        if chunks > limits::WANT_CHUNKS_MAX {
            return Err(format!("{chunks} chunks, at most {}", limits::WANT_CHUNKS_MAX));
        }
        Ok(())
    }

    /// The indices asked for.
    pub fn indices(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(|&(start, end)| start..end)
    }
}

/// How many chunks of `chunk_bytes` a blob of `size_bytes` has.
pub fn chunk_count(size_bytes: u64, chunk_bytes: u32) -> u32 {
    let count = size_bytes.div_ceil(u64::from(chunk_bytes.max(1)));
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Records of one kind from one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch<R> {
    pub device: DeviceId,
    pub records: Vec<R>,
}

/// A record that a batch may hold. Its id makes delivery idempotent: the store keeps the first of each id.
pub trait Record: Serialize + DeserializeOwned {
    /// What the batch is called in errors.
    const BATCH: &'static str;
    /// UUIDv7 given by the device.
    fn id(&self) -> Uuid;
}

/// Something that happened on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub id: Uuid,
    pub at: Timestamp,
    pub slot: Option<SlotName>,
    pub bundle: Option<Digest>,
    pub kind: EventKind,
    /// For people; at most [`limits::REASON_BYTES_MAX`] bytes.
    pub detail: String,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    AgentStarted,
    DesiredRefused,
    DownloadStarted,
    DownloadResumed,
    BundleRefused,
    BundleStaged,
    VersionActivated,
    TrialPassed,
    TrialFailed,
    RolledBack,
    DiskFull,
    SlotEmptied,
    /// Trust metadata that was not taken; the detail begins with one word for the reason.
    TrustRefused,
    /// Newer trust metadata is in force.
    TrustUpdated,
    /// A delta did not give the file, which comes whole instead.
    DeltaRefused,
    /// The next bytes would be over the budget of the update or of the day.
    BudgetSpent,
    CertificateRenewed,
    CertificateExpired,
    /// One that a newer peer knows.
    #[serde(other)]
    Unknown,
}

/// What users did with an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Feedback {
    pub id: Uuid,
    pub at: Timestamp,
    pub slot: SlotName,
    /// The version that gave the answer.
    pub version_id: ModelVersionId,
    /// The id of the inference request that it is about.
    pub request_id: Option<String>,
    pub kind: FeedbackKind,
    /// Dwell in milliseconds, value of a conversion; none for the others.
    pub value: Option<f64>,
    /// The right label, for a correction.
    pub label: Option<String>,
}

/// Kinds of feedback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedbackKind {
    Impression,
    Click,
    Dwell,
    Conversion,
    Correction,
}

/// What a slot did in one window of time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Telemetry {
    pub id: Uuid,
    /// Start of the window.
    pub at: Timestamp,
    pub duration_ms: u64,
    pub slot: SlotName,
    pub version_id: ModelVersionId,
    pub requests: u64,
    pub failed: u64,
    /// Of one inference, in microseconds; none without a request.
    pub latency_p50_us: Option<u64>,
    pub latency_p99_us: Option<u64>,
    pub rss_bytes: Option<u64>,
}

impl Record for Event {
    const BATCH: &'static str = "event batch";
    fn id(&self) -> Uuid {
        self.id
    }
}

impl Record for Feedback {
    const BATCH: &'static str = "feedback batch";
    fn id(&self) -> Uuid {
        self.id
    }
}

impl Record for Telemetry {
    const BATCH: &'static str = "telemetry batch";
    fn id(&self) -> Uuid {
        self.id
    }
}

/// Writes a control message.
pub fn encode_json<T: Serialize>(what: &'static str, message: &T) -> Result<Vec<u8>, Error> {
    let bytes = serde_json::to_vec(message).map_err(|source| Error::Json { what, source })?;
    check_size(what, bytes.len(), limits::CONTROL_BYTES_MAX)?;
    Ok(bytes)
}

/// Reads a control message of at most [`limits::CONTROL_BYTES_MAX`] bytes.
pub fn decode_json<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, Error> {
    check_size(what, bytes.len(), limits::CONTROL_BYTES_MAX)?;
    serde_json::from_slice(bytes).map_err(|source| Error::Json { what, source })
}

impl<R: Record> Batch<R> {
    /// Writes the batch as CBOR.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        ciborium::into_writer(self, &mut bytes)
            .map_err(|error| Error::Cbor { what: R::BATCH, reason: error.to_string() })?;
        check_size(R::BATCH, bytes.len(), limits::BATCH_BYTES_MAX)?;
        Ok(bytes)
    }

    /// Reads a batch that `sender` sent; another device's name in it is refused.
    pub fn decode(bytes: &[u8], sender: &DeviceId) -> Result<Self, Error> {
        check_size(R::BATCH, bytes.len(), limits::BATCH_BYTES_MAX)?;
        let mut rest = bytes;
        let batch: Self = ciborium::de::from_reader_with_recursion_limit(&mut rest, CBOR_DEPTH_MAX)
            .map_err(|error| Error::Cbor { what: R::BATCH, reason: cut(&error.to_string()) })?;
        let invalid = |reason: &str| Error::Invalid { what: R::BATCH, reason: reason.to_owned() };
        if !rest.is_empty() {
            return Err(invalid("bytes after its end"));
        }
        if batch.device != *sender {
            return Err(invalid("it names another device than its sender"));
        }
        if batch.records.is_empty() || batch.records.len() > limits::BATCH_RECORDS_MAX {
            return Err(invalid("no record, or too many"));
        }
        Ok(batch)
    }
}

/// Deepest nesting that a batch needs, with room.
const CBOR_DEPTH_MAX: usize = 16;

fn check_size(what: &'static str, size_bytes: usize, limit_bytes: usize) -> Result<(), Error> {
    if size_bytes > limit_bytes { Err(Error::TooLarge { what, size_bytes, limit_bytes }) } else { Ok(()) }
}

/// `text` of a stranger as part of an error: on one line, without control characters, and cut.
pub fn one_line(text: &str) -> String {
    cut(&text.replace(char::is_control, " "))
}

/// `text` cut to [`limits::REASON_BYTES_MAX`] bytes at a character's end.
pub fn cut(text: &str) -> String {
    cut_to(text, limits::REASON_BYTES_MAX)
}

/// `text` cut to `bytes_max` bytes at a character's end.
pub fn cut_to(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let end = (0..=bytes_max).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text[..end].to_owned()
}

#[cfg(test)]
mod tests;
