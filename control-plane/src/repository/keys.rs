//! Offline keys as files in a folder, which may be a USB stick that is put in for a minute.

use shared::{
    TeamName, read,
    signing::{PublicKey, SigningKey},
};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};
use zeroize::Zeroizing;

/// Files that hold a key end like this.
const ENDING: &str = "pk8";
/// Largest file that is taken for a key.
const KEY_BYTES_MAX: u64 = 16 * 1024;

/// A role whose keys need not be on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfflineRole {
    Root,
    Targets,
    /// A team that the targets delegate to.
    Delegated(TeamName),
}

impl fmt::Display for OfflineRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Targets => f.write_str("targets"),
            Self::Delegated(name) => write!(f, "{name}"),
        }
    }
}

impl FromStr for OfflineRole {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "root" => Ok(Self::Root),
            "targets" => Ok(Self::Targets),
            name => name.parse().map(Self::Delegated).map_err(|error| format!("{error}")),
        }
    }
}

/// A key file that is none, or a folder that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct Error {
    pub path: PathBuf,
    pub reason: String,
}

/// A folder of keys: `ROLE-NUMBER.pk8`, PKCS#8, one key each.
#[derive(Clone, Debug)]
pub struct KeyFolder(PathBuf);

impl KeyFolder {
    /// The folder at `path`, which need not be there.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The keys of `role` in it, by the names of their files; none where there is no folder.
    ///
    /// # Errors
    /// A folder that cannot be read, a file that holds no key.
    pub fn keys(&self, role: &OfflineRole) -> Result<Vec<SigningKey>, Error> {
        let failed = |path: &Path, reason: String| Error { path: path.to_owned(), reason };
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(&self.0, error.to_string())),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| failed(&self.0, error.to_string()))?.path();
            if is_key_of(&path, role) {
                paths.push(path);
            }
        }
        paths.sort();
        let read = |path: &PathBuf| {
            let bytes = fs::File::open(path).and_then(|file| read::at_most(file, KEY_BYTES_MAX));
            let bytes = Zeroizing::new(bytes.map_err(|error| failed(path, error.to_string()))?);
            SigningKey::from_pkcs8(&bytes).map_err(|error| failed(path, error.to_string()))
        };
        paths.iter().map(read).collect()
    }

    /// Makes a key of `role` in the folder and gives its public half.
    ///
    /// # Errors
    /// A folder or file that cannot be written.
    pub fn make(&self, role: &OfflineRole) -> Result<PublicKey, Error> {
        let failed = |path: &Path, reason: String| Error { path: path.to_owned(), reason };
        let mut folder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut folder, 0o700);
        folder.recursive(true).create(&self.0).map_err(|error| failed(&self.0, error.to_string()))?;
        let bytes = SigningKey::generate_pkcs8().map_err(|error| failed(&self.0, error.to_string()))?;
        let bytes = Zeroizing::new(bytes);
        let key = SigningKey::from_pkcs8(&bytes).map_err(|error| failed(&self.0, error.to_string()))?;
        let number = (1..).find(|number| !self.file(role, *number).exists()).unwrap_or(1);
        let path = self.file(role, number);
        crate::signer::write(&path, &bytes).map_err(|error| failed(&path, error.to_string()))?;
        Ok(key.public().clone())
    }

    fn file(&self, role: &OfflineRole, number: u32) -> PathBuf {
        self.0.join(format!("{role}-{number}.{ENDING}"))
    }
}

/// `ROLE-NUMBER.pk8`.
fn is_key_of(path: &Path, role: &OfflineRole) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let number = name
        .strip_suffix(&format!(".{ENDING}"))
        .and_then(|name| name.strip_prefix(&role.to_string()))
        .and_then(|rest| rest.strip_prefix('-'));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}
