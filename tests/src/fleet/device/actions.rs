//! What the update machine asks for.

use super::Device;
use crate::fleet::runtime;
use agent_core::update::{Base, Fetched, Input, SlotAction, SlotInput};
use edgewright_agent::link::Link;
use shared::{
    Digest, Signed, SlotName, Verified,
    manifest::Manifest,
    topic::{Filter, Topic},
    wire::{self, Refusal, VersionRef},
};
use std::sync::atomic::Ordering;

impl Device {
    pub(super) fn act(&mut self, slot: SlotName, action: SlotAction) {
        let answer = match action {
            SlotAction::Want(want) => {
                if let (Ok(payload), Some(connection)) = (wire::encode_json("want", &want), &self.connection)
                {
                    let topic = Topic::BlobWant(self.id.clone()).to_string();
                    // A want that was not sent is repeated by the machine.
                    let _ = connection.link.publish(topic, payload, false);
                }
                return;
            }
            SlotAction::OpenBlob { digest, size_bytes, chunk_bytes } => {
                self.listen(digest);
                let fleet = &self.fleet;
                let blob = self
                    .blobs
                    .entry(digest)
                    .or_insert_with(|| fleet.blobs.open(digest, size_bytes, chunk_bytes));
                SlotInput::BlobOpened { digest, fetched: Fetched::Part(blob.present.clone()) }
            }
            SlotAction::VerifyBlob { digest, .. } => {
                self.stop_listening(digest);
                match self.blobs.get(&digest).map(super::Blob::verify) {
                    Some(Ok(())) => SlotInput::BlobVerified { digest },
                    Some(Err(detail)) => {
                        self.blobs.remove(&digest);
                        SlotInput::BlobCorrupt { digest, detail }
                    }
                    None => SlotInput::BlobCorrupt { digest, detail: "it is not there".to_owned() },
                }
            }
            SlotAction::ReadManifest { version, newest } => {
                let bundle = version.bundle;
                match self.read_manifest(&version, newest.as_ref()) {
                    Ok(manifest) => SlotInput::ManifestRead { bundle, manifest: Box::new(manifest) },
                    Err((reason, detail)) => SlotInput::ManifestRefused { bundle, reason, detail },
                }
            }
            SlotAction::LookForBase { digest, .. } => {
                SlotInput::BaseLookedFor { digest, base: Base::Missing }
            }
            SlotAction::ApplyDelta { delta, .. } => {
                SlotInput::DeltaRefused { delta: delta.delta, detail: "simulated".to_owned() }
            }
            SlotAction::Reserve { bundle, .. } => SlotInput::Reserved { bundle },
            SlotAction::Test { version, .. } => {
                let wave = self.fleet.wave();
                wave.whole.fetch_add(1, Ordering::AcqRel);
                wave.changed.notify_one();
                // Nothing is ever run, so nothing is kept.
                self.blobs.clear();
                runtime::tested(&self.character, version.bundle)
            }
            SlotAction::Activate { version } => runtime::activated(version.bundle),
            SlotAction::ConcludeTrial { version } => {
                let trials = self.machine.trials();
                let trial = trials.iter().find(|(on_trial, ..)| *on_trial == slot);
                let fallback = trial.and_then(|(_, _, fallback)| fallback.as_ref());
                runtime::concluded(&self.character, version.bundle, fallback)
            }
            SlotAction::GiveUpBlob { digest } => {
                if !self.machine.fetching().contains(&digest) {
                    self.blobs.remove(&digest);
                    self.stop_listening(digest);
                }
                return;
            }
            SlotAction::StopListening | SlotAction::Discard { .. } => {
                self.listen_to_what_is_fetched();
                return;
            }
            SlotAction::Deactivate | SlotAction::Collect => return,
        };
        let takes_ms = match &answer {
            SlotInput::Tested { .. } | SlotInput::TestRefused { .. } | SlotInput::Activated { .. } => {
                runtime::takes_ms(&self.character, &mut self.lots)
            }
            _ => 0,
        };
        if takes_ms > 0 {
            self.later.push((self.fleet.now().plus_ms(takes_ms), slot, answer));
        } else {
            self.input(Input::Slot(slot, answer));
        }
    }

    /// The manifest of a version that the offline keys vouch for; otherwise why it is refused. One that is no manifest
    /// should not have come.
    fn read_manifest(
        &self,
        version: &VersionRef,
        newest: Option<&VersionRef>,
    ) -> Result<Verified<Manifest>, (Refusal, String)> {
        let trust = &self.fleet.trust;
        trust.allows(version, newest).map_err(|denied| (denied.refusal(), denied.to_string()))?;
        let keyring = trust.keyring();
        let read = self.blobs.get(&version.bundle).map(|blob| {
            blob.with_bytes(|bytes| {
                Signed::<Manifest>::parse(bytes).and_then(|signed| signed.verify(&keyring))
            })
        });
        let detail = match read {
            Some(Ok(manifest)) => return Ok(manifest),
            Some(Err(error)) => error.to_string(),
            None => "it is not there".to_owned(),
        };
        self.fleet.complain(format!("{}: the manifest of {}: {detail}", self.id, version.bundle.short()));
        Err((Refusal::BadManifest, detail))
    }

    fn listen(&mut self, digest: Digest) {
        if self.listening.insert(digest)
            && let Some(connection) = &self.connection
        {
            connection.link.subscribe(Filter::BlobBroadcast(digest).to_string());
        }
    }

    fn stop_listening(&mut self, digest: Digest) {
        if self.listening.remove(&digest)
            && let Some(connection) = &self.connection
        {
            connection.link.unsubscribe(Filter::BlobBroadcast(digest).to_string());
        }
    }

    fn listen_to_what_is_fetched(&mut self) {
        let fetching = self.machine.fetching();
        let stale: Vec<Digest> =
            self.listening.iter().filter(|digest| !fetching.contains(digest)).copied().collect();
        stale.into_iter().for_each(|digest| self.stop_listening(digest));
    }
}
