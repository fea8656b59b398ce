//! A new key of the server on its way: beside the one in force until metadata that names it is written, then in its
//! place. A crash in between is put right by the next start, see [`settle`].

use super::super::{failed, usage};
use crate::{
    app::now,
    cli::{Failure, Outcome},
    repository::{self, Folder, Repository},
    signer,
};
use shared::signing::{PublicKey, Role, SigningKey, TrustedKey};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};
use trust::catalogue::key_path;
use zeroize::Zeroizing;

/// A role whose key is on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnlineRole {
    Snapshot,
    Timestamp,
    Director,
    Release,
}

impl OnlineRole {
    pub(super) const ALL: [Self; 4] = [Self::Snapshot, Self::Timestamp, Self::Director, Self::Release];

    /// As in the name of its key's file.
    fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Timestamp => "timestamp",
            Self::Director => "director",
            Self::Release => "release",
        }
    }

    /// Does the metadata have `key` sign for this role?
    fn is_named(self, repository: &Repository, key: &PublicKey) -> Result<bool, repository::Error> {
        let is_trusted = |role| {
            let path = key_path(&TrustedKey { role, key: key.clone() });
            repository.targets().map(|targets| targets.targets.contains_key(&path))
        };
        match self {
            Self::Snapshot => Ok(repository.root()?.snapshot.keys.contains(key)),
            Self::Timestamp => Ok(repository.root()?.timestamp.keys.contains(key)),
            Self::Director => is_trusted(Role::Director),
            Self::Release => is_trusted(Role::Release),
        }
    }
}

/// The new key of a role, `NAME.next.pk8`.
pub(super) struct OnlineKey {
    role: OnlineRole,
    folder: PathBuf,
    pub(super) key: SigningKey,
}

impl OnlineKey {
    /// Makes one.
    pub(super) fn make(data: &Path, role: OnlineRole) -> Result<Self, Failure> {
        let folder = data.join("keys");
        let bytes = Zeroizing::new(SigningKey::generate_pkcs8().map_err(|error| failed(&error))?);
        let key = SigningKey::from_pkcs8(&bytes).map_err(|error| failed(&error))?;
        signer::write(&next_path(&folder, role), &bytes).map_err(|error| failed(&error))?;
        Ok(Self { role, folder, key })
    }

    /// The one that a rotation has left; none where none has.
    fn left(data: &Path, role: OnlineRole) -> Result<Option<Self>, Failure> {
        let folder = data.join("keys");
        let path = next_path(&folder, role);
        let Some(bytes) = read(&path)? else { return Ok(None) };
        let key = SigningKey::from_pkcs8(&bytes)
            .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
        Ok(Some(Self { role, folder, key }))
    }

    /// Gives it the place of the old key, which stays beside it. Begun again, it ends the same.
    pub(super) fn put_in_place(&self) -> Outcome {
        let (place, next) = (path(&self.folder, self.role), next_path(&self.folder, self.role));
        if let Some(old) = read(&place)? {
            if self.role == OnlineRole::Release {
                signer::retire_release_key(&self.folder).map_err(|error| failed(&error))?;
            }
            let kept = place.with_extension(format!("{}.old", now().0));
            signer::write(&kept, &old).map_err(|error| failed(&error))?;
        }
        // At no moment is there no key: the next start would make another.
        fs::rename(&next, &place)
            .and_then(|()| File::open(&self.folder)?.sync_all())
            .map_err(|error| Failure::Failed(format!("{}: {error}", next.display())))
    }

    fn drop_it(&self) -> Outcome {
        let next = next_path(&self.folder, self.role);
        fs::remove_file(&next).map_err(|error| Failure::Failed(format!("{}: {error}", next.display())))
    }
}

/// Ends rotations that were cut short, in the folder of a server that does not run. A new key takes its place where
/// the metadata names it, for devices obey no other; where it does not, nobody knows the key, and it goes.
pub(in crate::cli) fn settle(data: &Path) -> Outcome {
    for role in OnlineRole::ALL {
        let Some(left) = OnlineKey::left(data, role)? else { continue };
        let repository = Folder::at(data.join("trust")).read().map_err(|error| usage(&error))?;
        let named = repository.map(|repository| role.is_named(&repository, left.key.public()));
        let role = role.name();
        if named.transpose().map_err(|error| failed(&error))?.unwrap_or(false) {
            left.put_in_place()?;
            tracing::warn!(
                role,
                "a rotation of keys was cut short: the metadata names the new key, which is in its place"
            );
        } else {
            left.drop_it()?;
            tracing::warn!(role, "a rotation of keys was cut short before it counted; rotate again");
        }
    }
    Ok(())
}

fn path(folder: &Path, role: OnlineRole) -> PathBuf {
    folder.join(format!("{}.pk8", role.name()))
}

fn next_path(folder: &Path, role: OnlineRole) -> PathBuf {
    folder.join(format!("{}.next.pk8", role.name()))
}

fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::Failed(format!("{}: {error}", path.display()))),
    }
}
