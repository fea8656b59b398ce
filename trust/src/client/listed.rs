//! What a role says of one target.

use super::Error;
use crate::author::Target;
use ring::digest::{SHA256, SHA512, digest};
use serde_json::Value;
use std::collections::BTreeMap;

/// A target as others list it: with any hashes, of which SHA-256 and SHA-512 are understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// In bytes.
    pub length: u64,
    /// Hexadecimal, by algorithm.
    pub hashes: BTreeMap<String, String>,
    pub custom: Option<Value>,
}

impl Listed {
    pub(super) fn of(target: &sigstore_tuf::TargetFile) -> Self {
        let (hashes, custom) = (target.hashes.clone(), target.custom.clone());
        Self { length: target.length, hashes, custom }
    }

    pub(super) fn target(self, path: &str) -> Result<Target, Error> {
        let sha256 = self.hashes.get("sha256").and_then(|text| text.to_ascii_lowercase().parse().ok());
        let lacking = || Error::Malformed {
            role: "targets".to_owned(),
            detail: format!("{:?} has no SHA-256", path.chars().take(100).collect::<String>()),
        };
        Ok(Target { length: self.length, sha256: sha256.ok_or_else(lacking)?, custom: self.custom })
    }

    /// Are these the bytes that are vouched for? Every hash that is understood has to be right, and there has to be
    /// one.
    pub fn is(&self, bytes: &[u8]) -> bool {
        let understood: Vec<bool> = self
            .hashes
            .iter()
            .filter_map(|(name, expected)| {
                let algorithm = match name.as_str() {
                    "sha256" => &SHA256,
                    "sha512" => &SHA512,
                    _ => return None,
                };
                Some(hex::encode(digest(algorithm, bytes)).eq_ignore_ascii_case(expected))
            })
            .collect();
        bytes.len() as u64 == self.length
            && !understood.is_empty()
            && understood.into_iter().all(|right| right)
    }

    /// Where the bytes are below a repository's folder of targets: with consistent snapshots the file's name begins
    /// with a hash. `None` where no hash is listed.
    pub fn location(&self, path: &str, consistent_snapshot: bool) -> Option<String> {
        if !consistent_snapshot {
            return Some(path.to_owned());
        }
        let first = || self.hashes.values().next();
        let hash = self.hashes.get("sha256").or_else(|| self.hashes.get("sha512")).or_else(first)?;
        Some(match path.rsplit_once('/') {
            Some((folder, name)) => format!("{folder}/{hash}.{name}"),
            None => format!("{hash}.{path}"),
        })
    }
}
