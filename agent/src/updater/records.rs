//! Events and telemetry, stamped with the time on the wall.

use super::Updater;
use crate::clock::wall;
use agent_core::{update::Note, window};
use shared::wire::{self, Event, EventKind, Telemetry};
use uuid::Uuid;

impl Updater {
    /// Closes the telemetry window of every slot and stores what was counted.
    pub(super) fn close_windows(&mut self) {
        let slots = self.parts.models.all();
        let closed = slots.iter().flat_map(|serving| serving.roll_window(wall())).collect();
        self.store_telemetry(closed);
    }

    pub(super) fn store_telemetry(&mut self, closed: Vec<window::Closed>) {
        if closed.is_empty() {
            return;
        }
        let records: Vec<_> = closed.into_iter().map(telemetry).collect();
        if let Err(error) = self.parts.store.put(&records) {
            tracing::warn!(error = crate::chain(&error), "telemetry was lost");
        }
    }
}

/// An event of the agent itself, of no slot and no bundle.
pub(crate) fn of_the_agent(kind: EventKind, detail: String) -> Event {
    event(Note { slot: None, bundle: None, kind, detail })
}

pub(super) fn event(note: Note) -> Event {
    let Note { slot, bundle, kind, detail } = note;
    Event { id: Uuid::now_v7(), at: wall(), slot, bundle, kind, detail: wire::cut(&detail) }
}

fn telemetry(closed: window::Closed) -> Telemetry {
    Telemetry {
        id: Uuid::now_v7(),
        at: closed.started_at,
        duration_ms: closed.duration_ms,
        slot: closed.slot,
        version_id: closed.version_id,
        requests: closed.requests,
        failed: closed.failed,
        latency_p50_us: closed.latency_p50_us,
        latency_p99_us: closed.latency_p99_us,
        rss_bytes: crate::rss_bytes(),
    }
}
