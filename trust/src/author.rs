//! Writing TUF metadata (specification 1.0.31): what each role says, and the signed file it is said in.
//!
//! All keys are Ed25519. Snapshots are consistent: every file but the timestamp carries its version in its name.

mod document;
mod wire;

pub use document::{Document, Error};
pub(crate) use wire::ISSUED_AT;
pub use wire::key_id;

use serde_json::Value;
use shared::{
    Digest, TeamName, Timestamp,
    signing::{PublicKey, SigningKey},
};
use std::collections::BTreeMap;

/// What signs metadata: a key in memory, or one that a device keeps to itself (PKCS#11).
pub trait Signer: Send + Sync {
    /// The key that others verify with.
    fn public(&self) -> &PublicKey;

    /// The Ed25519 signature of `message`.
    ///
    /// # Errors
    /// The device that holds the key refused or is gone.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// A key did not sign.
#[derive(Debug, thiserror::Error)]
#[error("the key did not sign: {reason}")]
pub struct SignError {
    pub reason: String,
}

impl Signer for SigningKey {
    fn public(&self) -> &PublicKey {
        SigningKey::public(self)
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(self.sign_bytes(message))
    }
}

/// The keys of a role, and how many of them have to sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    pub threshold: u32,
    pub keys: Vec<PublicKey>,
}

/// Who may sign for the four roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// From 1 on, without a gap.
    pub version: u64,
    pub issued_at: Timestamp,
    pub expires: Timestamp,
    pub root: Keys,
    pub targets: Keys,
    pub snapshot: Keys,
    pub timestamp: Keys,
}

/// What is vouched for, and whom others may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    pub version: u64,
    pub issued_at: Timestamp,
    pub expires: Timestamp,
    /// By path.
    pub targets: BTreeMap<String, Target>,
    /// The first that matches a path is asked first.
    pub delegations: Vec<Delegation>,
}

/// One thing that is vouched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// In bytes.
    pub length: u64,
    pub sha256: Digest,
    /// Whatever the application wants signed with it; no fractions in it.
    pub custom: Option<Value>,
}

/// Lets another role vouch for some paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    pub name: TeamName,
    pub keys: Keys,
    /// Shell patterns; `*` and `?` stop at a `/`.
    pub paths: Vec<String>,
    /// Is nobody asked after this role?
    pub terminating: bool,
}

/// Which files of targets belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub version: u64,
    pub issued_at: Timestamp,
    pub expires: Timestamp,
    /// By name without a version: `targets.json`, `team.json`.
    pub meta: BTreeMap<String, Meta>,
}

/// One exact metadata file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    pub version: u64,
    /// In bytes.
    pub length: u64,
    pub sha256: Digest,
}

/// Which snapshot is the newest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimestampMetadata {
    pub version: u64,
    pub issued_at: Timestamp,
    pub expires: Timestamp,
    pub snapshot: Meta,
}

#[cfg(test)]
mod tests;
