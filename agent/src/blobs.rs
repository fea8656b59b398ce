//! Blobs as files named by their SHA-256: `DIGEST` once it is whole and verified, `DIGEST.partial` while chunks
//! come. A chunk counts as there only after its bytes are on disk.

use crate::{
    data,
    store::{self, Store},
};
use agent_core::{chunks::ChunkSet, update::Fetched};
use shared::{Digest, digest, limits, wire};
use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

const PARTIAL: &str = "partial";

/// Why a blob is not there or was not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system failed.
    #[error("blob {digest}: {source}")]
    Io { digest: Digest, source: io::Error },
    /// The bytes are not the blob.
    #[error("blob {digest}: {source}")]
    Corrupt { digest: Digest, source: digest::Error },
    /// A chunk past the end, or of the wrong size.
    #[error("chunk {index} of blob {digest} has {got_bytes} bytes, expected are {expected_bytes}")]
    Chunk { digest: Digest, index: u32, got_bytes: usize, expected_bytes: usize },
    /// A chunk of a blob that is not open.
    #[error("blob {digest} is not being fetched")]
    NotOpen { digest: Digest },
    /// Over the limit for what it is read as.
    #[error("blob {digest} of {size_bytes} bytes is over the limit of {limit_bytes} bytes")]
    TooLarge { digest: Digest, size_bytes: u64, limit_bytes: u64 },
    /// Which chunks are there could not be noted.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Error {
    /// There is no disk space.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Store(source) => source.is_disk_full(),
            Self::Corrupt { .. } | Self::Chunk { .. } | Self::NotOpen { .. } | Self::TooLarge { .. } => false,
        }
    }
}

#[derive(Debug)]
struct Partial {
    file: File,
    size_bytes: u64,
    chunk_bytes: u32,
    present: ChunkSet,
}

/// The blobs of one device.
#[derive(Debug)]
pub struct Blobs {
    folder: PathBuf,
    store: Arc<Store>,
    partials: Mutex<HashMap<Digest, Partial>>,
}

impl Blobs {
    /// The blobs in `folder`, which exists.
    pub fn new(folder: PathBuf, store: Arc<Store>) -> Self {
        Self { folder, store, partials: Mutex::new(HashMap::new()) }
    }

