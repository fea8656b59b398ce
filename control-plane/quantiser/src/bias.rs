//! Bias correction: rounding the weights of a node shifts the mean of what it gives; its bias takes the shift back.
//! Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019), section 4.2: the shift of
//! an output channel is the error of its weights times the mean of each input channel.

use crate::{
    affine::Affine,
    net::Net,
    scheme::Compute,
    weights::{self, Layout},
    write::{Weights, constants_of},
};
use std::collections::HashMap;

/// What is added to the biases of the nodes that have room for one, by their index. `means` holds the mean of each input
/// channel of a node, `sources` the encodings of their inputs by name.
pub(crate) fn corrections(
    net: &Net,
    computes: &[Compute],
    means: &HashMap<usize, Vec<f32>>,
    sources: &HashMap<&str, Affine>,
    weight_max: f32,
) -> HashMap<usize, Vec<f32>> {
    let constants = net.constants();
    let mut all = HashMap::new();
    for compute in computes {
        let node = &net.graph.node[compute.node];
        let known = means.get(&compute.node).zip(sources.get(compute.input.as_str()));
        let (Some((means, source)), Some(weights)) = (known, constants_of(node, &constants)) else {
            continue;
        };
        let Weights { values, shape, bias } = weights;
        let (Some(axis), "Conv" | "Gemm") = (compute.axis, node.op_type.as_str()) else { continue };
        let layout = Layout::new(&shape, Some(axis));
        let inputs = Layout::new(&shape, Some(1 - axis.min(1)));
        let scales =
            weights::scales(&values, layout, bias.as_deref().unwrap_or_default(), *source, weight_max);
        let groups = usize::try_from(node.int("group", 1)).unwrap_or(1);
        let back = back(&values, (layout, inputs), groups, &scales, means, weight_max);
        if back.iter().all(|value| value.is_finite()) {
            all.insert(compute.node, back);
        }
    }
    all
}

/// What is added to the biases of a layer whose weights lie as `shape` says, `[out, in / groups, …]`, in `groups` groups,
/// with a scale for each output channel and a mean for each input channel.
pub fn correction(
    values: &[f32],
    shape: &[usize],
    groups: usize,
    scales: &[f32],
    means: &[f32],
    weight_max: f32,
) -> Vec<f32> {
    if shape.len() < 2 || values.len() != shape.iter().product::<usize>() || scales.len() != shape[0] {
        return vec![0.0; shape.first().copied().unwrap_or(0)];
    }
    let layouts = (Layout::new(shape, Some(0)), Layout::new(shape, Some(1)));
    back(values, layouts, groups, scales, means, weight_max)
}

/// The shift of each output channel, taken back. `layouts` says where output and input channels lie.
fn back(
    values: &[f32],
    (layout, inputs): (Layout, Layout),
    groups: usize,
    scales: &[f32],
    means: &[f32],
    weight_max: f32,
) -> Vec<f32> {
    // The first input channel of the group of an output channel.
    let per_group = layout.channels.div_ceil(groups.max(1)).max(1);
    let mut shift = vec![0f64; layout.channels];
    for (index, value) in values.iter().enumerate() {
        let channel = layout.channel(index);
        let input = channel / per_group * inputs.channels + inputs.channel(index);
        let Some(mean) = means.get(input) else { continue };
        let integer = weights::integer(*value, scales[channel], weight_max);
        let error = f64::from(f32::from(integer) * scales[channel] - value);
        shift[channel] += error * f64::from(*mean);
    }
    #[expect(clippy::cast_possible_truncation)]
    let back = shift.iter().map(|shift| -*shift as f32).collect();
    back
}
