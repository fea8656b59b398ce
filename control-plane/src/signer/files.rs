//! Keys in files that only their owner reads. What is read of a private key is wiped from memory.

use super::{Error, Result, secret};
use rcgen::KeyPair;
use shared::signing::{PublicKey, SigningKey};
use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};
use trust::oms::ModelKey;
use zeroize::Zeroizing;

/// Writes a file whole or not at all, readable by its owner only.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_as(path, bytes, 0o600)
}

/// The same, readable by everybody.
pub fn write_public(path: &Path, bytes: &[u8]) -> Result<()> {
    write_as(path, bytes, 0o644)
}

fn write_as(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let failed = |source| Error::File { path: path.to_path_buf(), source };
    let partial = path.with_extension("partial");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)
        .map_err(failed)?;
    // Whatever the process's mask says of fresh files.
    file.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&partial, path).map_err(failed)?;
    // The parent of a bare name is the empty path, which stands for this folder.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// What a file holds; none where there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { path: path.to_path_buf(), source }),
    }
}

/// The same bytes as text.
pub(super) fn text(path: &Path, bytes: &[u8]) -> Result<String> {
    std::str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|source| Error::Damaged { path: path.to_path_buf(), source: Box::new(source) })
}

/// The key pair of a file; none where there is no such file.
pub(super) fn read_key_pair(path: &Path) -> Result<Option<KeyPair>> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    KeyPair::from_pem(&Zeroizing::new(text(path, &bytes)?))
        .map(Some)
        .map_err(|source| Error::Damaged { path: path.to_path_buf(), source: Box::new(source) })
}

/// The same, made where there is none.
pub(super) fn key_pair(path: &Path) -> Result<KeyPair> {
    match read_key_pair(path)? {
        Some(pair) => Ok(pair),
        None => {
            let pair = KeyPair::generate().map_err(Error::Certificate)?;
            write(path, Zeroizing::new(pair.serialize_pem()).as_bytes())?;
            Ok(pair)
        }
    }
}

/// The content of a key file, made where there is none.
fn key_file(path: &Path, make: impl FnOnce() -> Result<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>> {
    match read(path)? {
        Some(bytes) => Ok(bytes),
        None => {
            let bytes = Zeroizing::new(make()?);
            write(path, &bytes)?;
            Ok(bytes)
        }
    }
}

/// The signing key of a file, made where there is none.
pub(super) fn signing_key(path: &Path) -> Result<SigningKey> {
    let bytes = key_file(path, || SigningKey::generate_pkcs8().map_err(Error::Sign))?;
    SigningKey::from_pkcs8(&bytes)
        .map_err(|source| Error::Damaged { path: path.to_path_buf(), source: Box::new(source) })
}

/// The key of models' signatures, made where there is none.
pub(super) fn model_key(path: &Path) -> Result<ModelKey> {
    let bytes = key_file(path, || ModelKey::generate_pkcs8().map_err(Error::Model))?;
    ModelKey::from_pkcs8(&bytes)
        .map_err(|source| Error::Damaged { path: path.to_path_buf(), source: Box::new(source) })
}

/// The public keys of a file; none where there is no file.
pub(super) fn public_keys(path: &Path) -> Result<Vec<PublicKey>> {
    let damaged = |source| Error::Damaged { path: path.to_path_buf(), source: Box::new(source) };
    let bytes = read(path)?;
    bytes.map_or(Ok(Vec::new()), |bytes| serde_json::from_slice(&bytes).map_err(damaged))
}

/// Writes public keys.
pub(super) fn write_public_keys(path: &Path, keys: &[PublicKey]) -> Result<()> {
    let text = serde_json::to_vec_pretty(keys);
    let failed = |source: serde_json::Error| Error::File { path: path.to_path_buf(), source: source.into() };
    write(path, &text.map_err(failed)?)
}

/// The secret of a file, made where there is none.
pub(super) fn secret_text(path: &Path) -> Result<Zeroizing<String>> {
    match read(path)? {
        Some(bytes) => Ok(Zeroizing::new(text(path, &bytes)?)),
        None => {
            let token = Zeroizing::new(secret()?);
            write(path, token.as_bytes())?;
            Ok(token)
        }
    }
}
