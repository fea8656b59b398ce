//! Which values and weights of a graph become integers, and with which scales: activations u8 asymmetric, weights s8
//! symmetric per output channel.

use crate::{
    graph::{Graph, Node, Op, ValueId},
    onnx::Error,
};
use quantiser::{Affine, WEIGHT_MAX, WEIGHT_MAX_REDUCED, weight_integer, weight_scale};

/// Most values that one output of a convolution over the input may sum up for it to stay f32: with so few, the
/// integer kernels only add work (a quarter of the time of a small network on ONNX Runtime), and a few weights
/// save nothing.
const STEM_SUM_MAX: usize = 64;
/// A bias, the scales of weight and bias, and a zero point.
const CHANNEL_BYTES: usize = 4 + 4 + 4 + 1;
/// A scale and a zero point.
const ACTIVATION_BYTES: usize = 4 + 1;
/// The axes that a factor for each channel gets, for two spatial axes.
const AXES_BYTES: usize = 2 * 8;

/// The scales of one node's weights.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightEncoding {
    /// One an output channel; positive and normal.
    pub scales: Vec<f32>,
}

/// The encoding of a whole graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoding {
    values: Vec<Option<Affine>>,
    weights: Vec<Option<WeightEncoding>>,
    weight_max: f32,
}

impl Encoding {
    /// The encoding for these ranges, one a value (the input first). Probabilities and what a softmax reads stay f32, so does
    /// a small convolution over the input; a max pool and the last position keep the encoding of their input, so that they move bytes only.
    ///
    /// # Errors
    /// A count or a range that does not fit the graph.
    pub fn from_ranges(graph: &Graph, ranges: &[(f32, f32)], reduce_range: bool) -> Result<Self, Error> {
        let wrong = |tensor: String, reason: String| Error::Encoding { tensor, reason };
        if ranges.len() != graph.nodes().len() + 1 {
            let reason = format!("{} ranges for {} values", ranges.len(), graph.nodes().len() + 1);
            return Err(wrong("the graph".into(), reason));
        }
        let mut values: Vec<Option<Affine>> = Vec::with_capacity(ranges.len());
        for (index, (low, high)) in ranges.iter().enumerate() {
            let affine =
                Affine::from_range(*low, *high).map_err(|reason| wrong(format!("value {index}"), reason))?;
            let tied =
                range_of(graph, index).and_then(|source| values.get(source.index()).copied().flatten());
            values.push(Some(tied.unwrap_or(affine)));
        }
        if small_stem(graph) {
            values[ValueId::INPUT.index()] = None;
        }
        let weight_max = if reduce_range { WEIGHT_MAX_REDUCED } else { WEIGHT_MAX };
        let mut weights = Vec::with_capacity(graph.nodes().len());
        for node in graph.nodes() {
            let source = node.inputs().first().and_then(|id| values[id.index()]);
            weights.push(match (node.op().weights(), source) {
                (Some((weight, bias)), Some(source)) => Some(weight_scales(weight, bias, source, weight_max)),
                _ => None,
            });
        }
        for (index, node) in graph.nodes().iter().enumerate() {
            if graph.is_answer(ValueId::of_node(index)) {
                values[index + 1] = None;
            }
            if *node.op() == Op::Softmax {
                // The node in front gives f32 straight away, unless others read its integers.
                let logits = node.inputs()[0];
                let readers =
                    graph.nodes().iter().flat_map(crate::graph::Node::inputs).filter(|id| **id == logits);
                if readers.count() == 1 {
                    values[logits.index()] = None;
                }
            }
        }
        Ok(Self { values, weights, weight_max })
    }

    /// The encoding of a value; `None` where it stays f32.
    pub fn value(&self, id: ValueId) -> Option<Affine> {
        self.values.get(id.index()).copied().flatten()
    }

    /// The encoding of a node's weights.
    pub fn weight(&self, node: usize) -> Option<&WeightEncoding> {
        self.weights.get(node).and_then(Option::as_ref)
    }

    /// The largest weight integer.
    pub(crate) fn weight_max(&self) -> f32 {
        self.weight_max
    }

    /// A weight as its integer.
    pub(crate) fn weight_integer(&self, value: f32, scale: f32) -> i8 {
        weight_integer(value, scale, self.weight_max)
    }

    /// That this encoding belongs to `graph`.
    pub(crate) fn check(&self, graph: &Graph) -> Result<(), Error> {
        let fits = self.values.len() == graph.nodes().len() + 1
            && self.weights.len() == graph.nodes().len()
            && graph.nodes().iter().zip(&self.weights).all(|(node, encoding)| {
                let quantised = node.inputs().first().is_some_and(|id| self.value(*id).is_some());
                let channels = node.op().weights().filter(|_| quantised).map(|(_, bias)| bias.len());
                channels == encoding.as_ref().map(|encoding| encoding.scales.len())
            });
        if fits {
            return Ok(());
        }
        Err(Error::Encoding { tensor: "the graph".into(), reason: "it belongs to another graph".into() })
    }
}

/// The value whose range the value at `index` has too, because its node only moves values.
pub(crate) fn range_of(graph: &Graph, index: usize) -> Option<ValueId> {
    let node = index.checked_sub(1).and_then(|node| graph.nodes().get(node))?;
    match node.op() {
        Op::MaxPool(_) | Op::Last => node.inputs().first().copied(),
        _ => None,
    }
}

/// One scale a channel: the largest weight fills the integers, unless the bias would then not fit its own.
fn weight_scales(weight: &[f32], bias: &[f32], source: Affine, weight_max: f32) -> WeightEncoding {
    let per_channel = weight.len() / bias.len();
    let scales = weight.chunks_exact(per_channel).zip(bias).map(|(row, bias)| {
        let largest = row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        weight_scale(largest, bias.abs(), source, weight_max)
    });
    WeightEncoding { scales: scales.collect() }
}

/// Bytes that the constants of the INT8 model of `graph` take at most: one a weight, for each output channel a bias, two
/// scales and a zero point, for each activation a scale and a zero point. A small convolution over the input stays f32,
/// and an average that counts its padding is a convolution.
pub fn weight_bytes(graph: &Graph) -> usize {
    let small = small_stem(graph);
    let of_node = |node: &Node| match (node.op(), node.op().weights()) {
        (_, Some((weight, bias))) if small && node.inputs().contains(&ValueId::INPUT) => {
            4 * (weight.len() + bias.len())
        }
        (_, Some((weight, bias))) => weight.len() + CHANNEL_BYTES * bias.len(),
        (Op::AvgPool { window, count_include_pad: true }, None) => {
            node.output().channels * window.taps() + ACTIVATION_BYTES
        }
        (Op::Mul { .. }, None) => AXES_BYTES,
        _ => 0,
    };
    graph.nodes().iter().map(|node| of_node(node) + ACTIVATION_BYTES).sum::<usize>() + ACTIVATION_BYTES
}

/// Whether only convolutions over few values read the input.
fn small_stem(graph: &Graph) -> bool {
    graph.nodes().iter().filter(|node| node.inputs().contains(&ValueId::INPUT)).all(|node| match node.op() {
        Op::Conv(conv) => conv.weight.len() / conv.out_channels <= STEM_SUM_MAX,
        _ => false,
    })
}
