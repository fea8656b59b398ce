//! What must survive a restart: the update machine's state, which chunks of a blob are on disk, and the outbox.
//!
//! All of it is in a sled database. The state is in a file beside it as well, written first, so that a device whose
//! database does not open still knows which model is its last good one; the same file holds the events that the
//! database has not taken yet. An error of sled is final for the database that is open: it is closed and opened
//! again here, with the ballast given up first where the disk is full.

mod ballast;
mod database;
mod flush;
mod journal;

use agent_core::{
    chunks::ChunkSet,
    outbox::{self, Depth, Kind},
    update::Saved,
};
use ballast::Ballast;
use database::{Database, encode};
use flush::flush;
use journal::{Entry, Journal};
use shared::{
    DeviceId, Digest,
    wire::{Batch, Event, Record},
};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Shortest time between two tries to open the database again.
const REOPEN_AFTER: Duration = Duration::from_secs(2);

/// Why something was not stored or not found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database does not open.
    #[error("cannot open the database {path}; free disk space, or move the folder away to start afresh")]
    Open { path: PathBuf, source: sled::Error },
    /// Somebody else has it open.
    #[error("the database {path} is in use; stop the agent that uses it")]
    Locked { path: PathBuf },
    /// It did not open, and is tried again later.
    #[error("the database is closed: {reason}")]
    Closed { reason: String, disk_full: bool },
    /// It does not read or write.
    #[error("the database failed")]
    Database(#[from] sled::Error),
    /// The file that holds the state could not be written.
    #[error("cannot write the state file {path}; free disk space")]
    State { path: PathBuf, source: io::Error },
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
        let full = |kind| matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        match self {
            Self::Open { source, .. } | Self::Database(source) => {
                matches!(source, sled::Error::Io(error) if full(error.kind()))
            }
            Self::State { source, .. } => full(source.kind()),
            Self::Closed { disk_full, .. } => *disk_full,
            Self::Locked { .. } | Self::Damaged { .. } | Self::Record(_) => false,
        }
    }

    /// Does opening the database again help?
    fn is_of_the_database(&self) -> bool {
        match self {
            Self::Open { .. } | Self::Locked { .. } | Self::Closed { .. } | Self::Database(_) => true,
            Self::State { .. } | Self::Damaged { .. } | Self::Record(_) => false,
        }
    }
}

/// The database of one agent, and the files beside it.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    journal: Journal,
    ballast: Ballast,
    /// None while it does not open.
    database: RwLock<Option<Database>>,
    progress: Mutex<Progress>,
    reopening: Mutex<Reopening>,
    /// Who changes the outbox holds it; that may take as long as the disk does.
    changing: Mutex<()>,
    /// Held for a look only, so that nobody who asks waits for the disk.
    depth: Mutex<Depth>,
    /// The sequence of the state that the database has.
    committed: AtomicU64,
    stored_total: AtomicU64,
    dropped_total: AtomicU64,
    outbox_records_max: u64,
}

/// What the journal holds.
#[derive(Debug, Default)]
struct Progress {
    sequence: u64,
    /// Events of that entry.
    events: Vec<Event>,
}

#[derive(Debug, Default)]
struct Reopening {
    openings: u64,
    tried_at: Option<Instant>,
    /// Why the database takes no writes.
    trouble: Option<Trouble>,
}

#[derive(Clone, Debug)]
struct Trouble {
    reason: String,
    disk_full: bool,
}

/// Records that go out together.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub kind: Kind,
    /// Encoded [`Batch`].
    pub payload: Vec<u8>,
    keys: Vec<Vec<u8>>,
}

impl Outgoing {
    /// Number of records in it, at least one.
    pub fn records(&self) -> usize {
        self.keys.len()
    }
}

impl Store {
    /// Opens or makes the database at `path` and the files `*.state.json` and `*.ballast` beside it.
    ///
    /// A database that does not open is no error where the state file is there: the store then gives the state and
    /// keeps it up to date, refuses records, and tries to open the database again from time to time.
    ///
    /// # Errors
    /// The database does not open and there is no state file, or another process has it open.
    pub fn open(path: &Path, outbox_records_max: u64) -> Result<Self, Error> {
        let store = Self {
            path: path.to_owned(),
            journal: Journal::at(path.with_extension("state.json")),
            ballast: Ballast::at(path.with_extension("ballast")),
            database: RwLock::new(None),
            progress: Mutex::default(),
            reopening: Mutex::default(),
            changing: Mutex::default(),
            depth: Mutex::default(),
            committed: AtomicU64::new(0),
            stored_total: AtomicU64::new(0),
            dropped_total: AtomicU64::new(0),
            outbox_records_max,
        };
        let entry = store.journal.read();
        let known = entry.is_some();
        if let Some(Entry { sequence, events, .. }) = entry {
            *store.progress() = Progress { sequence, events };
        }
        match store.reopen(0, true) {
            Err(error @ Error::Locked { .. }) => return Err(error),
            Err(error) if !known => return Err(error),
            Err(error) => tracing::error!(
                error = crate::chain(&error),
                "the agent goes on without its database: the last good models answer, no record is stored"
            ),
            Ok(()) => store.write_missing_journal()?,
        }
        store.ballast.hold();
        Ok(store)
    }

