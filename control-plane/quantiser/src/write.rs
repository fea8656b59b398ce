//! The INT8 form of a graph: a pair of QuantizeLinear and DequantizeLinear behind every encoded value, integers behind
//! DequantizeLinear in place of weights and biases.

use crate::{
    affine::Affine,
    net::Net,
    proto::{AttributeProto, DataType, NodeProto, TensorProto},
    scheme::{Compute, Scheme},
    weights::{self, Layout},
};
use std::collections::{HashMap, HashSet};

/// What is written beside the scheme.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers<'a> {
    /// One for each encoding of the scheme.
    pub(crate) affines: &'a [Affine],
    /// Largest weight integer.
    pub(crate) weight_max: f32,
    /// What is added to the biases of a node, by its index.
    pub(crate) bias: &'a HashMap<usize, Vec<f32>>,
}

/// Writes `net` by `scheme`.
pub(crate) fn write(net: &Net, scheme: &Scheme, numbers: Numbers<'_>) -> Net {
    let mut writer = Writer::new(net, scheme, numbers);
    let mut nodes = Vec::with_capacity(net.graph.node.len() * 2);
    for input in &net.graph.input {
        writer.pair(&input.name, &mut nodes);
    }
    let computes: HashMap<usize, &Compute> =
        scheme.computes.iter().map(|compute| (compute.node, compute)).collect();
    for (index, node) in net.graph.node.iter().enumerate() {
        let mut node = node.clone();
        for name in &mut node.input {
            writer.read(name, scheme.readers.contains(&index));
        }
        if let Some(compute) = computes.get(&index) {
            writer.weights(&net.graph.node[index], compute, &mut node, &mut nodes);
        }
        let outputs = node.output.clone();
        for name in &mut node.output {
            if let Some(value) = writer.values.get(name) {
                name.clone_from(&value.raw);
            }
        }
        nodes.push(node);
        for output in &outputs {
            writer.pair(output, &mut nodes);
        }
    }
    let mut net = writer.net;
    net.graph.node = nodes;
    net.prune();
    net
}

/// An encoded value.
struct Encoded {
    affine: Affine,
    /// Its name before it is an integer.
    raw: String,
    /// Its name after it was one.
    read: String,
    /// Everybody reads it so.
    integer: bool,
}

struct Writer<'a> {
    /// What is written.
    net: Net,
    taken: HashSet<String>,
    constants: HashMap<&'a str, &'a TensorProto>,
    numbers: Numbers<'a>,
    values: HashMap<String, Encoded>,
    /// Constants by type and bytes, of those that are written once when they are equal.
    shared: HashMap<(i32, Vec<u8>), String>,
}

impl<'a> Writer<'a> {
    fn new(net: &'a Net, scheme: &Scheme, numbers: Numbers<'a>) -> Self {
        let mut written = net.clone();
        let mut taken = written.names();
        let readers = net.readers();
        let mut values = HashMap::new();
        for (name, group) in &scheme.values {
            let integer = scheme.integer.contains(name);
            let fresh = written.fresh(&mut taken);
            // What the caller gets keeps its name.
            let (raw, read) = if integer && readers.is_output(name) {
                (fresh, name.clone())
            } else {
                (name.clone(), fresh)
            };
            values.insert(name.clone(), Encoded { affine: numbers.affines[*group], raw, read, integer });
        }
        let constants = net.constants();
        Self { net: written, taken, constants, numbers, values, shared: HashMap::new() }
    }

    /// The name under which a node reads a value.
    fn read(&self, name: &mut String, through_encoding: bool) {
        if let Some(value) = self.values.get(name) {
            let to = if value.integer || through_encoding { &value.read } else { &value.raw };
            name.clone_from(to);
        }
    }

    /// The pair behind a value, where it is encoded.
    fn pair(&mut self, name: &str, nodes: &mut Vec<NodeProto>) {
        let Some(value) = self.values.get(name) else { return };
        let (affine, raw, read) = (value.affine, value.raw.clone(), value.read.clone());
        let scale = self.shared(DataType::F32, affine.scale.to_le_bytes().to_vec());
        let zero = self.shared(DataType::U8, vec![affine.zero_point]);
        let integer = self.net.fresh(&mut self.taken);
        nodes.push(NodeProto::new(
            "QuantizeLinear",
            &[raw, scale.clone(), zero.clone()],
            &integer,
            Vec::new(),
        ));
        nodes.push(NodeProto::new("DequantizeLinear", &[integer, scale, zero], &read, Vec::new()));
    }

