//! Which nodes of a graph run on integers, and which values get an encoding for it.
//!
//! Convolutions, Gemm and MatMul with constant weights do. Their inputs are encoded, and so is what a convolution gives,
//! after the Relu or Clip that is its only reader. Operators that only move values (and max pools) keep the encoding of
//! their input, a Concat shares one with all its inputs, and sums, products and averages between two such operators have
//! their own. Everything else, such as Softmax, LayerNormalization and LSTM, stays f32.

use crate::{
    net::{Net, Readers},
    proto::{NodeProto, TensorProto},
};
use std::collections::{HashMap, HashSet};

/// Most values that one output of a convolution over the graph's input may sum up for it to stay f32: with so few, the
/// integer kernels only add work, and a few weights save nothing.
const STEM_SUM_MAX: usize = 64;
/// Operators that move values and change none.
const MOVES: [&str; 7] = ["Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "MaxPool"];
/// Averages, whose result lies within the range of what they read.
const AVERAGES: [&str; 2] = ["AveragePool", "GlobalAveragePool"];
/// Operators of two values.
const PAIRS: [&str; 2] = ["Add", "Mul"];
/// Operators that the integer kernel in front of them takes along.
const ACTIVATIONS: [&str; 2] = ["Relu", "Clip"];

/// A node with constant weights that runs on integers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compute {
    /// Index of the node.
    pub(crate) node: usize,
    /// The value that it reads.
    pub(crate) input: String,
    /// Axis of the weights that has a scale for each index; `None` is one scale for all.
    pub(crate) axis: Option<usize>,
    /// Axis of the input's channels, from the front for convolutions, else the last.
    pub(crate) channels_last: bool,
    /// The value in which its kernel ends: its own output, or that of the activation behind it.
    pub(crate) end: String,
}

/// What is encoded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scheme {
    pub(crate) computes: Vec<Compute>,
    /// Encoded values with the number of their encoding, in the order of the graph.
    pub(crate) values: Vec<(String, usize)>,
    /// Encoded values that an integer kernel gives: everybody reads them through their encoding.
    pub(crate) integer: HashSet<String>,
    /// Nodes that read through encodings.
    pub(crate) readers: HashSet<usize>,
}

impl Scheme {
    /// The number of encodings.
    pub(crate) fn encodings(&self) -> usize {
        self.values.iter().map(|(_, group)| group + 1).max().unwrap_or(0)
    }
}

/// The nodes that can run on integers, in the order of the graph.
pub(crate) fn computes(net: &Net) -> Vec<Compute> {
    let constants = net.constants();
    let readers = net.readers();
    let inputs: HashSet<&str> = net.graph.input.iter().map(|input| input.name.as_str()).collect();
    let nodes = net.graph.node.iter().enumerate();
    nodes.filter_map(|(index, node)| compute(index, node, net, &constants, &readers, &inputs)).collect()
}

fn compute(
    index: usize,
    node: &NodeProto,
    net: &Net,
    constants: &HashMap<&str, &TensorProto>,
    readers: &Readers,
    inputs: &HashSet<&str>,
) -> Option<Compute> {
    let [input, weight, rest @ ..] = &node.input[..] else { return None };
    let [output] = &node.output[..] else { return None };
    let weight = constants.get(weight.as_str())?;
    if constants.contains_key(input.as_str()) {
        return None;
    }
    let (values, shape) = (weight.f32_values()?, weight.shape()?);
    if values.is_empty()
        || values.len() != shape.iter().product::<usize>()
        || !values.iter().all(|v| v.is_finite())
    {
        return None;
    }
    let conv = node.op_type.starts_with("Conv");
    let axis = match (node.op_type.as_str(), shape.len()) {
        ("Conv", 3..) => Some(0),
        ("ConvTranspose", 3..) if node.int("group", 1) == 1 => Some(1),
        ("ConvTranspose", 3..) => None,
        ("Gemm", 2) if node.int("transA", 0) == 0 && is_plain_gemm(node) => {
            Some(usize::from(node.int("transB", 0) == 0))
        }
        ("MatMul", 2) => Some(1),
        _ => return None,
    };
    let out_channels = match (node.op_type.as_str(), axis) {
        (_, Some(axis)) => shape[axis],
        _ => shape[1] * usize::try_from(node.int("group", 1)).ok()?,
    };
    if let Some(bias) = rest.first().filter(|name| !name.is_empty()) {
        let bias = constants.get(bias.as_str())?.f32_values()?;
        if bias.len() != out_channels || !bias.iter().all(|value| value.is_finite()) {
            return None;
        }
    }
    if node.op_type == "Conv" && inputs.contains(input.as_str()) && values.len() / shape[0] <= STEM_SUM_MAX {
        return None;
    }
    let mut end = output.clone();
    if node.op_type == "MatMul" {
        end = behind(net, readers, &end, |next| next.op_type == "Add" && has_constant(next, constants));
    }
    end = behind(net, readers, &end, |next| is_activation(next, constants));
    Some(Compute { node: index, input: input.clone(), axis, channels_last: !conv, end })
}

fn is_plain_gemm(node: &NodeProto) -> bool {
    [("alpha", 1.0), ("beta", 1.0)]
        .iter()
        .all(|(name, one)| (node.float(name, 1.0) - one).abs() < f32::EPSILON)
}

fn has_constant(node: &NodeProto, constants: &HashMap<&str, &TensorProto>) -> bool {
    node.input.iter().any(|name| constants.contains_key(name.as_str()))
}

fn is_activation(node: &NodeProto, constants: &HashMap<&str, &TensorProto>) -> bool {
    ACTIVATIONS.contains(&node.op_type.as_str())
        && node.input.iter().skip(1).all(|name| name.is_empty() || constants.contains_key(name.as_str()))
}

