//! Bringing a version into memory so that it answers, and bringing it there again when that failed.

use super::{LOAD_WAIT_MS, Reload, Slot, SlotAction, State, Target};
use crate::update::Rejected;
use shared::{
    Digest, Timestamp,
    wire::{EventKind, VersionRef},
};

impl Slot {
    /// Loads `version`, which is the active one, before anything else is done.
    pub(super) fn load(&mut self, version: VersionRef) {
        self.reload = Reload::No;
        self.actions.push_back(SlotAction::Activate { version: version.clone() });
        self.state = State::Loading { version };
    }

    /// When the active version is to be loaded again: not while a test or a trial has the turn.
    pub(super) fn reload_due(&self) -> Option<Timestamp> {
        let Reload::At(at) = self.reload else { return None };
        match &self.state {
            State::Idle | State::Fetching { .. } | State::Waiting { .. } => Some(at),
            State::Loading { .. } | State::Testing | State::Activating | State::Trial { .. } => None,
        }
    }

    /// Loads the active version once more; an attempt that is under way goes on.
    pub(super) fn load_again(&mut self) {
        let Some(version) = self.saved.active.clone() else { return };
        if matches!(self.state, State::Idle) {
            self.load(version);
        } else {
            self.reload = Reload::Asked;
            self.actions.push_back(SlotAction::Activate { version });
        }
    }

    pub(super) fn handle_activated(
        &mut self,
        bundle: Digest,
        runtime: String,
        now: Timestamp,
        unfit: Rejected,
    ) -> Result<(), Rejected> {
        if self.saved.active.as_ref().map(|active| active.bundle) != Some(bundle) {
            return Err(unfit);
        }
        let beside = match &self.state {
            State::Activating => false,
            State::Loading { version } if version.bundle == bundle => false,
            State::Idle | State::Fetching { .. } | State::Testing | State::Waiting { .. }
                if self.reload == Reload::Asked =>
            {
                true
            }
            State::Idle
            | State::Loading { .. }
            | State::Fetching { .. }
            | State::Testing
            | State::Trial { .. }
            | State::Waiting { .. } => return Err(unfit),
        };
        self.serving = true;
        self.reload = Reload::No;
        if self.saved.runtime.as_ref() != Some(&runtime) {
            self.saved.runtime = Some(runtime);
            self.dirty = true;
        }
        if beside {
            return Ok(());
        }
        let Some(trial) = &mut self.saved.trial else {
            self.actions.push_back(SlotAction::Collect);
            self.reconcile(now);
            return Ok(());
        };
        let ends_at = now.plus_ms(trial.target.assignment.trial.duration_ms);
        if !std::mem::replace(&mut trial.announced, true) {
            let version = trial.target.version();
            let detail = format!("{} {}", version.model, version.version);
            self.note(EventKind::VersionActivated, Some(bundle), detail);
        }
        self.state = State::Trial { ends_at, concluding: false };
        Ok(())
    }

    pub(super) fn handle_not_activated(
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
                if self.saved.trial.is_some() {
                    self.roll_back(&format!("did not load: {detail}"), now);
                    return Ok(());
                }
                let version = version.clone();
                self.not_serving(now);
                let wanted = self.saved.target.as_ref().map(Target::version) == Some(version.clone());
                if wanted && self.saved.last_good.as_ref() == Some(&version) {
                    // Fetch it again: blobs that are whole are kept, damaged ones come anew.
                    self.announced = false;
                    self.begin_attempt();
                } else {
                    self.reconcile(now);
                }
                Ok(())
            }
            State::Idle | State::Fetching { .. } | State::Testing | State::Waiting { .. }
                if self.reload == Reload::Asked
                    && self.saved.active.as_ref().is_some_and(|active| active.bundle == bundle) =>
            {
                self.not_serving(now);
                Ok(())
            }
            State::Idle
            | State::Loading { .. }
            | State::Fetching { .. }
            | State::Testing
            | State::Activating
            | State::Trial { .. }
            | State::Waiting { .. } => Err(unfit),
        }
    }

    /// The active version did not load: what answers in its place has failed its trial, and must not.
    fn not_serving(&mut self, now: Timestamp) {
        if std::mem::replace(&mut self.serving, false) {
            self.actions.push_back(SlotAction::Deactivate);
        }
        self.reload = Reload::At(now.plus_ms(LOAD_WAIT_MS));
    }
}
