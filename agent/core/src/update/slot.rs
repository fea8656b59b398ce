//! One slot's way to the version that it shall run.

mod deltas;
mod fetch;
mod load;
mod message;
mod prove;
mod rationing;
mod saved;
mod state;

use crate::update::{Note, Rejected};
pub(super) use fetch::WINDOW_CHUNKS;
pub use message::{Base, Fetched, SlotAction, SlotInput};
pub(super) use rationing::Allowance;
pub use saved::{SlotSaved, Target, TrialSaved};
use shared::{
    BoardId, Digest, Timestamp,
    backoff::Backoff,
    wire::{self, Attempt, EventKind, Outcome, Phase, Refusal, SlotReport, WaitsFor},
};
use state::{Blob, Receive, Reload, State, Step, Wait};
use std::collections::VecDeque;

/// Wait for a chunk before it is asked for again; doubles up to [`WANT_WAIT_MS_MAX`].
const WANT_WAIT_MS: u64 = 1_000;
/// Longest wait for a chunk.
const WANT_WAIT_MS_MAX: u64 = 8_000;
/// First wait for disk space; doubles up to [`SPACE_WAIT_MS_MAX`].
const SPACE_WAIT_MS: u64 = 5_000;
/// Longest wait for disk space.
const SPACE_WAIT_MS_MAX: u64 = 600_000;
/// Restarts of the agent within one trial that are still accepted.
const TRIAL_RESTARTS_MAX: u32 = 2;
/// Restarts of the agent within one test of a bundle that are still accepted.
pub(super) const TEST_RESTARTS_MAX: u32 = 2;
/// Wait before the active version, which did not load, is loaded again.
const LOAD_WAIT_MS: u64 = 30_000;

/// One slot.
#[derive(Debug)]
pub(super) struct Slot {
    saved: SlotSaved,
    /// What the device is.
    board: BoardId,
    state: State,
    actions: VecDeque<SlotAction>,
    notes: Vec<Note>,
    dirty: bool,
    online: bool,
    wall_ahead_ms: i64,
    /// `active` is in memory and answers.
    serving: bool,
    reload: Reload,
    /// Chunks of the bundle that are on disk in whole files.
    chunks_before: u32,
    announced: bool,
    want_wait: Backoff,
    space_wait: Backoff,
}

