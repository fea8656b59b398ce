//! The fleet's CAs: one issues, those before it are trusted until they are retired.
//!
//! Each is a pair of files, `ca.pem` and `ca.key.pem` for the first, `ca-2.pem` and `ca-2.key.pem` for the one after
//! it. The key is written first and removed last: what has a certificate has its key. `trusted.pem` holds all
//! certificates, for those who take a file.

use super::{Error, Result, ca_params, files};
use rcgen::{Issuer, KeyPair, PublicKeyData};
use shared::{Digest, Timestamp};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};
use trust::est;

/// Most CAs at one time: each is in every handshake and in every message of EST.
pub const AUTHORITIES_MAX: usize = 4;

/// Name of the file of all certificates.
const TRUSTED: &str = "trusted.pem";

/// One CA.
pub(super) struct Authority {
    number: u32,
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) pem: String,
    /// Of the certificate; names the CA.
    pub(super) digest: Digest,
    pub(super) not_after: Timestamp,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("number", &self.number).finish_non_exhaustive()
    }
}

/// All of them, the oldest first; never empty.
#[derive(Debug)]
pub(super) struct Authorities {
    folder: PathBuf,
    first: Authority,
    later: Vec<Authority>,
}

impl Authorities {
    /// Reads what is in `folder`; makes the first one where there was none ever.
    pub(super) fn open(folder: &Path, now: Timestamp) -> Result<Self> {
        let trusted = folder.join(TRUSTED);
        let authorities = match Self::read(folder)? {
            Some(authorities) => authorities,
            // Written last: there was a certificate before it.
            None if trusted.exists() => {
                return Err(Error::Lost { path: certificate_path(folder, 1), remains: vec![trusted] });
            }
            None => {
                let first = Authority::make(folder, 1, now)?;
                Self { folder: folder.to_path_buf(), first, later: Vec::new() }
            }
        };
        authorities.write_trusted()?;
        Ok(authorities)
    }

    /// Reads what is in `folder` and changes nothing there; `None` where there is none.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>> {
        let mut all = numbers(folder)?
            .into_iter()
            .map(|number| Authority::read(folder, number))
            .collect::<Result<Vec<_>>>()?
            .into_iter();
        let Some(first) = all.next() else { return Ok(None) };
        Ok(Some(Self { folder: folder.to_path_buf(), first, later: all.collect() }))
    }

    /// The one that issues to devices.
    pub(super) fn newest(&self) -> &Authority {
        self.later.last().unwrap_or(&self.first)
    }

    /// The one that every device trusts.
    pub(super) fn oldest(&self) -> &Authority {
        &self.first
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Authority> {
        std::iter::once(&self.first).chain(&self.later)
    }

    /// All certificates as PEM, the oldest first.
    pub(super) fn pem(&self) -> String {
        self.iter().map(|authority| authority.pem.as_str()).collect()
    }

    /// File of all certificates.
    pub(super) fn trusted_path(&self) -> PathBuf {
        self.folder.join(TRUSTED)
    }

    /// Adds one, which issues from now on.
    pub(super) fn add(&mut self, now: Timestamp) -> Result<()> {
        if self.later.len() + 1 >= AUTHORITIES_MAX {
            return Err(Error::Authorities);
        }
        self.later.push(Authority::make(&self.folder, self.newest().number + 1, now)?);
        self.write_trusted()
    }

    /// Leaves the newest alone; how many went.
    pub(super) fn retire(&mut self) -> Result<usize> {
        let mut gone = 0;
        while !self.later.is_empty() {
            let first = self.later.remove(0);
            let old = std::mem::replace(&mut self.first, first);
            gone += 1;
            for path in [certificate_path(&self.folder, old.number), key_path(&self.folder, old.number)] {
                fs::remove_file(&path).map_err(|source| Error::File { path, source })?;
            }
        }
        self.write_trusted()?;
        Ok(gone)
    }

    fn write_trusted(&self) -> Result<()> {
        files::write(&self.trusted_path(), self.pem().as_bytes())
    }
}

impl Authority {
    fn make(folder: &Path, number: u32, now: Timestamp) -> Result<Self> {
        let key = files::key_pair(&key_path(folder, number))?;
        let pem = ca_params(number, now)?.self_signed(&key).map_err(Error::Certificate)?.pem();
        files::write(&certificate_path(folder, number), pem.as_bytes())?;
        Self::read(folder, number)
    }

    fn read(folder: &Path, number: u32) -> Result<Self> {
        let path = certificate_path(folder, number);
        let pem =
            files::read(&path)?.map(|bytes| files::text(&path, &bytes)).transpose()?.unwrap_or_default();
        let key_path = key_path(folder, number);
        let Some(key) = files::read_key_pair(&key_path)? else {
            return Err(Error::Lost { path: key_path, remains: vec![path, folder.join(TRUSTED)] });
        };
        let damaged =
            |source: Box<dyn std::error::Error + Send + Sync>| Error::Damaged { path: path.clone(), source };
        let der = est::from_pem(&pem).map_err(|error| damaged(Box::new(error)))?.swap_remove(0);
        let facts = est::facts(&der).map_err(|error| damaged(Box::new(error)))?;
        if facts.public_key != key.subject_public_key_info() {
            return Err(damaged("its key is another one".into()));
        }
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|error| damaged(Box::new(error)))?;
        Ok(Self { number, issuer, pem, digest: Digest::of(&der), not_after: facts.not_after })
    }
}

fn stem(number: u32) -> String {
    if number == 1 { "ca".to_owned() } else { format!("ca-{number}") }
}

fn certificate_path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{}.pem", stem(number)))
}

fn key_path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{}.key.pem", stem(number)))
}

/// Numbers of the CAs that have a certificate, in order.
fn numbers(folder: &Path) -> Result<Vec<u32>> {
    let failed = |source: io::Error| Error::File { path: folder.to_path_buf(), source };
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number = match name.to_str().and_then(|name| name.strip_suffix(".pem")) {
            Some("ca") => Some(1),
            Some(stem) => stem.strip_prefix("ca-").and_then(|number| number.parse().ok()),
            None => None,
        };
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}
