//! Signatures of models by OpenSSF Model Signing v1.0, made and checked without a file or a socket.
//!
//! A signature is a Sigstore bundle v0.3 in JSON. In it a DSSE envelope, signed with ECDSA on P-256 and SHA-256,
//! holds an in-toto statement: the SHA-256 of each file by its path, sorted by the parts of the path, and as subject
//! the SHA-256 over those digests' raw bytes. Of the ways to take a model apart this reads and writes `files` with
//! SHA-256, which is what `model_signing sign key` does unless it is told otherwise.

mod bundle;
mod differences;
mod key;
mod statement;

pub use crate::in_toto::PAYLOAD_TYPE;
pub use bundle::{Signature, sign};
pub use differences::Differences;
pub use key::{ModelKey, ModelPublicKey};
pub use statement::SignedModel;

use shared::{Digest, limits};

/// The predicate's type.
const PREDICATE_TYPE: &str = "https://model_signing/signature/v1.0";

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    /// The path below the model's folder, with `/` between its parts; `.` for a model that is one file.
    pub name: String,
    /// SHA-256 of the content.
    pub digest: Digest,
}

/// Why a signature was not made or not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Over [`limits::MODEL_SIGNATURE_BYTES_MAX`].
    #[error(
        "signature of {size_bytes} bytes is over the limit of {} bytes",
        limits::MODEL_SIGNATURE_BYTES_MAX
    )]
    TooLarge { size_bytes: usize },
    /// Not JSON, or not of this shape.
    #[error("not a Sigstore bundle with a DSSE envelope")]
    Bundle(#[source] serde_json::Error),
    /// Base64 that is none.
    #[error("{field} of the signature is not base64")]
    Base64 { field: &'static str },
    /// A bundle or statement of a kind that is not read; says which is.
    #[error("{0}")]
    Unsupported(String),
    /// The bundle names another key.
    #[error("signed with another key: the signature names {named}, the key given is {given}")]
    OtherKey { named: String, given: String },
    /// The signature does not fit.
    #[error("the signature is not by this key over this content")]
    Untrusted,
    /// Signed, but not a statement about a model.
    #[error("what is signed is not a statement about a model")]
    Statement(#[source] serde_json::Error),
    /// Signed, but breaks a rule, or what shall be signed does.
    #[error("{0}")]
    Invalid(String),
    /// The model is not the one that was signed.
    #[error("the model is not the one that was signed: {0}")]
    Differs(Differences),
    /// A key that is no key.
    #[error("{0}")]
    Key(&'static str),
}

#[cfg(test)]
mod tests;
