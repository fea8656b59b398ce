//! Blobs as files named by their SHA-256: `DIGEST` once it is whole and verified, `DIGEST.partial` while chunks
//! come. A chunk counts as there only after its bytes are on disk.

use crate::{
    data,
    store::{self, Store},
};
use agent_core::{
    chunks::ChunkSet,
    update::{Base, Fetched},
};
use shared::{
    Digest, digest, limits, read,
    wire::{self, DeltaRef},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

const PARTIAL: &str = "partial";
/// What `stat` counts a file's blocks in, whatever the file system's own are.
const BLOCK_BYTES: u64 = 512;

/// Why a blob is not there or was not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system failed.
    #[error("blob {digest}")]
    Io { digest: Digest, source: io::Error },
    /// The bytes are not the blob.
    #[error("blob {digest}")]
    Corrupt { digest: Digest, source: digest::Error },
    /// A chunk past the end, or of the wrong size.
    #[error("chunk {index} of blob {digest} has {got_bytes} bytes, expected are {expected_bytes}")]
    Chunk { digest: Digest, index: u32, got_bytes: usize, expected_bytes: usize },
    /// A chunk of a blob that is not open.
    #[error("blob {digest} is not being fetched")]
    NotOpen { digest: Digest },
    /// A delta that does not give its file.
    #[error("delta {digest} does not give {to}")]
    Delta { digest: Digest, to: Digest, source: Box<delta::Error> },
    /// Over the limit for what it is read as.
    #[error("blob {digest} of {size_bytes} bytes is over the limit of {limit_bytes} bytes")]
    TooLarge { digest: Digest, size_bytes: u64, limit_bytes: u64 },
    /// Which chunks are there could not be noted.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Error {
    /// Nothing is wrong with the blob: trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Io { .. } | Self::NotOpen { .. } | Self::Store(_) => true,
            Self::Corrupt { .. } | Self::Chunk { .. } | Self::TooLarge { .. } | Self::Delta { .. } => false,
        }
    }

    /// There is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// There is no disk space.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Store(source) => source.is_disk_full(),
            Self::Corrupt { .. }
            | Self::Chunk { .. }
            | Self::NotOpen { .. }
            | Self::TooLarge { .. }
            | Self::Delta { .. } => false,
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

    /// Looks how much of a blob is there, and opens its partial file where it is not whole, with the disk space of
    /// all of it taken. A whole file whose bytes went bad is removed; one that cannot be read is left.
    pub fn open(&self, digest: Digest, size_bytes: u64, chunk_bytes: u32) -> Result<Fetched, Error> {
        let io = |source| Error::Io { digest, source };
        if self.is_whole(digest, size_bytes)? {
            return Ok(Fetched::Whole);
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
                self.store.forget_chunks(digest)?;
                ChunkSet::empty(total)
            }
        };
        if size_bytes > 0 {
            if let Err(source) = data::reserve(&file, size_bytes) {
                if present.count() == 0 {
                    self.discard(digest);
                }
                return Err(io(source));
            }
        }
        file.sync_all().map_err(io)?;
        let fetched = Fetched::Part(present.clone());
        self.lock().insert(digest, Partial { file, size_bytes, chunk_bytes, present });
        Ok(fetched)
    }

    /// Is the file there, with its bytes? One whose bytes went bad is removed.
    fn is_whole(&self, digest: Digest, size_bytes: u64) -> Result<bool, Error> {
        let io = |source| Error::Io { digest, source };
        match File::open(self.path(digest)) {
            Ok(file) => match digest::verify(file, digest, size_bytes) {
                Ok(()) => Ok(true),
                Err(digest::Error::Io(source)) => Err(io(source)),
                Err(_) => fs::remove_file(self.path(digest)).map_err(io).map(|()| false),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io(error)),
        }
    }

    /// What there is to make a file from: itself, or the file that a delta to it starts from.
    pub fn look_for_base(&self, digest: Digest, size_bytes: u64, from: Digest) -> Result<Base, Error> {
        if self.is_whole(digest, size_bytes)? {
            return Ok(Base::Whole);
        }
        // Its digest is checked when the delta is applied.
        Ok(if self.path(from).is_file() { Base::There } else { Base::Missing })
    }

    /// Makes the file of `size_bytes` that a delta gives, and removes the delta, which is of no more use whatever its
    /// file came to. A cut at any point leaves the whole file, or the delta to make it from again.
    ///
    /// # Errors
    /// The delta, or the file that it starts from, is not there or not what it should be. After an error of the disk
    /// the delta is left.
    pub fn apply_delta(&self, delta: &DeltaRef, size_bytes: u64) -> Result<(), Error> {
        let made = self.make_from(delta, size_bytes);
        if made.as_ref().err().is_none_or(|error| !error.is_transient() || error.is_missing()) {
            let digest = delta.delta;
            match fs::remove_file(self.path(digest)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%digest, %error, "a delta that nobody needs could not be removed");
                }
                _ => {}
            }
        }
        made
    }

    fn make_from(&self, delta: &DeltaRef, size_bytes: u64) -> Result<(), Error> {
        let digest = delta.to;
        let limit_bytes = limits::DELTA_FILE_BYTES_MAX;
        if size_bytes > limit_bytes {
            return Err(Error::TooLarge { digest, size_bytes, limit_bytes });
        }
        let refused = |source| Error::Delta { digest: delta.delta, to: digest, source: Box::new(source) };
        let difference = self.read(delta.delta, delta.bytes)?;
        // `delta::apply` holds both files to what the header says: here the header is held to what was asked for, so that
        // each file is hashed once.
        let (header, _) = delta::Header::read(&difference).map_err(refused)?;
        if header.old != delta.from {
            return Err(refused(delta::Error::OtherBase { expected: header.old, got: delta.from }));
        }
        if header.new != digest {
            let source = digest::Error::Mismatch { expected: digest, got: header.new };
            return Err(Error::Corrupt { digest, source });
        }
        if header.new_bytes != size_bytes {
            let source = digest::Error::TooShort { got_bytes: header.new_bytes, expected_bytes: size_bytes };
            return Err(Error::Corrupt { digest, source });
        }
        let old = self.read_unverified(delta.from, limit_bytes)?;
        let limits = delta::Limits { old_bytes_max: limit_bytes, new_bytes_max: size_bytes };
        let new = delta::apply(&old, &difference, limits).map_err(refused)?;
        drop((old, difference));
        // What has come of the file itself is of no more use.
        self.discard(digest);
        let io = |source| Error::Io { digest, source };
        let path = self.partial_path(digest);
        let written = File::create(&path).and_then(|mut file| {
            data::reserve(&file, size_bytes)?;
            file.write_all(&new)?;
            file.sync_all()
        });
        if let Err(source) = written {
            self.discard(digest);
            return Err(io(source));
        }
        fs::rename(&path, self.path(digest)).map_err(io)?;
        data::sync_folder(&self.folder).map_err(io)
    }

    /// What is there of a blob that was opened or is whole; none where its partial file is gone.
    pub fn fetched(&self, digest: Digest) -> Option<Fetched> {
        let part = self.lock().get(&digest).map(|partial| Fetched::Part(partial.present.clone()));
        part.or_else(|| self.path(digest).exists().then_some(Fetched::Whole))
    }

    /// Writes chunks of one blob and gives their indices. On return their bytes are on disk and noted; one that was
    /// there before is not written again.
    pub fn write(&self, digest: Digest, chunks: &[(u32, &[u8])]) -> Result<Vec<u32>, Error> {
        let io = |source| Error::Io { digest, source };
        let mut partials = self.lock();
        let partial = partials.get_mut(&digest).ok_or(Error::NotOpen { digest })?;
        let mut any_written = false;
        let mut present = partial.present.clone();
        for &(index, bytes) in chunks {
            let expected_bytes = partial.chunk_len(index);
            if bytes.len() != expected_bytes || expected_bytes == 0 {
                return Err(Error::Chunk { digest, index, got_bytes: bytes.len(), expected_bytes });
            }
            if present.insert(index) {
                let offset = u64::from(index) * u64::from(partial.chunk_bytes);
                partial.file.write_all_at(bytes, offset).map_err(io)?;
                any_written = true;
            }
        }
        if any_written {
            partial.file.sync_data().map_err(io)?;
            self.store.set_chunks(digest, partial.chunk_bytes, &present)?;
            partial.present = present;
        }
        Ok(chunks.iter().map(|(index, _)| *index).collect())
    }

    /// Is a partial file of the blob open?
    pub fn is_open(&self, digest: Digest) -> bool {
        self.lock().contains_key(&digest)
    }

    /// Blobs of which partial files are open.
    pub fn open_digests(&self) -> Vec<Digest> {
        self.lock().keys().copied().collect()
    }

    /// All chunks have come: checks the digest and gives the file its name.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the bytes have another digest; they are removed. After any other error they are
    /// left as they are.
    pub fn finish(&self, digest: Digest, size_bytes: u64) -> Result<(), Error> {
        let io = |source| Error::Io { digest, source };
        let verify = |file: &File| match digest::verify(file, digest, size_bytes) {
            Ok(()) => Ok(()),
            Err(digest::Error::Io(source)) => Err(io(source)),
            Err(source) => Err(Error::Corrupt { digest, source }),
        };
        self.lock().remove(&digest);
        let path = self.partial_path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            // Finished before a power cut, or for another slot.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return verify(&File::open(self.path(digest)).map_err(io)?);
            }
            Err(error) => return Err(io(error)),
        };
        if let Err(error) = verify(&file) {
            if matches!(error, Error::Corrupt { .. }) {
                self.discard(digest);
            }
            return Err(error);
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
            tracing::warn!(%digest, error = crate::chain(&error), "the chunks of a removed blob are still noted");
        }
    }

    /// Reads a whole blob of at most `limit_bytes` and checks its digest.
    pub fn read(&self, digest: Digest, limit_bytes: u64) -> Result<Vec<u8>, Error> {
        let bytes = self.read_unverified(digest, limit_bytes)?;
        let got = Digest::of(&bytes);
        if got != digest {
            return Err(Error::Corrupt { digest, source: digest::Error::Mismatch { expected: digest, got } });
        }
        Ok(bytes)
    }

    fn read_unverified(&self, digest: Digest, limit_bytes: u64) -> Result<Vec<u8>, Error> {
        let io = |source| Error::Io { digest, source };
        let file = File::open(self.path(digest)).map_err(io)?;
        let size_bytes = file.metadata().map_err(io)?.len();
        if size_bytes > limit_bytes {
            return Err(Error::TooLarge { digest, size_bytes, limit_bytes });
        }
        read::at_most(file, limit_bytes).map_err(io)
    }

    /// Do `files` fit on the disk beside `claimed`, which others have been promised room for, and `reserve_bytes`?
    /// What is there of them already needs no room. Otherwise the text says what is needed and what is free.
    pub fn check_space(
        &self,
        files: &[(Digest, u64)],
        claimed: &[(Digest, u64)],
        reserve_bytes: u64,
    ) -> Result<(), String> {
        let missing = self.missing_bytes(files.iter().copied().collect());
        if missing == 0 {
            return Ok(());
        }
        let others = claimed.iter().filter(|(digest, _)| files.iter().all(|(mine, _)| mine != digest));
        let claimed = self.missing_bytes(others.copied().collect());
        let free =
            data::free_bytes(&self.folder).map_err(|error| format!("free disk space is unknown: {error}"))?;
        if missing.saturating_add(claimed).saturating_add(reserve_bytes) <= free {
            return Ok(());
        }
        let folder = self.folder.display();
        Err(format!(
            "{missing} bytes, {claimed} for other slots and a reserve of {reserve_bytes} are needed, {free} are \
             free in {folder}; free some, or lower disk_reserve_bytes"
        ))
    }

    /// Bytes that `files` still take from the disk.
    fn missing_bytes(&self, files: BTreeMap<Digest, u64>) -> u64 {
        let missing = files.into_iter().map(|(digest, size_bytes)| {
            if self.path(digest).exists() {
                return 0;
            }
            let held_bytes = fs::metadata(self.partial_path(digest))
                .map_or(0, |meta| meta.blocks().saturating_mul(BLOCK_BYTES));
            size_bytes.saturating_sub(held_bytes)
        });
        missing.fold(0, u64::saturating_add)
    }

    /// Free bytes where the blobs are.
    pub fn free_bytes(&self) -> Option<u64> {
        data::free_bytes(&self.folder).ok()
    }

    /// Removes the partial files of all blobs, open or not, and gives those that were open.
    pub fn discard_all(&self) -> Vec<Digest> {
        let open = self.open_digests();
        for (digest, partial) in self.listed() {
            if partial {
                self.discard(digest);
            }
        }
        open
    }

    /// Removes every blob, whole or partial, that is neither in `keep` nor open.
    pub fn collect(&self, keep: &BTreeSet<Digest>) {
        for (digest, partial) in self.listed() {
            if keep.contains(&digest) || self.is_open(digest) {
                continue;
            }
            if partial {
                self.discard(digest);
            } else if let Err(error) = fs::remove_file(self.path(digest)) {
                tracing::warn!(%digest, %error, "a blob that nobody needs could not be removed");
            }
        }
    }

    /// The blobs in the folder, each with whether it is a partial one.
    fn listed(&self) -> Vec<(Digest, bool)> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(folder = %self.folder.display(), %error, "blobs could not be listed");
                return Vec::new();
            }
        };
        let blob = |entry: fs::DirEntry| {
            let name = entry.file_name();
            let name = name.to_str()?;
            match name.strip_suffix(PARTIAL).and_then(|stem| stem.strip_suffix('.')) {
                Some(stem) => Some((stem.parse().ok()?, true)),
                None => Some((name.parse().ok()?, false)),
            }
        };
        entries.flatten().filter_map(blob).collect()
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
    read::at_most(File::open(path)?, limit_bytes)
}

#[cfg(test)]
mod tests;
