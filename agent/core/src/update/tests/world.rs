//! A device in memory: carries out the machine's actions, loses its memory at a power cut, keeps its disk.

mod bundles;
mod perform;
mod run;

pub(super) use bundles::BUNDLES;

use crate::{budget::Limits, chunks::ChunkSet, update::*};
use bundles::{Bundle, DELTA_BYTES, delta, keys};
use shared::{
    Signed,
    wire::{self, Assignment, Outcome, TrialPolicy, VersionRef, Want},
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use uuid::Uuid;

const CHUNK: u32 = 1024;

pub(super) fn slot() -> SlotName {
    "default".parse().unwrap()
}

/// Comes after [`slot`] in everything that goes slot by slot.
pub(super) fn other_slot() -> SlotName {
    "other".parse().unwrap()
}

/// What is wrong with a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    Corrupt,
    BadManifest,
    WrongVersion,
    WrongBoard,
    Golden,
    NotLoadable,
    NoChunks,
    Trial,
    /// The delta to its model does not give the model.
    BadDelta,
    /// The delta's bytes are others.
    CorruptDelta,
    /// The delta never comes.
    NoDelta,
}

fn machine(limits: Limits, saved: Saved, seed: u64, now: Timestamp) -> Machine {
    Machine::restore("cam".parse().unwrap(), "x86-64".parse().unwrap(), limits, saved, seed, now)
}

/// A version that was brought to answer.
pub(super) struct Activation {
    pub(super) slot: SlotName,
    /// Of the bundle.
    pub(super) number: usize,
    /// The newest bundle of the slot that was on disk as good before.
    pub(super) committed: Option<usize>,
}

pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) persisted: Saved,
    pub(super) events: Vec<Note>,
    pub(super) now: Timestamp,
    pub(super) online: bool,
    pub(super) disk_full: bool,
    /// No request comes in a trial.
    pub(super) silent: bool,
    pub(super) golden_holds: bool,
    pub(super) actions: usize,
    pub(super) cut_at: Option<usize>,
    /// After that cut there is no network.
    pub(super) dark_after_cut: bool,
    pub(super) activations: Vec<Activation>,
    committed: BTreeMap<SlotName, usize>,
    pub(super) tests: usize,
    pub(super) delivered: u32,
    /// The newest version that the machine named when it last asked whether a bundle may be installed.
    pub(super) had: Option<VersionRef>,
    pub(super) wants: Vec<Want>,
    pub(super) highest_generation: u64,
    faults: [Fault; BUNDLES],
    whole: BTreeSet<Digest>,
    /// Whole files that cannot be read for a time.
    unreadable: BTreeSet<Digest>,
    partial: BTreeMap<Digest, ChunkSet>,
    memory: BTreeMap<SlotName, VersionRef>,
    tested: BTreeSet<Digest>,
    answered: BTreeSet<Digest>,
    replies: VecDeque<Input>,
    generation: u64,
    wanted: BTreeMap<SlotName, usize>,
    wish: Option<Box<dyn Fn() -> Verified<Desired>>>,
    seed: u64,
    hold_tests: bool,
    pub(super) limits: Limits,
    /// What assignments allow.
    pub(super) update_bytes_max: Option<u64>,
    /// The version from which assignments name a delta.
    pub(super) delta_from: Option<usize>,
    /// Chunk bytes that came.
    pub(super) received_bytes: u64,
    /// Milliseconds that passed, whatever the clock shows.
    pub(super) passed_ms: u64,
}

