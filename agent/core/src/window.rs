//! Telemetry windows: what one version in one slot did in one span of time.

use crate::latency::Histogram;
use shared::{ModelVersionId, SlotName, Timestamp};

/// Counts of the window that is open.
#[derive(Clone, Debug)]
pub struct Window {
    slot: SlotName,
    version_id: ModelVersionId,
    started_at: Timestamp,
    requests: u64,
    failed: u64,
    latency: Histogram,
}

/// A window that was closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    pub slot: SlotName,
    pub version_id: ModelVersionId,
    pub started_at: Timestamp,
    pub duration_ms: u64,
    pub requests: u64,
    pub failed: u64,
    pub latency_p50_us: Option<u64>,
    pub latency_p99_us: Option<u64>,
}

impl Window {
    /// Opens a window at `now`.
    pub fn open(slot: SlotName, version_id: ModelVersionId, now: Timestamp) -> Self {
        Self { slot, version_id, started_at: now, requests: 0, failed: 0, latency: Histogram::new() }
    }

    /// Counts one request that was answered in `latency_us`, or failed.
    pub fn record(&mut self, answered_in_us: Option<u64>) {
        self.requests += 1;
        match answered_in_us {
            Some(latency_us) => self.latency.record(latency_us),
            None => self.failed += 1,
        }
    }

    /// The version that is counted.
    pub fn version_id(&self) -> ModelVersionId {
        self.version_id
    }

    /// Closes the window, which was open for `duration_ms`, and opens the next for `version_id` at `now`. A window
    /// in which nothing was asked gives nothing to send.
    pub fn roll(&mut self, version_id: ModelVersionId, now: Timestamp, duration_ms: u64) -> Option<Closed> {
        let closed = (self.requests > 0).then(|| Closed {
            slot: self.slot.clone(),
            version_id: self.version_id,
            started_at: self.started_at,
            duration_ms,
            requests: self.requests,
            failed: self.failed,
            latency_p50_us: self.latency.quantile_us(0.5),
            latency_p99_us: self.latency.quantile_us(0.99),
        });
        self.version_id = version_id;
        self.started_at = now;
        self.requests = 0;
        self.failed = 0;
        self.latency.clear();
        closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version(number: u128) -> ModelVersionId {
        ModelVersionId(uuid(number))
    }

    fn uuid(number: u128) -> uuid::Uuid {
        uuid::Uuid::from_u128(number)
    }

    proptest! {
        #[test]
        fn every_request_is_in_one_window(steps in prop::collection::vec((any::<bool>(), prop::option::of(0u64..1000)), 0..200)) {
            let mut window = Window::open("default".parse().unwrap(), version(1), Timestamp(0));
            let (mut requests, mut failed, mut closed) = (0, 0, (0, 0));
            for (at, (roll, answer)) in steps.into_iter().enumerate() {
                if roll {
                    let got = window.roll(version(1), Timestamp(at as u64), 1);
                    closed.0 += got.as_ref().map_or(0, |got| got.requests);
                    closed.1 += got.as_ref().map_or(0, |got| got.failed);
                } else {
                    window.record(answer);
                    requests += 1;
                    failed += u64::from(answer.is_none());
                }
            }
            if let Some(got) = window.roll(version(2), Timestamp(1000), 1) {
                closed.0 += got.requests;
                closed.1 += got.failed;
            }
            prop_assert_eq!(closed, (requests, failed));
        }
    }
}
