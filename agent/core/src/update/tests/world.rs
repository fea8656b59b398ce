//! A device in memory: carries out the machine's actions, loses its memory at a power cut, keeps its disk.

use crate::{budget::Limits, chunks::ChunkSet, trial::Statistics, update::*};
use shared::{
    ModelVersionId, Signed,
    manifest::{FileEntry, GOLDEN_FILE, Lineage, MODEL_FILE, Manifest, Preprocess, Task, TensorSpec},
    signing::{Keyring, Role, SigningKey, TrustedKey},
    wire::{self, Assignment, DeltaRef, Outcome, Refusal, TrialPolicy, VersionRef, Want},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::OnceLock,
};
use uuid::Uuid;

const CHUNK: u32 = 1024;
pub(super) const BUNDLES: usize = 4;

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

struct Bundle {
    version: VersionRef,
    manifest: Manifest,
    other: Manifest,
    other_board: Manifest,
    envelope_bytes: u64,
}

impl Bundle {
    fn blobs(&self) -> impl Iterator<Item = Digest> + '_ {
        self.manifest.files.iter().map(|file| file.digest).chain([self.version.bundle])
    }

    fn model(&self) -> &FileEntry {
        &self.manifest.files[0]
    }
}

/// Deltas to the models of all bundles from those of all others are of this size.
pub(super) const DELTA_BYTES: u64 = 2 * 1024 + 5;

fn delta(from: usize, to: usize) -> DeltaRef {
    let model = |number: usize| keys().bundles[number].model().digest;
    DeltaRef {
        from: model(from),
        to: model(to),
        delta: Digest::of(format!("delta {from} {to}").as_bytes()),
        bytes: DELTA_BYTES,
    }
}

/// The bundle to whose model a delta leads.
fn led_to(blob: Digest) -> Option<usize> {
    let pairs = (0..BUNDLES).flat_map(|to| (0..BUNDLES).map(move |from| (from, to)));
    pairs.filter(|(from, to)| from != to).find(|&(from, to)| delta(from, to).delta == blob).map(|(_, to)| to)
}

struct Keys {
    director: SigningKey,
    release: SigningKey,
    ring: Keyring,
    bundles: Vec<Bundle>,
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let key = || SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap();
        let (director, release) = (key(), key());
        let ring = Keyring::new([
            TrustedKey { role: Role::Director, key: director.public().clone() },
            TrustedKey { role: Role::Release, key: release.public().clone() },
        ]);
        Keys { director, release, ring, bundles: (0..BUNDLES).map(bundle).collect() }
    })
}

fn bundle(number: usize) -> Bundle {
    let name = |what: &str| format!("{what}-{number}");
    let spec = |name: &str, shape: &[usize]| TensorSpec { name: name.to_owned(), shape: shape.to_vec() };
    let file = |file: &str, size_bytes: u64| FileEntry {
        name: file.to_owned(),
        digest: Digest::of(name(file).as_bytes()),
        size_bytes,
    };
    // The third is larger than one window.
    let model_bytes = if number == 2 { 300 * 1024 + 7 } else { 9 * 1024 + 100 };
    let manifest = Manifest {
        format: 1,
        model: "mnist".parse().unwrap(),
        version: format!("v1.{number}").parse().unwrap(),
        version_id: ModelVersionId(Uuid::from_u128(number as u128 + 1)),
        task: Task::ImageClassification,
        board: "x86-64".parse().unwrap(),
        created_at: Timestamp(0),
        input: spec("input", &[1, 2, 2]),
        output: spec("probabilities", &[2]),
        preprocess: Preprocess { scale: 1.0, offset: 0.0 },
        labels: vec!["a".to_owned(), "b".to_owned()],
        golden_tolerance: 0.1,
        files: vec![file(MODEL_FILE, model_bytes), file(GOLDEN_FILE, 3000)],
        lineage: Lineage { dataset: Digest::of(b"d"), job: None, seed: 0, parent: None },
    };
    let other = Manifest { version: "v9.9".parse().unwrap(), ..manifest.clone() };
    let other_board = Manifest { board: "jetson".parse().unwrap(), ..manifest.clone() };
    let version = VersionRef {
        model: manifest.model.clone(),
        version: manifest.version,
        version_id: manifest.version_id,
        bundle: Digest::of(name("envelope").as_bytes()),
    };
    Bundle { version, manifest, other, other_board, envelope_bytes: 2100 }
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

    /// Carries out actions and answers until nothing is left to do at this time.
    pub(super) fn run_actions(&mut self) {
        while self.step() {}
    }

    /// At most `count` actions and answers.
    pub(super) fn run_some(&mut self, count: usize) {
        for _ in 0..count {
            if !self.step() {
                return;
            }
        }
    }

    /// Stops as soon as a test is under way.
    pub(super) fn run_actions_until_test(&mut self) {
        self.hold_tests = true;
        for _ in 0..1000 {
            if !self.step() && !self.wake() {
                break;
            }
        }
        self.hold_tests = false;
    }

    pub(super) fn run_until(&mut self, reached: impl Fn(&Self) -> bool) {
        for _ in 0..100_000 {
            if reached(self) {
                return;
            }
            if !self.step() && !self.wake() {
                break;
            }
        }
        panic!("never reached; {:?}", self.report());
    }

    /// Runs through all waiting until nothing is due.
    pub(super) fn settle(&mut self) {
        for _ in 0..100_000 {
            if !self.step() && !self.wake() {
                return;
            }
        }
        panic!("never settles; {:?}", self.report());
    }

    /// To the next timeout, and what follows from it.
    pub(super) fn advance(&mut self) {
        self.wake();
        self.run_actions();
    }

    fn wake(&mut self) -> bool {
        let Some(at) = self.machine.poll_timeout() else { return false };
        self.passed_ms += at.since_ms(self.now);
        self.now = self.now.max(at);
        self.machine.handle_timeout(self.now);
        true
    }

    fn step(&mut self) -> bool {
        if let Some(mut reply) = self.replies.pop_front() {
            self.look_again(&mut reply);
            // Answers to attempts that were given up are rejected, as they are on a device.
            let _ = self.machine.handle(reply, self.now);
            return true;
        }
        let Some(action) = self.machine.poll_action() else { return false };
        self.perform(action);
        self.actions += 1;
        if self.cut_at.is_some_and(|at| self.actions > at) {
            self.cut_at = None;
            self.online &= !self.dark_after_cut;
            self.restart();
        }
        true
    }

    /// What is on disk counts, not what was there when the blob was opened.
    fn look_again(&self, reply: &mut Input) {
        if let Input::Slot(_, SlotInput::BlobOpened { digest, fetched }) = reply {
            match self.partial.get(digest) {
                Some(partial) => *fetched = Fetched::Part(partial.clone()),
                None if self.whole.contains(digest) => *fetched = Fetched::Whole,
                None => {}
            }
        }
    }

    fn perform(&mut self, action: Action) {
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

    fn number(&self, bundle: Digest) -> usize {
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