impl World {
    pub(super) fn new() -> Self {
        let now = Timestamp(1_000_000);
        let mut world = Self {
            machine: machine(Limits::default(), Saved::default(), 1, now),
            persisted: Saved::default(),
            events: Vec::new(),
            now,
            online: true,
            disk_full: false,
            silent: false,
            golden_holds: true,
            actions: 0,
            cut_at: None,
            dark_after_cut: false,
            activations: Vec::new(),
            committed: BTreeMap::new(),
            tests: 0,
            delivered: 0,
            had: None,
            wants: Vec::new(),
            highest_generation: 0,
            faults: [Fault::None; BUNDLES],
            whole: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            partial: BTreeMap::new(),
            memory: BTreeMap::new(),
            tested: BTreeSet::new(),
            answered: BTreeSet::new(),
            replies: VecDeque::new(),
            generation: 0,
            wanted: BTreeMap::new(),
            wish: None,
            seed: 1,
            hold_tests: false,
            limits: Limits::default(),
            update_bytes_max: None,
            delta_from: None,
            received_bytes: 0,
            passed_ms: 0,
        };
        world.set_online(true);
        world
    }

    pub(super) fn version(&self, number: usize) -> VersionRef {
        keys().bundles[number].version.clone()
    }

    pub(super) fn chunks(&self, number: usize) -> u32 {
        let bundle = &keys().bundles[number];
        let sizes = bundle.manifest.files.iter().map(|file| file.size_bytes).chain([bundle.envelope_bytes]);
        sizes.map(|size| wire::chunk_count(size, CHUNK)).sum()
    }

    pub(super) fn desired(&self, generation: u64, bundles: &[usize]) -> Verified<Desired> {
        self.desired_for("cam", generation, bundles.iter().map(|&number| (slot(), number)))
    }

    pub(super) fn desired_for(
        &self,
        device: &str,
        generation: u64,
        bundles: impl IntoIterator<Item = (SlotName, usize)>,
    ) -> Verified<Desired> {
        let assignments = bundles
            .into_iter()
            .map(|(slot, number)| {
                let Bundle { version, envelope_bytes, .. } = &keys().bundles[number];
                Assignment {
                    slot,
                    model: version.model.clone(),
                    version: version.version,
                    version_id: version.version_id,
                    bundle: version.bundle,
                    bundle_bytes: *envelope_bytes,
                    rollout: Some(shared::RolloutId(Uuid::from_u128(generation.into()))),
                    trial: TrialPolicy { duration_ms: 1000, ..TrialPolicy::default() },
                    deltas: self
                        .delta_from
                        .filter(|from| *from != number)
                        .map(|from| delta(from, number))
                        .into_iter()
                        .collect(),
                    update_bytes_max: self.update_bytes_max,
                }
            })
            .collect();
        let device = device.parse().unwrap();
        let desired =
            Desired { device, generation, issued_at: Timestamp(0), chunk_bytes: CHUNK, assignments };
        let envelope = Signed::sign(&desired, &[&keys().director]).unwrap();
        Signed::parse(&envelope).unwrap().verify(&keys().ring).unwrap()
    }

    /// The next generation asks for these bundles, which have these faults.
    pub(super) fn assign(&mut self, bundles: &[(usize, Fault)]) {
        self.assign_to(&slot(), bundles.first().copied());
    }

    /// The next generation asks for this bundle in this slot, and in others what was asked for.
    pub(super) fn assign_to(&mut self, slot: &SlotName, bundle: Option<(usize, Fault)>) {
        self.generation += 1;
        match bundle {
            Some((number, fault)) => {
                self.faults[number] = fault;
                self.wanted.insert(slot.clone(), number);
            }
            None => {
                self.wanted.remove(slot);
            }
        }
        let desired = self.desired_for("cam", self.generation, self.wanted.clone());
        let again = desired.clone();
        self.wish = Some(Box::new(move || again.clone()));
        self.machine.handle(Input::Desired(Box::new(desired)), self.now).unwrap();
    }

    /// The retained wish comes again.
    pub(super) fn resend(&mut self) {
        let desired = self.wish.as_ref().map(|wish| wish());
        if let Some(desired) = desired {
            self.machine.handle(Input::Desired(Box::new(desired)), self.now).unwrap();
        }
    }

    pub(super) fn heal(&mut self, number: usize) {
        self.faults[number] = Fault::None;
    }

    /// The files of a bundle go bad on disk.
    pub(super) fn rot(&mut self, number: usize) {
        for file in &keys().bundles[number].manifest.files {
            self.whole.remove(&file.digest);
        }
    }

