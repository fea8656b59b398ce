//! One slot's way to the version that it shall run.

use crate::{
    backoff::Backoff,
    chunks::ChunkSet,
    trial::{Statistics, Verdict, judge},
    update::{Note, Rejected},
};
use serde::{Deserialize, Serialize};
use shared::{
    Digest, SlotName, Timestamp, Verified, limits,
    manifest::{FileEntry, Manifest},
    wire::{self, Assignment, Attempt, EventKind, Outcome, Phase, Refusal, SlotReport, VersionRef, Want},
};
use std::collections::VecDeque;

/// Chunks that may be asked for and not have come.
pub const WINDOW_CHUNKS: u32 = 64;
/// Wait for a chunk before it is asked for again; doubles up to [`WANT_WAIT_MS_MAX`].
pub const WANT_WAIT_MS: u64 = 2_000;
/// Longest wait for a chunk.
pub const WANT_WAIT_MS_MAX: u64 = 60_000;
/// Times that chunks are asked for again with none coming before the attempt is abandoned.
pub const WANT_TRIES_MAX: u32 = 12;
/// First wait for disk space; doubles up to [`SPACE_WAIT_MS_MAX`].
pub const SPACE_WAIT_MS: u64 = 5_000;
/// Longest wait for disk space.
pub const SPACE_WAIT_MS_MAX: u64 = 600_000;
/// Times that disk space is waited for before the attempt is abandoned.
pub const SPACE_TRIES_MAX: u32 = 60;
/// Restarts of the agent within one trial that are still accepted.
pub const TRIAL_RESTARTS_MAX: u32 = 2;
/// Restarts of the agent within one test of a bundle that are still accepted.
pub const TEST_RESTARTS_MAX: u32 = 2;
/// Wait before the last good version, which did not load, is loaded again.
pub const LOAD_WAIT_MS: u64 = 30_000;

/// What the slot shall run, and who says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub assignment: Assignment,
    /// The desired generation in which this assignment came up.
    pub generation: u64,
    pub chunk_bytes: u32,
}

impl Target {
    fn version(&self) -> VersionRef {
        let Assignment { model, version, version_id, bundle, .. } = &self.assignment;
        VersionRef { model: model.clone(), version: *version, version_id: *version_id, bundle: *bundle }
    }

    fn bundle(&self) -> Digest {
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
        }
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
}

/// How much of a blob is on the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// All of it, with the promised digest.
    Whole,
    /// These chunks.
    Part(ChunkSet),
}

/// The answer to a [`SlotAction`].
#[derive(Debug)]
pub enum SlotInput {
    Activated {
        bundle: Digest,
        runtime: String,
    },
    /// The files of the version are damaged, or no runtime takes it.
    NotActivated {
        bundle: Digest,
        detail: String,
    },
    BlobOpened {
        digest: Digest,
        fetched: Fetched,
    },
    /// The blob is complete and has its digest.
    BlobVerified {
        digest: Digest,
    },
    /// The blob has another digest; its bytes are gone.
    BlobCorrupt {
        digest: Digest,
        detail: String,
    },
    ManifestRead {
        bundle: Digest,
        manifest: Box<Verified<Manifest>>,
    },
    ManifestRefused {
        bundle: Digest,
        detail: String,
    },
    Reserved {
        bundle: Digest,
    },
    /// No space for the bundle, or for the blob of it that is in work (`bundle` is the digest of either).
    DiskFull {
        bundle: Digest,
        detail: String,
    },
    Tested {
        bundle: Digest,
        runtime: String,
    },
    TestRefused {
        bundle: Digest,
        reason: Refusal,
        detail: String,
    },
    /// What was counted so far in the trial.
    TrialCounted {
        bundle: Digest,
        statistics: Box<Statistics>,
    },
    /// What was counted in all, and what the golden inputs gave where they were run.
    TrialConcluded {
        bundle: Digest,
        statistics: Box<Statistics>,
        golden: Result<(), String>,
    },
}

impl SlotInput {
    fn name(&self) -> &'static str {
        match self {
            Self::Activated { .. } => "Activated",
            Self::NotActivated { .. } => "NotActivated",
            Self::BlobOpened { .. } => "BlobOpened",
            Self::BlobVerified { .. } => "BlobVerified",
            Self::BlobCorrupt { .. } => "BlobCorrupt",
            Self::ManifestRead { .. } => "ManifestRead",
            Self::ManifestRefused { .. } => "ManifestRefused",
            Self::Reserved { .. } => "Reserved",
            Self::DiskFull { .. } => "DiskFull",
            Self::Tested { .. } => "Tested",
            Self::TestRefused { .. } => "TestRefused",
            Self::TrialCounted { .. } => "TrialCounted",
            Self::TrialConcluded { .. } => "TrialConcluded",
        }
    }
}

