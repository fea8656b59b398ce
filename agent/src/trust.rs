//! What this device believes: trust metadata that came over MQTT or in a folder, kept on disk, and asked before
//! anything is obeyed or installed.
//!
//! Over MQTT pieces come in any order, see [`Trust::offer`]; what is newest of each role waits until it fits with the
//! others. In a folder all lie side by side, and those are taken that belong together. The time that expiry is measured
//! by is never the system clock (`::trust::clock`).

use crate::{blobs, clock::elapsed_ms, data};
use ::trust::{
    catalogue::{keyring, model_path},
    client::{self, Accepted, Client, SourceError},
    clock::{self, TrustedTime},
};
use serde::{Deserialize, Serialize};
use shared::{
    Timestamp,
    signing::{Keyring, Role, TrustedKey},
    topic::TrustFile,
    wire::{Refusal, VersionRef},
};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Largest metadata of one role.
pub const METADATA_BYTES_MAX: usize = shared::limits::METADATA_BYTES_MAX as usize;
/// Roots ahead of the one in force that wait for those between.
const ROOTS_AHEAD_MAX: u32 = 64;
/// Teams whose metadata is kept.
const TEAMS_MAX: usize = 64;
/// How long pieces may not fit together before it is told.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Largest file of what is believed: all roles, with room.
const SAVED_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Why there is no trust to begin with, or an import failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the trust metadata in {path} is damaged: {reason}; remove the folder and enrol again with a new token"
    )]
    Damaged { path: PathBuf, reason: String },
    #[error("cannot write {path}; free disk space, or give another folder with --data")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {path}: {source}")]
    Import { path: PathBuf, source: io::Error },
    #[error("{path} holds no newer trust metadata that this device accepts: {reason}")]
    Nothing { path: PathBuf, reason: String },
}

/// Why a version is not installed.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    #[error("the offline keys do not vouch for {model} {version} with this bundle: {reason}")]
    NotVouchedFor { model: String, version: String, reason: String },
    #[error("{version} is older than {newest}, which this device had and which is not withdrawn")]
    Older { version: String, newest: String },
}

impl Denied {
    /// The word that the fleet hears.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::NotVouchedFor { .. } => Refusal::NotVouchedFor,
            Self::Older { .. } => Refusal::Older,
        }
    }
}

/// What became of a piece of metadata.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing new.
    Same,
    /// It waits for others.
    Waits,
    /// These roles are newer now.
    Updated(String),
    /// It was refused: one stable word, and the whole reason.
    Refused { word: &'static str, detail: String },
}

#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    accepted: Accepted,
    time: clock::Saved,
    /// Every release key that was ever vouched for: bundles that are on the device stay readable.
    release_keys: Vec<TrustedKey>,
}

/// The device's trust.
#[derive(Debug)]
pub struct Trust {
    path: PathBuf,
    started: Instant,
    inner: Mutex<Inner>,
}

struct Inner {
    client: Client,
    time: TrustedTime,
    inbox: Inbox,
    release_keys: Vec<TrustedKey>,
    /// Since when pieces do not fit together, and why.
    waiting: Option<(Instant, &'static str, String)>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("inbox", &self.inbox.0.len()).finish_non_exhaustive()
    }
}

/// The newest of each piece that came.
#[derive(Debug, Default)]
struct Inbox(BTreeMap<TrustFile, Vec<u8>>);

impl client::Source for Inbox {
    fn get(&self, file: &str, max_bytes: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let found = TrustFile::of_file(file).and_then(|file| self.0.get(&file));
        Ok(found.filter(|bytes| bytes.len() as u64 <= max_bytes).cloned())
    }
}

/// A folder with files of metadata, perhaps several versions of each: those count that are asked for by name.
struct Stick<'a>(&'a Path);

impl client::Source for Stick<'_> {
    fn get(&self, file: &str, max_bytes: u64) -> Result<Option<Vec<u8>>, SourceError> {
        if TrustFile::of_file(file).is_none() {
            return Ok(None);
        }
        match blobs::read_limited(&self.0.join(file), max_bytes) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Err(SourceError::TooLarge),
            Err(error) => Err(SourceError::new(error)),
        }
    }
}

