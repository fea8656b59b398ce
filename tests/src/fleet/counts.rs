//! What is counted at the source.

use agent_core::{latency::Histogram, outbox::Kind};
use serde::Serialize;
use shared::wire::EventKind;
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Records of one kind.
#[derive(Debug, Default)]
pub struct Records {
    /// Put into an outbox.
    pub made: Count,
    /// The broker said that it has them.
    pub delivered: Count,
}

/// Of all devices together.
#[derive(Debug, Default)]
pub struct Counts {
    pub events: Records,
    pub feedback: Records,
    pub telemetry: Records,
    /// Batches that were published and acknowledged.
    pub messages: Count,
    /// Those that were refused.
    pub messages_refused: Count,
    /// Records that were not made because the one before was still under way.
    pub held: Count,
    /// Records for which there was no room.
    pub dropped: Count,
    pub connects: Count,
    pub disconnects: Count,
    /// Devices that had a connection at some time.
    pub seen: Count,
    pub chunks: Count,
    pub staged: Count,
    pub activated: Count,
    pub committed: Count,
    pub refused: Count,
    pub rolled_back: Count,
    pub complaints: Count,
    /// From publish to acknowledgement of batches.
    acknowledged: Mutex<Histogram>,
}

impl Counts {
    /// Those of a kind of record.
    pub fn of(&self, kind: Kind) -> &Records {
        match kind {
            Kind::Event => &self.events,
            Kind::Feedback => &self.feedback,
            Kind::Telemetry => &self.telemetry,
        }
    }

    /// Devices with a connection at this moment.
    pub fn connected(&self) -> u64 {
        // In this order: a connection that ends between the two looks counts as there.
        let gone = self.disconnects.get();
        self.connects.get().saturating_sub(gone)
    }

    /// The broker took a batch over after that long.
    pub fn acknowledged(&self, took_us: u64) {
        self.messages.add(1);
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).record(took_us);
    }

    /// Forgets how long acknowledgements took so far.
    pub fn forget_latency(&self) {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What the update machine told of a device.
    pub fn note(&self, kind: EventKind) {
        match kind {
            EventKind::BundleStaged => self.staged.add(1),
            EventKind::VersionActivated => self.activated.add(1),
            EventKind::TrialPassed => self.committed.add(1),
            EventKind::BundleRefused => self.refused.add(1),
            EventKind::RolledBack => self.rolled_back.add(1),
            _ => {}
        }
    }

    /// Everything as it is.
    pub fn read(&self) -> Reading {
        let acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        let records = [&self.events, &self.feedback, &self.telemetry];
        Reading {
            connected: self.connected(),
            seen: self.seen.get(),
            connects: self.connects.get(),
            disconnects: self.disconnects.get(),
            messages: self.messages.get(),
            messages_refused: self.messages_refused.get(),
            events: self.events.made.get(),
            feedback: self.feedback.made.get(),
            telemetry: self.telemetry.made.get(),
            made: records.iter().map(|records| records.made.get()).sum(),
            delivered: records.iter().map(|records| records.delivered.get()).sum(),
            held: self.held.get(),
            dropped: self.dropped.get(),
            chunks: self.chunks.get(),
            staged: self.staged.get(),
            activated: self.activated.get(),
            committed: self.committed.get(),
            refused: self.refused.get(),
            rolled_back: self.rolled_back.get(),
            complaints: self.complaints.get(),
            acknowledged_p50_us: acknowledged.quantile_us(0.5),
            acknowledged_p99_us: acknowledged.quantile_us(0.99),
        }
    }
}

/// What was counted up to a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reading {
    pub connected: u64,
    /// Devices that had a connection at some time.
    pub seen: u64,
    pub connects: u64,
    pub disconnects: u64,
    /// Batches that were acknowledged.
    pub messages: u64,
    pub messages_refused: u64,
    /// Records that were made of each kind.
    pub events: u64,
    pub feedback: u64,
    pub telemetry: u64,
    /// Records that were made, and those of them that were acknowledged.
    pub made: u64,
    pub delivered: u64,
    /// Records that were due while the one before was under way, and were left out.
    pub held: u64,
    pub dropped: u64,
    pub chunks: u64,
    /// Versions that were fetched and tested, that answered, that passed their trial, that were refused or rolled back.
    pub staged: u64,
    pub activated: u64,
    pub committed: u64,
    pub refused: u64,
    pub rolled_back: u64,
    /// Things that should not have happened.
    pub complaints: u64,
    pub acknowledged_p50_us: Option<u64>,
    pub acknowledged_p99_us: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_adds_up_the_kinds_and_what_machines_told() {
        let counts = Counts::default();
        counts.of(Kind::Event).made.add(2);
        counts.of(Kind::Telemetry).made.add(3);
        counts.of(Kind::Telemetry).delivered.add(1);
        counts.note(EventKind::TrialPassed);
        counts.note(EventKind::AgentStarted);
        counts.connects.add(5);
        counts.disconnects.add(2);
        counts.acknowledged(700);
        let read = counts.read();
        assert_eq!((read.made, read.delivered, read.events, read.telemetry), (5, 1, 2, 3));
        assert_eq!((read.committed, read.connected, read.messages), (1, 3, 1));
        assert!(read.acknowledged_p99_us.unwrap() >= 700);
    }
}
