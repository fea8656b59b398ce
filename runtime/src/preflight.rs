//! What is checked of an ONNX file before a runtime parses it: that it is one, that it keeps all its data in itself,
//! and that no declared size would make a parser allocate without bound.

use prost::Message;
use std::collections::HashSet;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, TensorProto, tensor_proto::DataType};

/// Most nodes of a graph.
const NODES_MAX: usize = 65_536;
/// Largest kernel, stride, padding or dilation along one axis.
const WINDOW_MAX: u64 = 4096;
/// Attributes that [`WINDOW_MAX`] bounds.
const WINDOW_ATTRIBUTES: [&str; 5] = ["kernel_shape", "strides", "pads", "dilations", "output_padding"];

/// Reads a model. The text of an error says what is wrong with the bytes.
pub(crate) fn read(bytes: &[u8]) -> Result<ModelProto, String> {
    let model = ModelProto::decode(bytes).map_err(|error| format!("not an ONNX file: {error}"))?;
    let graph = model.graph.as_ref().ok_or("not an ONNX file: it holds no graph")?;
    if graph.node.is_empty() || graph.node.len() > NODES_MAX {
        return Err(format!("{} nodes, 1 to {NODES_MAX} are allowed", graph.node.len()));
    }
    if !graph.sparse_initializer.is_empty() || !model.functions.is_empty() {
        return Err("it uses sparse constants or functions of its own, which are not supported".to_owned());
    }
    for tensor in &graph.initializer {
        check_tensor(tensor)?;
    }
    for node in &graph.node {
        if node.output.is_empty() {
            return Err(format!("a {} node has no output", node.op_type));
        }
        for attribute in &node.attribute {
            check_attribute(attribute).map_err(|reason| format!("a {} node: {reason}", node.op_type))?;
        }
    }
    check_wiring(graph)?;
    Ok(model)
}

/// That every name is written once, before it is read.
fn check_wiring(graph: &GraphProto) -> Result<(), String> {
    let mut known: HashSet<&str> = graph.input.iter().map(|input| input.name.as_str()).collect();
    known.extend(graph.initializer.iter().map(|tensor| tensor.name.as_str()));
    for node in &graph.node {
        if let Some(name) = node.input.iter().find(|name| !name.is_empty() && !known.contains(name.as_str()))
        {
            return Err(format!("a {} node reads {name:?}, which nothing before it gives", node.op_type));
        }
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            if !known.insert(name) {
                return Err(format!("a {} node gives {name:?} a second time", node.op_type));
            }
        }
    }
    match graph.output.iter().find(|output| !known.contains(output.name.as_str())) {
        Some(output) => Err(format!("nothing gives the output {:?}", output.name)),
        None => Ok(()),
    }
}

fn check_attribute(attribute: &AttributeProto) -> Result<(), String> {
    if attribute.g.is_some() || !attribute.graphs.is_empty() {
        return Err("it holds a graph of its own, which is not supported".to_owned());
    }
    for tensor in attribute.t.iter().chain(&attribute.tensors) {
        check_tensor(tensor)?;
    }
    if WINDOW_ATTRIBUTES.contains(&attribute.name.as_str())
        && let Some(value) = attribute.ints.iter().find(|value| value.unsigned_abs() > WINDOW_MAX)
    {
        return Err(format!("{} {value} is over the limit of {WINDOW_MAX}", attribute.name));
    }
    Ok(())
}

/// That a constant carries exactly the values that its shape declares.
fn check_tensor(tensor: &TensorProto) -> Result<(), String> {
    let named = |reason: &str| format!("constant {:?} {reason}", tensor.name);
    if !tensor.external_data.is_empty() || tensor.data_location.is_some_and(|location| location != 0) {
        return Err(named("keeps its data in another file; export the model as one file"));
    }
    let declared = tensor.dims.iter().try_fold(1usize, |product, &axis| {
        product.checked_mul(usize::try_from(axis).ok()?).filter(|product| *product <= crate::MODEL_BYTES_MAX)
    });
    let Some(declared) = declared else { return Err(named("declares an impossible shape")) };
    let width = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Double | DataType::Int64 | DataType::Uint64) => 8,
        Ok(DataType::Float | DataType::Int32 | DataType::Uint32) => 4,
        Ok(DataType::Float16 | DataType::Int16 | DataType::Uint16) => 2,
        Ok(DataType::Int8 | DataType::Uint8 | DataType::Bool) => 1,
        Ok(DataType::String) => 0,
        _ => return Err(named("has a type that is not supported")),
    };
    let fits = if width > 0 && !tensor.raw_data.is_empty() {
        tensor.raw_data.len() == declared * width
    } else {
        let typed = [
            tensor.float_data.len(),
            tensor.int32_data.len(),
            tensor.int64_data.len(),
            tensor.double_data.len(),
            tensor.string_data.len(),
        ];
        typed.into_iter().max() == Some(declared)
    };
    if fits { Ok(()) } else { Err(named("does not carry the values that its shape declares")) }
}