    /// Looks how much of a blob is there, and opens its partial file where it is not whole. A whole file whose
    /// bytes went bad is removed.
    pub fn open(&self, digest: Digest, size_bytes: u64, chunk_bytes: u32) -> Result<Fetched, Error> {
        let io = |source| Error::Io { digest, source };
        if let Ok(file) = File::open(self.path(digest)) {
            if digest::verify(file, digest, size_bytes).is_ok() {
                return Ok(Fetched::Whole);
            }
            fs::remove_file(self.path(digest)).map_err(io)?;
        }
        let total = wire::chunk_count(size_bytes, chunk_bytes);
        let path = self.partial_path(digest);
        let noted = self.store.chunks(digest, chunk_bytes, total)?;
        let there = fs::metadata(&path).is_ok_and(|meta| meta.len() == size_bytes);
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).map_err(io)?;
        let present = match noted {
            Some(present) if there => present,
            _ => {
                file.set_len(0).map_err(io)?;
                file.set_len(size_bytes).map_err(io)?;
                file.sync_all().map_err(io)?;
                self.store.forget_chunks(digest)?;
                ChunkSet::empty(total)
            }
        };
        let fetched = Fetched::Part(present.clone());
        self.lock().insert(digest, Partial { file, size_bytes, chunk_bytes, present });
        Ok(fetched)
    }

    /// Writes chunks of one blob and gives the indices that are new. On return their bytes are on disk and noted.
    /// A chunk that is there already is left out.
    pub fn write(&self, digest: Digest, chunks: &[(u32, &[u8])]) -> Result<Vec<u32>, Error> {
        let io = |source| Error::Io { digest, source };
        let mut partials = self.lock();
        let partial = partials.get_mut(&digest).ok_or(Error::NotOpen { digest })?;
        let mut written = Vec::new();
        let mut present = partial.present.clone();
        for &(index, bytes) in chunks {
            let expected_bytes = partial.chunk_len(index);
            if bytes.len() != expected_bytes || expected_bytes == 0 {
                return Err(Error::Chunk { digest, index, got_bytes: bytes.len(), expected_bytes });
            }
            if present.insert(index) {
                let offset = u64::from(index) * u64::from(partial.chunk_bytes);
                partial.file.write_all_at(bytes, offset).map_err(io)?;
                written.push(index);
            }
        }
        if !written.is_empty() {
            partial.file.sync_data().map_err(io)?;
            self.store.set_chunks(digest, partial.chunk_bytes, &present)?;
            partial.present = present;
        }
        Ok(written)
    }

    /// Is a partial file of the blob open?
    pub fn is_open(&self, digest: Digest) -> bool {
        self.lock().contains_key(&digest)
    }

    /// Blobs of which partial files are open.
    pub fn open_digests(&self) -> Vec<Digest> {
        self.lock().keys().copied().collect()
    }

    /// All chunks have come: checks the digest and gives the file its name. Bytes with another digest are removed.
    pub fn finish(&self, digest: Digest, size_bytes: u64) -> Result<(), Error> {
        let io = |source| Error::Io { digest, source };
        self.lock().remove(&digest);
        let path = self.partial_path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            // Finished before a power cut.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = File::open(self.path(digest)).map_err(io)?;
                return digest::verify(file, digest, size_bytes)
                    .map_err(|source| Error::Corrupt { digest, source });
            }
            Err(error) => return Err(io(error)),
        };
        let verified = digest::verify(&file, digest, size_bytes);
        if let Err(source) = verified {
            self.discard(digest);
            return Err(match source {
                digest::Error::Io(source) => io(source),
                source => Error::Corrupt { digest, source },
            });
        }
        file.sync_all().map_err(io)?;
        fs::rename(&path, self.path(digest)).map_err(io)?;
        data::sync_folder(&self.folder).map_err(io)?;
        self.store.forget_chunks(digest)?;
        Ok(())
    }

    /// Removes what has come of a blob that is not whole.
    pub fn discard(&self, digest: Digest) {
        self.lock().remove(&digest);
        if let Err(error) = fs::remove_file(self.partial_path(digest)) {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(%digest, %error, "a partial blob could not be removed");
            }
        }
        if let Err(error) = self.store.forget_chunks(digest) {
            tracing::warn!(%digest, %error, "the chunks of a removed blob are still noted");
        }
    }

    /// Reads a whole blob of at most `limit_bytes` and checks its digest.
    pub fn read(&self, digest: Digest, limit_bytes: u64) -> Result<Vec<u8>, Error> {
        let io = |source| Error::Io { digest, source };
        let file = File::open(self.path(digest)).map_err(io)?;
        let size_bytes = file.metadata().map_err(io)?.len();
        if size_bytes > limit_bytes {
            return Err(Error::TooLarge { digest, size_bytes, limit_bytes });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size_bytes).unwrap_or(0));
        file.take(limit_bytes).read_to_end(&mut bytes).map_err(io)?;
        let got = Digest::of(&bytes);
        if got != digest {
            return Err(Error::Corrupt { digest, source: digest::Error::Mismatch { expected: digest, got } });
        }
        Ok(bytes)
    }

    /// Bytes of `files` that are not there yet and do not fit beside `reserve_bytes`; the text says so.
    pub fn check_space(&self, files: &[(Digest, u64)], reserve_bytes: u64) -> Result<(), String> {
        let missing: u64 = files
            .iter()
            .filter(|(digest, _)| !self.path(*digest).exists())
            .map(|(_, size_bytes)| size_bytes)
            .fold(0, |sum, &size_bytes| sum.saturating_add(size_bytes));
        if missing == 0 {
            return Ok(());
        }
        let free =
            data::free_bytes(&self.folder).map_err(|error| format!("free disk space is unknown: {error}"))?;
        if missing.saturating_add(reserve_bytes) <= free {
            return Ok(());
        }
        let folder = self.folder.display();
        Err(format!(
            "{missing} bytes and a reserve of {reserve_bytes} are needed, {free} are free in {folder}"
        ))
    }

    /// Free bytes where the blobs are.
    pub fn free_bytes(&self) -> Option<u64> {
        data::free_bytes(&self.folder).ok()
    }

    /// Removes every whole blob, and with `partials` every partial one, that is neither in `keep` nor open.
    pub fn collect(&self, keep: &BTreeSet<Digest>, partials: bool) {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(folder = %self.folder.display(), %error, "blobs could not be listed");
                return;
            }
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let (stem, partial) = match name.strip_suffix(PARTIAL).and_then(|stem| stem.strip_suffix('.')) {
                Some(stem) => (stem, true),
                None => (name.as_ref(), false),
            };
            let Ok(digest) = stem.parse::<Digest>() else { continue };
            if keep.contains(&digest) || self.is_open(digest) || (partial && !partials) {
                continue;
            }
            if partial {
                self.discard(digest);
            } else if let Err(error) = fs::remove_file(entry.path()) {
                tracing::warn!(%digest, %error, "a blob that nobody needs could not be removed");
            }
        }
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(digest.to_string())
    }

    fn partial_path(&self, digest: Digest) -> PathBuf {
        self.folder.join(format!("{digest}.{PARTIAL}"))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Partial>> {
        self.partials.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Partial {
    /// Bytes of chunk `index`, zero past the end.
    fn chunk_len(&self, index: u32) -> usize {
        let start = u64::from(index) * u64::from(self.chunk_bytes);
        let left = self.size_bytes.saturating_sub(start).min(u64::from(self.chunk_bytes));
        usize::try_from(left).unwrap_or(0)
    }
}

/// Largest file that is read into memory at once.
pub const READ_BYTES_MAX: u64 = limits::BUNDLE_FILE_BYTES_MAX;

/// Reads a file of at most `limit_bytes`.
pub fn read_limited(path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("over the limit of {limit_bytes} bytes"),
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
