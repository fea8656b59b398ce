//! A device on the virtual clock: the agent's update machine, a disk that survives power cuts, and a network that comes
//! and goes.

use super::bundles::{Author, BOARD, CHUNK_BYTES, slot};
use agent_core::{
    budget,
    chunks::ChunkSet,
    update::{Action, Base, Fetched, Input, Machine, Saved, SlotAction, SlotInput, SlotSaved, Target},
};
use edgewright_tests::fleet::{
    character::{Character, between_ms},
    runtime,
};
use shared::{
    DeviceId, Digest, SlotName, Timestamp, Verified,
    backoff::Jitter,
    wire::{Attempt, Desired, EventKind, Outcome, SlotReport, VersionRef, chunk_count},
};
use std::collections::BTreeMap;

/// What happens to a device, or is heard of it.
pub enum Event {
    Wish(Verified<Desired>),
    Chunk {
        digest: Digest,
        index: u32,
    },
    /// The answer to an action, of this life of the device.
    Answer {
        life: u32,
        slot: SlotName,
        input: SlotInput,
    },
    Wake,
    Online(bool),
    /// The server hears whether it is there.
    Presence(bool),
    /// The server hears what it reports.
    Report {
        generation: u64,
        slot: Option<Box<SlotReport>>,
    },
}

/// Chunks in a thousand that get lost.
const LOSS_PERMILLE: u64 = 30;
/// There, and away, for so long, where the network comes and goes.
const THERE_MS: (u64, u64) = (60_000, 600_000);
const AWAY_MS: (u64, u64) = (10_000, 120_000);
/// What tests, swaps and looks at the disk take.
const STEP_MS: (u64, u64) = (5, 2_000);

pub struct Device {
    pub id: DeviceId,
    pub character: Character,
    pub machine: Machine,
    pub online: bool,
    /// The newest wish, retained.
    pub wish: Option<Verified<Desired>>,
    /// Times that the fresh version began to answer for the first time, was committed, was refused, was rolled back.
    pub told: BTreeMap<Told, u32>,
    persisted: Saved,
    partial: BTreeMap<Digest, ChunkSet>,
    said: Option<(u64, Option<SlotReport>)>,
    wakes_at: Option<Timestamp>,
    life: u32,
    /// After so many more actions the power is cut, once.
    cut_after: Option<u32>,
    latency_ms: u64,
    lots: Jitter,
    seed: u64,
}

/// What is counted of the fresh version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    Activated,
    Passed,
    Refused,
    RolledBack,
}

/// What follows from something that happened, each after so many milliseconds.
pub type Followed = Vec<(u64, Event)>;

impl Device {
    /// A device that runs the version before, for a long time already.
    pub fn new(
        number: usize,
        character: Character,
        cut_after: Option<u32>,
        author: &Author,
        now: Timestamp,
        seed: u64,
    ) -> Self {
        let id: DeviceId = format!("device-{number:05}").parse().unwrap();
        let mut lots = Jitter::new(seed ^ number as u64);
        let saved = saved(&id, author);
        let seed = lots.next_u64();
        let mut device = Self {
            machine: machine(&id, saved.clone(), seed, now),
            id,
            character,
            online: true,
            wish: None,
            told: BTreeMap::new(),
            persisted: saved,
            partial: BTreeMap::new(),
            said: None,
            wakes_at: None,
            life: 0,
            cut_after,
            latency_ms: between_ms(&mut lots, 5, 400),
            lots,
            seed,
        };
        let _ = device.machine.handle(Input::Online(true), now);
        device
    }

    /// The first things that happen to it.
    pub fn begin(&mut self, author: &Author, now: Timestamp) -> Followed {
        let mut out = vec![(self.latency_ms, Event::Presence(true))];
        if self.character.comes_and_goes {
            out.push((between_ms(&mut self.lots, THERE_MS.0, THERE_MS.1), Event::Online(false)));
        }
        out.extend(self.settle(author, now));
        out
    }

    /// The newest wish is on its way to it.
    pub fn wish_for(&mut self, wish: Verified<Desired>) -> Followed {
        self.wish = Some(wish.clone());
        vec![(self.latency_ms, Event::Wish(wish))]
    }

