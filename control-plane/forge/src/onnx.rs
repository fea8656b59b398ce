//! [`Graph`] to ONNX bytes: opset 17, IR 8, `ai.onnx` only, the batch free.
//!
//! Two forms: plain f32 ([`write_f32`]), and static quantise-dequantise pairs ([`write_qdq`]) that ONNX Runtime
//! fuses to integer kernels and tract reads after a rewrite. Input is `input`, output is `probabilities`.

mod shift;
#[cfg(test)]
pub(crate) mod tests;
mod writer;

pub use shift::shift;

use crate::{
    graph::{self, Graph},
    quantise::Encoding,
};
use prost::Message;
use quantiser::proto::ModelProto;
use writer::Writer;

/// Version of the operator set that is written.
pub const OPSET: i64 = 17;
/// Version of the file format that is written.
pub const IR_VERSION: i64 = 8;
/// Name of the one input, `[N, C, H, W]`, `[N, C, L]` or `[N, features]`, f32.
pub const INPUT: &str = "input";
/// Name of the output, `[N, classes]`, f32.
pub const OUTPUT: &str = "probabilities";
/// Name of the free batch axis.
pub const BATCH: &str = "N";
/// Largest file that [`inspect`] reads.
pub const FILE_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Why no ONNX was written, or a file is none.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The graph is not a complete classifier.
    #[error(transparent)]
    Graph(#[from] graph::Error),
    /// An encoding is missing or its numbers cannot be used.
    #[error("the quantisation of {tensor} is not usable: {reason}")]
    Encoding {
        /// The value or weight.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The bytes are no ONNX model.
    #[error(
        "this is not an ONNX model: {0}; hand over a .onnx file with opset {newest} or older",
        newest = quantiser::file::OPSET_MAX
    )]
    NotOnnx(String),
}

/// The plain f32 form.
///
/// # Errors
/// The graph is not a complete classifier.
pub fn write_f32(graph: &Graph) -> Result<Vec<u8>, Error> {
    graph.classes()?;
    Ok(Writer::new(graph, None).finish(false)?.encode_to_vec())
}

/// The form with weights and biases as 16-bit floats behind casts to f32, in which it computes: half of the size of f32 on
/// any runtime.
///
/// # Errors
/// The graph is not a complete classifier, or a number is beyond what 16 bits hold.
pub fn write_f16(graph: &Graph) -> Result<Vec<u8>, Error> {
    graph.classes()?;
    Ok(Writer::new(graph, None).halved().finish(false)?.encode_to_vec())
}

/// The f32 form with every intermediate value as a further output, in the order of the values (the input is not
/// among them, `probabilities` comes last): what calibration runs.
///
/// # Errors
/// The graph is not a complete classifier.
pub fn write_probe(graph: &Graph) -> Result<Vec<u8>, Error> {
    graph.classes()?;
    Ok(Writer::new(graph, None).finish(true)?.encode_to_vec())
}

/// The INT8 form: activations u8 as `encoding` says, weights s8 symmetric per output channel, biases i32.
///
/// # Errors
/// The graph is not a complete classifier, or the encoding does not fit it.
pub fn write_qdq(graph: &Graph, encoding: &Encoding) -> Result<Vec<u8>, Error> {
    graph.classes()?;
    encoding.check(graph)?;
    Ok(Writer::new(graph, Some(encoding)).finish(false)?.encode_to_vec())
}

/// What a file says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Version of `ai.onnx` operators.
    pub opset: i64,
    /// Nodes of the main graph.
    pub nodes: usize,
    /// Names of the inputs that are no initializers.
    pub inputs: Vec<String>,
    /// Names of the outputs.
    pub outputs: Vec<String>,
    /// Whether it holds QuantizeLinear nodes.
    pub quantised: bool,
}

/// Reads a file's outline, so that what is no ONNX is refused in words before a runtime sees it.
///
/// # Errors
/// Not an ONNX model, a newer opset than [`quantiser::file::OPSET_MAX`], or a graph without nodes, inputs or outputs.
pub fn inspect(bytes: &[u8]) -> Result<Summary, Error> {
    let none = |reason: &str| Error::NotOnnx(reason.to_owned());
    if bytes.is_empty() {
        return Err(none("the file is empty"));
    }
    if bytes.len() > FILE_BYTES_MAX {
        return Err(Error::NotOnnx(format!("{} bytes are over the limit of {FILE_BYTES_MAX}", bytes.len())));
    }
    let model = ModelProto::decode(bytes).map_err(|error| Error::NotOnnx(error.to_string()))?;
    let graph = model.graph.ok_or_else(|| none("it holds no graph"))?;
    let default_domain = |domain: &str| domain.is_empty() || domain == "ai.onnx";
    let opset =
        model.opset_import.iter().find(|set| default_domain(&set.domain)).map_or(0, |set| set.version);
    if !(1..=quantiser::file::OPSET_MAX).contains(&opset) {
        return Err(Error::NotOnnx(format!("its opset is {opset}")));
    }
    let constants: std::collections::HashSet<&str> =
        graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let inputs: Vec<String> = graph
        .input
        .iter()
        .map(|value| value.name.clone())
        .filter(|name| !constants.contains(name.as_str()))
        .collect();
    let outputs: Vec<String> = graph.output.iter().map(|value| value.name.clone()).collect();
    if graph.node.is_empty() || inputs.is_empty() || outputs.is_empty() {
        return Err(none("its graph has no nodes, no inputs or no outputs"));
    }
    let quantised = graph.node.iter().any(|node| node.op_type == "QuantizeLinear");
    Ok(Summary { opset, nodes: graph.node.len(), inputs, outputs, quantised })
}

/// Bytes of all constants of a file that this module wrote.
///
/// # Errors
/// Not an ONNX model.
pub fn constant_bytes(bytes: &[u8]) -> Result<u64, Error> {
    inspect(bytes)?;
    Ok(quantiser::constant_bytes(bytes))
}
