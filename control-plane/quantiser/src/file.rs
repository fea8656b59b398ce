//! A foreign ONNX file: what is checked before anything else looks at it.

use crate::{
    census,
    operators::{self, Kind},
    proto::{ModelProto, NodeProto, TensorProto},
};
use prost::Message;
use shared::wire::one_line;

/// Largest file that is taken in.
pub const FILE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Oldest operator set; those before it keep the bounds of `Clip` and `Pad` in attributes.
pub const OPSET_MIN: i64 = 11;
/// Newest operator set, which ONNX Runtime 1.20 knows.
pub const OPSET_MAX: i64 = 21;
/// Newest file format, which ONNX Runtime 1.20 knows.
pub const IR_MAX: i64 = 10;

/// Why a file is not taken in. One line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Over [`FILE_BYTES_MAX`], or empty.
    #[error("the file has {size_bytes} bytes, allowed are 1 to {FILE_BYTES_MAX}")]
    Size {
        /// What it has.
        size_bytes: usize,
    },
    /// No ONNX model.
    #[error("this is not an ONNX model: {0}")]
    NotOnnx(String),
    /// Its operators are too old or too new.
    #[error("its opset is {found}, allowed are {OPSET_MIN} to {OPSET_MAX}: export the model with opset 17")]
    Opset {
        /// What it says.
        found: i64,
    },
    /// Its file format is too new.
    #[error(
        "its IR version is {found}, allowed are 1 to {IR_MAX}: export the model with an older onnx package"
    )]
    IrVersion {
        /// What it says.
        found: i64,
    },
    /// A node that cannot be taken in.
    #[error("node {node}: {reason}")]
    Node {
        /// Operator and name.
        node: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// A constant that cannot be taken in.
    #[error("constant {name:?} {reason}")]
    Constant {
        /// Its name.
        name: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// Something else that nothing here can do.
    #[error("the model {0}")]
    Unsupported(String),
}

impl Error {
    fn node(node: &NodeProto, reason: impl Into<String>) -> Self {
        Self::Node { node: one_line(&node.title()), reason: reason.into() }
    }
}

/// Reads a file: within limits, whole in itself, of known operators, without control flow, and not quantised yet.
///
/// # Errors
/// The first thing that stands against it.
pub fn read(bytes: &[u8]) -> Result<ModelProto, Error> {
    if bytes.is_empty() || bytes.len() > FILE_BYTES_MAX {
        return Err(Error::Size { size_bytes: bytes.len() });
    }
    census::check(bytes).map_err(Error::NotOnnx)?;
    let model = ModelProto::decode(bytes).map_err(|error| Error::NotOnnx(one_line(&error.to_string())))?;
    let Some(graph) = &model.graph else { return Err(Error::NotOnnx("it holds no graph".to_owned())) };
    if graph.node.is_empty() || graph.output.is_empty() {
        return Err(Error::NotOnnx("its graph has no nodes or no outputs".to_owned()));
    }
    let found = opset(&model);
    if !(OPSET_MIN..=OPSET_MAX).contains(&found) {
        return Err(Error::Opset { found });
    }
    if !(1..=IR_MAX).contains(&model.ir_version) {
        return Err(Error::IrVersion { found: model.ir_version });
    }
    if !model.functions.is_empty() {
        return Err(Error::Unsupported("has functions of its own: export it with them inlined".to_owned()));
    }
    if !graph.sparse_initializer.is_empty() {
        return Err(Error::Unsupported("has sparse constants: export it with dense ones".to_owned()));
    }
    for node in &graph.node {
        check_node(node)?;
    }
    graph.initializer.iter().try_for_each(check_constant)?;
    runtime::check_model(bytes)
        .map_err(|reason| Error::Unsupported(format!("is refused: {}", one_line(&reason))))?;
    Ok(model)
}

/// Version of the standard operators; zero where none is named.
pub fn opset(model: &ModelProto) -> i64 {
    model.opset_import.iter().find(|set| is_standard(&set.domain)).map_or(0, |set| set.version)
}

/// Whether this domain is that of the standard operators.
pub(crate) fn is_standard(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

fn check_node(node: &NodeProto) -> Result<(), Error> {
    if !is_standard(&node.domain) {
        let reason = format!(
            "its operator is of the domain {:?}, which only some runtimes know: export the model with standard \
             operators (ai.onnx)",
            node.domain
        );
        return Err(Error::node(node, one_line(&reason)));
    }
    match operators::kind(&node.op_type) {
        Kind::Plain => {}
        Kind::ControlFlow => {
            return Err(Error::node(
                node,
                "control flow is not taken in: export the one branch that devices run",
            ));
        }
        Kind::Quantised => {
            return Err(Error::node(node, "the model is quantised already: hand over the f32 model"));
        }
        Kind::Random => return Err(Error::node(node, "it gives another answer each time")),
        Kind::NoTensor => {
            return Err(Error::node(
                node,
                "it works on strings, sequences or files, not on tensors of numbers",
            ));
        }
        Kind::Unknown => {
            return Err(Error::node(
                node,
                format!("no operator of opset {OPSET_MAX} or older has this name"),
            ));
        }
    }
    for attribute in &node.attribute {
        if attribute.g.is_some() || !attribute.graphs.is_empty() {
            return Err(Error::node(node, "it holds a graph of its own"));
        }
        if attribute.sparse_tensor.is_some() || !attribute.sparse_tensors.is_empty() {
            return Err(Error::node(node, "it holds a sparse constant"));
        }
        if !attribute.ref_attr_name.is_empty() {
            return Err(Error::node(node, "it refers to an attribute of a function, and is in none"));
        }
        attribute.t.iter().chain(&attribute.tensors).try_for_each(check_constant)?;
    }
    Ok(())
}

fn check_constant(tensor: &TensorProto) -> Result<(), Error> {
    let wrong =
        |reason: &str| Err(Error::Constant { name: one_line(&tensor.name), reason: reason.to_owned() });
    if !tensor.external_data.is_empty() || tensor.data_location.is_some_and(|location| location != 0) {
        return wrong("keeps its data in another file: export the model as one file");
    }
    if tensor.segment.is_some() {
        return wrong("is only a part of one");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