/// The output of the only reader of `name`, where that is such a node; else `name`.
fn behind(net: &Net, readers: &Readers, name: &str, wanted: impl Fn(&NodeProto) -> bool) -> String {
    let next = readers.only(name).map(|index| &net.graph.node[index]);
    let next = next.filter(|next| wanted(next)).and_then(|next| next.output.first());
    next.cloned().unwrap_or_else(|| name.to_owned())
}

/// The scheme in which these nodes run on integers, and no other with weights.
pub(crate) fn scheme(net: &Net, computes: &[Compute]) -> Scheme {
    let constants = net.constants();
    let readers = net.readers();
    let by_node: HashMap<usize, &Compute> = computes.iter().map(|compute| (compute.node, compute)).collect();
    let must: HashSet<&str> = computes.iter().map(|compute| compute.input.as_str()).collect();
    let wanted = wanted(net, &by_node, &constants);
    let mut walk = Walk { must, wanted, ..Walk::default() };
    for input in &net.graph.input {
        if walk.must.contains(input.name.as_str()) {
            walk.encode(&input.name, false);
        }
    }
    for (index, node) in net.graph.node.iter().enumerate() {
        match by_node.get(&index) {
            Some(compute) => {
                walk.readers.insert(index);
                if node.op_type.starts_with("Conv") || walk.wanted.contains(compute.end.as_str()) {
                    walk.encode(&compute.end, true);
                }
            }
            None => glue(&mut walk, index, node, net, &readers, &constants),
        }
        for output in &node.output {
            if walk.must.contains(output.as_str()) {
                walk.encode(output, false);
            }
        }
    }
    walk.finish(computes)
}

/// What a node without weights does to the encodings.
fn glue(
    walk: &mut Walk<'_>,
    index: usize,
    node: &NodeProto,
    net: &Net,
    readers: &Readers,
    constants: &HashMap<&str, &TensorProto>,
) {
    let operator = node.op_type.as_str();
    let ([first, ..], [output]) = (&node.input[..], &node.output[..]) else { return };
    let is = |table: &[&str]| table.contains(&operator);
    let live = node.input.iter().all(|name| walk.group.contains_key(name.as_str()));
    if is(&MOVES) {
        let worth = operator == "MaxPool" || walk.wanted.contains(output.as_str());
        if walk.group.contains_key(first.as_str()) && worth {
            walk.encode(output, true);
            walk.tie(first, output);
            walk.readers.insert(index);
        }
    } else if operator == "Concat" && live && walk.wanted.contains(output.as_str()) {
        walk.encode(output, true);
        for input in &node.input {
            walk.tie(input, output);
        }
        walk.readers.insert(index);
    } else if is(&AVERAGES) && live && walk.wanted.contains(output.as_str()) {
        walk.encode(output, true);
        walk.readers.insert(index);
    } else if is(&PAIRS) && live && node.input.len() == 2 {
        let end = behind(net, readers, output, |next| is_activation(next, constants));
        if walk.wanted.contains(end.as_str()) {
            walk.encode(&end, true);
            walk.readers.insert(index);
        }
    }
}

/// The values for which somebody has use in integers: a node with weights, whatever moves or joins values lies between.
fn wanted(
    net: &Net,
    computes: &HashMap<usize, &Compute>,
    constants: &HashMap<&str, &TensorProto>,
) -> HashSet<String> {
    let mut wanted = HashSet::new();
    for (index, node) in net.graph.node.iter().enumerate().rev() {
        if let Some(compute) = computes.get(&index) {
            wanted.insert(compute.input.clone());
            continue;
        }
        let operator = node.op_type.as_str();
        let passes = [&MOVES[..], &AVERAGES, &PAIRS, &ACTIVATIONS, &["Concat"]]
            .iter()
            .any(|table| table.contains(&operator));
        if passes && node.output.iter().any(|name| wanted.contains(name)) {
            let inputs =
                node.input.iter().filter(|name| !name.is_empty() && !constants.contains_key(name.as_str()));
            wanted.extend(inputs.cloned());
        }
    }
    wanted
}

/// The way through the graph.
#[derive(Default)]
struct Walk<'a> {
    must: HashSet<&'a str>,
    wanted: HashSet<String>,
    order: Vec<String>,
    /// Index of a value in `order`.
    group: HashMap<String, usize>,
    /// For each value one with the same encoding, itself at the end of the chain.
    same: Vec<usize>,
    integer: HashSet<String>,
    readers: HashSet<usize>,
}

impl Walk<'_> {
    fn encode(&mut self, name: &str, integer: bool) {
        if integer {
            self.integer.insert(name.to_owned());
        }
        if !self.group.contains_key(name) {
            self.group.insert(name.to_owned(), self.order.len());
            self.same.push(self.order.len());
            self.order.push(name.to_owned());
        }
    }

    fn root(&self, mut at: usize) -> usize {
        while self.same[at] != at {
            at = self.same[at];
        }
        at
    }

    fn tie(&mut self, a: &str, b: &str) {
        let (Some(a), Some(b)) = (self.group.get(a), self.group.get(b)) else { return };
        let (a, b) = (self.root(*a), self.root(*b));
        self.same[a.max(b)] = a.min(b);
    }

    fn finish(self, computes: &[Compute]) -> Scheme {
        let mut numbers = HashMap::new();
        let values = (0..self.order.len()).map(|at| {
            let count = numbers.len();
            let number = *numbers.entry(self.root(at)).or_insert(count);
            (self.order[at].clone(), number)
        });
        let values = values.collect();
        Scheme { computes: computes.to_vec(), values, integer: self.integer, readers: self.readers }
    }
}

#[cfg(test)]
mod tests;