/// What the shell shall do for a slot.
#[derive(Clone, Debug, PartialEq)]
pub enum SlotAction {
    /// Let this version answer requests. Answer: `Activated` or `NotActivated`.
    Activate { version: VersionRef },
    /// Let no version answer requests.
    Deactivate,
    /// Look how much of a blob is there and listen for its chunks. Answer: `BlobOpened`.
    OpenBlob { digest: Digest, size_bytes: u64, chunk_bytes: u32 },
    /// Ask for chunks.
    Want(Want),
    /// Check a blob whose chunks have all come. Answer: `BlobVerified` or `BlobCorrupt`.
    VerifyBlob { digest: Digest, size_bytes: u64 },
    /// Verify the manifest's signature. Answer: `ManifestRead` or `ManifestRefused`.
    ReadManifest { bundle: Digest },
    /// See that the files fit on the disk. Answer: `Reserved` or `DiskFull`.
    Reserve { bundle: Digest, files: Vec<FileEntry> },
    /// Run the golden inputs on each runtime and keep the fastest that is right, warm. Answer: `Tested` or
    /// `TestRefused`.
    Test { version: VersionRef, manifest: Box<Manifest> },
    /// The trial's time is over. Answer: `TrialConcluded`.
    ConcludeTrial { version: VersionRef },
    /// The attempt at this bundle is over: drop what was loaded for it and the parts of its files.
    Discard { bundle: Digest },
    /// Drop every file, whole or in part, that no pinned bundle needs, and the version before from memory.
    Collect,
}

#[derive(Debug)]
enum State {
    Idle,
    /// Waits for `version` to be loaded.
    Loading {
        version: VersionRef,
    },
    /// The last good version did not load; another try is due.
    LoadFailed {
        version: VersionRef,
        retry_at: Timestamp,
    },
    Fetching {
        manifest: Option<Box<Manifest>>,
        step: Step,
    },
    Testing,
    Activating,
    Trial {
        ends_at: Timestamp,
        concluding: bool,
    },
    Waiting {
        until: Timestamp,
        reason: String,
    },
}

#[derive(Debug)]
enum Step {
    Opening(Blob),
    Receiving(Receive),
    Verifying(Blob),
    ReadingManifest,
    Reserving,
}

/// The blob in work: the envelope (`file` is none) or a file of the manifest.
#[derive(Clone, Debug)]
struct Blob {
    digest: Digest,
    size_bytes: u64,
    file: Option<usize>,
}

#[derive(Debug)]
struct Receive {
    blob: Blob,
    present: ChunkSet,
    asked: ChunkSet,
    again_at: Timestamp,
}

/// One slot.
#[derive(Debug)]
pub struct Slot {
    saved: SlotSaved,
    state: State,
    actions: VecDeque<SlotAction>,
    notes: Vec<Note>,
    dirty: bool,
    online: bool,
    /// `active` is in memory and answers.
    serving: bool,
    /// Chunks of the bundle that are on disk in whole files.
    chunks_before: u32,
    announced: bool,
    want_wait: Backoff,
    space_wait: Backoff,
}

impl Slot {
    pub(super) fn restore(saved: SlotSaved, seed: u64, now: Timestamp) -> Self {
        let mut slot = Self {
            saved,
            state: State::Idle,
            actions: VecDeque::new(),
            notes: Vec::new(),
            dirty: false,
            online: false,
            serving: false,
            chunks_before: 0,
            announced: false,
            want_wait: Backoff::new(WANT_WAIT_MS, WANT_WAIT_MS_MAX, seed),
            space_wait: Backoff::new(SPACE_WAIT_MS, SPACE_WAIT_MS_MAX, !seed),
        };
        if let Some(trial) = &mut slot.saved.trial {
            trial.restarts += 1;
            slot.dirty = true;
            if trial.restarts > TRIAL_RESTARTS_MAX {
                let detail = format!("the agent restarted {} times within the trial", trial.restarts);
                slot.roll_back(&detail, now);
                return slot;
            }
        }
        match slot.saved.active.clone() {
            Some(version) => slot.load(version),
            None => slot.reconcile(now),
        }
        slot
    }

    pub(super) fn saved(&self) -> &SlotSaved {
        &self.saved
    }

