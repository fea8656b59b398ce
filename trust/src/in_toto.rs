//! What all in-toto statements have in common (attestation framework, statement v1).

use serde::{Deserialize, Serialize};
use shared::Digest;

/// The type of every statement, version 1.
pub(crate) const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The DSSE payload type of a statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// Something with a name and a content: a resource descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Artefact {
    pub name: String,
    digest: DigestSet,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct DigestSet {
    sha256: Digest,
}

impl Artefact {
    /// An artefact by name and SHA-256.
    pub fn new(name: impl Into<String>, digest: Digest) -> Self {
        Self { name: name.into(), digest: DigestSet { sha256: digest } }
    }

    /// SHA-256 of its content.
    pub fn digest(&self) -> Digest {
        self.digest.sha256
    }
}
