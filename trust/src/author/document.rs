//! A metadata file: its signed part and the signatures over it.

use super::{Keys, Meta, Root, SignError, Signer, Snapshot, Targets, TimestampMetadata, wire};
use crate::provider;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde_json::{Value, json};
use shared::{Digest, Timestamp, limits};
use sigstore_tuf::canonical_json;
use std::collections::BTreeMap;

/// Longest text of a damaged field that an error shows.
const SHOWN_CHARS_MAX: usize = 60;

/// Why a file was not read or not signed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Over [`limits::METADATA_BYTES_MAX`].
    #[error("metadata of {size_bytes} bytes is over the limit of {} bytes", limits::METADATA_BYTES_MAX)]
    TooLarge { size_bytes: usize },
    /// Not JSON.
    #[error("metadata is not JSON")]
    Json(#[source] serde_json::Error),
    /// JSON, but not metadata.
    #[error("metadata has no good {field}; {allowed}")]
    Malformed { field: String, allowed: &'static str },
    /// Of another role.
    #[error("this is {got} metadata, expected {expected}")]
    Role { expected: &'static str, got: String },
    /// It must not be signed like this.
    #[error("this metadata is not signed: {reason}")]
    Invalid { reason: String },
    /// The key did not sign.
    #[error("metadata was not signed")]
    Sign(#[source] SignError),
}

impl Error {
    pub(super) fn malformed(field: impl Into<String>, allowed: &'static str) -> Self {
        Self::Malformed { field: field.into(), allowed }
    }
}

/// A metadata file. What it does not know in the signed part is kept, since it is signed too.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    role: &'static str,
    version: u64,
    expires: Timestamp,
    signed: Value,
    /// Hexadecimal, by key id.
    signatures: BTreeMap<String, String>,
}

impl Document {
    /// An unsigned root.
    pub fn of_root(root: &Root) -> Self {
        Self::unsigned("root", root.version, root.expires, wire::root(root))
    }

    /// Unsigned targets, of the top level or of a delegated role.
    pub fn of_targets(targets: &Targets) -> Self {
        Self::unsigned("targets", targets.version, targets.expires, wire::targets(targets))
    }

    /// An unsigned snapshot.
    pub fn of_snapshot(snapshot: &Snapshot) -> Self {
        Self::unsigned("snapshot", snapshot.version, snapshot.expires, wire::snapshot(snapshot))
    }

    /// An unsigned timestamp.
    pub fn of_timestamp(timestamp: &TimestampMetadata) -> Self {
        Self::unsigned("timestamp", timestamp.version, timestamp.expires, wire::timestamp(timestamp))
    }

    fn unsigned(role: &'static str, version: u64, expires: Timestamp, signed: Value) -> Self {
        Self { role, version, expires: wire::whole_seconds(expires), signed, signatures: BTreeMap::new() }
    }

    /// Reads a file. No signature is looked at; see [`Document::valid_signatures`].
    ///
    /// # Errors
    /// Too large, not JSON, or not metadata.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() as u64 > limits::METADATA_BYTES_MAX {
            return Err(Error::TooLarge { size_bytes: bytes.len() });
        }
        let mut file: Value = serde_json::from_slice(bytes).map_err(Error::Json)?;
        let signed = file.get_mut("signed").map(Value::take).unwrap_or_default();
        let role = wire::role(&signed)?;
        let signatures =
            file.get("signatures").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if signatures.len() > limits::METADATA_SIGNATURES_MAX {
            return Err(Error::malformed("signatures", "a few are allowed, each by another key"));
        }
        let mut by_key = BTreeMap::new();
        for signature in signatures {
            let text = |field| signature.get(field).and_then(Value::as_str).map(str::to_owned);
            let (Some(key), Some(sig)) = (text("keyid"), text("sig")) else {
                return Err(Error::malformed("signatures", "each has a keyid and a sig"));
            };
            if by_key.insert(key, sig).is_some() {
                return Err(Error::malformed("signatures", "each key signs once"));
            }
        }
        let version = wire::number(&signed, "version")?;
        let expires = wire::expires(&signed)?;
        Ok(Self { role, version, expires, signed, signatures: by_key })
    }

    /// Adds the signature of `signer`, in place of one that it made before. Nothing that a reader would refuse is
    /// signed.
    ///
    /// # Errors
    /// The metadata breaks a rule, or the key did not sign.
    pub fn sign(&mut self, signer: &dyn Signer) -> Result<(), Error> {
        self.check()?;
        let signature = signer.sign(&self.message()?).map_err(Error::Sign)?;
        self.signatures.insert(wire::key_id(signer.public()), hex::encode(signature));
        let size_bytes = self.to_bytes().len();
        if size_bytes as u64 > limits::METADATA_BYTES_MAX {
            self.signatures.remove(&wire::key_id(signer.public()));
            return Err(Error::TooLarge { size_bytes });
        }
        Ok(())
    }

    /// The file. Signatures are in the order of their key ids, so that the same content has the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let signatures: Vec<Value> =
            self.signatures.iter().map(|(key, sig)| json!({ "keyid": key, "sig": sig })).collect();
        json!({ "signatures": signatures, "signed": self.signed }).to_string().into_bytes()
    }

    /// How a snapshot or timestamp names this file.
    pub fn meta(&self) -> Meta {
        let bytes = self.to_bytes();
        Meta { version: self.version, length: bytes.len() as u64, sha256: Digest::of(&bytes) }
    }

    /// The version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// When it ends, in whole seconds.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// How many of `keys` have signed this, each counted once.
    pub fn valid_signatures(&self, keys: &Keys) -> u32 {
        let Ok(message) = self.message() else { return 0 };
        let by_id: BTreeMap<String, _> = keys.keys.iter().map(|key| (wire::key_id(key), key)).collect();
        let valid = by_id.iter().filter(|(id, key)| {
            let signature = self.signatures.get(*id).and_then(|sig| hex::decode(sig).ok());
            signature.is_some_and(|signature| {
                UnparsedPublicKey::new(&ED25519, key.as_bytes()).verify(&message, &signature).is_ok()
            })
        });
        u32::try_from(valid.count()).unwrap_or(u32::MAX)
    }

    /// Reads a root back, to write the next one. Its keys have to be Ed25519.
    ///
    /// # Errors
    /// It is of another role or lacks something.
    pub fn as_root(&self) -> Result<Root, Error> {
        self.expect("root")?;
        wire::as_root(&self.signed)
    }

    /// Reads targets back, to write the next ones.
    ///
    /// # Errors
    /// It is of another role or lacks something.
    pub fn as_targets(&self) -> Result<Targets, Error> {
        self.expect("targets")?;
        wire::as_targets(&self.signed)
    }

    /// Reads a snapshot back, to write the next one.
    ///
    /// # Errors
    /// It is of another role or lacks something.
    pub fn as_snapshot(&self) -> Result<Snapshot, Error> {
        self.expect("snapshot")?;
        wire::as_snapshot(&self.signed)
    }

    /// Reads a timestamp back, to write the next one.
    ///
    /// # Errors
    /// It is of another role or lacks something.
    pub fn as_timestamp(&self) -> Result<TimestampMetadata, Error> {
        self.expect("timestamp")?;
        wire::as_timestamp(&self.signed)
    }

    fn expect(&self, expected: &'static str) -> Result<(), Error> {
        if self.role == expected { Ok(()) } else { Err(Error::Role { expected, got: self.role.to_owned() }) }
    }

    /// What signatures are over.
    fn message(&self) -> Result<Vec<u8>, Error> {
        provider::ensure();
        canonical_json::to_canonical_bytes(&self.signed)
            .map_err(|_| Error::Invalid { reason: "numbers in metadata are whole".to_owned() })
    }

    fn check(&self) -> Result<(), Error> {
        let invalid = |reason: String| Err(Error::Invalid { reason });
        if self.version == 0 {
            return invalid("versions begin with 1".to_owned());
        }
        let roles: Vec<(String, Keys)> = match self.role {
            "root" => {
                let root = self.as_root()?;
                let roles = [
                    ("root", root.root),
                    ("targets", root.targets),
                    ("snapshot", root.snapshot),
                    ("timestamp", root.timestamp),
                ];
                roles.into_iter().map(|(name, keys)| (name.to_owned(), keys)).collect()
            }
            "targets" => {
                let targets = self.as_targets()?;
                if let Some(path) = targets.targets.keys().find(|path| !good_path(path)) {
                    return invalid(format!(
                        "{:?} is no path; it has segments between single /",
                        shown(path)
                    ));
                }
                let patterns = targets.delegations.iter().flat_map(|delegation| &delegation.paths);
                if let Some(pattern) = patterns.into_iter().find(|pattern| !wire::good_pattern(pattern)) {
                    return invalid(format!("{:?} is no pattern of paths", shown(pattern)));
                }
                let delegated = targets.delegations.into_iter();
                delegated.map(|delegation| (delegation.name.into(), delegation.keys)).collect()
            }
            _ => Vec::new(),
        };
        for (index, (name, keys)) in roles.iter().enumerate() {
            let mut distinct = keys.keys.clone();
            distinct.sort();
            distinct.dedup();
            if distinct.len() != keys.keys.len() {
                return invalid(format!("{name} has a key twice"));
            }
            if keys.threshold == 0 || keys.threshold as usize > distinct.len() {
                let (needed, has) = (keys.threshold, distinct.len());
                return invalid(format!(
                    "{name} needs {needed} signatures of {has} keys; 1 to {has} are possible"
                ));
            }
            if roles[..index].iter().any(|(other, _)| other == name) {
                return invalid(format!("it delegates to {name} twice"));
            }
        }
        Ok(())
    }
}

/// A path names something below where targets are kept: no segment is empty, `.` or `..`.
fn good_path(path: &str) -> bool {
    !path.chars().any(char::is_control)
        && path.split('/').all(|segment| !segment.is_empty() && segment != "." && segment != "..")
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}
