//! Makes a trained network smaller and faster: every step takes a [`Graph`](crate::graph::Graph) and gives one, and what
//! it costs is trained back, with the uncompressed network as the teacher.
//!
//! Structured pruning ([`prune`]) and low rank ([`low_rank`]) change the structure. Then the weights become integers:
//! after training ([`crate::quantise`]), with biases and channels corrected ([`correct`]), with every weight rounded to
//! where the layer's answers need it ([`rounding`]), or in the midst of training ([`fake`]). [`sequence`] says which of
//! it is done, and in what order. All of it is f32, on a GPU too: what is trained here is to answer as integers will.

mod channels;
pub mod correct;
pub mod fake;
mod interpreter;
mod judge;
pub mod low_rank;
mod outline;
pub mod prune;
mod retrain;
pub mod rounding;
pub mod sequence;
#[cfg(test)]
pub(crate) mod testing;

pub use interpreter::{Forward, Trainable};
pub use judge::{Judge, Parts};
pub use outline::Outline;
pub use retrain::{Answers, Plan, Retraining};

use crate::{graph, onnx, quantise};

/// Why a step of the compression failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The step gave a graph that is none.
    #[error("a step of the compression gave no network")]
    Graph(#[from] graph::Error),
    /// ONNX could not be written.
    #[error(transparent)]
    Onnx(#[from] onnx::Error),
    /// Quantisation failed.
    #[error(transparent)]
    Quantise(#[from] quantise::Error),
    /// A runtime failed.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
}
