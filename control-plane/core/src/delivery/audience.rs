//! Who fetches a blob at this moment, and what went out to all of them.

use super::CHUNK_EXPIRY_MS;
use shared::{DeviceId, Timestamp};
use std::collections::BTreeMap;

/// A blob that a whole wave will ask for waits until nobody new has asked for it for so long …
const QUIET_MS: u64 = 300;
/// … or until its first device has waited for so long.
const HOLD_MS_MAX: u64 = 3_000;
/// Who asks for the first time this soon after a chunk went out to everybody had subscribed before, as a rule: the chunk is
/// on its way.
const JOIN_MS: u64 = 2_000;
/// Devices that come and go are numbered anew; after so many all that is known is forgotten.
const NUMBERS_MAX: u32 = 65_536;

/// The devices that fetch one blob.
#[derive(Debug, Default)]
pub(super) struct Audience {
    members: BTreeMap<DeviceId, Member>,
    next_number: u32,
    /// Nothing goes out before.
    opens_at: Timestamp,
    first_at: Timestamp,
    /// Chunks that went out to everybody, by their index.
    sent: BTreeMap<u32, Sent>,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    number: u32,
    joined_at: Timestamp,
}

#[derive(Debug, Default)]
struct Sent {
    at: Timestamp,
    /// Members who asked for it before it went out, or since: who of them asks again has missed it. A bit for each number.
    asked: Vec<u64>,
}

impl Sent {
    fn has_asked(&self, number: u32) -> bool {
        self.asked.get((number / 64) as usize).is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    fn note(&mut self, number: u32) {
        let word = (number / 64) as usize;
        if self.asked.len() <= word {
            self.asked.resize(word + 1, 0);
        }
        self.asked[word] |= 1 << (number % 64);
    }

    fn may_be_under_way(&self, now: Timestamp) -> bool {
        now.since_ms(self.at) < CHUNK_EXPIRY_MS
    }
}

impl Audience {
    /// `device` asks for something of the blob; `expected` devices are to fetch it in all, as far as is known.
    pub(super) fn join(&mut self, device: &DeviceId, expected: usize, now: Timestamp) {
        if self.members.contains_key(device) {
            return;
        }
        if self.next_number >= NUMBERS_MAX {
            *self = Self::default();
        }
        if self.members.is_empty() {
            self.first_at = now;
            self.opens_at = now;
        }
        self.members.insert(device.clone(), Member { number: self.next_number, joined_at: now });
        self.next_number += 1;
        let is_first = self.members.len() == 1;
        if self.members.len() >= expected {
            self.opens_at = self.opens_at.min(now);
        } else if is_first || now < self.opens_at {
            self.opens_at = now.plus_ms(QUIET_MS).min(self.first_at.plus_ms(HOLD_MS_MAX));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn opens_at(&self) -> Timestamp {
        self.opens_at
    }

    pub(super) fn retain(&mut self, mut stays: impl FnMut(&DeviceId) -> bool) {
        self.members.retain(|device, _| stays(device));
    }

    pub(super) fn leave(&mut self, device: &DeviceId) {
        self.members.remove(device);
    }

    /// Is the chunk that `device` asks for on its way to it? Who asks twice has missed it.
    pub(super) fn is_on_its_way(&mut self, device: &DeviceId, index: u32, now: Timestamp) -> bool {
        let (Some(member), Some(sent)) = (self.members.get(device), self.sent.get_mut(&index)) else {
            return false;
        };
        let heard = member.joined_at <= sent.at.plus_ms(JOIN_MS);
        let first_time = !sent.has_asked(member.number);
        sent.note(member.number);
        first_time && heard && sent.may_be_under_way(now)
    }

    /// Did the chunk go out to everybody a short time ago?
    pub(super) fn was_sent(&self, index: u32, now: Timestamp) -> bool {
        self.sent.get(&index).is_some_and(|sent| sent.may_be_under_way(now))
    }

    /// The chunk goes out to everybody; these had asked for it.
    pub(super) fn send<'a>(&mut self, index: u32, asked: impl Iterator<Item = &'a DeviceId>, now: Timestamp) {
        self.sent.retain(|_, sent| sent.may_be_under_way(now));
        let mut sent = Sent { at: now, asked: Vec::new() };
        for device in asked {
            if let Some(member) = self.members.get(device) {
                sent.note(member.number);
            }
        }
        self.sent.insert(index, sent);
    }
}
