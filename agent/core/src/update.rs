//! The update machine: from a signed wish to a version that has proved itself, slot by slot.
//!
//! [`Machine`] holds the newest [`Desired`] that was accepted and one `Slot` for each slot. It asks for
//! [`Action`]s. [`Action::Persist`] comes before every other action that its content leads to, and the machine
//! gives nothing else until [`Input::Persisted`] has come: after a power cut at any point,
//! [`Machine::restore`] with what was persisted last goes on from there.

mod slot;

use crate::{
    budget::{self, Day, DaySaved},
    update::slot::{Allowance, Slot},
};
use serde::{Deserialize, Serialize};
use shared::{
    BoardId, DeviceId, Digest, ModelName, SlotName, Timestamp, Verified,
    wire::{Desired, EventKind, SlotReport, VersionRef},
};
pub use slot::{Base, Fetched, SlotAction, SlotInput, SlotSaved, Target};
use std::collections::BTreeMap;

/// What survives a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The newest desired state that was accepted.
    pub desired: Option<Desired>,
    pub slots: Vec<SlotSaved>,
    /// Of each model the newest version that passed its trial here. It stays when the slot is emptied: nobody can have
    /// the device go back to an older one unless the newer is withdrawn.
    #[serde(default)]
    pub newest: BTreeMap<ModelName, VersionRef>,
    /// The bytes of the day.
    #[serde(default)]
    pub day: DaySaved,
}

/// Most models whose newest version is remembered.
const NEWEST_MAX: usize = 64;

/// Something to tell the fleet. Stored in the same transaction as the state that it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub slot: Option<SlotName>,
    pub bundle: Option<Digest>,
    pub kind: EventKind,
    pub detail: String,
}

/// What happened around the machine.
#[derive(Debug)]
pub enum Input {
    /// A desired state came, signed by a trusted director.
    Desired(Box<Verified<Desired>>),
    /// The link to the broker is up, or down.
    Online(bool),
    /// The last [`Action::Persist`] is on disk.
    Persisted,
    /// Chunks of a blob came, whatever becomes of them: so many bytes. Before what tells of each.
    ChunksReceived { digest: Digest, bytes: u64 },
    /// A chunk is on disk, in the blob's partial file.
    ChunkStored { digest: Digest, index: u32 },
    /// A chunk could not be stored: the disk is full or failed, or the blob's partial file had to go.
    ChunkNotStored { digest: Digest, detail: String },
    /// The answer to an action of a slot.
    Slot(SlotName, SlotInput),
}

/// What the shell shall do. All are idempotent.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Write the state and the notes to disk in one transaction, then answer [`Input::Persisted`].
    Persist { saved: Saved, notes: Vec<Note> },
    /// Do something for one slot.
    Slot(SlotName, SlotAction),
}

/// An input that does not fit the state. The machine is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// A desired state for somebody else.
    #[error("desired state is for device {device}")]
    OtherDevice { device: DeviceId },
    /// Older than what was accepted.
    #[error("desired generation {got} is older than generation {accepted}")]
    Older { got: u64, accepted: u64 },
    /// The same generation with another content.
    #[error("desired generation {generation} differs from what was accepted under that number")]
    Differs { generation: u64 },
    /// An answer that nobody waits for; harmless, it belongs to an attempt that was given up.
    #[error("{input} does not fit state {state}")]
    Unfit { state: &'static str, input: &'static str },
    /// No such slot.
    #[error("no slot {slot}")]
    NoSlot { slot: SlotName },
}

/// The decisions of one device.
#[derive(Debug)]
pub struct Machine {
    device: DeviceId,
    board: BoardId,
    desired: Option<Desired>,
    slots: BTreeMap<SlotName, Slot>,
    newest: BTreeMap<ModelName, VersionRef>,
    notes: Vec<Note>,
    online: bool,
    dirty: bool,
    persisting: bool,
    wall_ahead_ms: i64,
    seed: u64,
    limits: budget::Limits,
    day: Day,
    /// The newest time that was given.
    now: Timestamp,
}

impl Machine {
    /// Goes on from what was persisted last, on a device that is a `board` and may receive what `limits` allow. `seed`
    /// gives the jitter of all waiting.
    pub fn restore(
        device: DeviceId,
        board: BoardId,
        limits: budget::Limits,
        saved: Saved,
        seed: u64,
        now: Timestamp,
    ) -> Self {
        let Saved { desired, slots, newest, day } = saved;
        let mut machine = Self {
            device,
            board,
            desired,
            slots: BTreeMap::new(),
            newest,
            notes: Vec::new(),
            online: false,
            dirty: false,
            persisting: false,
            wall_ahead_ms: 0,
            seed,
            limits,
            day: Day::restore(day, limits.day_bytes_max),
            now,
        };
        for saved in slots {
            let name = saved.slot.clone();
            let seed = machine.slot_seed(&name);
            let mut slot = Slot::restore(saved, machine.board.clone(), seed, now);
            slot.finish_emptying();
            machine.slots.insert(name, slot);
        }
        machine
    }