    pub(super) fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty) | !self.notes.is_empty()
    }

    pub(super) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    pub(super) fn pop_action(&mut self) -> Option<SlotAction> {
        self.actions.pop_front()
    }

    /// Was emptied, and all that had to be done for it is done.
    pub(super) fn is_gone(&self) -> bool {
        self.saved.target.is_none() && self.saved.active.is_none() && self.actions.is_empty()
    }

    pub(super) fn pinned(&self) -> Vec<Digest> {
        let fallback = self.saved.trial.as_ref().and_then(|trial| trial.fallback.as_ref());
        let versions = [self.saved.active.as_ref(), self.saved.last_good.as_ref(), fallback];
        let attempt = self.attempt_target().map(Target::bundle);
        versions.into_iter().flatten().map(|version| version.bundle).chain(attempt).collect()
    }

    /// The blob in work.
    pub(super) fn fetching(&self) -> Option<Digest> {
        match self.step()? {
            Step::Opening(blob) | Step::Verifying(blob) => Some(blob.digest),
            Step::Receiving(receive) => Some(receive.blob.digest),
            Step::ReadingManifest | Step::Reserving => None,
        }
    }

    /// The version on trial and the one to go back to, while the trial runs.
    pub(super) fn on_trial(&self) -> Option<(Digest, Option<VersionRef>)> {
        let trial = self.saved.trial.as_ref().filter(|_| matches!(self.state, State::Trial { .. }))?;
        Some((trial.target.bundle(), trial.fallback.clone()))
    }

    pub(super) fn report(&self) -> SlotReport {
        let phase = match &self.state {
            State::Idle | State::Loading { .. } | State::LoadFailed { .. } => Phase::Idle,
            State::Fetching { manifest, step } => self.fetching_phase(manifest.as_deref(), step),
            State::Testing => Phase::Testing { bundle: self.target_bundle() },
            State::Activating => Phase::Testing { bundle: self.target_bundle() },
            State::Trial { ends_at, .. } => Phase::Trial { bundle: self.target_bundle(), ends_at: *ends_at },
            State::Waiting { until, reason } => {
                Phase::Waiting { bundle: self.target_bundle(), until: *until, reason: reason.clone() }
            }
        };
        SlotReport {
            slot: self.saved.slot.clone(),
            active: self.saved.active.clone().filter(|_| self.serving),
            last_good: self.saved.last_good.clone(),
            runtime: self.saved.runtime.clone().filter(|_| self.serving),
            phase,
            attempt: self.saved.attempt.clone(),
        }
    }

    pub(super) fn poll_timeout(&self, online: bool) -> Option<Timestamp> {
        match &self.state {
            State::Idle | State::Loading { .. } | State::Testing | State::Activating => None,
            State::LoadFailed { retry_at, .. } => Some(*retry_at),
            State::Fetching { step, .. } => match step {
                Step::Receiving(receive) if online => Some(receive.again_at),
                Step::Receiving(_)
                | Step::Opening(_)
                | Step::Verifying(_)
                | Step::ReadingManifest
                | Step::Reserving => None,
            },
            State::Trial { ends_at, concluding } => (!concluding).then_some(*ends_at),
            State::Waiting { until, .. } => Some(*until),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Timestamp) {
        match &mut self.state {
            State::Idle | State::Loading { .. } | State::Testing | State::Activating => {}
            State::LoadFailed { version, .. } => {
                let version = version.clone();
                self.load(version);
            }
            State::Fetching { step, .. } => match step {
                Step::Receiving(_) => self.ask_again(now),
                Step::Opening(_) | Step::Verifying(_) | Step::ReadingManifest | Step::Reserving => {}
            },
            State::Trial { concluding, .. } => {
                *concluding = true;
                if let Some(version) = self.saved.active.clone() {
                    self.actions.push_back(SlotAction::ConcludeTrial { version });
                }
            }
            State::Waiting { .. } => self.begin_attempt(),
        }
    }

    pub(super) fn handle_online(&mut self, online: bool, now: Timestamp) {
        self.online = online;
        if !online {
            return;
        }
        self.want_wait.reset();
        if let State::Fetching { step: Step::Receiving(receive), .. } = &mut self.state {
            receive.asked = ChunkSet::empty(receive.present.total());
            receive.again_at = now.plus_ms(self.want_wait.next_ms());
            self.ask();
        }
    }

    pub(super) fn handle_chunk(&mut self, digest: Digest, index: u32, now: Timestamp) {
        let State::Fetching { step: Step::Receiving(receive), .. } = &mut self.state else { return };
        if receive.blob.digest != digest || !receive.present.insert(index) {
            return;
        }
        receive.asked.remove(index);
        self.want_wait.reset();
        if receive.present.is_full() {
            let blob = receive.blob.clone();
            self.verify(blob);
            return;
        }
        receive.again_at = now.plus_ms(self.want_wait.next_ms());
        if receive.asked.count() <= WINDOW_CHUNKS / 2 {
            self.ask();
        }
    }

    pub(super) fn handle_chunk_not_stored(&mut self, digest: Digest, detail: &str, now: Timestamp) {
        let State::Fetching { step: Step::Receiving(receive), .. } = &self.state else { return };
        if receive.blob.digest == digest {
            self.wait_for_space(detail, now);
        }
    }

    pub(super) fn handle(&mut self, input: SlotInput, now: Timestamp) -> Result<(), Rejected> {
        let unfit = Rejected::Unfit { state: self.state_name(), input: input.name() };
        match input {
            SlotInput::Activated { bundle, runtime } => self.handle_activated(bundle, runtime, now, unfit),
            SlotInput::NotActivated { bundle, detail } => {
                self.handle_not_activated(bundle, &detail, now, unfit)
            }
            SlotInput::BlobOpened { digest, fetched } => match self.step() {
                Some(Step::Opening(blob)) if blob.digest == digest => {
                    let blob = blob.clone();
                    self.opened(blob, fetched, now);
                    Ok(())
                }
                _ => Err(unfit),
            },
            SlotInput::BlobVerified { digest } => match self.step() {
                Some(Step::Verifying(blob)) if blob.digest == digest => {
                    let blob = blob.clone();
                    self.next_blob(&blob);
                    Ok(())
                }
                _ => Err(unfit),
            },
            SlotInput::BlobCorrupt { digest, detail } => match self.step() {
                Some(Step::Verifying(blob)) if blob.digest == digest => {
                    self.refuse(Refusal::DigestMismatch, &detail, now);
                    Ok(())
                }
                _ => Err(unfit),
            },
            SlotInput::ManifestRead { bundle, manifest } => match self.step() {
                Some(Step::ReadingManifest) if self.target_is(bundle) => {
                    self.check_manifest(manifest.into_inner(), now);
                    Ok(())
                }
                _ => Err(unfit),
            },
            SlotInput::ManifestRefused { bundle, detail } => match self.step() {
                Some(Step::ReadingManifest) if self.target_is(bundle) => {
                    self.refuse(Refusal::BadManifest, &detail, now);
                    Ok(())
                }
                _ => Err(unfit),
            },
            SlotInput::Reserved { bundle } => match self.step() {
                Some(Step::Reserving) if self.target_is(bundle) => {
                    self.open_file(0);
                    Ok(())
                }
                _ => Err(unfit),
            },
            SlotInput::DiskFull { bundle, detail } => match &self.state {
                State::Fetching { .. } | State::Testing
                    if self.target_is(bundle) || self.fetching() == Some(bundle) =>
                {
                    self.wait_for_space(&detail, now);
                    Ok(())
                }
                _ => Err(unfit),
            },
            SlotInput::Tested { bundle, runtime } => match &self.state {
                State::Testing if self.target_is(bundle) => {
                    self.activate(runtime, now);
                    Ok(())
                }
                _ => Err(unfit),
            },
            SlotInput::TestRefused { bundle, reason, detail } => match &self.state {
                State::Testing if self.target_is(bundle) => {
                    self.refuse(reason, &detail, now);
                    Ok(())
                }
                _ => Err(unfit),
            },
            SlotInput::TrialCounted { bundle, statistics } => match &self.state {
                State::Trial { concluding: false, .. } if self.target_is(bundle) => {
                    self.judge(&statistics, None, now);
                    Ok(())
                }
                _ => Err(unfit),
            },
            SlotInput::TrialConcluded { bundle, statistics, golden } => match &self.state {
                State::Trial { concluding: true, .. } if self.target_is(bundle) => {
                    self.judge(&statistics, Some(golden), now);
                    Ok(())
                }
                _ => Err(unfit),
            },
        }
    }

    /// The slot shall run `target`, or nothing.
    pub(super) fn retarget(&mut self, target: Option<Target>, now: Timestamp) {
        let Some(target) = target else {
            self.empty(now);
            return;
        };
        if let Some(current) = &mut self.saved.target {
            if current.assignment == target.assignment && current.chunk_bytes == target.chunk_bytes {
                return;
            }
            let same = current.version() == target.version()
                && current.assignment.bundle_bytes == target.assignment.bundle_bytes
                && current.chunk_bytes == target.chunk_bytes;
            if same && (self.state.is_attempt() || self.saved.trial.is_some()) {
                if let Some(trial) = &mut self.saved.trial {
                    trial.target = target.clone();
                }
                *current = target;
                self.dirty = true;
                return;
            }
        }
        self.supersede(&format!("superseded by generation {}", target.generation), now);
        self.saved.target = Some(target);
        self.dirty = true;
        if !matches!(self.state, State::Loading { .. }) {
            self.reconcile(now);
        }
    }

    fn empty(&mut self, now: Timestamp) {
        if self.saved.target.is_none() && self.saved.active.is_none() {
            return;
        }
        self.supersede("superseded by a desired state without this slot", now);
        let detail = match &self.saved.active {
            Some(active) => format!("{} {} is no longer wanted", active.model, active.version),
            None => "was empty".to_owned(),
        };
        self.note(EventKind::SlotEmptied, self.saved.active.as_ref().map(|active| active.bundle), detail);
        self.saved =
            SlotSaved { attempt: self.saved.attempt.take(), ..SlotSaved::empty(self.saved.slot.clone()) };
        self.serving = false;
        self.state = State::Idle;
        self.drop_actions();
        self.actions.extend([SlotAction::Deactivate, SlotAction::Collect]);
        self.dirty = true;
    }

    /// Ends the attempt that is under way, if one is, because something else is wanted.
    fn supersede(&mut self, why: &str, now: Timestamp) {
        match &self.state {
            State::Idle | State::Loading { .. } | State::LoadFailed { .. } if self.saved.trial.is_none() => {}
            State::Fetching { .. } | State::Testing | State::Waiting { .. } => {
                self.end_unstarted(
                    Outcome::Refused { reason: Refusal::Abandoned, detail: why.to_owned() },
                    now,
                );
            }
            // Idle or loading with a trial: the agent restarted in mid-trial.
            State::Idle
            | State::Loading { .. }
            | State::LoadFailed { .. }
            | State::Activating
            | State::Trial { .. } => {
                let keep = self.saved.trial.as_ref().is_some_and(|trial| trial.fallback.is_none());
                if keep {
                    // The first version of a slot goes on answering until the next one is ready.
                    let target = self.take_trial();
                    self.finish(&target, Outcome::RolledBack { detail: why.to_owned() }, now);
                    match (self.serving, self.saved.active.clone()) {
                        (false, Some(version)) => self.load(version),
                        _ => self.state = State::Idle,
                    }
                } else {
                    self.roll_back(why, now);
                }
            }
        }
    }

    /// Compares what shall run with what runs and takes the next step.
    fn reconcile(&mut self, now: Timestamp) {
        self.state = State::Idle;
        let Some(target) = self.saved.target.clone() else { return };
        let bundle = Some(target.bundle());
        let good = self.saved.last_good.as_ref() == Some(&target.version());
        let active = self.saved.active.as_ref().map(|active| active.bundle) == bundle;
        if good && active && self.serving {
            if self.saved.attempt.as_ref().is_none_or(|attempt| attempt.generation < target.generation) {
                self.finish(&target, Outcome::Committed, now);
            }
            return;
        }
        let answered = self.saved.attempt.as_ref().is_some_and(|attempt| {
            attempt.generation >= target.generation && attempt.version.bundle == target.bundle()
        });
        let retry_load = good && active;
        if answered && !retry_load {
            return;
        }
        if answered {
            if let Some(version) = self.saved.active.clone() {
                self.state = State::LoadFailed { version, retry_at: now.plus_ms(LOAD_WAIT_MS) };
            }
            return;
        }
        self.announced = false;
        self.space_wait.reset();
        let begun = self.saved.test_starts.filter(|(tested, _)| *tested == target.bundle());
        if let Some((_, starts)) = begun.filter(|(_, starts)| *starts > TEST_RESTARTS_MAX) {
            let detail = format!("the agent ended {starts} times while it tested this bundle");
            self.refuse(Refusal::NotLoadable, &detail, now);
            return;
        }
        self.begin_attempt();
    }

    fn begin_attempt(&mut self) {
        let Some(target) = &self.saved.target else { return };
        let blob = Blob { digest: target.bundle(), size_bytes: target.assignment.bundle_bytes, file: None };
        self.chunks_before = 0;
        self.open(None, blob);
    }

    fn open(&mut self, manifest: Option<Box<Manifest>>, blob: Blob) {
        let chunk_bytes = self.chunk_bytes();
        self.actions.push_back(SlotAction::OpenBlob {
            digest: blob.digest,
            size_bytes: blob.size_bytes,
            chunk_bytes,
        });
        self.state = State::Fetching { manifest, step: Step::Opening(blob) };
    }

    fn opened(&mut self, blob: Blob, fetched: Fetched, now: Timestamp) {
        let total = wire::chunk_count(blob.size_bytes, self.chunk_bytes());
        let present = match fetched {
            Fetched::Whole => {
                self.next_blob(&blob);
                return;
            }
            Fetched::Part(present) if present.total() == total => present,
            // The shell counts in other chunks: take none of them on trust.
            Fetched::Part(_) => ChunkSet::empty(total),
        };
        let what =
            blob.file.and_then(|at| self.file(at)).map_or_else(|| "manifest".to_owned(), |file| file.name);
        let bundle = Some(self.target_bundle());
        if present.count() > 0 {
            let detail = format!("{what} from chunk {} of {total}", present.count());
            self.note(EventKind::DownloadResumed, bundle, detail);
            self.announced = true;
        } else if !self.announced {
            self.announced = true;
            let version = self.saved.target.as_ref().map(Target::version);
            let detail =
                version.map_or_else(String::new, |version| format!("{} {}", version.model, version.version));
            self.note(EventKind::DownloadStarted, bundle, detail);
        }
        if present.is_full() {
            self.verify(blob);
            return;
        }
        self.want_wait.reset();
        let again_at = now.plus_ms(self.want_wait.next_ms());
        let receive = Receive { blob, asked: ChunkSet::empty(total), present, again_at };
        if let State::Fetching { step, .. } = &mut self.state {
            *step = Step::Receiving(receive);
        }
        if self.online {
            self.ask();
        }
    }

    /// Asks for as many missing chunks as the window takes.
    fn ask(&mut self) {
        let chunk_bytes = self.chunk_bytes();
        let State::Fetching { step: Step::Receiving(receive), .. } = &mut self.state else { return };
        let room = WINDOW_CHUNKS.saturating_sub(receive.asked.count());
        let ranges = receive.present.missing(&receive.asked, room, limits::WANT_RANGES_MAX);
        if ranges.is_empty() {
            return;
        }
        for index in ranges.iter().flat_map(|&(start, end)| start..end) {
            receive.asked.insert(index);
        }
        let digest = receive.blob.digest;
        self.actions.push_back(SlotAction::Want(Want { digest, chunk_bytes, ranges }));
    }

    fn ask_again(&mut self, now: Timestamp) {
        if self.want_wait.tries() > WANT_TRIES_MAX {
            let detail = format!("no chunk came although they were asked for {WANT_TRIES_MAX} times");
            self.refuse(Refusal::Abandoned, &detail, now);
            return;
        }
        let wait_ms = self.want_wait.next_ms();
        if let State::Fetching { step: Step::Receiving(receive), .. } = &mut self.state {
            receive.asked = ChunkSet::empty(receive.present.total());
            receive.again_at = now.plus_ms(wait_ms);
        }
        self.ask();
    }

    fn verify(&mut self, blob: Blob) {
        self.actions.push_back(SlotAction::VerifyBlob { digest: blob.digest, size_bytes: blob.size_bytes });
        self.set_step(Step::Verifying(blob));
    }

    /// `blob` is there and right: goes on to the next.
    fn next_blob(&mut self, blob: &Blob) {
        match blob.file {
            None => {
                self.actions.push_back(SlotAction::ReadManifest { bundle: blob.digest });
                self.set_step(Step::ReadingManifest);
            }
            Some(at) => self.open_file(at + 1),
        }
        self.chunks_before += wire::chunk_count(blob.size_bytes, self.chunk_bytes());
    }

    fn check_manifest(&mut self, manifest: Manifest, now: Timestamp) {
        let Some(target) = self.saved.target.clone() else { return };
        let Assignment { model, version, version_id, bundle, .. } = &target.assignment;
        if manifest.model != *model || manifest.version != *version || manifest.version_id != *version_id {
            let detail = format!(
                "the manifest is of {} {} ({}), the assignment names {model} {version} ({version_id})",
                manifest.model, manifest.version, manifest.version_id
            );
            self.refuse(Refusal::WrongVersion, &detail, now);
            return;
        }
        self.actions.push_back(SlotAction::Reserve { bundle: *bundle, files: manifest.files.clone() });
        self.state = State::Fetching { manifest: Some(Box::new(manifest)), step: Step::Reserving };
    }

    fn open_file(&mut self, at: usize) {
        let State::Fetching { manifest, .. } = &mut self.state else { return };
        let Some(manifest) = manifest.take() else { return };
        match manifest.files.get(at) {
            Some(file) => {
                let blob = Blob { digest: file.digest, size_bytes: file.size_bytes, file: Some(at) };
                self.open(Some(manifest), blob);
            }
            None => self.test(manifest),
        }
    }

    fn test(&mut self, manifest: Box<Manifest>) {
        let Some(target) = &self.saved.target else { return };
        let version = target.version();
        let before =
            self.saved.test_starts.filter(|(bundle, _)| *bundle == version.bundle).map_or(0, |(_, n)| n);
        self.saved.test_starts = Some((version.bundle, before + 1));
        self.dirty = true;
        self.state = State::Testing;
        self.actions.push_back(SlotAction::Test { version, manifest });
    }

    fn activate(&mut self, runtime: String, now: Timestamp) {
        let Some(target) = self.saved.target.clone() else { return };
        let version = target.version();
        let label = format!("{} {} on {runtime}", version.model, version.version);
        self.note(EventKind::BundleStaged, Some(version.bundle), label);
        self.saved.test_starts = None;
        self.saved.runtime = Some(runtime);
        self.dirty = true;
        if self.saved.last_good.as_ref() == Some(&version) {
            // It proved itself before and only had to be repaired or taken back.
            self.saved.active = Some(version.clone());
            self.finish(&target, Outcome::Committed, now);
            self.load(version);
            return;
        }
        let fallback = self.saved.last_good.clone().or_else(|| self.saved.active.clone());
        let fallback = fallback.filter(|fallback| fallback.bundle != version.bundle);
        self.saved.trial = Some(TrialSaved { target, fallback, restarts: 0 });
        self.saved.active = Some(version.clone());
        self.state = State::Activating;
        self.actions.push_back(SlotAction::Activate { version });
    }

    fn handle_activated(
        &mut self,
        bundle: Digest,
        runtime: String,
        now: Timestamp,
        unfit: Rejected,
    ) -> Result<(), Rejected> {
        if self.saved.active.as_ref().map(|active| active.bundle) != Some(bundle) {
            return Err(unfit);
        }
        match &self.state {
            State::Activating => {}
            State::Loading { version } if version.bundle == bundle => {}
            State::Idle
            | State::Loading { .. }
            | State::LoadFailed { .. }
            | State::Fetching { .. }
            | State::Testing
            | State::Trial { .. }
            | State::Waiting { .. } => return Err(unfit),
        }
        self.serving = true;
        if self.saved.runtime.as_ref() != Some(&runtime) {
            self.saved.runtime = Some(runtime);
            self.dirty = true;
        }
        let Some(trial) = &self.saved.trial else {
            self.actions.push_back(SlotAction::Collect);
            self.reconcile(now);
            return Ok(());
        };
        let policy = &trial.target.assignment.trial;
        let ends_at = now.plus_ms(policy.duration_ms);
        if trial.restarts == 0 {
            let version = trial.target.version();
            let detail = format!("{} {}", version.model, version.version);
            self.note(EventKind::VersionActivated, Some(bundle), detail);
        }
        self.state = State::Trial { ends_at, concluding: false };
        Ok(())
    }

    fn handle_not_activated(
        &mut self,
        bundle: Digest,
        detail: &str,
        now: Timestamp,
        unfit: Rejected,
    ) -> Result<(), Rejected> {
        match &self.state {
            State::Activating if self.target_is(bundle) => {
                self.roll_back(&format!("did not load: {detail}"), now);
                Ok(())
            }
            State::Loading { version } if version.bundle == bundle => {
                self.serving = false;
                if self.saved.trial.is_some() {
                    self.roll_back(&format!("did not load: {detail}"), now);
                    return Ok(());
                }
                let version = version.clone();
                let wanted = self.saved.target.as_ref().map(Target::version) == Some(version.clone());
                if wanted && self.saved.last_good.as_ref() == Some(&version) {
                    // Fetch it again: blobs that are whole are kept, damaged ones come anew.
                    self.announced = false;
                    self.begin_attempt();
                } else {
                    self.reconcile(now);
                    if matches!(self.state, State::Idle) {
                        self.state = State::LoadFailed { version, retry_at: now.plus_ms(LOAD_WAIT_MS) };
                    }
                }
                Ok(())
            }
            State::Idle
            | State::Loading { .. }
            | State::LoadFailed { .. }
            | State::Fetching { .. }
            | State::Testing
            | State::Activating
            | State::Trial { .. }
            | State::Waiting { .. } => Err(unfit),
        }
    }

    fn judge(&mut self, statistics: &Statistics, golden: Option<Result<(), String>>, now: Timestamp) {
        let Some(trial) = &self.saved.trial else { return };
        let verdict = judge(&trial.target.assignment.trial, statistics, golden.is_some());
        let asked = statistics.requests;
        match (verdict, golden) {
            (Verdict::Undecided, _) | (Verdict::AskGolden, None) => {}
            (Verdict::Failed(detail), _) => self.roll_back(&detail, now),
            (Verdict::AskGolden, Some(Err(detail))) => self.roll_back(&detail, now),
            (Verdict::Passed | Verdict::AskGolden, _) => self.commit(asked, now),
        }
    }

    fn commit(&mut self, requests: u64, now: Timestamp) {
        let target = self.take_trial();
        let version = target.version();
        let detail = format!("{} {} after {requests} requests", version.model, version.version);
        self.note(EventKind::TrialPassed, Some(version.bundle), detail);
        self.saved.last_good = Some(version);
        self.finish(&target, Outcome::Committed, now);
        self.actions.push_back(SlotAction::Collect);
        self.reconcile(now);
    }

    /// The version on trial failed: the one before answers again.
    fn roll_back(&mut self, detail: &str, now: Timestamp) {
        let Some(fallback) = self.saved.trial.as_ref().map(|trial| trial.fallback.clone()) else { return };
        let target = self.take_trial();
        let bundle = Some(target.bundle());
        self.note(EventKind::TrialFailed, bundle, detail.to_owned());
        let back = match &fallback {
            Some(version) => format!("{} {} answers again", version.model, version.version),
            None => "no version answers".to_owned(),
        };
        self.note(EventKind::RolledBack, bundle, back);
        self.finish(&target, Outcome::RolledBack { detail: wire::cut(detail) }, now);
        self.saved.active = fallback.clone();
        self.drop_actions();
        match fallback {
            Some(version) => self.load(version),
            None => {
                self.serving = false;
                self.saved.runtime = None;
                self.state = State::Idle;
                self.actions.extend([SlotAction::Deactivate, SlotAction::Collect]);
            }
        }
        self.actions.push_back(SlotAction::Discard { bundle: target.bundle() });
    }

    /// The bundle never answers a request.
    fn refuse(&mut self, reason: Refusal, detail: &str, now: Timestamp) {
        let detail = wire::cut(detail);
        self.note(EventKind::BundleRefused, Some(self.target_bundle()), format!("{reason:?}: {detail}"));
        self.end_unstarted(Outcome::Refused { reason, detail }, now);
        self.reconcile(now);
    }

    fn end_unstarted(&mut self, outcome: Outcome, now: Timestamp) {
        let Some(target) = self.saved.target.clone() else { return };
        self.saved.test_starts = None;
        self.finish(&target, outcome, now);
        self.drop_actions();
        self.actions.extend([SlotAction::Discard { bundle: target.bundle() }, SlotAction::Collect]);
        self.state = State::Idle;
    }

    fn wait_for_space(&mut self, detail: &str, now: Timestamp) {
        if self.space_wait.tries() >= SPACE_TRIES_MAX {
            self.refuse(Refusal::Abandoned, &format!("no disk space: {detail}"), now);
            return;
        }
        let bundle = self.target_bundle();
        let until = now.plus_ms(self.space_wait.next_ms());
        if self.space_wait.tries() == 1 {
            self.note(EventKind::DiskFull, Some(bundle), wire::cut(detail));
        }
        self.drop_actions();
        self.actions.push_back(SlotAction::Discard { bundle });
        self.state = State::Waiting { until, reason: wire::cut(detail) };
    }

    /// What was asked for the attempt is no longer wanted; a slot that was emptied stays to be emptied.
    fn drop_actions(&mut self) {
        self.actions.retain(|action| matches!(action, SlotAction::Deactivate));
    }

    fn load(&mut self, version: VersionRef) {
        self.actions.push_back(SlotAction::Activate { version: version.clone() });
        self.state = State::Loading { version };
    }

    fn finish(&mut self, target: &Target, outcome: Outcome, now: Timestamp) {
        self.saved.attempt = Some(Attempt {
            generation: target.generation,
            rollout: target.assignment.rollout,
            version: target.version(),
            outcome,
            at: now,
        });
        self.dirty = true;
    }

    /// The trial is over: what asked for it.
    fn take_trial(&mut self) -> Target {
        let trial = self.saved.trial.take().expect("only called within a trial");
        self.dirty = true;
        trial.target
    }

    fn note(&mut self, kind: EventKind, bundle: Option<Digest>, detail: String) {
        self.notes.push(Note {
            slot: Some(self.saved.slot.clone()),
            bundle,
            kind,
            detail: wire::cut(&detail),
        });
    }

    fn step(&self) -> Option<&Step> {
        match &self.state {
            State::Fetching { step, .. } => Some(step),
            State::Idle
            | State::Loading { .. }
            | State::LoadFailed { .. }
            | State::Testing
            | State::Activating
            | State::Trial { .. }
            | State::Waiting { .. } => None,
        }
    }

    fn set_step(&mut self, next: Step) {
        if let State::Fetching { step, .. } = &mut self.state {
            *step = next;
        }
    }

    fn file(&self, at: usize) -> Option<FileEntry> {
        match &self.state {
            State::Fetching { manifest: Some(manifest), .. } => manifest.files.get(at).cloned(),
            _ => None,
        }
    }

    fn attempt_target(&self) -> Option<&Target> {
        self.saved.target.as_ref().filter(|_| self.state.is_attempt())
    }

    fn target_bundle(&self) -> Digest {
        let trial = self.saved.trial.as_ref().map(|trial| trial.target.bundle());
        let target = self.saved.target.as_ref().map(Target::bundle);
        trial.or(target).unwrap_or_else(|| Digest::of(b""))
    }

    fn target_is(&self, bundle: Digest) -> bool {
        self.saved.target.as_ref().is_some_and(|target| target.bundle() == bundle)
    }

    fn chunk_bytes(&self) -> u32 {
        self.saved.target.as_ref().map_or(limits::CHUNK_BYTES_MAX, |target| target.chunk_bytes)
    }

    fn fetching_phase(&self, manifest: Option<&Manifest>, step: &Step) -> Phase {
        let chunk_bytes = self.chunk_bytes();
        let envelope_bytes = self.saved.target.as_ref().map_or(0, |target| target.assignment.bundle_bytes);
        let files = manifest.map_or(&[][..], |manifest| &manifest.files);
        let sizes = files.iter().map(|file| file.size_bytes).chain([envelope_bytes]);
        let total = sizes.map(|size_bytes| wire::chunk_count(size_bytes, chunk_bytes)).sum();
        let part = match step {
            Step::Receiving(receive) => receive.present.count(),
            Step::Verifying(blob) => wire::chunk_count(blob.size_bytes, chunk_bytes),
            Step::Opening(_) | Step::ReadingManifest | Step::Reserving => 0,
        };
        Phase::Fetching {
            bundle: self.target_bundle(),
            chunks_done: (self.chunks_before + part).min(total),
            chunks_total: total,
        }
    }

    fn state_name(&self) -> &'static str {
        match &self.state {
            State::Idle => "Idle",
            State::Loading { .. } => "Loading",
            State::LoadFailed { .. } => "LoadFailed",
            State::Fetching { .. } => "Fetching",
            State::Testing => "Testing",
            State::Activating => "Activating",
            State::Trial { .. } => "Trial",
            State::Waiting { .. } => "Waiting",
        }
    }
}

impl State {
    /// An attempt at the target is under way.
    fn is_attempt(&self) -> bool {
        match self {
            Self::Idle | Self::Loading { .. } | Self::LoadFailed { .. } => false,
            Self::Fetching { .. }
            | Self::Testing
            | Self::Activating
            | Self::Trial { .. }
            | Self::Waiting { .. } => true,
        }
    }
}
