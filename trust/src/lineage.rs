//! How a model came to be: a chain of in-toto statements (v1), each in a DSSE envelope by the release key, one a line.
//!
//! Every step names what it took in (`materials`) and what it gave (`subject`) by SHA-256. Steps come in the order in
//! which they were done; each takes in something of the step just before it and nothing that no step before it gave,
//! but for a training that goes on from another version: that one's chain has to give the rest ([`follows`]). The last
//! step is the signing, and its subjects are the files of the bundle.

mod chain;
mod statement;

pub use crate::in_toto::Artefact;
pub use chain::{follows, read, seal};
pub use statement::{Parent, Step, StepKind};

use crate::oms::Differences;
use shared::{limits, signing};
use statement::Statement;

/// Why a lineage was not made or not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Over [`limits::LINEAGE_BYTES_MAX`].
    #[error("lineage of {size_bytes} bytes is over the limit of {} bytes", limits::LINEAGE_BYTES_MAX)]
    TooLarge { size_bytes: usize },
    /// No steps, or too many.
    #[error("lineage has {count} steps; 1 to {} are allowed", limits::LINEAGE_STEPS_MAX)]
    StepCount { count: usize },
    /// A step that is not signed by the release key, or not a statement.
    #[error("step {number} of the lineage is not acceptable")]
    Envelope {
        number: usize,
        #[source]
        source: signing::Error,
    },
    /// A step that does not follow from those before it.
    #[error("step {number} ({kind}) of the lineage {reason}")]
    Broken { number: usize, kind: StepKind, reason: String },
    /// The last step signs other files than the bundle's.
    #[error("the lineage is of other files than these: {0}")]
    OtherFiles(Differences),
    /// The parent's chain does not give what this one took from it.
    #[error("the training took {artefact:?} from {parent}, whose lineage does not give it")]
    Parent { artefact: String, parent: String },
}

#[cfg(test)]
mod tests;
