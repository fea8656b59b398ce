//! What is checked of an ONNX file before a runtime parses it: that it is one, that it keeps all its data in itself,
//! that its constants carry what they declare, and that windows and the constants which say how large a tensor shall
//! be made are within limits. Sizes that the graph computes from its inputs are not known here; what such a graph
//! allocates is bounded by nothing but the trust in the key that signed it.

use prost::Message;
use shared::limits::TENSOR_ELEMENTS_MAX;
use std::collections::{HashMap, HashSet};
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, TensorProto, tensor_proto::DataType};

/// Most nodes of a graph.
const NODES_MAX: usize = 65_536;
/// Largest kernel, stride, padding or dilation along one axis.
const WINDOW_MAX: u64 = 4096;
/// Most values of a constant that says a size: two for each axis.
const SIZES_MAX: usize = 64;
/// Attributes that [`WINDOW_MAX`] bounds.
const WINDOW_ATTRIBUTES: [&str; 5] = ["kernel_shape", "strides", "pads", "dilations", "output_padding"];

/// Operators that make a tensor as large as the values of an input say, and which input that is.
const SIZED_BY_VALUES: [(&str, usize); 3] = [("ConstantOfShape", 0), ("Expand", 1), ("Tile", 1)];
/// Operators whose inputs after the first say how far that one grows.
const GROWN_BY_VALUES: [&str; 3] = ["Pad", "Resize", "Upsample"];

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
    check_sizes(graph)?;
    Ok(model)
}

/// That no constant asks for a tensor over the limits.
fn check_sizes(graph: &GraphProto) -> Result<(), String> {
    let constants: HashMap<&str, &TensorProto> = graph
        .initializer
        .iter()
        .map(|tensor| (tensor.name.as_str(), tensor))
        .chain(graph.node.iter().filter(|node| node.op_type == "Constant").filter_map(|node| {
            let value = node.attribute.iter().find_map(|attribute| attribute.t.as_ref());
            Some((node.output[0].as_str(), value?))
        }))
        .collect();
    let values = |name: &String| constants.get(name.as_str()).map(|tensor| numbers(tensor));
    #[expect(clippy::cast_precision_loss)]
    let (elements_max, window_max) = (TENSOR_ELEMENTS_MAX as f64, WINDOW_MAX as f64);
    for node in &graph.node {
        let operator = node.op_type.as_str();
        let sized = SIZED_BY_VALUES.iter().find(|(name, _)| *name == operator);
        let sizes = sized.and_then(|(_, at)| node.input.get(*at)).and_then(values).unwrap_or_default();
        let mut elements: f64 = sizes.iter().map(|size| size.abs().max(1.0)).product();
        if operator == "Range" {
            let bounds: Vec<f64> = node.input.iter().filter_map(values).flatten().collect();
            if let [start, limit, delta] = bounds[..] {
                elements = ((limit - start) / delta).abs();
            }
        }
        if elements.is_nan() || elements > elements_max {
            return Err(format!(
                "a {operator} node asks for {elements} elements, at most {TENSOR_ELEMENTS_MAX}"
            ));
        }
        if GROWN_BY_VALUES.contains(&operator) {
            let mut grown = node.input.iter().skip(1).filter_map(values).flatten();
            if let Some(value) = grown.find(|value| value.abs() > window_max) {
                return Err(format!("a {operator} node grows by {value}, over the limit of {WINDOW_MAX}"));
            }
        }
    }
    Ok(())
}

/// The values of a small constant as floats; none of a type that no size has.
fn numbers(tensor: &TensorProto) -> Vec<f64> {
    fn raw<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        bytes.chunks_exact(N).take(SIZES_MAX).filter_map(|bytes| Some(read(bytes.try_into().ok()?))).collect()
    }
    let bytes = &tensor.raw_data;
    #[expect(clippy::cast_precision_loss)]
    match DataType::try_from(tensor.data_type) {
        Ok(DataType::Int64) if bytes.is_empty() => {
            tensor.int64_data.iter().take(SIZES_MAX).map(|&value| value as f64).collect()
        }
        Ok(DataType::Int32) if bytes.is_empty() => {
            tensor.int32_data.iter().take(SIZES_MAX).map(|&value| f64::from(value)).collect()
        }
        Ok(DataType::Float) if bytes.is_empty() => {
            tensor.float_data.iter().take(SIZES_MAX).map(|&value| f64::from(value)).collect()
        }
        Ok(DataType::Int64) => raw(bytes, |bytes| i64::from_le_bytes(bytes) as f64),
        Ok(DataType::Int32) => raw(bytes, |bytes| f64::from(i32::from_le_bytes(bytes))),
        Ok(DataType::Float) => raw(bytes, |bytes| f64::from(f32::from_le_bytes(bytes))),
        _ => Vec::new(),
    }
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
