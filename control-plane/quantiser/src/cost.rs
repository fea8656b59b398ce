//! What one sample costs: multiply-accumulates, and the most values alive at once.

use crate::{calibrate::Samples, net::Net, proto::ValueInfoProto};
use runtime::{Ort, Probe};
use std::collections::{HashMap, HashSet};

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Weights and biases.
    pub parameters: u64,
    /// Of convolutions, Gemm and MatMul with constant weights.
    pub macs: u64,
    /// The most bytes of activations alive at once as INT8 (one a value), when the nodes run in order and a value is
    /// freed after its last reader.
    pub activation_bytes: u64,
}

/// Runs one sample and looks at the shapes of all values.
///
/// # Errors
/// ONNX Runtime does not run the graph.
pub(crate) fn cost(net: &Net, samples: Samples<'_>, ort: &Ort) -> Result<Cost, runtime::Error> {
    let names: Vec<String> = net
        .graph
        .node
        .iter()
        .flat_map(|node| &node.output)
        .filter(|name| !name.is_empty())
        .cloned()
        .collect();
    let mut probed = net.clone();
    let any = |name: &String| ValueInfoProto { name: name.clone(), ..ValueInfoProto::default() };
    probed.graph.output = names.iter().map(any).collect();
    let mut probe = Probe::load(ort, &probed.encode())?;
    let mut sizes: HashMap<&str, usize> = HashMap::new();
    let each = samples.shape.iter().product();
    sizes.extend(net.graph.input.iter().map(|input| (input.name.as_str(), each)));
    if let Some(sample) = samples.iter().next() {
        let shapes = probe.shapes(sample, &samples.batch_of_one())?;
        sizes.extend(names.iter().map(String::as_str).zip(shapes.iter().map(|shape| shape.iter().product())));
    }
    let parameters = net.graph.initializer.iter().filter(|tensor| tensor.f32_values().is_some());
    let parameters =
        parameters.filter_map(|tensor| Some(tensor.shape()?.iter().product::<usize>() as u64)).sum();
    Ok(Cost { parameters, macs: macs(net, &sizes), activation_bytes: peak(net, &sizes) })
}

fn macs(net: &Net, sizes: &HashMap<&str, usize>) -> u64 {
    let constants = net.constants();
    let of = |node: &crate::proto::NodeProto| {
        let shape = constants.get(node.input.get(1)?.as_str())?.shape()?;
        let weights: usize = shape.iter().product();
        let size = |name: Option<&String>| sizes.get(name?.as_str()).copied();
        // Of each value on one side, the weights that it meets.
        let (values, met) = match node.op_type.as_str() {
            "Conv" => (size(node.output.first())?, weights / shape.first()?.max(&1)),
            "ConvTranspose" => (size(node.input.first())?, weights / shape.first()?.max(&1)),
            "Gemm" if node.int("transB", 0) != 0 => (size(node.output.first())?, *shape.last()?),
            "Gemm" | "MatMul" => (size(node.output.first())?, shape[shape.len().checked_sub(2)?]),
            _ => return None,
        };
        Some((values as u64).saturating_mul(met as u64))
    };
    net.graph.node.iter().filter_map(of).fold(0, u64::saturating_add)
}

fn peak(net: &Net, sizes: &HashMap<&str, usize>) -> u64 {
    let nodes = &net.graph.node;
    let mut last_reader: HashMap<&str, usize> = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        last_reader.extend(node.input.iter().map(|name| (name.as_str(), index)));
    }
    // What the caller gets stays to the end.
    last_reader.extend(net.graph.output.iter().map(|output| (output.name.as_str(), nodes.len())));
    let size = |name: &str| sizes.get(name).copied().unwrap_or(0) as u64;
    let mut alive: u64 = net.graph.input.iter().map(|input| size(&input.name)).sum();
    let mut peak = alive;
    for (index, node) in nodes.iter().enumerate() {
        alive += node.output.iter().map(|name| size(name)).sum::<u64>();
        peak = peak.max(alive);
        let ended: HashSet<&str> = node
            .input
            .iter()
            .chain(&node.output)
            .map(String::as_str)
            .filter(|name| last_reader.get(name).is_none_or(|last| *last == index))
            .collect();
        alive -= ended.into_iter().map(size).sum::<u64>();
    }
    peak
}
