//! What must survive a restart, in sled: the update machine's state, which chunks of a blob are on disk, and the
//! outbox. A state and the events that it gives rise to are written in one transaction.

use agent_core::{
    chunks::ChunkSet,
    outbox::{self, Depth, Kind},
    update::Saved,
};
use shared::{
    DeviceId, Digest,
    wire::{Batch, Event, Record},
};
use sled::{Transactional, Tree, transaction::ConflictableTransactionError};
use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// Cache of the database.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// Segments of the log. Must never change on an existing database.
const SEGMENT_BYTES: usize = 64 * 1024;
/// Longest time that a write without an own flush stays in memory.
const FLUSH_EVERY_MS: u64 = 500;
const MACHINE_KEY: &[u8] = b"machine";

/// Why something was not stored or not found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database does not open.
    #[error(
        "cannot open the database {path}: {source}; free disk space, or move the folder away to start afresh"
    )]
    Open { path: PathBuf, source: sled::Error },
    /// It does not read or write.
    #[error("the database failed: {0}")]
    Database(#[from] sled::Error),
    /// What was read is not what was written.
    #[error(
        "the database holds a damaged {what}: {reason}; move the data folder's store.sled away to start afresh"
    )]
    Damaged { what: &'static str, reason: String },
    /// A record is larger than a batch may be.
    #[error("a record does not fit a batch: {0}")]
    Record(String),
}

impl Error {
    /// There is no disk space.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Open { source, .. } | Self::Database(source) => {
                matches!(source, sled::Error::Io(error) if error.kind() == std::io::ErrorKind::StorageFull)
            }
            Self::Damaged { .. } | Self::Record(_) => false,
        }
    }
}

/// The database of one agent.
#[derive(Debug)]
pub struct Store {
    db: sled::Db,
    state: Tree,
    chunks: Tree,
    outbox: Tree,
    depth: Mutex<Depth>,
    stored_total: AtomicU64,
    dropped_total: AtomicU64,
    outbox_records_max: u64,
}

/// Records that go out together.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub kind: Kind,
    /// Encoded [`Batch`].
    pub payload: Vec<u8>,
    keys: Vec<Vec<u8>>,
}

impl Store {
    /// Opens or makes the database.
    pub fn open(path: &Path, outbox_records_max: u64) -> Result<Self, Error> {
        let error = |source| Error::Open { path: path.to_owned(), source };
        let db = sled::Config::new()
            .path(path)
            .mode(sled::Mode::LowSpace)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(Some(FLUSH_EVERY_MS))
            .open()
            .map_err(error)?;
        let tree = |name: &str| db.open_tree(name).map_err(error);
        let (state, chunks, outbox) = (tree("state")?, tree("chunks")?, tree("outbox")?);
        let mut depth = Depth::default();
        for kind in Kind::ALL {
            for key in outbox.scan_prefix([kind.code()]).keys() {
                key.map_err(error)?;
                *depth.of_mut(kind) += 1;
            }
        }
        Ok(Self {
            db,
            state,
            chunks,
            outbox,
            depth: Mutex::new(depth),
            stored_total: AtomicU64::new(0),
            dropped_total: AtomicU64::new(0),
            outbox_records_max,
        })
    }

    /// The state that was persisted last; the default before the first.
    pub fn saved(&self) -> Result<Saved, Error> {
        match self.state.get(MACHINE_KEY)? {
            Some(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| Error::Damaged { what: "device state", reason: error.to_string() }),
            None => Ok(Saved::default()),
        }
    }

