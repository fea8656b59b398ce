//! From files on disk to a version that has proved itself, or back to the one before.

use super::{Reload, Slot, SlotAction, State, Target, TrialSaved};
use crate::trial::{Statistics, Verdict, judge};
use shared::{
    Digest, Timestamp,
    manifest::Manifest,
    wire::{self, EventKind, Outcome, TrialCounts, VersionRef},
};

impl Slot {
    /// The version on trial and the one to go back to, while the trial runs.
    pub(in crate::update) fn on_trial(&self) -> Option<(Digest, Option<VersionRef>)> {
        let trial = self.saved.trial.as_ref().filter(|_| matches!(self.state, State::Trial { .. }))?;
        Some((trial.target.bundle(), trial.fallback.clone()))
    }

    pub(super) fn test(&mut self, manifest: Box<Manifest>) {
        let Some(target) = &self.saved.target else { return };
        let version = target.version();
        let before =
            self.saved.test_starts.filter(|(bundle, _)| *bundle == version.bundle).map_or(0, |(_, n)| n);
        self.saved.test_starts = Some((version.bundle, before + 1));
        self.dirty = true;
        self.state = State::Testing;
        self.actions.push_back(SlotAction::Test { version, manifest });
    }

    pub(super) fn activate(&mut self, runtime: String, now: Timestamp) {
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
        self.saved.trial = Some(TrialSaved { target, fallback, restarts: 0, announced: false });
        self.saved.active = Some(version.clone());
        self.reload = Reload::No;
        self.state = State::Activating;
        self.actions.push_back(SlotAction::Activate { version });
    }

    pub(super) fn judge(
        &mut self,
        statistics: &Statistics,
        golden: Option<Result<(), String>>,
        now: Timestamp,
    ) {
        let Some(trial) = &self.saved.trial else { return };
        let bundle = trial.target.bundle();
        let verdict = judge(&trial.target.assignment.trial, statistics, golden.is_some());
        let asked = statistics.requests;
        match (verdict, golden) {
            (Verdict::Undecided, _) | (Verdict::AskGolden, None) => {}
            (Verdict::Failed(detail), _) => self.roll_back(&detail, now),
            (Verdict::AskGolden, Some(Err(detail))) => self.roll_back(&detail, now),
            (Verdict::Passed | Verdict::AskGolden, _) => self.commit(asked, now),
        }
        let Statistics { requests, failed, compared, agreed, .. } = *statistics;
        let ended = self.saved.trial.is_none();
        if let Some(attempt) = self.saved.attempt.as_mut().filter(|_| ended)
            && attempt.version.bundle == bundle
        {
            attempt.trial = Some(TrialCounts { requests, failed, compared, agreed });
        }
    }

    pub(super) fn commit(&mut self, requests: u64, now: Timestamp) {
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
    pub(super) fn roll_back(&mut self, detail: &str, now: Timestamp) {
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
                self.reload = Reload::No;
                self.saved.runtime = None;
                self.state = State::Idle;
                self.actions.extend([SlotAction::Deactivate, SlotAction::Collect]);
            }
        }
        self.actions.push_back(SlotAction::Discard { bundle: target.bundle() });
    }

    /// The trial is over: what asked for it.
    pub(super) fn take_trial(&mut self) -> Target {
        let trial = self.saved.trial.take().expect("only called within a trial");
        self.dirty = true;
        trial.target
    }
}
