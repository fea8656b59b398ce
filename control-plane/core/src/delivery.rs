//! The delivery planner: which chunk goes out next, and to whom.
//!
//! A blob waits until the devices that are to fetch it have asked, as long as they come one after the other. From then on the
//! first who wants a chunk gets it sent to all who fetch the blob; who asks for one that is on its way is not heard. A broker
//! may tell what has come: nothing runs far ahead of that, and who has had a later chunk and asks has missed it. Of one that
//! tells nothing, who asks again after a while has missed it. What was missed goes out alone or to all, whichever moves fewer bytes: one copy to the broker
//! and one to each who listens, or two for each who wants it. Devices take turns, a token bucket keeps the byte rate, and
//! everything that waits is bounded.

mod audience;

use crate::bucket::Bucket;
use audience::Audience;
use shared::{DeviceId, Digest, Timestamp, limits};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
};

/// How long wants are collected before a chunk may go out.
const WINDOW_MS: u64 = 50;
/// The same for a chunk that went out before some of those came who are expected: the rest may come one after the other.
const LATE_WINDOW_MS: u64 = 500;
/// How soon it is looked again whether a broadcast that is ahead of its audience may go on.
const PACE_MS: u64 = 5;
/// A chunk that did not reach its device within this is dropped by the broker: the device asks again. Otherwise one that was
/// away would get thousands of chunks that it has no more use for, and its desired state behind them or not at all.
pub const CHUNK_EXPIRY_MS: u64 = 30_000;
/// Most chunks that wait for one device.
const WAITING_PER_DEVICE_MAX: usize = 4 * limits::WANT_CHUNKS_MAX as usize;
/// Most chunks that wait at all, each counted for every device that waits for it.
const WAITING_MAX: usize = 1_000_000;

/// A chunk of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chunk {
    pub digest: Digest,
    pub index: u32,
    /// Bytes of every chunk of this blob but the last.
    pub chunk_bytes: u32,
}

/// To whom a chunk goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The one device that wants it.
    Device(DeviceId),
    /// Everybody who subscribes to the blob. Always a chunk of the broadcast size: the topic names the chunk by its
    /// index alone.
    Everybody,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(device) => write!(f, "{device}"),
            Self::Everybody => f.write_str("everybody"),
        }
    }
}

/// A chunk that shall go out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    pub chunk: Chunk,
    pub target: Target,
}

/// No room for what was asked for; the device asks again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many chunks are waiting to go out")]
pub struct Full;

/// What waits to go out.
#[derive(Debug)]
pub struct Delivery {
    waiting: BTreeMap<Chunk, Waiting>,
    queues: BTreeMap<DeviceId, VecDeque<Chunk>>,
    /// Devices with a queue, in the order of their turns.
    turns: VecDeque<DeviceId>,
    /// Pairs of a chunk and a device that waits for it.
    pairs: usize,
    /// Who fetches what in chunks of the broadcast size.
    audiences: BTreeMap<Digest, Audience>,
    /// The broker tells what has come.
    told: bool,
    /// Until then a broadcast waits that is ahead of its audience.
    held_until: Option<Timestamp>,
    broadcast_chunk_bytes: u32,
    bucket: Bucket,
}

#[derive(Debug)]
struct Waiting {
    devices: BTreeSet<DeviceId>,
    ripe_at: Timestamp,
}

impl Delivery {
    /// Nothing waits. `bytes_per_s` of zero sets no limit. Only chunks of `broadcast_chunk_bytes` go to everybody;
    /// a device that asks for another size gets its chunks alone. `told`: [`Delivery::settle`] will be called.
    pub fn new(bytes_per_s: u64, broadcast_chunk_bytes: u32, told: bool) -> Self {
        Self {
            waiting: BTreeMap::new(),
            queues: BTreeMap::new(),
            turns: VecDeque::new(),
            pairs: 0,
            audiences: BTreeMap::new(),
            told,
            held_until: None,
            broadcast_chunk_bytes,
            bucket: Bucket::new(bytes_per_s, (bytes_per_s / 4).max(u64::from(limits::CHUNK_BYTES_MAX))),
        }
    }

    /// Chunks that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Does nothing wait?
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Does anybody fetch the blob?
    pub fn is_fetched(&self, digest: &Digest) -> bool {
        self.audiences.contains_key(digest)
    }

    /// Takes in that `device` wants `chunks`, of blobs that `expected` devices are to fetch, as far as is known. What it
    /// already waits for is not counted twice, what is on its way to it not at all. With too much waiting, nothing of the
    /// rest is taken.
    pub fn want(
        &mut self,
        device: &DeviceId,
        chunks: impl IntoIterator<Item = Chunk>,
        expected: usize,
        now: Timestamp,
    ) -> Result<(), Full> {
        for chunk in chunks {
            let queued = self.queues.get(device).map_or(0, VecDeque::len);
            let full = queued >= WAITING_PER_DEVICE_MAX || self.pairs >= WAITING_MAX;
            let waiting = self.waiting.get(&chunk).is_some_and(|waiting| waiting.devices.contains(device));
            if waiting {
                continue;
            }
            let mut window_ms = WINDOW_MS;
            if chunk.chunk_bytes == self.broadcast_chunk_bytes {
                let audience = self.audiences.entry(chunk.digest).or_insert_with(|| Audience::new(self.told));
                audience.join(device, expected, now);
                if audience.is_on_its_way(device, chunk.index, now) {
                    continue;
                }
                if audience.len() < expected && audience.was_sent(chunk.index, now) {
                    window_ms = LATE_WINDOW_MS;
                }
            }
            if full {
                return Err(Full);
            }
            let waiting = self
                .waiting
                .entry(chunk)
                .or_insert_with(|| Waiting { devices: BTreeSet::new(), ripe_at: now.plus_ms(window_ms) });
            waiting.devices.insert(device.clone());
            self.pairs += 1;
            if !self.queues.contains_key(device) {
                self.turns.push_back(device.clone());
            }
            self.queues.entry(device.clone()).or_default().push_back(chunk);
        }
        Ok(())
    }

