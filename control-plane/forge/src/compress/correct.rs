//! Corrections of a network before its weights are rounded: channels of equal extent across layers, and biases that take
//! back what the rounding shifts. Both are those of imported models ([`quantiser::balance`],
//! [`quantiser::bias_correction`]).

use super::Error;
use crate::{
    graph::{self, Graph, Node, Op},
    quantise::{Encoding, Seen},
};
use quantiser::{Layer, balance, bias_correction};
use std::collections::BTreeMap;

/// The network with its channels equalised across layers (Nagel et al. 2019, section 4.1): it computes the same, but for
/// rounding. `None` where no two layers follow each other alone.
///
/// # Errors
/// None that a graph of this crate gives rise to.
pub fn equalised(graph: &Graph) -> Result<Option<Graph>, graph::Error> {
    let mut readers = vec![Vec::new(); graph.nodes().len() + 1];
    for (index, node) in graph.nodes().iter().enumerate() {
        for id in node.inputs() {
            if let Some(readers) = readers.get_mut(id.index()) {
                readers.push(index);
            }
        }
    }
    let layer = |index: usize| graph.nodes().get(index).and_then(|node| layer(graph, node));
    let mut layers = BTreeMap::new();
    let mut pairs = Vec::new();
    for front in 0..graph.nodes().len() {
        let Some([back]) = readers.get(front + 1).map(Vec::as_slice) else { continue };
        let (Some(first), Some(second)) = (layer(front), layer(*back)) else { continue };
        if first.shape.get(first.outputs) == second.shape.get(second.inputs) {
            pairs.push((front, *back));
            layers.insert(front, first);
            layers.insert(*back, second);
        }
    }
    if pairs.is_empty() || !balance(&mut layers, &pairs) {
        return Ok(None);
    }
    let changed = with_weights(graph, |index, weight, bias| {
        if let Some(layer) = layers.get(&index) {
            weight.clone_from(&layer.values);
            if let Some(found) = &layer.bias {
                bias.clone_from(found);
            }
        }
    });
    changed.map(Some)
}

/// The network with biases that take back the mean shift of each output channel under `encoding` (the same, section 4.2).
///
/// # Errors
/// A correction that is not finite.
pub fn bias_corrected(graph: &Graph, encoding: &Encoding, seen: &Seen) -> Result<Graph, Error> {
    let changed = with_weights(graph, |index, weight, bias| {
        let Some(node) = graph.nodes().get(index) else { return };
        let (Some(scales), Some(layer), Some(source)) =
            (encoding.weight(index), layer_shape(graph, node), node.inputs().first())
        else {
            return;
        };
        let shift = bias_correction(
            weight,
            &layer,
            groups(node.op()),
            &scales.scales,
            seen.means(*source),
            encoding.weight_max(),
        );
        for (bias, shift) in bias.iter_mut().zip(shift).filter(|(_, shift)| shift.is_finite()) {
            *bias += shift;
        }
    });
    Ok(changed?)
}

/// The graph with weights and biases that `change` has been at; it gets the index of the node.
pub(crate) fn with_weights(
    graph: &Graph,
    mut change: impl FnMut(usize, &mut Vec<f32>, &mut Vec<f32>),
) -> Result<Graph, graph::Error> {
    let mut changed = Graph::new(graph.input_shape().clone())?;
    for (index, node) in graph.nodes().iter().enumerate() {
        let mut op = node.op().clone();
        if let Some((weight, bias)) = op.weights_mut() {
            change(index, weight, bias);
        }
        changed.push(op, node.inputs())?;
    }
    Ok(changed)
}

fn groups(op: &Op) -> usize {
    match op {
        Op::Conv(conv) => conv.groups,
        _ => 1,
    }
}

/// `[out, in / groups, taps]` of a convolution, `[out, channels, elements of one]` of a linear layer.
fn layer_shape(graph: &Graph, node: &Node) -> Option<Vec<usize>> {
    let source = graph.shape(*node.inputs().first()?)?;
    match node.op() {
        Op::Conv(conv) => {
            Some(vec![conv.out_channels, source.channels / conv.groups.max(1), conv.window.taps()])
        }
        Op::Linear(linear) => Some(vec![linear.out_features, source.channels, source.spatial_elements()]),
        _ => None,
    }
}

fn layer(graph: &Graph, node: &Node) -> Option<Layer> {
    let shape = layer_shape(graph, node)?;
    let (weight, bias) = node.op().weights()?;
    let inputs = match node.op() {
        Op::Conv(conv) if conv.groups == 1 => 1,
        // Each channel a group of its own.
        Op::Conv(conv) if conv.groups == conv.out_channels && shape.get(1) == Some(&1) => 0,
        Op::Linear(_) => 1,
        _ => return None,
    };
    Some(Layer { values: weight.to_vec(), shape, bias: Some(bias.to_vec()), outputs: 0, inputs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        onnx::{
            self,
            tests::{distance, ort, random_graph, reference, run, values},
        },
        quantise::{Calibrator, look},
    };
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use runtime::{LoadOptions, Runtime};

    #[test]
    fn an_equalised_network_computes_the_same_with_channels_of_like_extent() {
        let mut changed = 0;
        for seed in 0..12 {
            let graph = random_graph(seed);
            let Some(even) = equalised(&graph).unwrap() else { continue };
            changed += usize::from(even != graph);
            let each = graph.input_shape().elements();
            let x = values(&mut ChaCha8Rng::seed_from_u64(seed), each, 1.0);
            let off = distance(&reference(&graph, &x), &reference(&even, &x));
            assert!(off < 1e-4, "seed {seed} is off by {off}");
        }
        assert!(changed > 2, "{changed} networks were changed");
    }

    #[test]
    fn corrected_biases_bring_the_mean_answer_back() {
        let Some(ort) = ort() else { return };
        let (mut plain, mut corrected) = (0.0, 0.0);
        for seed in 0..6 {
            let graph = random_graph(seed);
            let each = graph.input_shape().elements();
            let samples: Vec<f32> = values(&mut ChaCha8Rng::seed_from_u64(seed ^ 9), each * 64, 1.0)
                .into_iter()
                .map(f32::abs)
                .collect();
            let seen = look(&graph, &samples, &ort).unwrap();
            let encoding = Encoding::from_ranges(&graph, &seen.ranges(Calibrator::MinMax), true).unwrap();
            let shifted = bias_corrected(&graph, &encoding, &seen).unwrap();
            let mean = |bytes: &[u8]| -> Vec<f32> {
                let answers = run(ort.load(bytes, &LoadOptions::default()).unwrap().as_ref(), &samples, 64);
                (0..5).map(|class| answers.iter().skip(class).step_by(5).sum::<f32>() / 64.0).collect()
            };
            let wanted = mean(&onnx::write_f32(&graph).unwrap());
            plain += distance(&mean(&onnx::write_qdq(&graph, &encoding).unwrap()), &wanted);
            corrected += distance(&mean(&onnx::write_qdq(&shifted, &encoding).unwrap()), &wanted);
        }
        assert!(corrected < plain, "{corrected} against {plain}");
    }
}
