//! Disk space held back: a file of no use but to be removed when the disk is full, so that the state can still be
//! written and the database opened again.

use crate::data;
use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

/// Bytes held back. Opening a database writes a snapshot, which this has to have room for.
const BALLAST_BYTES: u64 = 2 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Ballast(PathBuf);

impl Ballast {
    pub(super) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Makes the file where it is missing and as much again stays free.
    pub(super) fn hold(&self) {
        if fs::metadata(&self.0).is_ok_and(|meta| meta.len() == BALLAST_BYTES) {
            return;
        }
        let free_bytes = self.0.parent().and_then(|folder| data::free_bytes(folder).ok());
        if free_bytes.is_none_or(|free_bytes| free_bytes < 2 * BALLAST_BYTES) {
            return;
        }
        if let Err(error) = self.make() {
            tracing::debug!(%error, path = %self.0.display(), "no disk space is held back");
            self.release();
        }
    }

    fn make(&self) -> io::Result<()> {
        let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&self.0)?;
        data::reserve(&file, BALLAST_BYTES)
    }

    /// Gives the space back; `true` where there was some.
    pub(super) fn release(&self) -> bool {
        fs::remove_file(&self.0).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_is_held_back_takes_real_blocks_and_is_given_back_once() {
        let folder = tempfile::tempdir().unwrap();
        let ballast = Ballast::at(folder.path().join("ballast"));
        ballast.hold();
        ballast.hold();
        let meta = fs::metadata(folder.path().join("ballast")).unwrap();
        assert!(meta.blocks() * 512 >= BALLAST_BYTES, "{} blocks", meta.blocks());
        assert!(ballast.release());
        assert!(!ballast.release());
    }
}