    /// The state that was persisted last; the default before the first.
    pub fn saved(&self) -> Result<Saved, Error> {
        match self.run(false, Database::saved) {
            Ok(saved) => Ok(saved.unwrap_or_default()),
            Err(error) => match self.journal.read() {
                Some(entry) => {
                    tracing::warn!(error = crate::chain(&error), "the state comes from the state file");
                    Ok(entry.saved)
                }
                None => Err(error),
            },
        }
    }

    /// Writes the state and its events; on return both are on disk, in the database or, where that takes no
    /// writes, in the state file, from which the database gets them when it opens again. Calling again with the
    /// same events after an error writes none twice.
    pub fn persist(&self, saved: &Saved, events: &[Event]) -> Result<(), Error> {
        let mut progress = self.progress();
        let committed = self.committed.load(Ordering::Acquire);
        let sequence = progress.sequence.max(committed) + 1;
        let mut waiting = if committed < progress.sequence { progress.events.clone() } else { Vec::new() };
        let fresh: Vec<_> =
            events.iter().filter(|event| waiting.iter().all(|waits| waits.id != event.id)).cloned().collect();
        waiting.extend(fresh);
        if let Some(over) = waiting.len().checked_sub(journal::EVENTS_MAX + 1) {
            waiting.drain(..=over);
            self.dropped_total.fetch_add(over as u64 + 1, Ordering::Relaxed);
        }
        let entry = Entry { sequence, saved: saved.clone(), events: waiting };
        match self.journal.write(&entry) {
            Err(error) if error.is_disk_full() && self.ballast.release() => self.journal.write(&entry)?,
            written => written?,
        }
        *progress = Progress { sequence, events: entry.events.clone() };
        match self.run(true, |database| self.commit(database, &entry)) {
            Ok(()) => self.ballast.hold(),
            Err(error) if error.is_of_the_database() => tracing::warn!(
                error = crate::chain(&error),
                "the state is in the state file alone; the database gets it when it opens again"
            ),
            Err(error) => return Err(error),
        }
        self.stored_total.fetch_add(events.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Puts records of one kind into the outbox. They are on disk once [`Store::flush`] has returned.
    pub fn put<R: Record + Kinded>(&self, records: &[R]) -> Result<(), Error> {
        self.run(false, |database| self.insert(database, records))?;
        self.stored_total.fetch_add(records.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// As [`Store::put`], and on return they are on disk. Waits for the disk on a thread of its own.
    ///
    /// # Panics
    /// Where the database did.
    pub async fn put_durably<R: Record + Kinded + Send + 'static>(
        self: &Arc<Self>,
        records: Vec<R>,
    ) -> Result<(), Error> {
        let store = self.clone();
        waited(move || {
            // The flush goes to the very database that took the records: one that was opened since has not got them.
            let (db, opening) = store.run(false, |database| {
                store.insert(database, &records)?;
                Ok((database.db.clone(), database.opening))
            })?;
            if let Err(source) = flush(&db) {
                drop(db);
                let error = Error::Database(source);
                store.note_trouble(&error);
                let _ = store.reopen(opening, false);
                return Err(error);
            }
            store.stored_total.fetch_add(records.len() as u64, Ordering::Relaxed);
            Ok(())
        })
        .await
    }

    /// Makes everything written so far durable. After an error some of it may be lost.
    pub fn flush(&self) -> Result<(), Error> {
        let (opening, flushed) = self.once(|database| Ok(flush(&database.db)?));
        if let Err(error) = &flushed {
            self.note_trouble(error);
            let _ = self.reopen(opening, false);
        }
        flushed
    }

    /// As [`Store::flush`], without holding the thread.
    pub async fn flush_async(self: &Arc<Self>) -> Result<(), Error> {
        let store = self.clone();
        waited(move || store.flush()).await
    }

    /// The oldest records of `kind` as one batch; `None` when there are none. Records that are damaged on disk
    /// are thrown away and counted as dropped.
    pub fn outgoing<R: Record + Kinded>(&self, device: &DeviceId) -> Result<Option<Outgoing>, Error> {
        self.outgoing_up_to::<R>(device, usize::MAX)
    }

    /// As [`Store::outgoing`], with at most `records_max` records, at least one.
    pub fn outgoing_up_to<R: Record + Kinded>(
        &self,
        device: &DeviceId,
        records_max: usize,
    ) -> Result<Option<Outgoing>, Error> {
        self.run(false, |database| self.next_batch::<R>(database, device, records_max.max(1)))
    }

    fn next_batch<R: Record + Kinded>(
        &self,
        database: &Database,
        device: &DeviceId,
        records_max: usize,
    ) -> Result<Option<Outgoing>, Error> {
        let mut keys = Vec::new();
        let mut records: Vec<R> = Vec::new();
        let mut sizes = Vec::new();
        for item in database.outbox.scan_prefix([R::KIND.code()]) {
            let (key, value) = item?;
            match ciborium::from_reader::<R, _>(value.as_ref()) {
                Ok(record) => {
                    sizes.push(value.len());
                    if sizes.len() > records_max || outbox::batch_len(sizes.iter().copied()) < sizes.len() {
                        break;
                    }
                    keys.push(key.to_vec());
                    records.push(record);
                }
                Err(_) => self.remove(database, R::KIND, &[key.to_vec()], true)?,
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
                self.remove(database, R::KIND, &keys, true)?;
                Err(Error::Record(error.to_string()))
            }
        }
    }

    /// The batch was taken over by the broker: forgets its records.
    pub fn delivered(&self, outgoing: &Outgoing) -> Result<(), Error> {
        self.run(false, |database| {
            self.remove(database, outgoing.kind, &outgoing.keys, false)?;
            Ok(flush(&database.db)?)
        })
    }

    /// Nobody takes the batch: forgets its records and counts them as dropped.
    pub fn give_up(&self, outgoing: &Outgoing) -> Result<(), Error> {
        self.run(false, |database| self.remove(database, outgoing.kind, &outgoing.keys, true))
    }

    /// Records that wait. Never waits for the disk.
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

    /// Why the database takes no writes; `None` while it does.
    pub fn trouble(&self) -> Option<String> {
        self.reopening().trouble.as_ref().map(|trouble| trouble.reason.clone())
    }

    /// The chunks of a blob that are on disk; `None` where nothing, or something of another shape, is known.
    pub fn chunks(&self, digest: Digest, chunk_bytes: u32, total: u32) -> Result<Option<ChunkSet>, Error> {
        let found = self.run(false, |database| Ok(database.chunks.get(digest.as_bytes())?))?;
        let Some(bytes) = found else { return Ok(None) };
        let Some((head, bitmap)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
        Ok((*head == chunk_bytes.to_le_bytes()).then(|| ChunkSet::from_bytes(total, bitmap)).flatten())
    }

    /// Notes which chunks of a blob are on disk, durably.
    pub fn set_chunks(&self, digest: Digest, chunk_bytes: u32, chunks: &ChunkSet) -> Result<(), Error> {
        let mut bytes = chunk_bytes.to_le_bytes().to_vec();
        bytes.extend(chunks.to_bytes());
        self.run(false, |database| {
            database.chunks.insert(digest.as_bytes(), bytes.as_slice())?;
            Ok(flush(&database.db)?)
        })
    }

    /// Forgets the chunks of a blob.
    pub fn forget_chunks(&self, digest: Digest) -> Result<(), Error> {
        self.run(false, |database| Ok(database.chunks.remove(digest.as_bytes()).map(|_| ())?))
    }

    fn insert<R: Record + Kinded>(&self, database: &Database, records: &[R]) -> Result<(), Error> {
        self.change(|depth| {
            for record in records {
                let dropped = database.make_room(depth, self.outbox_records_max)?;
                self.dropped_total.fetch_add(dropped, Ordering::Relaxed);
                let (key, value) = encode(record)?;
                if database.outbox.insert(key, value)?.is_none() {
                    *depth.of_mut(R::KIND) += 1;
                }
            }
            Ok(())
        })
    }

    fn remove(&self, database: &Database, kind: Kind, keys: &[Vec<u8>], dropped: bool) -> Result<(), Error> {
        self.change(|depth| {
            for key in keys {
                if database.outbox.remove(key)?.is_some() {
                    let count = depth.of_mut(kind);
                    *count = count.saturating_sub(1);
                    if dropped {
                        self.dropped_total.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            Ok(())
        })
    }

    fn commit(&self, database: &Database, entry: &Entry) -> Result<(), Error> {
        let dropped = self.change(|depth| database.commit(entry, depth, self.outbox_records_max))?;
        self.dropped_total.fetch_add(dropped, Ordering::Relaxed);
        flush(&database.db)?;
        self.committed.fetch_max(entry.sequence, Ordering::Release);
        Ok(())
    }

    /// Does `work` on the outbox, one at a time; what it did to the count is seen when it ends, however it does.
    fn change<T>(&self, work: impl FnOnce(&mut Depth) -> Result<T, Error>) -> Result<T, Error> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut depth = self.depth();
        let done = work(&mut depth);
        *self.lock_depth() = depth;
        done
    }

    /// Does `work` on the database; where that fails, opens it again, which is tried at once with `urgent` and else
    /// not too often, and does `work` once more.
    fn run<T>(&self, urgent: bool, work: impl Fn(&Database) -> Result<T, Error>) -> Result<T, Error> {
        match self.once(&work) {
            (opening, Err(error)) if error.is_of_the_database() => {
                self.note_trouble(&error);
                self.reopen(opening, urgent)?;
                let (_, again) = self.once(&work);
                if let Err(error) = &again
                    && error.is_of_the_database()
                {
                    self.note_trouble(error);
                }
                again
            }
            (_, done) => done,
        }
    }

    /// Does `work` on the database that is open, and tells which opening it was.
    fn once<T>(&self, work: impl FnOnce(&Database) -> Result<T, Error>) -> (u64, Result<T, Error>) {
        match self.database().as_ref() {
            Some(database) => (database.opening, work(database)),
            None => (0, Err(self.closed())),
        }
    }

    /// Opens the database again, where nobody has since the opening that failed. Every handle of the old one goes
    /// first: sled locks its file.
    fn reopen(&self, failed: u64, urgent: bool) -> Result<(), Error> {
        let mut open = match self.database.try_write() {
            Ok(open) => open,
            Err(_) if urgent => self.database.write().unwrap_or_else(PoisonError::into_inner),
            Err(_) => return Err(self.closed()),
        };
        if open.as_ref().is_some_and(|database| database.opening != failed) {
            return Ok(());
        }
        let mut reopening = self.reopening();
        if !urgent && reopening.tried_at.is_some_and(|at| at.elapsed() < REOPEN_AFTER) {
            drop(reopening);
            return Err(self.closed());
        }
        reopening.tried_at = Some(Instant::now());
        reopening.openings += 1;
        let opening = reopening.openings;
        let disk_full = reopening.trouble.as_ref().is_some_and(|trouble| trouble.disk_full);
        drop(reopening);
        *open = None;
        if disk_full {
            self.ballast.release();
        }
        let opened = match self.open_database(opening) {
            // Whatever the reason: with more space it may open.
            Err(error) if !matches!(error, Error::Locked { .. }) && self.ballast.release() => {
                self.open_database(opening)
            }
            opened => opened,
        };
        match opened {
            Ok(database) => {
                *open = Some(database);
                if self.reopening().trouble.take().is_some() {
                    tracing::info!("the database is open again");
                }
                Ok(())
            }
            Err(error) => {
                self.note_trouble(&error);
                Err(error)
            }
        }
    }

    /// Opens the database, counts its records, and brings it up to date with the journal.
    fn open_database(&self, opening: u64) -> Result<Database, Error> {
        let database = Database::open(&self.path, opening)?;
        self.change(|depth| {
            *depth = database.count()?;
            Ok(())
        })?;
        let sequence = database.sequence()?;
        self.committed.store(sequence, Ordering::Release);
        let damaged = database.saved().is_err();
        match self.journal.read() {
            Some(entry) if entry.sequence > sequence || damaged => self.commit(&database, &entry)?,
            _ => {}
        }
        Ok(database)
    }

    /// Writes the state file of a database that has a state but none, or an older one, beside it.
    fn write_missing_journal(&self) -> Result<(), Error> {
        let (_, read) = self.once(|database| Ok((database.sequence()?, database.saved())));
        let (sequence, Ok(Some(saved))) = read? else { return Ok(()) };
        let mut progress = self.progress();
        if progress.sequence >= sequence && self.journal.read().is_some() {
            return Ok(());
        }
        *progress = Progress { sequence, events: Vec::new() };
        // Not being able to is no reason not to start: the database has the state.
        if let Err(error) = self.journal.write(&Entry { sequence, saved, events: Vec::new() }) {
            tracing::warn!(error = crate::chain(&error), "there is no second copy of the state");
        }
        Ok(())
    }

    fn note_trouble(&self, error: &Error) {
        // What is closed has its reason noted already.
        if !matches!(error, Error::Closed { .. }) {
            let trouble = Trouble { reason: crate::chain(error), disk_full: error.is_disk_full() };
            self.reopening().trouble = Some(trouble);
        }
    }

    fn closed(&self) -> Error {
        match &self.reopening().trouble {
            Some(Trouble { reason, disk_full }) => {
                Error::Closed { reason: reason.clone(), disk_full: *disk_full }
            }
            None => Error::Closed { reason: "it is being opened again".to_owned(), disk_full: false },
        }
    }

    fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reopening(&self) -> MutexGuard<'_, Reopening> {
        self.reopening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_depth(&self) -> MutexGuard<'_, Depth> {
        self.depth.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `work` gives, which may take as long as the disk does.
///
/// # Panics
/// Where `work` did.
async fn waited<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
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

#[cfg(test)]
mod tests;
