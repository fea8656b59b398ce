//! What the device does when the machine asks.

use super::{
    Activation, CHUNK, Fault, World,
    bundles::{Bundle, DELTA_BYTES, keys, led_to},
};
use crate::{
    chunks::ChunkSet,
    trial::Statistics,
    update::{Action, Base, Fetched, Input, SlotAction, SlotInput},
};
use shared::{
    Digest, Signed, SlotName,
    wire::{self, Refusal},
};
use std::collections::BTreeSet;

impl World {
    pub(super) fn perform(&mut self, action: Action) {
        match action {
            Action::Persist { saved, notes } => {
                let generation = saved.desired.as_ref().map_or(0, |desired| desired.generation);
                assert!(generation >= self.highest_generation, "the generation fell");
                self.highest_generation = generation;
                for good in saved.slots.iter().filter_map(|slot| Some((&slot.slot, slot.last_good.as_ref()?)))
                {
                    let number = self.number(good.1.bundle);
                    let newest = self.committed.entry(good.0.clone()).or_insert(number);
                    *newest = number.max(*newest);
                }
                self.persisted = saved;
                self.events.extend(notes);
                self.replies.push_back(Input::Persisted);
            }
            Action::Slot(name, action) => {
                assert!(
                    self.persisted.slots.iter().any(|saved| saved.slot == name)
                        || matches!(
                            action,
                            SlotAction::Deactivate
                                | SlotAction::Collect
                                | SlotAction::Discard { .. }
                                | SlotAction::GiveUpBlob { .. }
                                | SlotAction::StopListening
                        ),
                    "{action:?} before its slot was persisted"
                );
                if let Some(reply) = self.perform_for(&name, action) {
                    self.replies.push_back(Input::Slot(name, reply));
                }
            }
        }
    }

    pub(super) fn number(&self, bundle: Digest) -> usize {
        keys().bundles.iter().position(|known| known.version.bundle == bundle).unwrap()
    }

    /// The bundle that a blob belongs to.
    fn owner(&self, blob: Digest) -> usize {
        let holds = |bundle: &Bundle| {
            bundle.version.bundle == blob || bundle.manifest.files.iter().any(|file| file.digest == blob)
        };
        led_to(blob).or_else(|| keys().bundles.iter().position(holds)).unwrap()
    }

    fn size_bytes(&self, blob: Digest) -> u64 {
        let bundle = &keys().bundles[self.owner(blob)];
        let file = bundle.manifest.files.iter().find(|file| file.digest == blob);
        match (file, led_to(blob)) {
            (_, Some(_)) => DELTA_BYTES,
            (Some(file), None) => file.size_bytes,
            (None, None) => bundle.envelope_bytes,
        }
    }

