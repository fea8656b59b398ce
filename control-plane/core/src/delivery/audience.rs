//! Who fetches a blob at this moment, and what went out to all of them.

use super::CHUNK_EXPIRY_MS;
use shared::{DeviceId, Timestamp};
use std::collections::BTreeMap;

/// A blob that a whole wave will ask for waits until nobody new has asked for it for so long, or for as long as they had
/// been coming: who takes a second to come may well pause for one …
const QUIET_MS: u64 = 300;
/// … or a little longer while fewer than half of those who are expected have come …
const QUIET_FEW_MS: u64 = 1_000;
/// … or until its first device has waited for so long.
const HOLD_MS_MAX: u64 = 10_000;
/// A device subscribes right before it asks. Who asks for the first time this soon after a chunk went out to everybody may
/// have subscribed before: the chunk is on its way.
const JOIN_MS: u64 = 250;
/// To whom nothing has come for so long, and who asks again, nothing is on its way.
const IDLE_MS: u64 = 2_000;
/// The same where the broker tells what has come, and what it dropped: it is a guess there, and a busy broker is slow.
const IDLE_TOLD_MS: u64 = 15_000;
/// Chunks that most of an audience have not got yet before the next one goes out.
const AHEAD_MAX: usize = 8;
/// And how long that is waited for.
const AHEAD_MS_MAX: u64 = 1_000;
/// Devices that come and go are numbered anew; after so many all that is known is forgotten.
const NUMBERS_MAX: u32 = 65_536;

/// The devices that fetch one blob.
#[derive(Debug)]
pub(super) struct Audience {
    /// The broker tells what has come, in the order in which it went out.
    told: bool,
    members: BTreeMap<DeviceId, Member>,
    next_number: u32,
    /// Nothing goes out before.
    opens_at: Timestamp,
    first_at: Timestamp,
    /// Chunks that went out to everybody, by their index.
    sent: BTreeMap<u32, Sent>,
    sent_at: Timestamp,
    /// Counts what goes out, to everybody or to one.
    sends: u64,
}

#[derive(Debug)]
struct Member {
    number: u32,
    joined_at: Timestamp,
    /// What had gone out by then.
    joined_after: u64,
    /// What went out up to this has come, or will not.
    settled: u64,
    settled_at: Timestamp,
    /// Chunks that went to it alone and have not been settled, by their index.
    alone: BTreeMap<u32, Send>,
}

/// Something that went out.
#[derive(Clone, Copy, Debug)]
struct Send {
    number: u64,
    at: Timestamp,
}

#[derive(Debug)]
struct Sent {
    number: u64,
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
    /// Nobody yet. `told`: what has come will be told to [`Audience::settle`].
    pub(super) fn new(told: bool) -> Self {
        Self {
            told,
            members: BTreeMap::new(),
            next_number: 0,
            opens_at: Timestamp(0),
            first_at: Timestamp(0),
            sent: BTreeMap::new(),
            sent_at: Timestamp(0),
            sends: 0,
        }
    }

