//! Writing the machine's state. A disk that takes no writes holds back the machine's actions and nothing else: the
//! model answers, the link is kept, and a stop is heard.

use super::{Updater, records};
use agent_core::update::{Input, Note, Saved};
use shared::{Timestamp, wire::Event};

/// Wait before a state that could not be written is written again.
const RETRY_MS: u64 = 2_000;

/// A state and its events that are to be written.
#[derive(Debug)]
pub(super) struct Unsaved {
    saved: Saved,
    events: Vec<Event>,
    due: Timestamp,
}

impl Unsaved {
    /// When the next try is due.
    pub(super) fn due(&self) -> Timestamp {
        self.due
    }
}

impl Updater {
    /// Writes a state, at once or as soon as the disk takes it. Until then the machine gives nothing more.
    pub(super) fn persist(&mut self, saved: Saved, notes: Vec<Note>) {
        let events: Vec<_> = notes.into_iter().map(records::event).collect();
        for event in &events {
            tracing::info!(
                slot = event.slot.as_ref().map(tracing::field::display),
                "{:?}: {}",
                event.kind,
                event.detail
            );
        }
        self.unsaved = Some(Unsaved { saved, events, due: Timestamp(0) });
        self.try_persist();
    }

    /// Writes the state that waits, if a try is due.
    pub(super) fn try_persist(&mut self) {
        let now = self.clock.monotonic();
        let Some(unsaved) = self.unsaved.as_mut().filter(|unsaved| unsaved.due <= now) else { return };
        match self.parts.store.persist(&unsaved.saved, &unsaved.events) {
            Ok(()) => {
                self.unsaved = None;
                self.input(Input::Persisted);
            }
            Err(error) => {
                unsaved.due = now.plus_ms(RETRY_MS);
                let reason = crate::chain(&error);
                tracing::error!(
                    error = reason,
                    "the state could not be written; what answers goes on, and it is tried again"
                );
                if error.is_disk_full() {
                    self.give_up_parts(&reason);
                }
            }
        }
    }

    /// Removes what has come of blobs that are not whole: the state needs the space, and chunks can come again.
    pub(super) fn give_up_parts(&mut self, reason: &str) {
        let open = self.parts.blobs.discard_all();
        if open.is_empty() {
            return;
        }
        tracing::warn!(blobs = open.len(), "downloads under way were given up for the space that they took");
        for digest in open {
            self.stop_listening(digest);
            self.input(Input::ChunkNotStored { digest, detail: reason.to_owned() });
        }
        if let Some(unsaved) = &mut self.unsaved {
            unsaved.due = Timestamp(0);
        }
    }
}
