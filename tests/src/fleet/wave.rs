//! What is being brought to the devices, and how far that is.

use std::sync::atomic::{AtomicU64, AtomicUsize};
use tokio::sync::Notify;

/// One delivery.
#[derive(Debug, Default)]
pub struct Wave {
    /// Chunks in a thousand that a device does not get to see.
    pub loss_permille: u64,
    /// Bytes of chunks that the broker delivered, those that were then lost included.
    pub delivered_bytes: AtomicU64,
    /// Devices that have all files, each with its digest.
    pub whole: AtomicUsize,
    /// Told each time that one has, and when something went wrong.
    pub changed: Notify,
}
