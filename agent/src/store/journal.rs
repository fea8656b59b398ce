//! The state as a file of its own, written before the database is: what is there when the database is not.

use super::Error;
use crate::{blobs, data};
use agent_core::update::Saved;
use serde::{Deserialize, Serialize};
use shared::wire::Event;
use std::{io, path::PathBuf};

/// Largest journal that is read: the state of all slots and [`EVENTS_MAX`] events.
const BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most events that wait here for the database; the oldest go first.
pub(super) const EVENTS_MAX: usize = 1024;

/// What was persisted last.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Entry {
    /// Raised with each write. A database with a lower one has missed this state.
    pub(super) sequence: u64,
    pub(super) saved: Saved,
    /// Events that a database with a lower sequence may not have.
    pub(super) events: Vec<Event>,
}

#[derive(Debug)]
pub(super) struct Journal(PathBuf);

impl Journal {
    pub(super) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// The entry that was written last. One that cannot be read is as none, with a line in the log: the database
    /// has the state too.
    pub(super) fn read(&self) -> Option<Entry> {
        let bytes = match blobs::read_limited(&self.0, BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %self.0.display(), %error, "the state file cannot be read");
                return None;
            }
        };
        serde_json::from_slice(&bytes)
            .inspect_err(
                |error| tracing::warn!(path = %self.0.display(), %error, "the state file is damaged"),
            )
            .ok()
    }

    /// Replaces the entry; on return it is on disk.
    pub(super) fn write(&self, entry: &Entry) -> Result<(), Error> {
        let bytes = serde_json::to_vec(entry)
            .map_err(|error| Error::Damaged { what: "device state", reason: error.to_string() })?;
        data::write_atomically(&self.0, &bytes, 0o600)
            .map_err(|source| Error::State { path: self.0.clone(), source })
    }
}