    pub fn active(&self) -> Option<VersionRef> {
        self.machine.reports().into_iter().find_map(|report| report.active)
    }

    pub fn count(&self, kind: Told) -> u32 {
        self.told.get(&kind).copied().unwrap_or(0)
    }

    /// Something happens.
    pub fn handle(&mut self, event: Event, author: &Author, now: Timestamp) -> Followed {
        let mut out = Vec::new();
        match event {
            Event::Wish(wish) if self.online => self.input(Input::Desired(Box::new(wish)), now),
            Event::Chunk { digest, index } if self.online => self.take_chunk(digest, index, now),
            // It is retained, or asked for again.
            Event::Wish(_) | Event::Chunk { .. } => {}
            Event::Answer { life, slot, input } if life == self.life => {
                self.input(Input::Slot(slot, input), now);
            }
            Event::Answer { .. } => {}
            Event::Wake => {
                self.wakes_at = None;
                self.machine.handle_timeout(now);
            }
            Event::Online(online) => {
                self.online = online;
                self.said = None;
                self.input(Input::Online(online), now);
                out.push((self.latency_ms, Event::Presence(online)));
                let (from, to) = if online { THERE_MS } else { AWAY_MS };
                out.push((between_ms(&mut self.lots, from, to), Event::Online(!online)));
                if let Some(wish) = self.wish.clone().filter(|_| online) {
                    out.push((self.latency_ms, Event::Wish(wish)));
                }
            }
            Event::Presence(_) | Event::Report { .. } => unreachable!("these are heard by the server"),
        }
        out.extend(self.settle(author, now));
        out
    }

    fn input(&mut self, input: Input, now: Timestamp) {
        // What does not fit belongs to an attempt that is over, or came twice.
        let _ = self.machine.handle(input, now);
    }

