//! The sled database of an agent while it is open.

use super::{Error, Kinded, journal::Entry};
use agent_core::{
    outbox::{self, Depth, Kind},
    update::Saved,
};
use shared::wire::{Event, Record};
use sled::{Transactional, Tree, transaction::ConflictableTransactionError};
use std::{
    fs,
    panic::AssertUnwindSafe,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Cache of the database.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// Segments of the log. Must never change on an existing database.
const SEGMENT_BYTES: usize = 64 * 1024;
/// Longest time that a write without an own flush stays in memory.
const FLUSH_EVERY_MS: u64 = 500;
/// Longest wait for the file's lock: the threads of a database that was dropped hold it a little longer.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_TICK: Duration = Duration::from_millis(20);
pub(super) const MACHINE_KEY: &[u8] = b"machine";
const SEQUENCE_KEY: &[u8] = b"sequence";

#[derive(Debug)]
pub(super) struct Database {
    pub(super) db: sled::Db,
    pub(super) state: Tree,
    pub(super) chunks: Tree,
    pub(super) outbox: Tree,
    /// Tells one opening from another.
    pub(super) opening: u64,
}

impl Database {
    /// Opens or makes the database; a damaged file that makes sled panic is an error too.
    pub(super) fn open(path: &Path, opening: u64) -> Result<Self, Error> {
        let start = Instant::now();
        remove_half_written_snapshots(path);
        let db = loop {
            let opened = std::panic::catch_unwind(AssertUnwindSafe(|| {
                sled::Config::new()
                    .path(path)
                    .mode(sled::Mode::LowSpace)
                    .segment_size(SEGMENT_BYTES)
                    .cache_capacity(CACHE_BYTES)
                    .flush_every_ms(Some(FLUSH_EVERY_MS))
                    .open()
            }));
            match opened {
                Ok(Ok(db)) => break db,
                Ok(Err(source)) if is_locked(&source) => {
                    if start.elapsed() > LOCK_WAIT {
                        return Err(Error::Locked { path: path.to_owned() });
                    }
                    thread::sleep(LOCK_TICK);
                }
                Ok(Err(source)) => return Err(Error::Open { path: path.to_owned(), source }),
                Err(_) => {
                    let source = sled::Error::ReportableBug("opening it panicked".to_owned());
                    return Err(Error::Open { path: path.to_owned(), source });
                }
            }
        };
        let tree =
            |name: &str| db.open_tree(name).map_err(|source| Error::Open { path: path.to_owned(), source });
        let (state, chunks, outbox) = (tree("state")?, tree("chunks")?, tree("outbox")?);
        Ok(Self { db, state, chunks, outbox, opening })
    }

    /// Records of each kind, counted one by one.
    pub(super) fn count(&self) -> Result<Depth, Error> {
        let mut depth = Depth::default();
        for kind in Kind::ALL {
            for key in self.outbox.scan_prefix([kind.code()]).keys() {
                key?;
                *depth.of_mut(kind) += 1;
            }
        }
        Ok(depth)
    }

    /// The sequence of the state that is here, zero before the first.
    pub(super) fn sequence(&self) -> Result<u64, Error> {
        let bytes = self.state.get(SEQUENCE_KEY)?;
        Ok(bytes.and_then(|bytes| bytes.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes))
    }

    /// The state that is here.
    pub(super) fn saved(&self) -> Result<Option<Saved>, Error> {
        let Some(bytes) = self.state.get(MACHINE_KEY)? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Error::Damaged { what: "device state", reason: error.to_string() })
    }

    /// Writes an entry in one transaction, which a flush makes durable, and gives the number of records that were dropped for its
    /// events. Events that are here already are left as they are.
    pub(super) fn commit(&self, entry: &Entry, depth: &mut Depth, records_max: u64) -> Result<u64, Error> {
        let state = serde_json::to_vec(&entry.saved)
            .map_err(|error| Error::Damaged { what: "device state", reason: error.to_string() })?;
        let mut events = Vec::new();
        let mut dropped = 0;
        for event in &entry.events {
            let (key, value) = encode::<Event>(event)?;
            if !self.outbox.contains_key(&key)? {
                dropped += self.make_room(depth, records_max)?;
                depth.event += 1;
                events.push((key, value));
            }
        }
        (&self.state, &self.outbox)
            .transaction(|(state_tree, outbox)| {
                state_tree.insert(MACHINE_KEY, state.as_slice())?;
                state_tree.insert(SEQUENCE_KEY, &entry.sequence.to_be_bytes())?;
                for (key, value) in &events {
                    outbox.insert(key.as_slice(), value.as_slice())?;
                }
                Ok::<_, ConflictableTransactionError<()>>(())
            })
            .map_err(|error| match error {
                sled::transaction::TransactionError::Storage(source) => Error::Database(source),
                sled::transaction::TransactionError::Abort(()) => {
                    Error::Damaged { what: "transaction", reason: "was aborted".to_owned() }
                }
            })?;
        Ok(dropped)
    }

    /// Makes room for one more record where the box is full; gives the number of records dropped for it.
    pub(super) fn make_room(&self, depth: &mut Depth, records_max: u64) -> Result<u64, Error> {
        let Some(kind) = outbox::to_drop(*depth, records_max) else { return Ok(0) };
        if let Some(key) = self.outbox.scan_prefix([kind.code()]).keys().next() {
            self.outbox.remove(key?)?;
        }
        let count = depth.of_mut(kind);
        *count = count.saturating_sub(1);
        Ok(1)
    }
}

/// A record's key and value in the outbox.
pub(super) fn encode<R: Record + Kinded>(record: &R) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let mut key = vec![R::KIND.code()];
    key.extend(record.id().as_bytes());
    let mut value = Vec::new();
    ciborium::into_writer(record, &mut value).map_err(|error| Error::Record(error.to_string()))?;
    Ok((key, value))
}

/// sled takes a snapshot that a full disk or a power cut left half-written for the newest one, and does not open
/// with it. The one before is removed only after the newer has its final name.
fn remove_half_written_snapshots(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.")
            && name.ends_with(".generating")
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "a half-written snapshot stays");
        }
    }
}

/// sled has no variant of its own for it.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}
