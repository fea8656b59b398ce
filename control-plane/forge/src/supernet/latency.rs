//! What each operation costs by what devices of the board measured.

use crate::genotype::{Dim, Operation, Skeleton};
use shared::{
    board::Board,
    latency::{Features, Work},
};

/// What each operation costs relative to the dearest in the cells of `skeleton`: its latency there, as predicted by the
/// board's profile for the runtime that is faster. `None` where the board has no profile that can be used.
pub fn costs_by_profile(skeleton: &Skeleton, board: &Board) -> Option<[f32; Operation::ALL.len()]> {
    let latency = board.latency.as_ref()?;
    let features = Operation::ALL.map(|op| {
        let places = places(skeleton).into_iter();
        Features::of_part(places.flat_map(|(channels, spatial)| works(op, skeleton.dim, channels, &spatial)))
    });
    let (allowed, spatial_axes) = (&board.runtime.allowed, skeleton.input.len().saturating_sub(1));
    let (_, model) = latency.fastest_int8(allowed, spatial_axes, &features[Operation::Conv.index()]).ok()?;
    let us = features.map(|features| model.predict_us(&features));
    let most = us.into_iter().fold(0.0, f64::max);
    (most > 0.0).then(|| us.map(|us| (us / most) as f32))
}

/// Channels and spatial axes of each cell.
fn places(skeleton: &Skeleton) -> Vec<(u64, Vec<u64>)> {
    let axes = skeleton.input.iter().skip(1).map(|axis| *axis as u64);
    let stem = skeleton.stem_stride.unsigned_abs().max(1);
    let mut spatial: Vec<u64> = axes.map(|axis| axis.div_ceil(stem)).collect();
    let mut places = Vec::with_capacity(skeleton.cells.len());
    for cell in &skeleton.cells {
        // The second adapter reads the cell before.
        let stride = cell.adapters[1].stride.unsigned_abs().max(1);
        spatial = spatial.into_iter().map(|axis| axis.div_ceil(stride)).collect();
        places.push((cell.channels.unsigned_abs(), spatial.clone()));
    }
    places
}

/// The nodes that an operation becomes.
fn works(op: Operation, dim: Dim, channels: u64, spatial: &[u64]) -> Vec<Work> {
    let places: u64 = spatial.iter().product();
    let elements = channels * places;
    let taps: u64 = spatial.iter().map(|_| op.kernel(dim).unsigned_abs()).product();
    let conv = |taps, groups| Work::conv([channels, channels], taps, groups, elements, places);
    match op {
        Operation::Conv => vec![conv(taps, 1)],
        Operation::SepConv => vec![conv(taps, channels), conv(1, 1)],
        Operation::MaxPool => vec![Work::max_pool(channels, taps, elements, elements)],
        Operation::AvgPool => vec![Work::average_pool(channels, taps, elements, elements)],
        Operation::Skip | Operation::Zero => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::latency::tests::{board, profile};
    use shared::latency::Feature;

    #[test]
    fn each_cell_counts_at_its_own_width_and_resolution() {
        let image = Skeleton::new(&[1, 28, 28], 10, 8, 3, 2);
        assert_eq!(places(&image), [(8, vec![14, 14]), (16, vec![7, 7]), (32, vec![4, 4])]);
        let series = Skeleton::new(&[3, 65], 10, 8, 2, 2);
        assert_eq!(places(&series), [(8, vec![33]), (16, vec![17])]);
    }

    #[test]
    fn the_board_says_which_operation_is_the_dearest() {
        let skeleton = Skeleton::new(&[1, 28, 28], 10, 8, 3, 2);
        assert_eq!(costs_by_profile(&skeleton, &board()), None);
        // On this one pooling is slow, whatever the weights say.
        let costs =
            [(Feature::Node, 1_000_000_000), (Feature::MaxPoolTap, 3_000_000), (Feature::DenseMac, 100)];
        let measured = Board { latency: Some(profile(&costs)), ..board() };
        let found = costs_by_profile(&skeleton, &measured).unwrap();
        assert_eq!(found[Operation::MaxPool.index()], 1.0);
        let [conv, separable] = [Operation::Conv, Operation::SepConv].map(|op| found[op.index()]);
        // Two nodes to one, and no multiply-accumulate that costs.
        assert!(conv < 1.0 && separable > conv, "{found:?}");
        assert_eq!(found[Operation::Skip.index()..], [0.0, 0.0]);
    }

    #[test]
    fn a_profile_that_cannot_be_used_leaves_the_weights_to_say_what_operations_cost() {
        let skeleton = Skeleton::new(&[1, 28, 28], 10, 8, 3, 2);
        let mut far = profile(&[(Feature::Node, 1_000_000_000)]);
        far.models[0].operations.median_permille = 999;
        assert_eq!(costs_by_profile(&skeleton, &Board { latency: Some(far), ..board() }), None);
    }
}
