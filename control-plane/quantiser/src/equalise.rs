//! Cross-layer equalisation: between two nodes with weights that only a Relu separates, each channel may be made smaller
//! in front and larger behind without a change of what the two compute, so that all channels fill a common range. Nagel
//! et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019), section 4.1.

use crate::{
    net::Net,
    proto::TensorProto,
    scheme::Compute,
    weights::Layout,
    write::{Weights, constants_of},
};
use std::collections::{BTreeMap, HashMap};

/// Passes over all pairs; each scales a channel less than the one before it.
const PASSES: usize = 20;
/// A pass that changes no channel by more than this share is the last.
const ENOUGH: f32 = 1e-3;
/// A channel is scaled by this much at most, up or down.
const FACTOR_MAX: f32 = 1e4;

/// The numbers of a node with weights.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Weights, row major.
    pub values: Vec<f32>,
    /// Their shape.
    pub shape: Vec<usize>,
    /// One an output channel.
    pub bias: Option<Vec<f32>>,
    /// The axis of the output channels.
    pub outputs: usize,
    /// The axis of the input channels; that of the output channels where each is a group of its own.
    pub inputs: usize,
}

/// The equalised network; `None` where no two nodes are such a pair. It computes what `net` computes, but for rounding.
pub(crate) fn equalise(net: &Net, computes: &[Compute]) -> Option<Net> {
    let pairs = pairs(net, computes);
    if pairs.is_empty() {
        return None;
    }
    let constants = net.constants();
    let mut layers = BTreeMap::new();
    for node in pairs.iter().flat_map(|(front, back)| [*front, *back]) {
        let Weights { values, shape, bias } = constants_of(&net.graph.node[node], &constants)?;
        let (outputs, inputs) = axes(net, node, &shape)?;
        layers.insert(node, Layer { values, shape, bias, outputs, inputs });
    }
    if !balance(&mut layers, &pairs) {
        return None;
    }
    Some(with_layers(net, layers))
}

/// Scales the channels between the layers of each pair, of which the second is the only reader of the first, straight or
/// through a Relu, and reads as many channels as the first gives. False where a number is not finite any more.
pub fn balance(layers: &mut BTreeMap<usize, Layer>, pairs: &[(usize, usize)]) -> bool {
    for _ in 0..PASSES {
        let mut most = 0f32;
        for (front, back) in pairs {
            let (Some(first), Some(second)) = (layers.get(front), layers.get(back)) else { continue };
            let factors = factors(first, second);
            most = factors.iter().map(|factor| (factor - 1.0).abs()).fold(most, f32::max);
            let scale = |layer: &mut Layer, axis: usize, by: &dyn Fn(f32) -> f32| {
                let layout = Layout::new(&layer.shape, Some(axis));
                for (index, value) in layer.values.iter_mut().enumerate() {
                    *value *= by(factors[layout.channel(index)]);
                }
            };
            if let Some(layer) = layers.get_mut(front) {
                scale(layer, layer.outputs, &|factor| 1.0 / factor);
                for (value, factor) in layer.bias.iter_mut().flatten().zip(&factors) {
                    *value /= factor;
                }
            }
            if let Some(layer) = layers.get_mut(back) {
                scale(layer, layer.inputs, &|factor| factor);
            }
        }
        if most < ENOUGH {
            break;
        }
    }
    let finite =
        |layer: &Layer| layer.values.iter().chain(layer.bias.iter().flatten()).all(|value| value.is_finite());
    layers.values().all(finite)
}

fn with_layers(net: &Net, layers: BTreeMap<usize, Layer>) -> Net {
    let mut net = net.clone();
    let mut taken = net.names();
    for (node, layer) in layers {
        let name = net.fresh(&mut taken);
        net.graph.initializer.push(TensorProto::floats(&name, &layer.shape, &layer.values));
        net.graph.node[node].input[1] = name;
        if let Some(bias) = layer.bias {
            let name = net.fresh(&mut taken);
            net.graph.initializer.push(TensorProto::floats(&name, &[bias.len()], &bias));
            net.graph.node[node].input[2] = name;
        }
    }
    net.prune();
    net
}

/// Of each channel between two layers what it is divided by in front and multiplied by behind.
fn factors(front: &Layer, back: &Layer) -> Vec<f32> {
    let (front, back) = (largest(front, front.outputs), largest(back, back.inputs));
    let one = |front: &f32, back: &f32| {
        let factor = (front / back).sqrt();
        if factor.is_normal() { factor.clamp(1.0 / FACTOR_MAX, FACTOR_MAX) } else { 1.0 }
    };
    front.iter().zip(&back).map(|(front, back)| one(front, back)).collect()
}

fn largest(layer: &Layer, axis: usize) -> Vec<f32> {
    let layout = Layout::new(&layer.shape, Some(axis));
    let mut largest = vec![0f32; layout.channels];
    for (index, value) in layer.values.iter().enumerate() {
        let channel = &mut largest[layout.channel(index)];
        *channel = channel.max(value.abs());
    }
    largest
}

/// Axes of output and input channels in the weights of a node. A convolution in groups has them on one axis, and only
/// where each channel is a group of its own.
fn axes(net: &Net, node: usize, shape: &[usize]) -> Option<(usize, usize)> {
    let node = &net.graph.node[node];
    match (node.op_type.as_str(), node.int("group", 1)) {
        ("Conv", 1) => Some((0, 1)),
        ("Conv", group)
            if usize::try_from(group).ok() == shape.first().copied() && shape.get(1) == Some(&1) =>
        {
            Some((0, 0))
        }
        ("Gemm", _) if node.int("transB", 0) == 0 => Some((1, 0)),
        ("Gemm", _) => Some((0, 1)),
        _ => None,
    }
}

/// Pairs of nodes of which the second is the only reader of what the first gives, straight or through a Relu.
fn pairs(net: &Net, computes: &[Compute]) -> Vec<(usize, usize)> {
    let constants = net.constants();
    let readers = net.readers();
    let by_input: HashMap<&str, &Compute> =
        computes.iter().map(|compute| (compute.input.as_str(), compute)).collect();
    let channels = |node: usize, outputs: bool| {
        let Weights { shape, .. } = constants_of(&net.graph.node[node], &constants)?;
        let (out, input) = axes(net, node, &shape)?;
        Some(shape[if outputs { out } else { input }])
    };
    let mut pairs = Vec::new();
    for front in computes {
        let Some(output) = net.graph.node[front.node].output.first() else { continue };
        let straight = front.end == *output;
        let through_relu = readers.only(output).is_some_and(|next| {
            let next = &net.graph.node[next];
            next.op_type == "Relu" && next.output.first() == Some(&front.end)
        });
        let Some(back) = by_input.get(front.end.as_str()) else { continue };
        let only = readers.only(&front.end) == Some(back.node);
        let (given, taken) = (channels(front.node, true), channels(back.node, false));
        if (straight || through_relu) && only && given.is_some() && given == taken {
            pairs.push((front.node, back.node));
        }
    }
    pairs
}