    /// Integers in place of the constants of a node.
    fn weights(
        &mut self,
        original: &NodeProto,
        compute: &Compute,
        node: &mut NodeProto,
        nodes: &mut Vec<NodeProto>,
    ) {
        let Some(source) = self.values.get(&compute.input).map(|value| value.affine) else { return };
        let Some(Weights { values, shape, bias }) = constants_of(original, &self.constants) else { return };
        let layout = Layout::new(&shape, compute.axis);
        let weight_max = self.numbers.weight_max;
        let bias = corrected(bias, self.numbers.bias.get(&compute.node));
        let scales =
            weights::scales(&values, layout, bias.as_deref().unwrap_or_default(), source, weight_max);
        let integers = values.iter().enumerate().map(|(index, value)| {
            weights::integer(*value, scales[layout.channel(index)], weight_max).cast_unsigned()
        });
        let integers = integers.collect();
        let axes: &[usize] = if compute.axis.is_some() { &[layout.channels] } else { &[] };
        let attributes = |axis: usize| match compute.axis {
            Some(_) => vec![AttributeProto::size("axis", axis)],
            None => Vec::new(),
        };
        // Never shared: where ONNX Runtime takes its exact kernels on x86, it replaces weights and their zero points
        // under one name and fails on a second reader.
        let weight = self.constant(DataType::I8, &shape, integers);
        let scale = self.constant(DataType::F32, axes, bytes(&scales));
        let zero = self.constant(DataType::I8, axes, vec![0; layout.channels]);
        let read = self.net.fresh(&mut self.taken);
        let axis = compute.axis.unwrap_or_default();
        nodes.push(NodeProto::new("DequantizeLinear", &[weight, scale, zero], &read, attributes(axis)));
        node.input[1] = read;
        let Some(bias) = bias else { return };
        let bias_scales: Vec<f32> = scales.iter().map(|scale| scale * source.scale).collect();
        let integers = bias.iter().enumerate().flat_map(|(index, value)| {
            weights::bias_integer(*value, bias_scales[index % bias_scales.len()]).to_le_bytes()
        });
        let integers = integers.collect();
        let integer = self.constant(DataType::I32, &[bias.len()], integers);
        let scale = self.constant(DataType::F32, axes, bytes(&bias_scales));
        let read = self.net.fresh(&mut self.taken);
        nodes.push(NodeProto::new("DequantizeLinear", &[integer, scale], &read, attributes(0)));
        node.input.truncate(2);
        node.input.push(read);
    }

    fn constant(&mut self, data_type: DataType, dims: &[usize], bytes: Vec<u8>) -> String {
        let name = self.net.fresh(&mut self.taken);
        self.net.graph.initializer.push(TensorProto::new(name.clone(), data_type, dims, bytes));
        name
    }

    /// One number that is written once however often it is asked for.
    fn shared(&mut self, data_type: DataType, bytes: Vec<u8>) -> String {
        let key = (data_type as i32, bytes);
        if let Some(name) = self.shared.get(&key) {
            return name.clone();
        }
        let name = self.constant(data_type, &[], key.1.clone());
        self.shared.insert(key, name.clone());
        name
    }
}

/// The constants of a node that computes with weights.
pub(crate) struct Weights {
    pub(crate) values: Vec<f32>,
    pub(crate) shape: Vec<usize>,
    pub(crate) bias: Option<Vec<f32>>,
}

/// Weights and bias of a node; a product has no bias of its own.
pub(crate) fn constants_of(node: &NodeProto, constants: &HashMap<&str, &TensorProto>) -> Option<Weights> {
    let weight = constants.get(node.input.get(1)?.as_str())?;
    let bias = node.input.get(2).filter(|name| !name.is_empty() && node.op_type != "MatMul");
    let bias = bias.and_then(|name| constants.get(name.as_str())?.f32_values());
    Some(Weights { values: weight.f32_values()?, shape: weight.shape()?, bias })
}

fn corrected(bias: Option<Vec<f32>>, more: Option<&Vec<f32>>) -> Option<Vec<f32>> {
    match (bias, more) {
        (Some(bias), Some(more)) => Some(bias.iter().zip(more).map(|(a, b)| a + b).collect()),
        (None, Some(more)) => Some(more.clone()),
        (bias, None) => bias,
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
