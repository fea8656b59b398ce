//! Quantised graphs for tract, rewritten before it parses them.
//!
//! tract computes QuantizeLinear and DequantizeLinear in f32 and folds some of them wrongly. Each activation pair
//! `DequantizeLinear(QuantizeLinear(x, s, z), s, z)` limits `x` to the range that the integers span, so it becomes
//! `Clip(x, (qmin - z) s, (qmax - z) s)`: the saturation stays, the rounding to steps of `s` goes. The DequantizeLinear
//! of a weight is left, which tract folds into an f32 constant. A Relu in front of a pair whose range starts at zero
//! is what the Clip does anyway, and goes.

use crate::preflight;
use std::collections::{HashMap, HashSet};
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, tensor_proto::DataType};

/// Starts the names of the lower bounds.
const LOW: &str = "edgewright_low_";

/// Reads a model and rewrites it. The text of an error says what is wrong with the bytes.
pub(crate) fn read(bytes: &[u8]) -> Result<ModelProto, String> {
    let mut model = preflight::read(bytes)?;
    let graph = model.graph.as_mut().ok_or("not an ONNX file: it holds no graph")?;
    rewrite(graph)?;
    Ok(model)
}

struct Pair {
    quantize: usize,
    dequantize: usize,
    low: f32,
    high: f32,
}

fn rewrite(graph: &mut GraphProto) -> Result<(), String> {
    let constants: HashMap<&str, &TensorProto> =
        graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let quantizers: HashMap<&str, usize> = graph
        .node
        .iter()
        .enumerate()
        .filter(|(_, node)| node.op_type == "QuantizeLinear" && node.output.len() == 1)
        .map(|(index, node)| (node.output[0].as_str(), index))
        .collect();
    let mut pairs = Vec::new();
    for (index, node) in graph.node.iter().enumerate() {
        if node.op_type != "DequantizeLinear" {
            continue;
        }
        let Some(&quantize) = node.input.first().and_then(|name| quantizers.get(name.as_str())) else {
            continue;
        };
        let (low, high) = range(node, &constants)?;
        pairs.push(Pair { quantize, dequantize: index, low, high });
    }
    let mut used = HashSet::new();
    for (number, pair) in pairs.iter().enumerate() {
        let source =
            graph.node[pair.quantize].input.first().cloned().ok_or("QuantizeLinear without an input")?;
        let (low, high) = (format!("{LOW}{number}"), format!("edgewright_high_{number}"));
        graph.initializer.push(scalar(&low, pair.low));
        graph.initializer.push(scalar(&high, pair.high));
        let node = &mut graph.node[pair.dequantize];
        *node = NodeProto {
            input: vec![source, low, high],
            output: std::mem::take(&mut node.output),
            name: format!("edgewright_clip_{number}"),
            op_type: "Clip".to_owned(),
            ..NodeProto::default()
        };
        used.insert(pair.quantize);
    }
    // A QuantizeLinear that something else reads stays.
    let read: HashSet<String> = graph.node.iter().flat_map(|node| node.input.iter().cloned()).collect();
    let kept: HashSet<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    let mut index = 0;
    graph.node.retain(|node| {
        let gone =
            used.contains(&index) && !read.contains(&node.output[0]) && !kept.contains(&node.output[0]);
        index += 1;
        !gone
    });
    drop_idle_relus(graph);
    Ok(())
}

/// Lets Clips from zero read past the Relu in front of them, where nothing else reads the Relu.
fn drop_idle_relus(graph: &mut GraphProto) {
    let from_zero: HashSet<&str> = graph
        .initializer
        .iter()
        .filter(|tensor| tensor.name.starts_with(LOW) && first_f32(tensor) == Some(0.0))
        .map(|tensor| tensor.name.as_str())
        .collect();
    let clips = |node: &NodeProto| {
        node.op_type == "Clip" && node.input.get(1).is_some_and(|low| from_zero.contains(low.as_str()))
    };
    let mut idle: HashMap<String, String> = graph
        .node
        .iter()
        .filter(|node| node.op_type == "Relu" && node.input.len() == 1 && node.output.len() == 1)
        .map(|node| (node.output[0].clone(), node.input[0].clone()))
        .collect();
    for node in graph.node.iter().filter(|node| !clips(node)) {
        for name in &node.input {
            idle.remove(name);
        }
    }
    for output in &graph.output {
        idle.remove(&output.name);
    }
    for node in &mut graph.node {
        if let Some(source) = node.input.first().and_then(|name| idle.get(name)) {
            node.input[0] = source.clone();
        }
    }
    graph.node.retain(|node| node.output.first().is_none_or(|output| !idle.contains_key(output)));
}

/// The f32 values that the smallest and the largest integer of this pair stand for.
fn range(node: &NodeProto, constants: &HashMap<&str, &TensorProto>) -> Result<(f32, f32), String> {
    let constant = |at: usize| node.input.get(at).and_then(|name| constants.get(name.as_str())).copied();
    let scale = constant(1).and_then(first_f32).ok_or("an activation's scale is not one constant f32")?;
    let (zero, least, most) = match constant(2) {
        None => (0, 0, 255),
        Some(tensor) => {
            let (least, most) = match DataType::try_from(tensor.data_type) {
                Ok(DataType::Uint8) => (0, 255),
                Ok(DataType::Int8) => (-128, 127),
                _ => return Err("an activation's zero point is neither u8 nor i8".to_owned()),
            };
            let zero =
                first_integer(tensor, least < 0).ok_or("an activation's zero point is not one constant")?;
            (zero, least, most)
        }
    };
    if !scale.is_finite() || scale <= 0.0 {
        return Err(format!("an activation's scale is {scale}"));
    }
    #[expect(clippy::cast_precision_loss)]
    let at = |q: i32| (q - zero) as f32 * scale;
    Ok((at(least), at(most)))
}

fn first_f32(tensor: &TensorProto) -> Option<f32> {
    if DataType::try_from(tensor.data_type) != Ok(DataType::Float) || tensor.dims.iter().product::<i64>() != 1
    {
        return None;
    }
    let raw = tensor.raw_data.first_chunk::<4>().map(|bytes| f32::from_le_bytes(*bytes));
    tensor.float_data.first().copied().or(raw)
}

fn first_integer(tensor: &TensorProto, signed: bool) -> Option<i32> {
    if tensor.dims.iter().product::<i64>() != 1 {
        return None;
    }
    let raw = tensor
        .raw_data
        .first()
        .map(|&byte| if signed { i32::from(byte.cast_signed()) } else { i32::from(byte) });
    tensor.int32_data.first().copied().or(raw)
}

fn scalar(name: &str, value: f32) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        data_type: DataType::Float as i32,
        raw_data: value.to_le_bytes().to_vec(),
        ..TensorProto::default()
    }
}
