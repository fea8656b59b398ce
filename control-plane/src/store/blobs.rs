//! Blobs as files named by their SHA-256. A file is written beside its place, synced, and renamed into it, so that
//! a name either has its whole content or is not there.

use super::{Error, Result};
use shared::{Digest, digest::Hasher, limits, read};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// Blobs under one folder.
#[derive(Clone, Debug)]
pub struct Blobs {
    folder: PathBuf,
}

/// What unfinished files are called.
const PARTIAL: &str = ".partial";
/// What another server on the folder has not written to for so long it will not finish.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

impl Blobs {
    /// Opens the folder and removes what a crash left unfinished; where this server is not `alone` with it, what another
    /// one may be writing stays.
    pub fn open(folder: &Path, alone: bool) -> Result<Self> {
        let failed = |source| file_error(folder, source);
        fs::create_dir_all(folder).map_err(failed)?;
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let is_partial = path.extension().is_some_and(|extension| extension == &PARTIAL[1..]);
            if is_partial && (alone || is_abandoned(&path)) {
                fs::remove_file(&path).map_err(|source| file_error(&path, source))?;
            }
        }
        Ok(Self { folder: folder.to_path_buf() })
    }

    /// Where the blob is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.to_string())
    }

    /// Takes in all of `source`; gives its digest and size. With no room nothing stays behind.
    pub fn put(&self, mut source: impl Read) -> Result<(Digest, u64)> {
        let partial = self.folder.join(format!("{}{PARTIAL}", uuid::Uuid::now_v7()));
        let written = self.write(&partial, &mut source);
        if written.is_err() {
            // The error that matters is the first one.
            let _ = fs::remove_file(&partial);
        }
        written
    }

    fn write(&self, partial: &Path, source: &mut impl Read) -> Result<(Digest, u64)> {
        let failed = |source| file_error(partial, source);
        let mut file = File::create_new(partial).map_err(failed)?;
        let (mut hasher, mut size_bytes) = (Hasher::new(), 0u64);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error)),
            };
            hasher.update(&buffer[..count]);
            size_bytes += count as u64;
            file.write_all(&buffer[..count]).map_err(failed)?;
        }
        file.sync_all().map_err(failed)?;
        let digest = hasher.finish();
        fs::rename(partial, self.path(&digest)).map_err(failed)?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok((digest, size_bytes))
    }

    /// Size of a blob; `None` if it is not there.
    pub fn size_bytes(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = self.path(digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file_error(&path, error)),
        }
    }

    /// All of a blob, at most [`limits::DELTA_FILE_BYTES_MAX`] bytes, with its digest checked.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>> {
        let path = self.path(digest);
        let failed = |source| file_error(&path, source);
        let file = File::open(&path).map_err(failed)?;
        let bytes = read::at_most(file, limits::DELTA_FILE_BYTES_MAX).map_err(failed)?;
        if Digest::of(&bytes) == *digest {
            Ok(bytes)
        } else {
            Err(failed(io::Error::new(io::ErrorKind::InvalidData, "its bytes are others")))
        }
    }

    /// Chunk `index` of a blob in chunks of `chunk_bytes`; `None` past its end or if there is no such blob.
    pub fn chunk(&self, digest: &Digest, index: u32, chunk_bytes: u32) -> Result<Option<Vec<u8>>> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file_error(&path, error)),
        };
        let failed = |source| file_error(&path, source);
        let offset = u64::from(index) * u64::from(chunk_bytes);
        let rest = file.metadata().map_err(failed)?.len().saturating_sub(offset);
        let Ok(length) = usize::try_from(rest.min(u64::from(chunk_bytes))) else { return Ok(None) };
        if length == 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset).map_err(failed)?;
        Ok(Some(bytes))
    }
}

fn is_abandoned(path: &Path) -> bool {
    let written = fs::metadata(path).and_then(|metadata| metadata.modified());
    written.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > ABANDONED))
}

fn file_error(path: &Path, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full,
        _ => Error::File { path: path.to_path_buf(), source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_comes_back_in_chunks() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path(), true).unwrap();
        let content: Vec<u8> = (0..2500u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let (digest, size_bytes) = blobs.put(&content[..]).unwrap();
        assert_eq!((digest, size_bytes), (Digest::of(&content), 2500));
        let chunks: Vec<_> = (0..4).map(|index| blobs.chunk(&digest, index, 1024).unwrap()).collect();
        assert_eq!(
            chunks.iter().map(|c| c.as_ref().map(Vec::len)).collect::<Vec<_>>(),
            [Some(1024), Some(1024), Some(452), None]
        );
        assert_eq!(chunks.into_iter().flatten().flatten().collect::<Vec<u8>>(), content);
        assert_eq!(blobs.chunk(&Digest::of(b"other"), 0, 1024).unwrap(), None);
        assert_eq!(blobs.read(&digest).unwrap(), content);
        fs::write(blobs.path(&digest), b"others").unwrap();
        assert!(matches!(blobs.read(&digest), Err(Error::File { .. })));
    }

    #[test]
    fn a_source_that_breaks_off_leaves_nothing() {
        struct Broken(u8);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 += 1;
                if self.0 > 3 { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(buffer.len()) }
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path(), true).unwrap();
        assert!(matches!(blobs.put(Broken(0)), Err(Error::Full)));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_crash_left_unfinished_is_removed_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let (digest, _) = Blobs::open(folder.path(), true).unwrap().put(&b"whole"[..]).unwrap();
        fs::write(folder.path().join(format!("0{PARTIAL}")), b"half").unwrap();
        Blobs::open(folder.path(), false).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "another server may be writing it");
        let blobs = Blobs::open(folder.path(), true).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(blobs.size_bytes(&digest).unwrap(), Some(5));
    }
}