impl Trust {
    /// What was believed last, in the file at `path`; at the first start the root that the device was given.
    ///
    /// # Errors
    /// Neither is to be had.
    pub fn open(path: PathBuf, root: &[u8]) -> Result<Self, Error> {
        let damaged = |reason: String| Error::Damaged { path: path.clone(), reason };
        let inner = match blobs::read_limited(&path, SAVED_BYTES_MAX) {
            Ok(bytes) => {
                let saved: Saved =
                    serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
                let client = Client::restore(&saved.accepted).map_err(|error| damaged(error.to_string()))?;
                Inner::new(client, saved.time, saved.release_keys)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let client = Client::new(root).map_err(|error| damaged(error.to_string()))?;
                Inner::new(client, clock::Saved::default(), Vec::new())
            }
            Err(error) => return Err(damaged(error.to_string())),
        };
        Ok(Self { path, started: Instant::now(), inner: Mutex::new(inner) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a piece of metadata and goes as far with it as the pieces fit.
    ///
    /// # Errors
    /// What was accepted could not be written: it counts until the next start, and is written with what comes next or
    /// within the hour.
    pub fn offer(&self, file: TrustFile, bytes: &[u8]) -> Result<Heard, Error> {
        let mut inner = self.inner();
        let known = match file {
            TrustFile::Root { version } => u64::from(version) <= inner.client.root_version(),
            TrustFile::Delegated(_) | TrustFile::Targets | TrustFile::Snapshot | TrustFile::Timestamp => {
                false
            }
        };
        if known || bytes.is_empty() || inner.inbox.0.get(&file).is_some_and(|has| has == bytes) {
            return Ok(Heard::Same);
        }
        if bytes.len() > METADATA_BYTES_MAX {
            let detail = format!("{file} of {} bytes, at most {METADATA_BYTES_MAX}", bytes.len());
            return Ok(Heard::Refused { word: "too_large", detail });
        }
        if let Err(detail) = inner.has_room_for(&file) {
            return Ok(Heard::Refused { word: "too_many", detail });
        }
        inner.inbox.0.insert(file, bytes.to_vec());
        self.refresh(&mut inner, None)
    }

    /// Takes what is newer from `stick`, or else from what came over MQTT.
    fn refresh(&self, inner: &mut Inner, stick: Option<&Stick<'_>>) -> Result<Heard, Error> {
        let now = inner.time.now(self.uptime_ms());
        let before = inner.client.accepted().clone();
        let source: &dyn client::Source = match stick {
            Some(stick) => stick,
            None => &inner.inbox,
        };
        let refreshed = inner.client.refresh(source, now);
        if refreshed.is_ok() {
            inner.client.keep_delegated(source, now).unwrap_or_else(|error| tracing::debug!(%error));
        }
        let changed = changed(&before, inner.client.accepted());
        inner.waiting = None;
        // What was accepted before an error counts.
        if !changed.is_empty() {
            self.keep(inner)?;
        }
        Ok(match refreshed {
            Ok(_) if changed.is_empty() => Heard::Same,
            Ok(_) => Heard::Updated(changed),
            Err(error @ (client::Error::Missing { .. } | client::Error::Mismatch { .. })) => {
                inner.waiting = Some((Instant::now(), error.reason(), crate::chain(&error)));
                Heard::Waits
            }
            Err(error) => Heard::Refused { word: error.reason(), detail: crate::chain(&error) },
        })
    }

    /// Pieces that have not fitted together for so long that somebody should hear of it; said once.
    pub fn overdue(&self) -> Option<Heard> {
        let mut inner = self.inner();
        let due = inner.waiting.as_ref().is_some_and(|(since, ..)| since.elapsed() >= WAIT_MAX);
        let (_, word, detail) = inner.waiting.take_if(|_| due)?;
        Some(Heard::Refused { word, detail })
    }

    /// Writes what is believed now.
    fn keep(&self, inner: &mut Inner) -> Result<(), Error> {
        let uptime_ms = self.uptime_ms();
        inner.time.observe(inner.client.signed_time(), uptime_ms);
        for key in inner.keyring().keys() {
            if key.role == Role::Release && !inner.release_keys.contains(key) {
                inner.release_keys.push(key.clone());
            }
        }
        inner.forget_old_roots();
        let saved = Saved {
            accepted: inner.client.accepted().clone(),
            time: inner.time.saved(uptime_ms),
            release_keys: inner.release_keys.clone(),
        };
        let write = |source| Error::Write { path: self.path.clone(), source };
        let text = serde_json::to_vec(&saved).map_err(|error| write(io::Error::other(error)))?;
        data::write_atomically(&self.path, &text, 0o600).map_err(write)
    }

    /// Keeps how long the device has been up since it heard a signed time; to be called now and then.
    pub fn keep_time(&self) {
        let mut inner = self.inner();
        if let Err(error) = self.keep(&mut inner) {
            tracing::warn!(error = crate::chain(&error), "the time is not kept");
        }
    }

    /// The keys that wishes and manifests may be signed with.
    pub fn keyring(&self) -> Keyring {
        let inner = self.inner();
        let now = inner.keyring();
        let director = now.keys().iter().filter(|key| key.role == Role::Director);
        Keyring::new(director.chain(&inner.release_keys).cloned())
    }

    /// May `version` be installed on a device that had `newest` of this model?
    ///
    /// # Errors
    /// The offline keys do not vouch for it, or they do for the newer one that was there.
    pub fn allows(&self, version: &VersionRef, newest: Option<&VersionRef>) -> Result<(), Denied> {
        let mut inner = self.inner();
        let not_vouched_for = |reason: String| Denied::NotVouchedFor {
            model: version.model.to_string(),
            version: version.version.to_string(),
            reason,
        };
        let now = inner.time.now(self.uptime_ms());
        inner.vouches(version, now).map_err(not_vouched_for)?;
        match newest {
            // Ids carry the time at which a version was made.
            Some(newest) if newest.version_id > version.version_id && inner.vouches(newest, now).is_ok() => {
                Err(Denied::Older {
                    version: version.version.to_string(),
                    newest: newest.version.to_string(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Takes in the metadata in `folder`, as `edgewright trust export` writes it; gives the roles that are newer now. Of a
    /// folder that was used before, the versions count that its timestamp leads to, and every root after the one in
    /// force.
    ///
    /// # Errors
    /// A folder that cannot be read, or that brings nothing.
    pub fn import(&self, folder: &Path) -> Result<String, Error> {
        let path = folder.to_owned();
        if let Err(source) = fs::read_dir(folder) {
            return Err(Error::Import { path, source });
        }
        let mut inner = self.inner();
        let reason = match self.refresh(&mut inner, Some(&Stick(folder)))? {
            Heard::Updated(roles) => return Ok(roles),
            Heard::Same => "it is what the device has".to_owned(),
            Heard::Refused { detail, .. } => detail,
            Heard::Waits => inner.waiting.take().map_or_else(String::new, |(_, _, detail)| detail),
        };
        Err(Error::Nothing { path, reason })
    }

    fn uptime_ms(&self) -> u64 {
        elapsed_ms(self.started)
    }
}

/// The roles whose metadata is another.
fn changed(before: &Accepted, after: &Accepted) -> String {
    let before: BTreeMap<&str, &[u8]> = before.files().collect();
    let changed = after.files().filter(|(role, bytes)| before.get(role) != Some(bytes));
    changed.map(|(role, _)| role).collect::<Vec<_>>().join(", ")
}

impl Inner {
    fn new(client: Client, time: clock::Saved, release_keys: Vec<TrustedKey>) -> Self {
        let time = TrustedTime::restore(time, 0);
        Self { client, time, inbox: Inbox::default(), release_keys, waiting: None }
    }

    fn keyring(&self) -> Keyring {
        keyring(self.client.targets())
    }

    /// Does the repository name this very bundle?
    fn vouches(&mut self, version: &VersionRef, now: Timestamp) -> Result<(), String> {
        let path = model_path(&version.model, version.version);
        match self.client.target(&path, &self.inbox, now) {
            Ok(Some(target)) if target.sha256 == version.bundle => Ok(()),
            Ok(Some(target)) => Err(format!("they vouch for bundle {}", target.sha256.short())),
            Ok(None) => Err("they do not name it".to_owned()),
            Err(error) => Err(crate::chain(&error)),
        }
    }

    fn has_room_for(&self, file: &TrustFile) -> Result<(), String> {
        match file {
            TrustFile::Root { version } => {
                let (has, ahead) = (self.client.root_version(), u64::from(ROOTS_AHEAD_MAX));
                if u64::from(*version) > has + ahead {
                    return Err(format!("root {version} is more than {ahead} ahead of {has}"));
                }
                Ok(())
            }
            TrustFile::Delegated(_) => {
                let teams =
                    self.inbox.0.keys().filter(|file| matches!(file, TrustFile::Delegated(_))).count();
                if teams >= TEAMS_MAX && !self.inbox.0.contains_key(file) {
                    return Err(format!("metadata of more than {TEAMS_MAX} teams"));
                }
                Ok(())
            }
            TrustFile::Targets | TrustFile::Snapshot | TrustFile::Timestamp => Ok(()),
        }
    }

    fn forget_old_roots(&mut self) {
        let has = self.client.root_version();
        self.inbox
            .0
            .retain(|file, _| !matches!(file, TrustFile::Root { version } if u64::from(*version) <= has));
    }
}

#[cfg(test)]
mod tests;
