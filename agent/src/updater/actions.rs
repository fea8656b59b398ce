//! What the machine asks for: some of it is done here, the rest is handed to the installer.

use super::Updater;
use crate::installer::{Job, Work, files_of};
use agent_core::update::SlotAction;
use shared::{
    Digest, SlotName,
    topic::{Filter, Topic},
    wire,
};
use std::collections::BTreeSet;

impl Updater {
    /// Does one thing for a slot, or has the installer do it.
    pub(super) fn act(&mut self, slot: SlotName, action: SlotAction) {
        match &action {
            SlotAction::Want(want) => {
                if let Ok(payload) = wire::encode_json("want", want) {
                    let topic = Topic::BlobWant(self.parts.device.clone()).to_string();
                    // A want that was not sent is repeated by the machine.
                    let _ = self.parts.link.publish(topic, payload, false);
                }
                return;
            }
            SlotAction::Collect => {
                self.collect();
                self.forget_former(&slot);
                return;
            }
            SlotAction::OpenBlob { digest, .. } => {
                if self.listening.insert(*digest) {
                    self.parts.link.subscribe(Filter::BlobBroadcast(*digest).to_string());
                }
            }
            SlotAction::VerifyBlob { digest, .. } => self.stop_listening(*digest),
            SlotAction::Discard { .. } => self.drop_partials(),
            SlotAction::GiveUpBlob { digest } => {
                // Another slot may be fetching it too.
                if ![self.machine.fetching(), self.machine.resting()].concat().contains(digest) {
                    self.parts.blobs.discard(*digest);
                    self.stop_listening(*digest);
                }
                return;
            }
            SlotAction::StopListening => {
                self.listen_to_what_is_fetched();
                return;
            }
            SlotAction::Activate { .. }
            | SlotAction::Deactivate
            | SlotAction::ReadManifest { .. }
            | SlotAction::LookForBase { .. }
            | SlotAction::ApplyDelta { .. }
            | SlotAction::Reserve { .. }
            | SlotAction::Test { .. }
            | SlotAction::ConcludeTrial { .. } => {}
        }
        let runtime = self.machine.runtime(&slot);
        // There is room: no action is taken from the machine while there is none.
        if let Err(error) = self.parts.installer.try_send(Job { slot, work: Work::Action(action), runtime }) {
            tracing::error!(%error, "the installer takes no job; restart the agent");
        }
    }

    /// Removes the parts of blobs that no other slot is fetching or will go on with.
    fn drop_partials(&mut self) {
        let (fetching, resting) = (self.machine.fetching(), self.machine.resting());
        for digest in self.parts.blobs.open_digests() {
            if !fetching.contains(&digest) && !resting.contains(&digest) {
                self.parts.blobs.discard(digest);
            }
        }
        self.listen_to_what_is_fetched();
    }

    fn listen_to_what_is_fetched(&mut self) {
        let fetching = self.machine.fetching();
        for digest in self.listening.clone() {
            if !fetching.contains(&digest) {
                self.stop_listening(digest);
            }
        }
    }

    pub(super) fn stop_listening(&mut self, digest: Digest) {
        if self.listening.remove(&digest) {
            self.parts.link.unsubscribe(Filter::BlobBroadcast(digest).to_string());
        }
    }

    /// Removes the blobs that no pinned bundle needs. Called only when what is pinned is so on disk too.
    pub(super) fn collect(&mut self) {
        let pinned = self.machine.pinned();
        let keyring = self.parts.trust.keyring();
        let mut keep: BTreeSet<Digest> = pinned.iter().copied().chain(self.machine.pinned_blobs()).collect();
        for bundle in pinned {
            match files_of(&self.parts.blobs, bundle, &keyring) {
                Ok(files) => keep.extend(files),
                Err(error) => {
                    tracing::warn!(
                        %bundle,
                        error = crate::chain(&error),
                        "nothing is cleared away: which files this bundle needs is not known"
                    );
                    return;
                }
            }
        }
        self.parts.blobs.collect(&keep);
    }

    /// Drops the version before from memory, unless the one that answers is on trial.
    fn forget_former(&self, slot: &SlotName) {
        if self.machine.trials().iter().any(|(on_trial, ..)| on_trial == slot) {
            return;
        }
        if let Some(serving) = self.parts.models.all().iter().find(|serving| serving.slot == *slot) {
            serving.forget_former();
        }
    }

    /// Tells the installer which trials count, once each.
    pub(super) fn count_trials(&mut self) {
        let trials = self.machine.trials();
        self.counting.retain(|slot, bundle| trials.iter().any(|(on, is, _)| on == slot && is == bundle));
        for (slot, bundle, fallback) in trials {
            if self.counting.get(&slot) == Some(&bundle) {
                continue;
            }
            let work = Work::BeginTrial { bundle, fallback };
            // What finds no room is told with the next outcome.
            if self.parts.installer.try_send(Job { slot: slot.clone(), work, runtime: None }).is_ok() {
                self.counting.insert(slot, bundle);
            }
        }
    }
}
