//! The difference between two files: made where there is time, applied where there is little of anything.
//!
//! A delta is a [`Header`] and a body. It names the digests and sizes of both files, so that it is applied to the
//! right one and gives the right one, or gives an error. Two ways to make a body, see [`Method`].
//!
//! [`apply`] knows nothing of models and takes hostile bytes: what it allocates is bounded by the limits that it is
//! given and by the lengths of its inputs. [`make`] may be told which ranges of the files belong together;
//! [`onnx::regions`] finds them in models.

mod apply;
mod format;
mod frame;
mod make;
pub mod onnx;

pub use apply::{Limits, apply};
pub use format::{HEADER_BYTES, Header, INSTRUCTIONS_MAX, Method};
pub use make::{Region, make};

use shared::Digest;

/// Why there is no delta, or no file from one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Cut short, or not a delta at all.
    #[error("not a delta: {0}")]
    Form(&'static str),
    /// A file over what the caller allows.
    #[error("the {what} file of {size_bytes} bytes is over the limit of {limit_bytes} bytes")]
    TooLarge { what: &'static str, size_bytes: u64, limit_bytes: u64 },
    /// The delta belongs to another file than the one that is there.
    #[error("the delta is for the file {expected}, this is {got}")]
    OtherBase { expected: Digest, got: Digest },
    /// An instruction that leaves a file or a section.
    #[error("instruction {at} of the delta goes past the end of the {of}")]
    OutOfRange { at: usize, of: &'static str },
    /// The instructions give another number of bytes than the header says.
    #[error("the delta gives {got_bytes} bytes, its header says {expected_bytes}")]
    Length { got_bytes: u64, expected_bytes: u64 },
    /// All went well and the bytes are others.
    #[error("the delta gives the file {got}, its header says {expected}")]
    Mismatch { expected: Digest, got: Digest },
    /// A section that does not decompress, or not to the size that it declares.
    #[error("a section of the delta does not decompress: {0}")]
    Frame(String),
    /// There is not so much memory.
    #[error("no memory for {0} bytes")]
    Memory(u64),
}

#[cfg(test)]
mod tests;
