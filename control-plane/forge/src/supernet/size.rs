//! How much memory a step takes, from the layout alone.

use super::{Space, generator::HIDDEN};
use crate::genotype::{Architecture, OperationKind, Skeleton};

/// Bytes of a value.
const VALUE_BYTES: u64 = 4;
/// Copies of all weights that are alive in a step: weights, momentum, gradients one by one, joined and clipped, and what
/// the optimiser computes on the way.
const WEIGHT_COPIES: u64 = 7;
/// The same where an average of the weights is kept.
const TRAINED_COPIES: u64 = WEIGHT_COPIES + 1;
/// Activations of one state that the backward pass has alive beside those that were kept for it.
const BACKWARD: u64 = 6;

/// Values of one state for one sample: the stem's, then each cell's.
fn states(skeleton: &Skeleton) -> (u64, Vec<u64>) {
    let mut axes: Vec<u64> = skeleton.input[1..].iter().map(|axis| *axis as u64).collect();
    let mut shrink = |stride: i64| -> u64 {
        for axis in &mut axes {
            *axis = axis.div_ceil(stride.unsigned_abs().max(1));
        }
        axes.iter().product()
    };
    let stem = skeleton.stem_channels.unsigned_abs() * shrink(skeleton.stem_stride);
    let cells = skeleton.cells.iter().map(|cell| {
        let [_, previous] = cell.adapters;
        cell.channels.unsigned_abs() * shrink(previous.stride)
    });
    (stem, cells.collect())
}

/// Values of the largest state for one sample: how much there is to share among threads.
pub fn largest_state(skeleton: &Skeleton) -> u64 {
    let (stem, cells) = states(skeleton);
    cells.into_iter().fold(stem, u64::max)
}

/// Values that one sample takes in a step, `per_cell` times each cell's state.
fn activations(skeleton: &Skeleton, per_cell: u64) -> u64 {
    let (stem, cells) = states(skeleton);
    let input: u64 = skeleton.input.iter().map(|axis| *axis as u64).product();
    // The input and its augmented form; the stem's convolution and its normalised form.
    2 * input + 2 * stem + per_cell * cells.into_iter().sum::<u64>()
}

/// About how many bytes one step of the search takes with `batch` samples.
pub fn search_bytes(skeleton: &Skeleton, space: &Space, batch: u64) -> u64 {
    let (edges, nodes) = (space.edges().len() as u64, space.nodes() as u64);
    let of_kind = |kind: OperationKind| match kind {
        OperationKind::Conv | OperationKind::SqueezeExcite => 1,
        OperationKind::SepConv | OperationKind::Attention => 2,
        // The convolution and its normalised form, of twice the channels, and the gate.
        OperationKind::Gated => 6,
        OperationKind::MaxPool | OperationKind::AvgPool | OperationKind::Skip | OperationKind::Zero => 0,
    };
    let kinds = || space.operations().iter().map(|operation| operation.kind());
    let an_edge: u64 = kinds().map(of_kind).sum();
    let maxima = kinds().filter(|kind| *kind == OperationKind::MaxPool).count() as u64;
    // Both adapters and their normalised forms; what the operations of an edge keep; each maximum of a state with its
    // places, of twice the size; each node, and the nodes joined; the terms of one state before they are added.
    let per_cell = 4 + an_edge * edges + 3 * maxima * (nodes + 2) + 2 * nodes + 3 * nodes + BACKWARD;
    VALUE_BYTES * (batch * activations(skeleton, per_cell) + WEIGHT_COPIES * weights(skeleton, space))
}

/// About how many weights a supernet has.
pub fn weights(skeleton: &Skeleton, space: &Space) -> u64 {
    let edges = space.edges().len() as u64;
    let mut weights = skeleton.features.unsigned_abs() * skeleton.classes.unsigned_abs();
    for cell in &skeleton.cells {
        let channels = cell.channels.unsigned_abs();
        for adapter in &cell.adapters {
            weights += channels * adapter.channels_in.unsigned_abs() * adapter.kernel.unsigned_abs().pow(2);
        }
        let all = space.operations().iter().map(|operation| operation.weights(skeleton.dim, channels));
        weights += edges * all.sum::<u64>();
    }
    weights
}

/// About how many bytes more a step along one path takes where kernels are generated: a hidden vector and its gradient for
/// each pair of channels.
pub fn generator_bytes(skeleton: &Skeleton, space: &Space) -> u64 {
    let edges = (space.nodes() * space.fan_in()) as u64;
    let pairs = skeleton.cells.iter().map(|cell| 2 * cell.channels.unsigned_abs().pow(2)).sum::<u64>();
    2 * VALUE_BYTES * HIDDEN.unsigned_abs() * edges * pairs
}

/// About how many bytes one training step of the derived network takes with `batch` samples.
pub fn training_bytes(architecture: &Architecture, batch: u64) -> u64 {
    let edges = architecture.genotype.nodes.iter().flatten().count() as u64;
    let nodes = architecture.genotype.nodes.len() as u64;
    let per_cell = 4 + 3 * edges + 3 * nodes + BACKWARD;
    let activations = activations(&architecture.skeleton(), per_cell);
    VALUE_BYTES * (batch * activations + TRAINED_COPIES * architecture.weights())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_state_is_the_one_with_most_values() {
        // 8 x 14 x 14 behind the stem and in the first cell, 16 x 7 x 7 and 32 x 4 x 4 after it.
        assert_eq!(largest_state(&Skeleton::new(&[1, 28, 28], 10, 8, 3, 2)), 1568);
        assert_eq!(largest_state(&Skeleton::new(&[1, 24], 2, 16, 3, 2)), 384);
    }

    #[test]
    fn a_step_of_the_demo_is_small_and_the_largest_budget_is_not() {
        let space = Space::all_earlier(2);
        let bytes = search_bytes(&Skeleton::new(&[1, 28, 28], 10, 8, 3, 2), &space, 64);
        assert!((8 << 20..128 << 20).contains(&bytes), "{bytes}");
        let space = Space::all_earlier(8);
        let bytes = search_bytes(&Skeleton::new(&[1, 28, 28], 10, 512, 32, 8), &space, 4096);
        assert!(bytes > 1 << 40, "{bytes}");
    }
}
