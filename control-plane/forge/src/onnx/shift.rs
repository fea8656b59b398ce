//! Moves the line between the classes of a written model.

use super::{Error, OUTPUT};
use prost::Message;
use quantiser::proto::{ModelProto, NodeProto, TensorProto};

/// Names of the constant and of the shifted logits; no value that the writer names begins like this.
const SHIFT: &str = "shift";
const SHIFTED: &str = "shifted";

/// `model` with `by` added to its logits, one for each class. Works alike on all forms: it stands, in f32, between the last
/// layer and its softmax.
///
/// # Errors
/// Not a model whose probabilities come from a softmax.
pub fn shift(model: &[u8], by: &[f32]) -> Result<Vec<u8>, Error> {
    let none = |reason: &str| Error::NotOnnx(reason.to_owned());
    let mut model = ModelProto::decode(model).map_err(|error| Error::NotOnnx(error.to_string()))?;
    let graph = model.graph.as_mut().ok_or_else(|| none("it holds no graph"))?;
    let gives = |node: &NodeProto| node.op_type == "Softmax" && node.output.iter().any(|name| name == OUTPUT);
    let at = graph.node.iter().position(gives).ok_or_else(|| none("no softmax gives its probabilities"))?;
    let logits = graph.node[at].input.first_mut().ok_or_else(|| none("its softmax reads nothing"))?;
    let inputs = [std::mem::replace(logits, SHIFTED.to_owned()), SHIFT.to_owned()];
    graph.node.insert(at, NodeProto::new("Add", &inputs, SHIFTED, Vec::new()));
    graph.initializer.push(TensorProto::floats(SHIFT, &[by.len()], by));
    Ok(model.encode_to_vec())
}