    fn perform_for(&mut self, name: &SlotName, action: SlotAction) -> Option<SlotInput> {
        Some(match action {
            SlotAction::Activate { version } => {
                let bundle = version.bundle;
                let saved = self.persisted.slots.iter().find(|saved| saved.slot == *name).unwrap();
                assert_eq!(saved.active.as_ref(), Some(&version), "activates what is not on disk as active");
                let there = keys().bundles[self.number(bundle)]
                    .blobs()
                    .all(|blob| self.whole.contains(&blob) && !self.unreadable.contains(&blob));
                let in_memory = self.memory.get(name) == Some(&version) || self.tested.contains(&bundle);
                if !there && !in_memory {
                    return Some(SlotInput::NotActivated { bundle, detail: "a file is damaged".to_owned() });
                }
                self.activations.push(Activation {
                    slot: name.clone(),
                    number: self.number(bundle),
                    committed: self.committed.get(name).copied(),
                });
                self.memory.insert(name.clone(), version);
                self.answered.insert(bundle);
                SlotInput::Activated { bundle, runtime: "tract".to_owned() }
            }
            SlotAction::Deactivate => {
                self.memory.remove(name);
                return None;
            }
            SlotAction::OpenBlob { digest, size_bytes, chunk_bytes } => {
                let total = wire::chunk_count(size_bytes, chunk_bytes);
                if self.unreadable.remove(&digest) {
                    self.whole.remove(&digest);
                }
                let fetched = if self.whole.contains(&digest) {
                    Fetched::Whole
                } else {
                    Fetched::Part(
                        self.partial.entry(digest).or_insert_with(|| ChunkSet::empty(total)).clone(),
                    )
                };
                SlotInput::BlobOpened { digest, fetched }
            }
            SlotAction::Want(want) => {
                self.wants.push(want.clone());
                let owner = self.owner(want.digest);
                let is_delta = led_to(want.digest).is_some();
                let gone = match self.faults[owner] {
                    Fault::NoChunks => true,
                    Fault::NoDelta => is_delta,
                    _ => false,
                };
                if gone || !self.online {
                    return None;
                }
                let size_bytes = self.size_bytes(want.digest);
                let last = wire::chunk_count(size_bytes, CHUNK) - 1;
                let short = u64::from(want.indices().any(|index| index == last))
                    * (u64::from(last + 1) * u64::from(CHUNK) - size_bytes);
                let bytes = want.indices().count() as u64 * u64::from(CHUNK) - short;
                self.received_bytes += bytes;
                let received = Input::ChunksReceived { digest: want.digest, bytes };
                self.machine.handle(received, self.now).unwrap();
                for index in want.indices() {
                    self.delivered += 1;
                    if let Some(partial) = self.partial.get_mut(&want.digest) {
                        partial.insert(index);
                    }
                    self.replies.push_back(Input::ChunkStored { digest: want.digest, index });
                }
                return None;
            }
            SlotAction::VerifyBlob { digest, .. } => {
                let partial = self.partial.remove(&digest);
                let is_model = keys().bundles[self.owner(digest)].model().digest == digest;
                let corrupt = match self.faults[self.owner(digest)] {
                    Fault::Corrupt => is_model,
                    Fault::CorruptDelta => led_to(digest).is_some(),
                    _ => false,
                };
                if corrupt {
                    SlotInput::BlobCorrupt { digest, detail: "other bytes".to_owned() }
                } else {
                    assert!(
                        partial.is_none_or(|partial| partial.is_full()),
                        "verified before all chunks came"
                    );
                    self.whole.insert(digest);
                    SlotInput::BlobVerified { digest }
                }
            }
            SlotAction::LookForBase { digest, from, .. } => {
                let base = match (self.whole.contains(&digest), self.whole.contains(&from)) {
                    (true, _) => Base::Whole,
                    (false, true) => Base::There,
                    (false, false) => Base::Missing,
                };
                SlotInput::BaseLookedFor { digest, base }
            }
            SlotAction::ApplyDelta { delta, size_bytes } => {
                let number = self.owner(delta.delta);
                assert_eq!(size_bytes, keys().bundles[number].model().size_bytes);
                let complete = self.whole.contains(&delta.delta) && self.whole.contains(&delta.from);
                self.whole.remove(&delta.delta);
                if self.faults[number] == Fault::BadDelta || !complete {
                    let detail = "the delta gives another file".to_owned();
                    return Some(SlotInput::DeltaRefused { delta: delta.delta, detail });
                }
                if self.disk_full {
                    self.whole.insert(delta.delta);
                    let detail = "no space".to_owned();
                    return Some(SlotInput::StorageFailed { bundle: delta.delta, detail });
                }
                self.whole.insert(delta.to);
                SlotInput::DeltaApplied { delta: delta.delta }
            }
            SlotAction::GiveUpBlob { digest } => {
                self.partial.remove(&digest);
                self.whole.remove(&digest);
                return None;
            }
            SlotAction::StopListening => return None,
            SlotAction::ReadManifest { version, newest } => {
                let bundle = version.bundle;
                self.had = newest;
                let number = self.number(bundle);
                let Bundle { manifest, other, other_board, .. } = &keys().bundles[number];
                let manifest = match self.faults[number] {
                    Fault::BadManifest => {
                        return Some(SlotInput::ManifestRefused {
                            bundle,
                            reason: Refusal::BadManifest,
                            detail: "no good signature".to_owned(),
                        });
                    }
                    Fault::WrongVersion => other,
                    Fault::WrongBoard => other_board,
                    _ => manifest,
                };
                let envelope = Signed::sign(manifest, &[&keys().release]).unwrap();
                let verified = Signed::parse(&envelope).unwrap().verify(&keys().ring).unwrap();
                SlotInput::ManifestRead { bundle, manifest: Box::new(verified) }
            }
            SlotAction::Reserve { bundle, .. } if self.disk_full => {
                SlotInput::StorageFailed { bundle, detail: "9000 bytes are needed, 10 are free".to_owned() }
            }
            SlotAction::Reserve { bundle, .. } => SlotInput::Reserved { bundle },
            SlotAction::Test { version, manifest } => {
                let bundle = version.bundle;
                assert!(
                    manifest.files.iter().all(|file| self.whole.contains(&file.digest)),
                    "tests what is not there"
                );
                self.tests += 1;
                if self.hold_tests {
                    return None;
                }
                let refused = |reason, detail: &str| SlotInput::TestRefused {
                    bundle,
                    reason,
                    detail: detail.to_owned(),
                };
                match self.faults[self.number(bundle)] {
                    Fault::Golden => refused(Refusal::GoldenMismatch, "class 3 instead of 4"),
                    Fault::NotLoadable => refused(Refusal::NotLoadable, "no model"),
                    _ => {
                        self.tested.insert(bundle);
                        SlotInput::Tested { bundle, runtime: "tract".to_owned() }
                    }
                }
            }
            SlotAction::ConcludeTrial { version } => {
                let bad = self.faults[self.number(version.bundle)] == Fault::Trial;
                let requests = if self.silent { 0 } else { 100 };
                let failed = if bad { requests } else { 0 };
                let statistics = Box::new(Statistics { requests, failed, ..Statistics::default() });
                let golden = if self.golden_holds { Ok(()) } else { Err("class 3 instead of 4".to_owned()) };
                SlotInput::TrialConcluded { bundle: version.bundle, statistics, golden }
            }
            SlotAction::Discard { bundle } => {
                self.tested.remove(&bundle);
                let (fetching, resting) = (self.machine.fetching(), self.machine.resting());
                self.partial.retain(|digest, _| fetching.contains(digest) || resting.contains(digest));
                return None;
            }
            SlotAction::Collect => {
                let pinned = self.machine.pinned();
                let blobs = pinned.iter().flat_map(|&bundle| keys().bundles[self.number(bundle)].blobs());
                let keep: BTreeSet<Digest> = blobs.chain(self.machine.pinned_blobs()).collect();
                self.whole.retain(|digest| keep.contains(digest));
                self.partial.retain(|digest, _| keep.contains(digest));
                return None;
            }
        })
    }
}