    /// Takes an input in.
    ///
    /// # Errors
    /// [`Rejected`] where it does not fit; a refused desired state also leaves a note.
    pub fn handle(&mut self, input: Input, now: Timestamp) -> Result<(), Rejected> {
        self.now = now;
        match input {
            Input::Desired(desired) => self.accept(desired.into_inner(), now).inspect_err(|rejected| {
                self.notes.push(Note {
                    slot: None,
                    bundle: None,
                    kind: EventKind::DesiredRefused,
                    detail: rejected.to_string(),
                });
                self.dirty = true;
            }),
            Input::Online(online) => {
                self.online = online;
                self.slots.values_mut().for_each(|slot| slot.handle_online(online, now));
                Ok(())
            }
            Input::Persisted => {
                self.persisting = false;
                Ok(())
            }
            Input::ChunksReceived { digest, bytes } => {
                self.dirty |= self.day.turn(now) | self.day.receive(bytes);
                // Each byte is the answer to one request.
                let mut left = bytes;
                for slot in self.slots.values_mut() {
                    left -= slot.count(digest, bytes, left);
                }
                Ok(())
            }
            Input::ChunkStored { digest, index } => {
                self.slots.values_mut().for_each(|slot| slot.handle_chunk(digest, index, now));
                Ok(())
            }
            Input::ChunkNotStored { digest, detail } => {
                self.slots.values_mut().for_each(|slot| slot.handle_chunk_not_stored(digest, &detail, now));
                Ok(())
            }
            Input::Slot(name, input) => match self.slots.get_mut(&name) {
                Some(slot) => slot.handle(input, now),
                None => Err(Rejected::NoSlot { slot: name }),
            },
        }
    }

    /// The next thing to do, if there is one.
    pub fn poll_action(&mut self) -> Option<Action> {
        if self.persisting {
            return None;
        }
        self.ask();
        for slot in self.slots.values_mut() {
            self.dirty |= slot.take_dirty();
        }
        if self.dirty {
            self.remember_newest();
        }
        if self.dirty {
            self.dirty = false;
            self.persisting = true;
            self.day.mark_saved();
            let mut notes = std::mem::take(&mut self.notes);
            notes.extend(self.slots.values_mut().flat_map(Slot::take_notes));
            self.slots.retain(|_, slot| !slot.is_gone());
            return Some(Action::Persist { saved: self.saved(), notes });
        }
        let next = self.slots.iter_mut().find_map(|(name, slot)| Some((name.clone(), slot.pop_action()?)));
        if let Some((name, mut action)) = next {
            if let SlotAction::ReadManifest { version, newest } = &mut action {
                *newest = self.newest.get(&version.model).cloned();
            }
            // An emptied slot that has nothing left to do disappears from what is persisted.
            if self.slots.get(&name).is_some_and(Slot::is_gone) {
                self.dirty = true;
            }
            return Some(Action::Slot(name, action));
        }
        None
    }