    /// A chunk of the blob has come to `device`, or was dropped on its way.
    pub fn settle(&mut self, device: &DeviceId, digest: &Digest, index: u32, now: Timestamp) {
        if let Some(audience) = self.audiences.get_mut(digest) {
            audience.settle(device, index, now);
        }
    }

    /// Of those who fetch a blob the ones stay for whom `stays` holds; the others are done with it. A blob that nobody
    /// fetches starts anew with the next who does.
    pub fn retain(&mut self, mut stays: impl FnMut(&Digest, &DeviceId) -> bool) {
        self.audiences.retain(|digest, audience| {
            audience.retain(|device| stays(digest, device));
            !audience.is_empty()
        });
    }

    /// Forgets what a device waits for.
    pub fn forget(&mut self, device: &DeviceId) {
        for chunk in self.queues.remove(device).unwrap_or_default() {
            self.served(&chunk, device);
        }
        self.turns.retain(|turn| turn != device);
        self.audiences.retain(|_, audience| {
            audience.leave(device);
            !audience.is_empty()
        });
    }

    /// When the chunk may go out.
    fn ripe_at(&self, chunk: &Chunk) -> Option<Timestamp> {
        let opens_at = self.audience(chunk).map_or(Timestamp(0), Audience::opens_at);
        self.waiting.get(chunk).map(|waiting| waiting.ripe_at.max(opens_at))
    }

    /// Who fetches the blob that `chunk` is of, where it may go to all of them.
    fn audience(&self, chunk: &Chunk) -> Option<&Audience> {
        let is_of_broadcast = chunk.chunk_bytes == self.broadcast_chunk_bytes;
        is_of_broadcast.then(|| self.audiences.get(&chunk.digest)).flatten()
    }

    /// Is it better sent to all than to those who want it?
    fn goes_to_all(&self, chunk: &Chunk, now: Timestamp) -> bool {
        let Some(audience) = self.audience(chunk) else { return false };
        let wanted_by = self.waiting.get(chunk).map_or(0, |waiting| waiting.devices.len());
        if !audience.was_sent(chunk.index, now) {
            // All will want it.
            return audience.len().max(wanted_by) > 1;
        }
        let listen = audience.listening(|device| self.queues.contains_key(device));
        2 * wanted_by > listen + 1
    }

    /// The device waits for the chunk no more.
    fn served(&mut self, chunk: &Chunk, device: &DeviceId) {
        if let Some(waiting) = self.waiting.get_mut(chunk) {
            self.pairs -= usize::from(waiting.devices.remove(device));
            if waiting.devices.is_empty() {
                self.waiting.remove(chunk);
            }
        }
    }

    /// The next chunk that may go out at `now`, if any.
    pub fn poll_send(&mut self, now: Timestamp) -> Option<Send> {
        self.bucket.fill(now);
        self.held_until = None;
        for _ in 0..self.turns.len() {
            let device = self.turns.pop_front()?;
            let Some(queue) = self.queues.get_mut(&device) else { continue };
            while queue.front().is_some_and(|chunk| {
                !self.waiting.get(chunk).is_some_and(|waiting| waiting.devices.contains(&device))
            }) {
                queue.pop_front();
            }
            let Some(&chunk) = queue.front() else {
                self.queues.remove(&device);
                continue;
            };
            if self.ripe_at(&chunk).is_none_or(|ripe_at| ripe_at > now) {
                self.turns.push_back(device);
                continue;
            }
            let to_all = self.goes_to_all(&chunk, now);
            if to_all && self.audience(&chunk).is_some_and(|audience| audience.is_ahead(now)) {
                self.held_until = Some(now.plus_ms(PACE_MS));
                self.turns.push_back(device);
                continue;
            }
            if !self.bucket.take(u64::from(chunk.chunk_bytes)) {
                self.turns.push_front(device);
                return None;
            }
            self.queues.entry(device.clone()).or_default().pop_front();
            self.turns.push_back(device.clone());
            let target = if to_all {
                let asked = self.waiting.remove(&chunk).map(|waiting| waiting.devices).unwrap_or_default();
                self.pairs -= asked.len();
                if let Some(audience) = self.audiences.get_mut(&chunk.digest) {
                    audience.send(chunk.index, asked.iter(), now);
                }
                Target::Everybody
            } else {
                self.served(&chunk, &device);
                if let Some(audience) = self.audiences.get_mut(&chunk.digest) {
                    audience.send_alone(&device, chunk.index, now);
                }
                Target::Device(device)
            };
            return Some(Send { chunk, target });
        }
        None
    }

    /// When [`Delivery::poll_send`] could give something again, after it gave nothing.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let first = |queue: &VecDeque<Chunk>| {
            queue.iter().find_map(|chunk| Some((self.ripe_at(chunk)?, chunk.chunk_bytes)))
        };
        let (ripe_at, chunk_bytes) = self.queues.values().filter_map(first).min()?;
        let held_until = self.held_until.unwrap_or(Timestamp(0));
        Some(ripe_at.max(self.bucket.ready_at(u64::from(chunk_bytes))).max(held_until))
    }
}

#[cfg(test)]
mod tests;