impl Slot {
    pub(super) fn restore(saved: SlotSaved, board: BoardId, seed: u64, now: Timestamp) -> Self {
        let mut slot = Self {
            saved,
            board,
            state: State::Idle,
            actions: VecDeque::new(),
            notes: Vec::new(),
            dirty: false,
            online: false,
            wall_ahead_ms: 0,
            serving: false,
            reload: Reload::No,
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

    /// A slot that was emptied, and whose files had not gone when the power did, is done with now.
    pub(super) fn finish_emptying(&mut self) {
        if self.saved.target.is_none() && self.saved.active.is_none() {
            self.actions.push_back(SlotAction::Collect);
        }
    }

    pub(super) fn set_wall_ahead_ms(&mut self, ahead_ms: i64) {
        self.wall_ahead_ms = ahead_ms;
    }

    /// `time` as the wall clock shows it.
    fn on_the_wall(&self, time: Timestamp) -> Timestamp {
        Timestamp(time.0.saturating_add_signed(self.wall_ahead_ms))
    }

    pub(super) fn saved(&self) -> &SlotSaved {
        &self.saved
    }

    /// What is to be persisted: with what was asked for counted as if it had come.
    pub(super) fn to_save(&self) -> SlotSaved {
        let update_bytes = self.saved.update_bytes.saturating_add(self.asked_bytes());
        SlotSaved { update_bytes, ..self.saved.clone() }
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
        let target = self.saved.target.as_ref().filter(|_| self.is_attempt_due()).map(Target::bundle);
        versions.into_iter().flatten().map(|version| version.bundle).chain(target).collect()
    }

    /// An attempt at the target is under way, or will be once the active version is loaded.
    fn is_attempt_due(&self) -> bool {
        self.state.is_attempt() || self.saved.target.as_ref().is_some_and(|target| !self.is_answered(target))
    }

    /// The attempt that `target` asks for has ended.
    fn is_answered(&self, target: &Target) -> bool {
        self.saved.attempt.as_ref().is_some_and(|attempt| {
            attempt.generation >= target.generation && attempt.version.bundle == target.bundle()
        })
    }

    pub(super) fn report(&self) -> SlotReport {
        let phase = match &self.state {
            State::Idle | State::Loading { .. } => Phase::Idle,
            State::Fetching { manifest, step } => self.fetching_phase(manifest.as_deref(), step),
            State::Testing => Phase::Testing { bundle: self.target_bundle() },
            State::Activating => Phase::Testing { bundle: self.target_bundle() },
            State::Trial { ends_at, .. } => {
                Phase::Trial { bundle: self.target_bundle(), ends_at: self.on_the_wall(*ends_at) }
            }
            State::Waiting { until, reason, wait } => Phase::Waiting {
                bundle: self.target_bundle(),
                until: self.on_the_wall(*until),
                reason: reason.clone(),
                waits_for: match wait {
                    Wait::Storage => WaitsFor::Storage,
                    Wait::Budget { .. } => WaitsFor::Budget,
                },
            },
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
        [self.state_due(online), self.reload_due()].into_iter().flatten().min()
    }

    fn state_due(&self, online: bool) -> Option<Timestamp> {
        match &self.state {
            State::Idle | State::Loading { .. } | State::Testing | State::Activating => None,
            State::Fetching { step, .. } => match step {
                Step::Receiving(receive) if online => Some(receive.again_at),
                Step::Receiving(_)
                | Step::Opening(_)
                | Step::Verifying(_)
                | Step::ReadingManifest
                | Step::Reserving
                | Step::Choosing { .. }
                | Step::Applying(_) => None,
            },
            State::Trial { ends_at, concluding } => (!concluding).then_some(*ends_at),
            State::Waiting { until, .. } => Some(*until),
        }
    }

    pub(super) fn handle_timeout(&mut self, online: bool, now: Timestamp) {
        let is_due = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        if is_due(self.reload_due()) {
            self.load_again();
        }
        if !is_due(self.state_due(online)) {
            return;
        }
        match &mut self.state {
            State::Idle | State::Loading { .. } | State::Testing | State::Activating => {}
            State::Fetching { step, .. } => match step {
                Step::Receiving(_) => self.ask_again(now),
                Step::Opening(_)
                | Step::Verifying(_)
                | Step::ReadingManifest
                | Step::Reserving
                | Step::Choosing { .. }
                | Step::Applying(_) => {}
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

    pub(super) fn handle(&mut self, input: SlotInput, now: Timestamp) -> Result<(), Rejected> {
        let unfit = Rejected::Unfit { state: self.state.name(), input: input.name() };
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
                    match blob.delta {
                        Some(delta) => self.refuse_delta(delta, &detail),
                        None => self.refuse(Refusal::DigestMismatch, &detail, now),
                    }
                    Ok(())
                }
                _ => Err(unfit),
            },
            SlotInput::BaseLookedFor { digest, base } => match self.step() {
                Some(Step::Choosing { delta, .. }) if delta.to == digest => {
                    self.chosen(base);
                    Ok(())
                }
                _ => Err(unfit),
            },
            SlotInput::DeltaApplied { delta } => match self.step() {
                Some(Step::Applying(blob)) if blob.digest == delta => {
                    let blob = blob.clone();
                    self.next_file(&blob);
                    Ok(())
                }
                _ => Err(unfit),
            },
            SlotInput::DeltaRefused { delta, detail } => match self.step() {
                Some(&Step::Applying(Blob { delta: Some(applied), .. })) if applied.delta == delta => {
                    self.refuse_delta(applied, &detail);
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
            SlotInput::ManifestRefused { bundle, reason, detail } => match self.step() {
                Some(Step::ReadingManifest) if self.target_is(bundle) => {
                    self.refuse(reason, &detail, now);
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
            SlotInput::StorageFailed { bundle, detail } => match &self.state {
                State::Fetching { .. } | State::Testing
                    if self.target_is(bundle) || self.fetching() == Some(bundle) =>
                {
                    self.wait_for_storage(&detail, now);
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
                // It may allow more.
                if matches!(self.state, State::Waiting { wait: Wait::Budget { .. }, .. }) {
                    self.begin_attempt();
                }
                return;
            }
        }
        self.supersede(&format!("superseded by generation {}", target.generation), now);
        self.saved.target = Some(target);
        self.saved.forget_update();
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
        self.reload = Reload::No;
        self.state = State::Idle;
        self.drop_actions();
        self.actions.extend([SlotAction::Deactivate, SlotAction::Collect]);
        self.dirty = true;
    }

    /// Ends the attempt that is under way, if one is, because something else is wanted.
    fn supersede(&mut self, why: &str, now: Timestamp) {
        match &self.state {
            State::Idle | State::Loading { .. } if self.saved.trial.is_none() => {}
            State::Fetching { .. } | State::Testing | State::Waiting { .. } => {
                self.end_unstarted(
                    Outcome::Refused { reason: Refusal::Abandoned, detail: why.to_owned() },
                    now,
                );
            }
            // Idle or loading with a trial: the agent restarted in mid-trial.
            State::Idle | State::Loading { .. } | State::Activating | State::Trial { .. } => {
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
        if self.is_answered(&target) {
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

    /// What was asked for the attempt is no longer wanted. A slot that was emptied stays to be emptied, and the
    /// active version to be loaded.
    fn drop_actions(&mut self) {
        let active = self.saved.active.as_ref();
        self.actions.retain(|action| match action {
            SlotAction::Deactivate | SlotAction::GiveUpBlob { .. } | SlotAction::StopListening => true,
            SlotAction::Activate { version } => Some(version) == active,
            SlotAction::OpenBlob { .. }
            | SlotAction::Want(_)
            | SlotAction::VerifyBlob { .. }
            | SlotAction::ReadManifest { .. }
            | SlotAction::Reserve { .. }
            | SlotAction::Test { .. }
            | SlotAction::LookForBase { .. }
            | SlotAction::ApplyDelta { .. }
            | SlotAction::ConcludeTrial { .. }
            | SlotAction::Discard { .. }
            | SlotAction::Collect => false,
        });
    }

    fn finish(&mut self, target: &Target, outcome: Outcome, now: Timestamp) {
        self.saved.attempt = Some(Attempt {
            generation: target.generation,
            rollout: target.assignment.rollout,
            version: target.version(),
            outcome,
            at: self.on_the_wall(now),
            trial: None,
        });
        self.dirty = true;
    }

    fn note(&mut self, kind: EventKind, bundle: Option<Digest>, detail: String) {
        self.notes.push(Note {
            slot: Some(self.saved.slot.clone()),
            bundle,
            kind,
            detail: wire::cut(&detail),
        });
    }

    fn target_bundle(&self) -> Digest {
        let trial = self.saved.trial.as_ref().map(|trial| trial.target.bundle());
        let target = self.saved.target.as_ref().map(Target::bundle);
        trial.or(target).unwrap_or_else(|| Digest::of(b""))
    }

    fn target_is(&self, bundle: Digest) -> bool {
        self.saved.target.as_ref().is_some_and(|target| target.bundle() == bundle)
    }
}