    /// `device` asks for something of the blob; `expected` devices are to fetch it in all, as far as is known.
    pub(super) fn join(&mut self, device: &DeviceId, expected: usize, now: Timestamp) {
        if self.members.contains_key(device) {
            return;
        }
        if self.next_number >= NUMBERS_MAX {
            *self = Self::new(self.told);
        }
        if self.members.is_empty() {
            self.first_at = now;
            self.opens_at = now;
        }
        let member = Member {
            number: self.next_number,
            joined_at: now,
            joined_after: self.sends,
            settled: 0,
            settled_at: Timestamp(0),
            alone: BTreeMap::new(),
        };
        self.members.insert(device.clone(), member);
        self.next_number += 1;
        let is_first = self.members.len() == 1;
        if self.members.len() >= expected {
            self.opens_at = self.opens_at.min(now);
        } else if is_first || now < self.opens_at {
            let few = 2 * self.members.len() < expected;
            let quiet_ms = now.since_ms(self.first_at).max(if few { QUIET_FEW_MS } else { QUIET_MS });
            self.opens_at = now.plus_ms(quiet_ms).min(self.first_at.plus_ms(HOLD_MS_MAX));
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

    /// The chunk has come to `device`, or was dropped on its way; with it all that went out to it before, for the broker keeps
    /// the order.
    pub(super) fn settle(&mut self, device: &DeviceId, index: u32, now: Timestamp) {
        let Some(member) = self.members.get_mut(device) else { return };
        let alone = member.alone.get(&index).map(|send| send.number);
        let Some(number) = alone.or_else(|| self.sent.get(&index).map(|sent| sent.number)) else { return };
        member.settled = member.settled.max(number);
        member.settled_at = now;
        member.alone.retain(|_, send| send.number > number);
    }

    /// Is the chunk that `device` asks for on its way to it? It is not where the device has had what went out after it.
    /// Where nothing tells that, who asks twice and has had nothing for a while has missed it.
    pub(super) fn is_on_its_way(&mut self, device: &DeviceId, index: u32, now: Timestamp) -> bool {
        let idle_ms = if self.told { IDLE_TOLD_MS } else { IDLE_MS };
        let Some(member) = self.members.get_mut(device) else { return false };
        if let Some(send) = member.alone.get(&index) {
            if now.since_ms(send.at.max(member.settled_at)) < idle_ms {
                return true;
            }
            member.alone.remove(&index);
            return false;
        }
        let Some(sent) = self.sent.get_mut(&index) else { return false };
        let asked_before = sent.has_asked(member.number);
        sent.note(member.number);
        let idle = now.since_ms(sent.at.max(member.settled_at)) >= idle_ms;
        let subscribed = match self.told {
            true => member.joined_after < sent.number,
            false => member.joined_at <= sent.at.plus_ms(JOIN_MS),
        };
        sent.may_be_under_way(now) && member.settled < sent.number && subscribed && !(asked_before && idle)
    }

    /// Did the chunk go out to everybody a short time ago?
    pub(super) fn was_sent(&self, index: u32, now: Timestamp) -> bool {
        self.sent.get(&index).is_some_and(|sent| sent.may_be_under_way(now))
    }

    /// How many hear what goes out to everybody: not those who have had it all, as the broker tells, and want nothing more.
    pub(super) fn listening(&self, wants: impl Fn(&DeviceId) -> bool) -> usize {
        if !self.told {
            return self.members.len();
        }
        let newest = self.sent.values().map(|sent| sent.number).max().unwrap_or(0);
        self.members.iter().filter(|(device, member)| member.settled < newest || wants(device)).count()
    }

    /// Most have not got what went out to everybody lately, as the broker tells.
    pub(super) fn is_ahead(&self, now: Timestamp) -> bool {
        if !self.told || self.sent.len() < AHEAD_MAX || now.since_ms(self.sent_at) >= AHEAD_MS_MAX {
            return false;
        }
        let mut settled: Vec<u64> = self.members.values().map(|member| member.settled).collect();
        if settled.is_empty() {
            return false;
        }
        let middle = settled.len() / 2;
        let (_, &mut median, _) = settled.select_nth_unstable(middle);
        self.sent.values().filter(|sent| sent.number > median).count() >= AHEAD_MAX
    }

    /// The chunk goes out to everybody; these had asked for it.
    pub(super) fn send<'a>(&mut self, index: u32, asked: impl Iterator<Item = &'a DeviceId>, now: Timestamp) {
        self.sent.retain(|_, sent| sent.may_be_under_way(now));
        self.sends += 1;
        self.sent_at = now;
        let mut sent = Sent { number: self.sends, at: now, asked: Vec::new() };
        for device in asked {
            if let Some(member) = self.members.get_mut(device) {
                sent.note(member.number);
                member.alone.remove(&index);
            }
        }
        self.sent.insert(index, sent);
    }

    /// The chunk goes to one device.
    pub(super) fn send_alone(&mut self, device: &DeviceId, index: u32, now: Timestamp) {
        self.sends += 1;
        if let Some(member) = self.members.get_mut(device) {
            member.alone.insert(index, Send { number: self.sends, at: now });
        }
    }
}