    /// Does what the machine asks for, until the power is cut.
    fn settle(&mut self, author: &Author, now: Timestamp) -> Followed {
        let mut out = Vec::new();
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Persist { saved, notes } => {
                    for note in notes.iter().filter(|note| note.bundle == Some(author.fresh.version.bundle)) {
                        let kind = match note.kind {
                            EventKind::VersionActivated => Told::Activated,
                            EventKind::TrialPassed => Told::Passed,
                            EventKind::BundleRefused => Told::Refused,
                            EventKind::RolledBack => Told::RolledBack,
                            _ => continue,
                        };
                        *self.told.entry(kind).or_default() += 1;
                    }
                    self.persisted = saved;
                    self.input(Input::Persisted, now);
                }
                Action::Slot(name, action) => self.act(name, action, author, now, &mut out),
            }
            if let Some(left) = &mut self.cut_after {
                *left -= 1;
                if *left == 0 {
                    self.cut_after = None;
                    self.restart(now);
                }
            }
        }
        self.report(&mut out);
        let wakes_at = self.machine.poll_timeout();
        if wakes_at != self.wakes_at
            && let Some(at) = wakes_at
        {
            out.push((at.since_ms(now).max(1), Event::Wake));
        }
        self.wakes_at = wakes_at;
        out
    }

    /// The power was cut: what is on disk is all that is left, and what was on its way to the device is lost.
    fn restart(&mut self, now: Timestamp) {
        self.life += 1;
        self.said = None;
        self.wakes_at = None;
        self.machine =
            machine(&self.id, self.persisted.clone(), self.seed.wrapping_add(self.life.into()), now);
        self.input(Input::Online(self.online), now);
        if let Some(wish) = self.wish.clone().filter(|_| self.online) {
            self.input(Input::Desired(Box::new(wish)), now);
        }
    }

    fn report(&mut self, out: &mut Followed) {
        let report = self.machine.reports().into_iter().find(|report| report.slot == slot());
        let now_said = (self.machine.generation(), report);
        if self.online && self.said.as_ref() != Some(&now_said) {
            let (generation, slot) = now_said.clone();
            self.said = Some(now_said);
            out.push((self.latency_ms, Event::Report { generation, slot: slot.map(Box::new) }));
        }
    }

    fn take_chunk(&mut self, digest: Digest, index: u32, now: Timestamp) {
        self.input(Input::ChunksReceived { digest, bytes: u64::from(CHUNK_BYTES) }, now);
        if let Some(partial) = self.partial.get_mut(&digest) {
            partial.insert(index);
            self.input(Input::ChunkStored { digest, index }, now);
        }
    }

    fn act(
        &mut self,
        name: SlotName,
        action: SlotAction,
        author: &Author,
        now: Timestamp,
        out: &mut Followed,
    ) {
        let (fresh, character) = (author.fresh.version.bundle, self.character);
        // Its faults are the fresh version's: the one before has proved itself.
        let of = |bundle: Digest| if bundle == fresh { character } else { Character::default() };
        let input = match action {
            SlotAction::Want(want) => {
                for index in want.indices().filter(|_| self.online) {
                    if self.lots.next_u64() % 1000 >= LOSS_PERMILLE {
                        let at = self.latency_ms + self.lots.next_u64() % 200;
                        out.push((at, Event::Chunk { digest: want.digest, index }));
                    }
                }
                return;
            }
            SlotAction::OpenBlob { digest, size_bytes, chunk_bytes } => {
                let empty = || ChunkSet::empty(chunk_count(size_bytes, chunk_bytes));
                let partial = self.partial.entry(digest).or_insert_with(empty);
                let fetched = Fetched::Part(partial.clone());
                // At once: what came since would have to be in it.
                self.input(Input::Slot(name, SlotInput::BlobOpened { digest, fetched }), now);
                return;
            }
            SlotAction::VerifyBlob { digest, .. } => SlotInput::BlobVerified { digest },
            SlotAction::ReadManifest { version, .. } => {
                let manifest = Box::new(author.bundle(version.bundle).manifest.clone());
                SlotInput::ManifestRead { bundle: version.bundle, manifest }
            }
            SlotAction::LookForBase { digest, .. } => {
                SlotInput::BaseLookedFor { digest, base: Base::Missing }
            }
            SlotAction::ApplyDelta { delta, .. } => {
                SlotInput::DeltaRefused { delta: delta.delta, detail: "none".to_owned() }
            }
            SlotAction::Reserve { bundle, .. } => SlotInput::Reserved { bundle },
            SlotAction::Test { version, .. } => runtime::tested(&of(version.bundle), version.bundle),
            SlotAction::Activate { version } => runtime::activated(version.bundle),
            SlotAction::ConcludeTrial { version } => {
                let trials = self.machine.trials();
                let fallback = trials.iter().find_map(|(_, _, fallback)| fallback.as_ref());
                runtime::concluded(&of(version.bundle), version.bundle, fallback)
            }
            SlotAction::GiveUpBlob { digest } => {
                self.partial.remove(&digest);
                return;
            }
            SlotAction::StopListening
            | SlotAction::Discard { .. }
            | SlotAction::Deactivate
            | SlotAction::Collect => return,
        };
        let slow_ms = runtime::takes_ms(&self.character, &mut self.lots);
        let takes_ms = between_ms(&mut self.lots, STEP_MS.0, STEP_MS.1) + slow_ms;
        out.push((takes_ms, Event::Answer { life: self.life, slot: name, input }));
    }
}

fn machine(id: &DeviceId, saved: Saved, seed: u64, now: Timestamp) -> Machine {
    Machine::restore(id.clone(), BOARD.parse().unwrap(), budget::Limits::default(), saved, seed, now)
}

/// What a device has on its disk on which the version before was committed by the first generation.
fn saved(id: &DeviceId, author: &Author) -> Saved {
    let (version, assignment) = (author.before.version.clone(), author.assignment(&author.before));
    let attempt = Attempt {
        generation: 1,
        rollout: None,
        version: version.clone(),
        outcome: Outcome::Committed,
        at: Timestamp(0),
        trial: None,
    };
    let slot = SlotSaved {
        target: Some(Target { assignment, generation: 1, chunk_bytes: CHUNK_BYTES }),
        active: Some(version.clone()),
        last_good: Some(version.clone()),
        attempt: Some(attempt),
        ..SlotSaved::empty(slot())
    };
    Saved {
        desired: Some(author.wish(id, 1, &author.before)),
        slots: vec![slot],
        newest: [(version.model.clone(), version)].into(),
        ..Saved::default()
    }
}