    /// The files of a bundle cannot be read for a time.
    pub(super) fn set_unreadable(&mut self, number: usize) {
        self.unreadable.extend(keys().bundles[number].blobs());
    }

    /// The disk reads again, and has what the versions need that answer or are gone back to: one that does not load is
    /// tried again for ever.
    pub(super) fn mend(&mut self) {
        self.unreadable.clear();
        let saved = self.machine.saved().slots.into_iter().chain(self.persisted.slots.clone());
        let needed: Vec<_> = saved.flat_map(|saved| [saved.last_good, saved.active]).flatten().collect();
        for version in needed {
            self.whole.extend(keys().bundles[self.number(version.bundle)].blobs());
        }
    }

    /// A chunk that another device asked for comes at once, whatever the blob's state.
    pub(super) fn broadcast(&mut self) {
        for digest in self.machine.fetching() {
            let Some(partial) = self.partial.get_mut(&digest) else { continue };
            let missing = partial.missing(&ChunkSet::empty(partial.total()), 1, 1);
            let Some(&(index, _)) = missing.first() else { continue };
            partial.insert(index);
            self.receive(digest, 1);
            self.machine.handle(Input::ChunkStored { digest, index }, self.now).unwrap();
        }
    }

    /// So many chunks of a blob have come, none of them its last.
    fn receive(&mut self, digest: Digest, chunks: u32) {
        let bytes = u64::from(chunks * CHUNK);
        self.received_bytes += bytes;
        self.machine.handle(Input::ChunksReceived { digest, bytes }, self.now).unwrap();
    }

    /// The clock is set back.
    pub(super) fn set_back(&mut self, ms: u64) {
        self.now = Timestamp(self.now.0.saturating_sub(ms));
        self.restart();
    }

    /// Time passes in which nothing happens.
    pub(super) fn wait(&mut self, ms: u64) {
        self.passed_ms += ms;
        self.now = self.now.plus_ms(ms);
        self.machine.handle_timeout(self.now);
    }

    /// Bytes of all that has to come for a bundle, with its model as it is or as a delta.
    pub(super) fn bytes(&self, number: usize, as_delta: bool) -> u64 {
        let bundle = &keys().bundles[number];
        let model_bytes = if as_delta { DELTA_BYTES } else { bundle.model().size_bytes };
        bundle.envelope_bytes + model_bytes + bundle.manifest.files[1].size_bytes
    }

    /// The model of a bundle is gone from the disk, as far as it is no other's.
    pub(super) fn lose_model(&mut self, number: usize) {
        self.whole.remove(&keys().bundles[number].model().digest);
    }

    pub(super) fn set_online(&mut self, online: bool) {
        self.online = online;
        self.machine.handle(Input::Online(online), self.now).unwrap();
    }

    /// Power cut: memory is lost, the disk stays.
    pub(super) fn restart(&mut self) {
        self.memory.clear();
        self.tested.clear();
        self.replies.clear();
        self.seed += 1;
        self.machine = machine(self.limits, self.persisted.clone(), self.seed, self.now);
        self.set_online(self.online);
    }

    pub(super) fn report(&self) -> SlotReport {
        self.machine.reports().into_iter().find(|report| report.slot == slot()).unwrap()
    }

    pub(super) fn outcome(&self) -> Outcome {
        self.report().attempt.unwrap().outcome
    }

    pub(super) fn answering(&self) -> Option<VersionRef> {
        self.answering_in(&slot())
    }

    pub(super) fn answering_in(&self, slot: &SlotName) -> Option<VersionRef> {
        self.memory.get(slot).cloned()
    }

    pub(super) fn ever_answered(&self, number: usize) -> bool {
        self.answered.contains(&self.version(number).bundle)
    }

    pub(super) fn kinds(&self) -> Vec<EventKind> {
        self.events.iter().map(|note| note.kind).collect()
    }

    pub(super) fn partials(&self) -> usize {
        self.partial.len()
    }
}
