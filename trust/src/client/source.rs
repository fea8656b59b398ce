//! Where metadata comes from, and how much of it is taken.

use super::Error;
use shared::limits::{METADATA_BYTES_MAX, METADATA_ROLES_MAX, METADATA_ROOTS_MAX};
use std::fmt::Write;

/// Where metadata comes from: retained messages, a server, a USB stick.
pub trait Source {
    /// The file named `file`, such as `2.root.json`, `timestamp.json`, `5.snapshot.json` or `7.team.json`; `None`
    /// where there is none (yet). At most `max_bytes` of it are wanted: a longer file may be refused, and is
    /// refused by the reader.
    ///
    /// # Errors
    /// It cannot be said whether there is such a file.
    fn get(&self, file: &str, max_bytes: u64) -> Result<Option<Vec<u8>>, SourceError>;
}

/// Why a source gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is more than was wanted.
    #[error("it is longer than was asked for")]
    TooLarge,
    /// Anything else.
    #[error("the source failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl SourceError {
    /// A failure because of `error`.
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Failed(error.into())
    }
}

/// How much is taken. The default is for a device that hears retained messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub root_bytes: u64,
    pub timestamp_bytes: u64,
    pub snapshot_bytes: u64,
    /// Of the top level and of each delegated role.
    pub targets_bytes: u64,
    /// Roots that one refresh follows.
    pub roots: u64,
    /// Roles that the search for one target reads.
    pub roles: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            root_bytes: METADATA_BYTES_MAX,
            timestamp_bytes: METADATA_BYTES_MAX,
            snapshot_bytes: METADATA_BYTES_MAX,
            targets_bytes: METADATA_BYTES_MAX,
            roots: METADATA_ROOTS_MAX,
            roles: METADATA_ROLES_MAX,
        }
    }
}

pub(super) fn get(source: &dyn Source, file: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, Error> {
    let too_large = || Error::TooLarge { file: file.to_owned(), bytes_max };
    match source.get(file, bytes_max) {
        Ok(Some(bytes)) if bytes.len() as u64 > bytes_max => Err(too_large()),
        Ok(bytes) => Ok(bytes),
        Err(SourceError::TooLarge) => Err(too_large()),
        Err(source) => Err(Error::Source { file: file.to_owned(), source }),
    }
}

pub(super) fn needed(source: &dyn Source, file: &str, bytes_max: u64) -> Result<Vec<u8>, Error> {
    get(source, file, bytes_max)?.ok_or_else(|| Error::Missing { file: file.to_owned() })
}

/// A role's name as part of a file name: all but `A-Z a-z 0-9 - _ . ~` is written as `%XX` (RFC 3986).
pub fn quoted(role: &str) -> String {
    role.bytes().fold(String::with_capacity(role.len()), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _infallible = write!(text, "%{byte:02X}");
        }
        text
    })
}

pub(super) mod base64 {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn encode(bytes: &[u8]) -> String {
        STANDARD.encode(bytes)
    }

    pub fn decode<E: Error>(text: &str) -> Result<Vec<u8>, E> {
        STANDARD.decode(text).map_err(|_| E::custom("metadata is kept as base64"))
    }

    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        decode(&String::deserialize(from)?)
    }
}

pub(super) mod base64_option {
    use super::base64::{decode, encode};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        bytes.as_deref().map(encode).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
        Option::<String>::deserialize(from)?.map(|text| decode(&text)).transpose()
    }
}

pub(super) mod base64_map {
    use super::base64::{decode, encode};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::collections::BTreeMap;

    pub fn serialize<S: Serializer>(map: &BTreeMap<String, Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        map.iter().map(|(role, bytes)| (role, encode(bytes))).collect::<BTreeMap<_, _>>().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Vec<u8>>, D::Error> {
        let map = BTreeMap::<String, String>::deserialize(from)?;
        map.into_iter().map(|(role, text)| Ok((role, decode(&text)?))).collect()
    }
}