    /// When [`Machine::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.slots.values().filter_map(|slot| slot.poll_timeout(self.online)).min()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = now;
        let online = self.online;
        self.slots.values_mut().for_each(|slot| slot.handle_timeout(online, now));
    }

    /// The wall clock is `ahead_ms` ahead of the times that are given here, which never step. It is used for what
    /// others read, and for no wait.
    pub fn set_wall_ahead_ms(&mut self, ahead_ms: i64) {
        self.wall_ahead_ms = ahead_ms;
        self.slots.values_mut().for_each(|slot| slot.set_wall_ahead_ms(ahead_ms));
    }

    /// What would be persisted.
    pub fn saved(&self) -> Saved {
        Saved {
            desired: self.desired.clone(),
            slots: self.slots.values().map(Slot::to_save).collect(),
            newest: self.newest.clone(),
            day: self.day.saved(self.asked_bytes()),
        }
    }

    /// Ids carry the time at which a version was made: the greatest is the newest.
    fn remember_newest(&mut self) {
        for good in self.slots.values().filter_map(|slot| slot.saved().last_good.as_ref()) {
            let known = self.newest.get(&good.model);
            let room = known.is_some() || self.newest.len() < NEWEST_MAX;
            if room && known.is_none_or(|known| known.version_id < good.version_id) {
                self.newest.insert(good.model.clone(), good.clone());
            }
        }
    }

    /// Lets slots ask for chunks, as many as the budget allows.
    fn ask(&mut self) {
        let hungry = self.slots.iter().filter(|(_, slot)| slot.is_hungry()).map(|(name, _)| name.clone());
        for name in hungry.collect::<Vec<_>>() {
            self.dirty |= self.day.turn(self.now);
            let allowance = Allowance {
                day_room_bytes: self.day.room_bytes(self.asked_bytes()),
                day_bytes_max: self.day.bytes_max(),
                day_ends_at: self.day.ends_at(),
                update_bytes_max: self.limits.update_bytes_max,
            };
            if let Some(slot) = self.slots.get_mut(&name) {
                slot.ask(&allowance);
            }
        }
    }

    /// Bytes that are under way: asked for, and not come.
    fn asked_bytes(&self) -> u64 {
        self.slots.values().map(Slot::asked_bytes).fold(0, u64::saturating_add)
    }

    /// The newest generation that was accepted, zero before the first.
    pub fn generation(&self) -> u64 {
        self.desired.as_ref().map_or(0, |desired| desired.generation)
    }

    /// What the device reports of its slots.
    pub fn reports(&self) -> Vec<SlotReport> {
        self.slots.values().map(Slot::report).collect()
    }

    /// The slots in which a trial runs: the bundle on trial and the version to go back to.
    pub fn trials(&self) -> Vec<(SlotName, Digest, Option<VersionRef>)> {
        let trial = |(name, slot): (&SlotName, &Slot)| {
            slot.on_trial().map(|(bundle, fallback)| (name.clone(), bundle, fallback))
        };
        self.slots.iter().filter_map(trial).collect()
    }

    /// Blobs that are being fetched.
    pub fn fetching(&self) -> Vec<Digest> {
        self.slots.values().filter_map(Slot::fetching).collect()
    }

    /// Blobs whose parts are on disk for an attempt that goes on later, though none of their chunks is wanted now.
    pub fn resting(&self) -> Vec<Digest> {
        self.slots.values().filter_map(Slot::resting).collect()
    }

    /// Blobs that are no files of a bundle and must stay on disk: deltas, and what they are applied to.
    pub fn pinned_blobs(&self) -> Vec<Digest> {
        self.slots.values().flat_map(Slot::pinned_blobs).collect()
    }

    /// The runtime on which the slot's version was put.
    pub fn runtime(&self, slot: &SlotName) -> Option<String> {
        self.slots.get(slot).and_then(|slot| slot.saved().runtime.clone())
    }

    /// Bundles whose files, and parts of files, must stay on disk: versions to answer or to go back to, and those
    /// that are being fetched or will be.
    pub fn pinned(&self) -> Vec<Digest> {
        let mut pinned: Vec<Digest> = self.slots.values().flat_map(Slot::pinned).collect();
        pinned.sort_unstable();
        pinned.dedup();
        pinned
    }

    fn accept(&mut self, desired: Desired, now: Timestamp) -> Result<(), Rejected> {
        if desired.device != self.device {
            return Err(Rejected::OtherDevice { device: desired.device });
        }
        if let Some(accepted) = &self.desired {
            if desired.generation < accepted.generation {
                return Err(Rejected::Older { got: desired.generation, accepted: accepted.generation });
            }
            if desired.generation == accepted.generation {
                return if desired == *accepted {
                    Ok(())
                } else {
                    Err(Rejected::Differs { generation: desired.generation })
                };
            }
        }
        self.dirty = true;
        for (name, slot) in &mut self.slots {
            if !desired.assignments.iter().any(|assignment| assignment.slot == *name) {
                slot.retarget(None, now);
            }
        }
        for assignment in &desired.assignments {
            let target = Target {
                assignment: assignment.clone(),
                generation: desired.generation,
                chunk_bytes: desired.chunk_bytes,
            };
            let name = assignment.slot.clone();
            let seed = self.slot_seed(&name);
            let (board, online, ahead_ms) = (self.board.clone(), self.online, self.wall_ahead_ms);
            let slot = self.slots.entry(name.clone()).or_insert_with(|| {
                let mut slot = Slot::restore(SlotSaved::empty(name), board, seed, now);
                slot.set_wall_ahead_ms(ahead_ms);
                slot.handle_online(online, now);
                slot
            });
            slot.retarget(Some(target), now);
        }
        self.desired = Some(desired);
        Ok(())
    }

    fn slot_seed(&self, name: &SlotName) -> u64 {
        name.as_str().bytes().fold(self.seed, |seed, byte| seed.rotate_left(9) ^ u64::from(byte))
    }
}

#[cfg(test)]
mod tests;
