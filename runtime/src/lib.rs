//! One seam over the two inference runtimes: a [`Runtime`] loads model bytes into a [`Runnable`], which any number
//! of threads may run at once.
//!
//! Models are bytes from outside: loading bounds their size, turns a panic of a parser into an error, and never
//! touches the network or the disk.

pub mod choose;
pub mod golden;
mod onnxruntime;
mod pool;
mod preflight;
mod probe;
mod tract;
mod tract_rewrite;
pub mod workload;

pub use choose::{Candidate, Choice, Spread, Verdict, choose, measure_spread, measure_us};
pub use golden::{Golden, GoldenReport, Mismatch};
pub use onnxruntime::{Ort, library_path};
pub use probe::Probe;
pub use tract::Tract;

use std::{fmt, panic::AssertUnwindSafe, sync::Arc};

/// Largest model that is loaded, in bytes.
pub const MODEL_BYTES_MAX: usize = shared::limits::BUNDLE_FILE_BYTES_MAX as usize;

/// Why a model was not loaded or did not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Over [`MODEL_BYTES_MAX`].
    #[error("a model of {size_bytes} bytes is over the limit of {MODEL_BYTES_MAX} bytes")]
    TooLarge { size_bytes: usize },
    /// The runtime does not take these bytes as a model.
    #[error("{runtime} does not load the model: {reason}")]
    Load { runtime: &'static str, reason: String },
    /// The model's inputs or outputs are not of the form that this system uses.
    #[error(
        "{runtime}: the model has another form than one f32 input and one f32 output, batch first: {reason}"
    )]
    Form { runtime: &'static str, reason: String },
    /// The values handed in do not fit the model's input.
    #[error("the input has {got} values, {batch} samples of {each} are {expected}")]
    Input { got: usize, batch: usize, each: usize, expected: usize },
    /// The runtime failed on this input.
    #[error("{runtime} failed to run the model: {reason}")]
    Run { runtime: &'static str, reason: String },
    /// The library of ONNX Runtime is not there or is none.
    #[error("ONNX Runtime is not usable: {reason}; name its library with --ort or EDGEWRIGHT_ORT")]
    Library { reason: String },
}

/// Most inferences of one model at once; further callers wait for their turn.
pub const SESSIONS_MAX: usize = 16;
/// Most input values of one run of a model. A larger batch is run in parts, so that the memory for what lies between
/// the layers does not grow with it.
const RUN_ELEMENTS_MAX: usize = 1 << 18;

/// How a model is loaded.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Threads of one inference.
    pub threads: usize,
    /// Inferences at once, 1 to [`SESSIONS_MAX`]. All is made ready for them while the model is loaded.
    pub sessions: usize,
    /// Most samples that go through the model together; more than are ever run together are not made ready for.
    pub samples: usize,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { threads: 1, sessions: 1, samples: shared::limits::RUN_SAMPLES_MAX }
    }
}

impl LoadOptions {
    fn session_count(&self) -> usize {
        self.sessions.clamp(1, SESSIONS_MAX)
    }
}

/// An input or output as the model declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    /// Without the batch.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// Values of one sample.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A library that runs models.
pub trait Runtime: Send + Sync {
    /// `tract` or `onnxruntime`.
    fn name(&self) -> &'static str;
    /// Reads a model of one f32 input and one f32 output, both batch first.
    fn load(&self, model: &[u8], options: &LoadOptions) -> Result<Arc<dyn Runnable>, Error>;
}

/// A loaded model.
pub trait Runnable: Send + Sync + fmt::Debug {
    /// The runtime's name.
    fn runtime(&self) -> &'static str;
    /// The model's input.
    fn input(&self) -> &TensorInfo;
    /// The model's output.
    fn output(&self) -> &TensorInfo;
    /// Runs `batch` samples, laid out one after another in `input`; `output` is emptied and filled the same way. At
    /// most [`shared::limits::RUN_SAMPLES_MAX`] samples go through the model together.
    fn run_into(&self, input: &[f32], batch: usize, output: &mut Vec<f32>) -> Result<(), Error>;
}

/// Checks a model as every runtime's `load` does before it parses it. The text says what is wrong with the bytes.
pub fn check_model(model: &[u8]) -> Result<(), String> {
    check_size(model).map_err(|error| error.to_string())?;
    tract_rewrite::read(model).map(|_| ())
}

fn check_size(model: &[u8]) -> Result<(), Error> {
    if model.len() > MODEL_BYTES_MAX { Err(Error::TooLarge { size_bytes: model.len() }) } else { Ok(()) }
}

fn check_input(info: &TensorInfo, input: &[f32], batch: usize) -> Result<(), Error> {
    let each = info.elements();
    let expected = each.saturating_mul(batch);
    if batch == 0 || input.len() != expected || expected > shared::limits::TENSOR_ELEMENTS_MAX {
        return Err(Error::Input { got: input.len(), batch, each, expected });
    }
    Ok(())
}

/// Samples of `info` that go through a model together.
fn run_samples(info: &TensorInfo, options: &LoadOptions) -> usize {
    let most = options.samples.clamp(1, shared::limits::RUN_SAMPLES_MAX);
    (RUN_ELEMENTS_MAX / info.elements().max(1)).clamp(1, most)
}

/// Runs `work`; a panic inside becomes the error text.
fn no_panic<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    match std::panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(format!("it panicked: {}", text.unwrap_or_default()))
        }
    }
}

/// An error with its causes on one line.
fn one_line(error: &dyn fmt::Display) -> String {
    shared::wire::cut(&error.to_string().split_whitespace().collect::<Vec<_>>().join(" "))
}
