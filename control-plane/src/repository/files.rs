//! Metadata as files in a folder: on the server's disk, or on a USB stick.

use super::{Error as RepositoryError, Repository};
use crate::signer;
use shared::{limits, read, topic::TrustFile};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// Why metadata was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{} failed: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the metadata in {} is not complete: {reason}; restore the folder from a backup", path.display())]
    Incomplete { path: PathBuf, reason: String },
    #[error(transparent)]
    Write(#[from] signer::Error),
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The repository in it; `None` where there is none yet.
    ///
    /// # Errors
    /// Files that cannot be read, are damaged, or do not belong together.
    pub fn read(&self) -> Result<Option<Repository>, Error> {
        let mut files = BTreeMap::new();
        for name in self.names()? {
            let path = self.0.join(&name);
            let failed = |source| Error::File { path: path.clone(), source };
            let file = fs::File::open(&path);
            let bytes = file.and_then(|file| read::at_most(file, limits::METADATA_BYTES_MAX));
            files.insert(name, bytes.map_err(failed)?);
        }
        if files.is_empty() {
            return Ok(None);
        }
        let incomplete =
            |error: RepositoryError| Error::Incomplete { path: self.0.clone(), reason: error.to_string() };
        Repository::from_files(&files).map(Some).map_err(incomplete)
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::File { path: self.0.clone(), source }
    }

    /// Writes what is not there yet, the timestamp last. A crash leaves the state before or the one after, but for a new
    /// root: that one stays.
    pub fn write(&self, repository: &Repository) -> Result<(), Error> {
        fs::create_dir_all(&self.0).map_err(|source| Error::File { path: self.0.clone(), source })?;
        let files = repository.files();
        let (timestamp, others): (Vec<_>, Vec<_>) =
            files.iter().partition(|(name, _)| *name == "timestamp.json");
        for (name, bytes) in others.into_iter().chain(timestamp) {
            let path = self.0.join(name);
            if fs::read(&path).ok().as_ref() != Some(bytes) {
                signer::write(&path, bytes)?;
            }
        }
        Ok(())
    }

    /// Removes metadata that is in force no more, from a folder that holds nothing else.
    pub fn forget_others(&self, repository: &Repository) -> Result<(), Error> {
        let files = repository.files();
        for name in self.names()?.into_iter().filter(|name| !files.contains_key(name)) {
            let path = self.0.join(name);
            fs::remove_file(&path).map_err(|source| Error::File { path, source })?;
        }
        Ok(())
    }

    /// Files of metadata that are there.
    fn names(&self) -> Result<Vec<String>, Error> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(self.failed(source)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(|source| self.failed(source))?.file_name().into_string();
            names.extend(name.ok().filter(|name| TrustFile::of_file(name).is_some()));
        }
        Ok(names)
    }
}
