//! Wants that came and were not looked at yet: a bounded number of each device, so that none keeps out the others.

use shared::{DeviceId, wire::Want};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Wants of one device that wait; its oldest goes, and the device asks for it again.
pub const WANTS_PER_DEVICE_MAX: usize = 16;

/// What came from one device since the last look.
#[derive(Debug, Default, PartialEq)]
pub struct FromDevice {
    /// It was gone in between: what it had asked for before is void.
    pub gone: bool,
    /// In the order in which they came.
    pub wants: VecDeque<Want>,
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
        let mut devices = self.devices();
        let wants = &mut devices.entry(device.clone()).or_default().wants;
        if wants.len() >= WANTS_PER_DEVICE_MAX {
            wants.pop_front();
        }
        wants.push_back(want);
        drop(devices);
        self.came.notify_one();
    }

    /// A device is gone; it asks again when it is back.
    pub fn forget(&self, device: &DeviceId) {
        self.devices().insert(device.clone(), FromDevice { gone: true, wants: VecDeque::new() });
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
        assert_eq!(taken[&honest].wants, [want(7)]);
        assert_eq!(taken[&rogue].wants.len(), WANTS_PER_DEVICE_MAX);
        assert_eq!(taken[&rogue].wants.back(), Some(&want(9999)));
        assert!(inbox.take().is_empty());
    }

    #[test]
    fn what_a_device_asked_before_it_was_gone_is_void() {
        let inbox = Inbox::default();
        let device: DeviceId = "cam-01".parse().unwrap();
        inbox.want(&device, want(1));
        inbox.forget(&device);
        inbox.want(&device, want(2));
        assert_eq!(inbox.take()[&device], FromDevice { gone: true, wants: [want(2)].into() });
    }
}
