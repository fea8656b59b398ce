//! The data folder: its layout, its lock, and writing files so that a power cut leaves the old or the new one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Why the data folder is not usable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be made or written.
    #[error("cannot use the data folder {path}; give another with --data")]
    Folder { path: PathBuf, source: io::Error },
    /// Another agent works in it.
    #[error("another agent uses the data folder {path}; stop it, or give another folder with --data")]
    Locked { path: PathBuf },
}

/// The data folder, locked for this process while the value lives.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the folder where it is missing, closes it to other users, and locks it.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let folder = |source| Error::Folder { path: root.to_owned(), source };
        for part in [root.to_owned(), root.join("blobs"), root.join("identity")] {
            make_private(&part).map_err(folder)?;
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(root.join("lock"))
            .map_err(folder)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { root: root.to_owned(), _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => Err(Error::Locked { path: root.to_owned() }),
            Err(fs::TryLockError::Error(source)) => Err(folder(source)),
        }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whole blobs and parts of blobs.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// The private key.
    pub fn key(&self) -> PathBuf {
        self.root.join("identity/key.pem")
    }

    /// Certificate, CA, broker and trusted keys.
    pub fn identity(&self) -> PathBuf {
        self.root.join("identity/identity.json")
    }

    /// Trust metadata that was accepted.
    pub fn trust(&self) -> PathBuf {
        self.root.join("identity/trust.json")
    }

    /// Which profile request was accepted, and a report that waits to be sent.
    pub fn profile(&self) -> PathBuf {
        self.root.join("profile.json")
    }

    /// The database. A copy of the state and the disk space that is held back lie beside it: `store.state.json` and
    /// `store.ballast`.
    pub fn store(&self) -> PathBuf {
        self.root.join("store.sled")
    }
}

/// A folder that its owner alone may look into; one that is there is closed to others.
fn make_private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(PRIVATE).create(path)?;
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        // File systems without modes refuse it; what holds there is up to whoever mounted them.
        if let Err(error) = fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE)) {
            tracing::warn!(path = %path.display(), %error, "other users can look into the data folder");
        }
    }
    Ok(())
}

/// Mode of the data folder and of the folders in it.
const PRIVATE: u32 = 0o700;

/// Makes `file` `size_bytes` long, with its disk space taken where the file system can do that.
pub fn reserve(file: &File, size_bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, size_bytes) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(size_bytes),
        Err(error) => Err(error.into()),
    }
}

/// Writes `bytes` to `path` by way of a temporary file in the same folder: after a crash there is the old content
/// or the new. `mode` are the permission bits.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::other("a file has a folder"))?;
    let name = path.file_name().ok_or_else(|| io::Error::other("a file has a name"))?;
    let temporary = folder.join(format!(".{}.new", name.to_string_lossy()));
    let _ = fs::remove_file(&temporary);
    let written = (|| {
        let mut file = OpenOptions::new().create_new(true).write(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_folder(folder)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Makes renames and removals in `folder` durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Bytes that may still be written where `path` is.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDir::open(folder.path()).unwrap();
        let message = DataDir::open(folder.path()).unwrap_err().to_string();
        assert!(message.contains("another agent") && message.contains("--data"), "{message}");
        drop(first);
        DataDir::open(folder.path()).unwrap();
    }

    #[test]
    fn a_write_replaces_the_content_keeps_the_mode_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        fs::write(folder.path().join(".key.pem.new"), "left over by a power cut").unwrap();
        write_atomically(&path, b"old", 0o600).unwrap();
        write_atomically(&path, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_data_folder_is_closed_to_other_users_also_when_it_was_open() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("new/data");
        let old = folder.path().join("old");
        fs::create_dir(&old).unwrap();
        fs::set_permissions(&old, fs::Permissions::from_mode(0o755)).unwrap();
        for root in [root, old] {
            DataDir::open(&root).unwrap();
            for part in [root.clone(), root.join("blobs"), root.join("identity")] {
                assert_eq!(fs::metadata(&part).unwrap().permissions().mode() & 0o777, 0o700, "{part:?}");
            }
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let message = DataDir::open(&file.join("data")).unwrap_err().to_string();
        assert!(message.contains("file/data") && message.contains("--data"), "{message}");
    }
}
