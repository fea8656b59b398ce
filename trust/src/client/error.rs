//! Why metadata is refused.

use super::SourceError;
use shared::Timestamp;

/// Longest text from metadata that an error carries.
const DETAIL_CHARS_MAX: usize = 200;

/// Why metadata was not accepted, or a target not found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing newer was offered in time: a freeze, or an operator who forgot to sign.
    #[error("{role} metadata has expired at {} ms since 1970; it has to be signed anew", expires.0)]
    Expired { role: String, expires: Timestamp },
    /// An older version was offered.
    #[error("{role} metadata of version {got} is offered, version {have} was accepted before")]
    Rollback { role: String, have: u64, got: u64 },
    /// Too few of the keys that may sign it did.
    #[error("{role} metadata is not signed by enough of its keys: {detail}")]
    Signature { role: String, detail: String },
    /// It is not the file that timestamp or snapshot name.
    #[error("{role} metadata is not the file that was announced: {detail}")]
    Mismatch { role: String, detail: String },
    /// More bytes than are allowed or announced.
    #[error("{file} is longer than {bytes_max} bytes")]
    TooLarge { file: String, bytes_max: u64 },
    /// No metadata of this role.
    #[error("{role} metadata is malformed: {detail}")]
    Malformed { role: String, detail: String },
    /// The source does not have a file (yet).
    #[error("{file} is not there yet; refresh again later")]
    Missing { file: String },
    /// More roots than one refresh follows.
    #[error("root {version} is accepted and there may be more; refresh again")]
    RootChain { version: u64 },
    /// Asked before a refresh succeeded.
    #[error("metadata is not complete; a refresh has to succeed first")]
    Incomplete,
    /// The source failed.
    #[error("{file} could not be fetched")]
    Source {
        file: String,
        #[source]
        source: SourceError,
    },
}

impl Error {
    /// One stable word for an operator's event.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Expired { .. } => "expired",
            Self::Rollback { .. } => "rollback",
            Self::Signature { .. } => "signature",
            Self::Mismatch { .. } => "mismatch",
            Self::TooLarge { .. } => "too_large",
            Self::Malformed { .. } => "malformed",
            Self::Missing { .. } => "missing",
            Self::RootChain { .. } => "root_chain",
            Self::Incomplete => "incomplete",
            Self::Source { .. } => "source",
        }
    }

    pub(super) fn unpinned(role: &str, file: &str) -> Self {
        Self::Mismatch { role: role.to_owned(), detail: format!("it does not name {file}") }
    }

    /// What the reader of `role` said.
    pub(super) fn of(role: &str, error: sigstore_tuf::Error) -> Self {
        use sigstore_tuf::Error as Tuf;
        let role = role.to_owned();
        let detail = cut(&error.to_string());
        match error {
            Tuf::Expired { role, expires } => {
                Self::Expired { role: cut(&role), expires: super::milliseconds(expires) }
            }
            Tuf::Rollback { role, trusted, new } => {
                Self::Rollback { role: cut(&role), have: trusted, got: new }
            }
            Tuf::BadRootVersion { trusted, new } if new <= trusted => {
                Self::Rollback { role, have: trusted, got: new }
            }
            Tuf::BadRootVersion { .. } | Tuf::IntegrityMismatch(_) => Self::Mismatch { role, detail },
            Tuf::ThresholdNotMet { .. } | Tuf::DuplicateSignature { .. } => Self::Signature { role, detail },
            Tuf::NotRefreshed => Self::Incomplete,
            _ => Self::Malformed { role, detail },
        }
    }
}

/// Names from metadata may be long and hold anything.
fn cut(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(DETAIL_CHARS_MAX).collect()
}
