//! The delivery planner: which chunk goes out next, and to whom.
//!
//! Wants are collected for a short window, so that what several devices want goes out once, to all. Devices take
//! turns, a token bucket keeps the byte rate, and everything that waits is bounded.

use crate::bucket::Bucket;
use shared::{DeviceId, Digest, Timestamp, limits};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How long wants are collected before a chunk may go out.
const WINDOW_MS: u64 = 50;
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
    /// Everybody who subscribes to the blob; this many want it. Always a chunk of the broadcast size: the topic
    /// names the chunk by its index alone.
    Everybody(usize),
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
    /// a device that asks for another size gets its chunks alone.
    pub fn new(bytes_per_s: u64, broadcast_chunk_bytes: u32) -> Self {
        Self {
            waiting: BTreeMap::new(),
            queues: BTreeMap::new(),
            turns: VecDeque::new(),
            pairs: 0,
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

    /// Takes in that `device` wants `chunks`. What it already waits for is not counted twice. With too much
    /// waiting, nothing of the rest is taken.
    pub fn want(
        &mut self,
        device: &DeviceId,
        chunks: impl IntoIterator<Item = Chunk>,
        now: Timestamp,
    ) -> Result<(), Full> {
        for chunk in chunks {
            let queued = self.queues.get(device).map_or(0, VecDeque::len);
            let full = queued >= WAITING_PER_DEVICE_MAX || self.pairs >= WAITING_MAX;
            let waiting = self.waiting.get(&chunk).is_some_and(|waiting| waiting.devices.contains(device));
            if waiting {
                continue;
            }
            if full {
                return Err(Full);
            }
            let waiting = self
                .waiting
                .entry(chunk)
                .or_insert_with(|| Waiting { devices: BTreeSet::new(), ripe_at: now.plus_ms(WINDOW_MS) });
            waiting.devices.insert(device.clone());
            self.pairs += 1;
            if !self.queues.contains_key(device) {
                self.turns.push_back(device.clone());
            }
            self.queues.entry(device.clone()).or_default().push_back(chunk);
        }
        Ok(())
    }

    /// Forgets what a device waits for.
    pub fn forget(&mut self, device: &DeviceId) {
        for chunk in self.queues.remove(device).unwrap_or_default() {
            self.served(&chunk, device);
        }
        self.turns.retain(|turn| turn != device);
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
            let ripe = self.waiting.get(&chunk).is_some_and(|waiting| waiting.ripe_at <= now);
            if !ripe {
                self.turns.push_back(device);
                continue;
            }
            if !self.bucket.take(u64::from(chunk.chunk_bytes)) {
                self.turns.push_front(device);
                return None;
            }
            queue.pop_front();
            self.turns.push_back(device.clone());
            let wanted_by = self.waiting.get(&chunk).map_or(0, |waiting| waiting.devices.len());
            let target = if wanted_by > 1 && chunk.chunk_bytes == self.broadcast_chunk_bytes {
                self.waiting.remove(&chunk);
                self.pairs -= wanted_by;
                Target::Everybody(wanted_by)
            } else {
                self.served(&chunk, &device);
                Target::Device(device)
            };
            return Some(Send { chunk, target });
        }
        None
    }

    /// When [`Delivery::poll_send`] could give something again, after it gave nothing.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let first = |queue: &VecDeque<Chunk>| {
            queue
                .iter()
                .find_map(|chunk| self.waiting.get(chunk).map(|waiting| (waiting.ripe_at, chunk.chunk_bytes)))
        };
        let (ripe_at, chunk_bytes) = self.queues.values().filter_map(first).min()?;
        Some(ripe_at.max(self.bucket.ready_at(u64::from(chunk_bytes))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(number: u32) -> DeviceId {
        format!("d{number}").parse().unwrap()
    }

    fn chunk(index: u32) -> Chunk {
        Chunk { digest: Digest::of(b"blob"), index, chunk_bytes: 1024 }
    }

    fn drain(delivery: &mut Delivery, mut now: Timestamp) -> Vec<(Timestamp, Send)> {
        let mut sent = Vec::new();
        loop {
            while let Some(send) = delivery.poll_send(now) {
                sent.push((now, send));
            }
            match delivery.poll_timeout() {
                Some(at) => now = at.max(now.plus_ms(1)),
                None => return sent,
            }
        }
    }

    #[test]
    fn what_two_devices_want_within_the_window_goes_out_once_to_all() {
        let mut delivery = Delivery::new(0, 1024);
        delivery.want(&id(1), [chunk(0), chunk(1)], Timestamp(1000)).unwrap();
        assert_eq!(delivery.poll_send(Timestamp(1000 + WINDOW_MS - 1)), None);
        delivery.want(&id(2), [chunk(1)], Timestamp(1020)).unwrap();
        let sent: Vec<Send> =
            drain(&mut delivery, Timestamp(1050)).into_iter().map(|(_, send)| send).collect();
        assert_eq!(
            sent,
            [
                Send { chunk: chunk(0), target: Target::Device(id(1)) },
                Send { chunk: chunk(1), target: Target::Everybody(2) },
            ]
        );
        assert!(delivery.is_empty());
    }

    #[test]
    fn devices_take_turns_whatever_they_want() {
        let mut delivery = Delivery::new(0, 1024);
        delivery.want(&id(1), (0..100).map(chunk), Timestamp(0)).unwrap();
        delivery.want(&id(2), (200..202).map(chunk), Timestamp(0)).unwrap();
        let first: Vec<u32> =
            drain(&mut delivery, Timestamp(50)).iter().take(4).map(|(_, s)| s.chunk.index).collect();
        assert_eq!(first, [0, 200, 1, 201]);
    }

    #[test]
    fn keeps_the_byte_rate() {
        let mut delivery = Delivery::new(10 * 1024, 1024);
        delivery.want(&id(1), (0..264).map(chunk), Timestamp(0)).unwrap();
        let sent = drain(&mut delivery, Timestamp(50));
        assert_eq!(sent.len(), 264);
        // 64 KiB of burst, then 200 chunks at ten a second.
        let last = sent.last().unwrap().0;
        assert!((20_000..21_000).contains(&last.0), "{last:?}");
    }

    #[test]
    fn refuses_more_than_it_holds_and_goes_on() {
        let mut delivery = Delivery::new(0, 1024);
        let many = u32::try_from(WAITING_PER_DEVICE_MAX).unwrap() + 1;
        assert_eq!(delivery.want(&id(1), (0..many).map(chunk), Timestamp(0)), Err(Full));
        assert_eq!(drain(&mut delivery, Timestamp(50)).len(), WAITING_PER_DEVICE_MAX);
        delivery.want(&id(1), [chunk(0)], Timestamp(100)).unwrap();
        assert_eq!(delivery.len(), 1);
    }

    #[test]
    fn chunks_of_another_size_than_that_of_the_broadcast_go_to_each_device_alone() {
        let mut delivery = Delivery::new(0, 4096);
        for number in 1..=2 {
            delivery.want(&id(number), [chunk(0)], Timestamp(0)).unwrap();
        }
        let sent: Vec<Send> = drain(&mut delivery, Timestamp(50)).into_iter().map(|(_, send)| send).collect();
        assert_eq!(sent, [1, 2].map(|number| Send { chunk: chunk(0), target: Target::Device(id(number)) }));
        assert!(delivery.is_empty());
    }

    #[test]
    fn what_waits_is_bounded_over_all_devices_however_few_chunks_they_share() {
        let mut delivery = Delivery::new(0, 1024);
        let per_device = u32::try_from(WAITING_PER_DEVICE_MAX).unwrap();
        let devices = u32::try_from(WAITING_MAX / WAITING_PER_DEVICE_MAX).unwrap();
        for number in 0..devices {
            delivery.want(&id(number), (0..per_device).map(chunk), Timestamp(0)).unwrap();
        }
        assert_eq!(delivery.len(), WAITING_PER_DEVICE_MAX);
        assert_eq!(delivery.want(&id(devices), (0..per_device).map(chunk), Timestamp(0)), Err(Full));
        assert_eq!(drain(&mut delivery, Timestamp(50)).len(), WAITING_PER_DEVICE_MAX);
        assert_eq!(delivery.pairs, 0);
    }

    #[test]
    fn what_a_lost_device_wanted_is_forgotten() {
        let mut delivery = Delivery::new(0, 1024);
        delivery.want(&id(1), [chunk(0), chunk(1)], Timestamp(0)).unwrap();
        delivery.want(&id(2), [chunk(1)], Timestamp(0)).unwrap();
        delivery.forget(&id(1));
        let sent: Vec<Send> = drain(&mut delivery, Timestamp(50)).into_iter().map(|(_, send)| send).collect();
        assert_eq!(sent, [Send { chunk: chunk(1), target: Target::Device(id(2)) }]);
    }

    proptest! {
        #[test]
        fn every_wanted_chunk_goes_out_once(wants in prop::collection::vec((0u32..4, 0u32..30, 0u64..40), 1..80)) {
            let mut delivery = Delivery::new(0, 1024);
            let mut wanted: BTreeMap<u32, BTreeSet<DeviceId>> = BTreeMap::new();
            for (device, index, at) in wants {
                delivery.want(&id(device), [chunk(index)], Timestamp(at)).unwrap();
                wanted.entry(index).or_default().insert(id(device));
            }
            let sent = drain(&mut delivery, Timestamp(WINDOW_MS + 40));
            prop_assert_eq!(sent.len(), wanted.len());
            for (_, send) in sent {
                let devices = wanted.remove(&send.chunk.index).unwrap();
                match send.target {
                    Target::Device(device) => prop_assert_eq!(devices, BTreeSet::from([device])),
                    Target::Everybody(count) => prop_assert!(count >= 2 && count == devices.len()),
                }
            }
            prop_assert!(delivery.is_empty());
            prop_assert_eq!(delivery.pairs, 0);
        }
    }
}
