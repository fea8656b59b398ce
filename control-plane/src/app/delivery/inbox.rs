//! Wants that came and were not looked at yet, and chunks that have reached their devices: a bounded number of each device,
//! so that none keeps out the others.

use shared::{DeviceId, Digest, wire::Want};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// What came from one device and waits; its oldest goes, and the device asks for it again.
pub const CAME_PER_DEVICE_MAX: usize = 32;

/// One thing that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    Want(Want),
    /// The chunk has reached the device, or was dropped on its way; and what went out before it.
    Settled {
        digest: Digest,
        index: u32,
    },
}

/// What came from one device since the last look.
#[derive(Debug, Default, PartialEq)]
pub struct FromDevice {
    /// It was gone in between: what it had asked for before is void.
    pub gone: bool,
    /// In the order in which it came: a device that wants a chunk did not have what settles after that.
    pub came: VecDeque<Came>,
}

impl FromDevice {
    fn push(&mut self, came: Came) {
        if self.came.len() >= CAME_PER_DEVICE_MAX {
            self.came.pop_front();
        }
        self.came.push_back(came);
    }
}

/// Where the broker's side leaves wants, and delivery takes them.
#[derive(Debug, Default)]
pub struct Inbox {
    devices: Mutex<BTreeMap<DeviceId, FromDevice>>,
    came: Notify,
}

impl Inbox {
    /// A device asks for chunks.
    pub fn want(&self, device: &DeviceId, want: Want) {
        self.devices().entry(device.clone()).or_default().push(Came::Want(want));
        self.came.notify_one();
    }

    /// A chunk has reached a device, or was dropped on its way. Nobody is woken for that.
    pub fn settle(&self, device: &DeviceId, digest: Digest, index: u32) {
        let mut devices = self.devices();
        let from = devices.entry(device.clone()).or_default();
        match from.came.back_mut() {
            // The later stands for the earlier.
            Some(Came::Settled { digest: of, index: last }) if *of == digest => *last = index,
            _ => from.push(Came::Settled { digest, index }),
        }
    }

    /// A device is gone; it asks again when it is back.
    pub fn forget(&self, device: &DeviceId) {
        self.devices().insert(device.clone(), FromDevice { gone: true, came: VecDeque::new() });
        self.came.notify_one();
    }

    /// Takes everything out.
    pub fn take(&self) -> BTreeMap<DeviceId, FromDevice> {
        std::mem::take(&mut *self.devices())
    }

    /// Resolves when something has come since this resolved last.
    pub async fn came(&self) {
        self.came.notified().await;
    }

    /// Nothing in here panics while it holds the lock, so what it guards is whole.
    fn devices(&self) -> MutexGuard<'_, BTreeMap<DeviceId, FromDevice>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::Digest;

    fn want(index: u32) -> Want {
        Want { digest: Digest::of(b"blob"), chunk_bytes: 1024, ranges: vec![(index, index + 1)] }
    }

    #[test]
    fn a_device_that_asks_without_end_loses_its_own_wants_and_nobody_elses() {
        let inbox = Inbox::default();
        let (rogue, honest): (DeviceId, DeviceId) = ("rogue".parse().unwrap(), "honest".parse().unwrap());
        inbox.want(&honest, want(7));
        for index in 0..10_000 {
            inbox.want(&rogue, want(index));
        }
        let taken = inbox.take();
        assert_eq!(taken[&honest].came, [Came::Want(want(7))]);
        assert_eq!(taken[&rogue].came.len(), CAME_PER_DEVICE_MAX);
        assert_eq!(taken[&rogue].came.back(), Some(&Came::Want(want(9999))));
        assert!(inbox.take().is_empty());
    }

    #[test]
    fn what_a_device_asked_before_it_was_gone_is_void() {
        let inbox = Inbox::default();
        let device: DeviceId = "cam-01".parse().unwrap();
        inbox.want(&device, want(1));
        inbox.forget(&device);
        inbox.want(&device, want(2));
        assert_eq!(inbox.take()[&device], FromDevice { gone: true, came: [Came::Want(want(2))].into() });
    }

    #[test]
    fn the_last_chunk_that_settled_stands_for_those_before_but_not_across_a_want() {
        let inbox = Inbox::default();
        let device: DeviceId = "cam-01".parse().unwrap();
        let digest = Digest::of(b"blob");
        (0..5).for_each(|index| inbox.settle(&device, digest, index));
        inbox.want(&device, want(9));
        (5..8).for_each(|index| inbox.settle(&device, digest, index));
        let settled = |index| Came::Settled { digest, index };
        assert_eq!(inbox.take()[&device].came, [settled(4), Came::Want(want(9)), settled(7)]);
    }
}