    /// Writes the state and its events; on return both are on disk.
    pub fn persist(&self, saved: &Saved, events: &[Event]) -> Result<(), Error> {
        let damaged =
            |error: serde_json::Error| Error::Damaged { what: "device state", reason: error.to_string() };
        let state = serde_json::to_vec(saved).map_err(damaged)?;
        let mut depth = self.lock_depth();
        for _ in events {
            self.make_room(&mut depth)?;
        }
        let events: Vec<_> = events.iter().map(entry::<Event>).collect::<Result<_, _>>()?;
        (&self.state, &self.outbox)
            .transaction(|(state_tree, outbox)| {
                state_tree.insert(MACHINE_KEY, state.as_slice())?;
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
        depth.event += events.len() as u64;
        drop(depth);
        self.stored_total.fetch_add(events.len() as u64, Ordering::Relaxed);
        self.flush()
    }

    /// Puts records of one kind into the outbox. They are on disk once [`Store::flush`] has returned.
    pub fn put<R: Record + Kinded>(&self, records: &[R]) -> Result<(), Error> {
        let mut depth = self.lock_depth();
        for record in records {
            self.make_room(&mut depth)?;
            let (key, value) = entry(record)?;
            if self.outbox.insert(key, value)?.is_none() {
                *depth.of_mut(R::KIND) += 1;
            }
        }
        self.stored_total.fetch_add(records.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Makes everything written so far durable.
    pub fn flush(&self) -> Result<(), Error> {
        self.db.flush()?;
        Ok(())
    }

    /// As [`Store::flush`], without holding the thread.
    pub async fn flush_async(&self) -> Result<(), Error> {
        self.db.flush_async().await?;
        Ok(())
    }

    /// The oldest records of `kind` as one batch; `None` when there are none. Records that are damaged on disk
    /// are thrown away and counted as dropped.
    pub fn outgoing<R: Record + Kinded>(&self, device: &DeviceId) -> Result<Option<Outgoing>, Error> {
        let mut keys = Vec::new();
        let mut records: Vec<R> = Vec::new();
        let mut sizes = Vec::new();
        for item in self.outbox.scan_prefix([R::KIND.code()]) {
            let (key, value) = item?;
            match ciborium::from_reader::<R, _>(value.as_ref()) {
                Ok(record) => {
                    sizes.push(value.len());
                    if outbox::batch_len(sizes.iter().copied()) < sizes.len() {
                        break;
                    }
                    keys.push(key.to_vec());
                    records.push(record);
                }
                Err(_) => self.remove(R::KIND, &[key.to_vec()], true)?,
            }
        }
        if records.is_empty() {
            return Ok(None);
        }
        let batch = Batch { device: device.clone(), records };
        match batch.encode() {
            Ok(payload) => Ok(Some(Outgoing { kind: R::KIND, payload, keys })),
            Err(error) => {
                // One record over the limit would stop the box for ever.
                self.remove(R::KIND, &keys, true)?;
                Err(Error::Record(error.to_string()))
            }
        }
    }

    /// The batch was taken over by the broker: forgets its records.
    pub fn delivered(&self, outgoing: &Outgoing) -> Result<(), Error> {
        self.remove(outgoing.kind, &outgoing.keys, false)?;
        self.flush()
    }

    /// Records that wait.
    pub fn depth(&self) -> Depth {
        *self.lock_depth()
    }

    /// Records put in since the start.
    pub fn stored_total(&self) -> u64 {
        self.stored_total.load(Ordering::Relaxed)
    }

    /// Records given up since the start, for want of room or because they were damaged.
    pub fn dropped_total(&self) -> u64 {
        self.dropped_total.load(Ordering::Relaxed)
    }

    /// The chunks of a blob that are on disk; `None` where nothing, or something of another shape, is known.
    pub fn chunks(&self, digest: Digest, chunk_bytes: u32, total: u32) -> Result<Option<ChunkSet>, Error> {
        let Some(bytes) = self.chunks.get(digest.as_bytes())? else { return Ok(None) };
        let Some((head, bitmap)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
        Ok((*head == chunk_bytes.to_le_bytes()).then(|| ChunkSet::from_bytes(total, bitmap)).flatten())
    }

    /// Notes which chunks of a blob are on disk, durably.
    pub fn set_chunks(&self, digest: Digest, chunk_bytes: u32, chunks: &ChunkSet) -> Result<(), Error> {
        let mut bytes = chunk_bytes.to_le_bytes().to_vec();
        bytes.extend(chunks.to_bytes());
        self.chunks.insert(digest.as_bytes(), bytes)?;
        self.flush()
    }

    /// Forgets the chunks of a blob.
    pub fn forget_chunks(&self, digest: Digest) -> Result<(), Error> {
        self.chunks.remove(digest.as_bytes())?;
        Ok(())
    }

    fn lock_depth(&self) -> std::sync::MutexGuard<'_, Depth> {
        self.depth.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn make_room(&self, depth: &mut Depth) -> Result<(), Error> {
        let Some(kind) = outbox::to_drop(*depth, self.outbox_records_max) else { return Ok(()) };
        if let Some(item) = self.outbox.scan_prefix([kind.code()]).keys().next() {
            self.outbox.remove(item?)?;
        }
        let count = depth.of_mut(kind);
        *count = count.saturating_sub(1);
        self.dropped_total.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn remove(&self, kind: Kind, keys: &[Vec<u8>], dropped: bool) -> Result<(), Error> {
        let mut depth = self.lock_depth();
        for key in keys {
            if self.outbox.remove(key)?.is_some() {
                let count = depth.of_mut(kind);
                *count = count.saturating_sub(1);
                if dropped {
                    self.dropped_total.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }
}

/// The box that a record belongs into.
pub trait Kinded {
    /// Its kind.
    const KIND: Kind;
}

impl Kinded for Event {
    const KIND: Kind = Kind::Event;
}

impl Kinded for shared::wire::Feedback {
    const KIND: Kind = Kind::Feedback;
}

impl Kinded for shared::wire::Telemetry {
    const KIND: Kind = Kind::Telemetry;
}

fn entry<R: Record + Kinded>(record: &R) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let mut key = vec![R::KIND.code()];
    key.extend(record.id().as_bytes());
    let mut value = Vec::new();
    ciborium::into_writer(record, &mut value).map_err(|error| Error::Record(error.to_string()))?;
    Ok((key, value))
}

#[cfg(test)]
mod tests;
