//! What each operation costs by what devices of the board measured.

use crate::genotype::{Dim, Operation, OperationKind, Skeleton};
use shared::{
    board::Board,
    latency::{Features, Work},
};

/// What each operation costs relative to the dearest in the cells of `skeleton`: its latency there, as predicted by the
/// board's profile for the runtime that is faster. `None` where the board has no profile that can be used.
pub fn costs_by_profile(operations: &[Operation], skeleton: &Skeleton, board: &Board) -> Option<Vec<f32>> {
    let latency = board.latency.as_ref()?;
    let features = |op: Operation| {
        let places = places(skeleton).into_iter();
        Features::of_part(places.flat_map(|(channels, spatial)| works(op, skeleton.dim, channels, &spatial)))
    };
    let (allowed, spatial_axes) = (&board.runtime.allowed, skeleton.input.len().saturating_sub(1));
    let (_, model) = latency.fastest_int8(allowed, spatial_axes, &features(Operation::CONV3)).ok()?;
    let us: Vec<f64> = operations.iter().map(|op| model.predict_us(&features(*op))).collect();
    let most = us.iter().copied().fold(0.0, f64::max);
    (most > 0.0).then(|| us.into_iter().map(|us| (us / most) as f32).collect())
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
    let conv = |to, taps, groups| Work::conv([channels, to], taps, groups, elements, places);
    let gate = || vec![Work::other(elements, elements), Work::other(2 * elements, elements)];
    match op.kind() {
        OperationKind::Conv => vec![conv(channels, taps, 1)],
        OperationKind::SepConv => vec![conv(channels, taps, channels), conv(channels, 1, 1)],
        // Exported as two convolutions, a sigmoid and a product.
        OperationKind::Gated => {
            let mut works = vec![conv(channels, taps, 1), conv(channels, taps, 1)];
            works.extend(gate());
            works
        }
        OperationKind::Attention => {
            vec![conv(1, taps, 1), Work::other(places, places), Work::other(elements + places, elements)]
        }
        OperationKind::SqueezeExcite => {
            let squeezed = Operation::squeezed(channels);
            vec![
                Work::other(elements, channels),
                Work::linear(channels, squeezed),
                Work::linear(squeezed, channels),
                Work::other(channels, channels),
                Work::other(elements + channels, elements),
            ]
        }
        OperationKind::MaxPool => vec![Work::max_pool(channels, taps, elements, elements)],
        OperationKind::AvgPool => vec![Work::average_pool(channels, taps, elements, elements)],
        OperationKind::Skip | OperationKind::Zero => Vec::new(),
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
        let by = |board: &Board| costs_by_profile(&Operation::FIRST, &skeleton, board);
        assert_eq!(by(&board()), None);
        // On this one pooling is slow, whatever the weights say.
        let costs =
            [(Feature::Node, 1_000_000_000), (Feature::MaxPoolTap, 3_000_000), (Feature::DenseMac, 100)];
        let measured = Board { latency: Some(profile(&costs)), ..board() };
        let found = by(&measured).unwrap();
        let [conv, separable, max, _, skip, zero] = found[..] else { panic!("{found:?}") };
        assert_eq!(max, 1.0);
        // Two nodes to one, and no multiply-accumulate that costs.
        assert!(conv < 1.0 && separable > conv, "{found:?}");
        assert_eq!([skip, zero], [0.0, 0.0]);
    }

    #[test]
    fn a_profile_that_cannot_be_used_leaves_the_weights_to_say_what_operations_cost() {
        let skeleton = Skeleton::new(&[1, 28, 28], 10, 8, 3, 2);
        let mut far = profile(&[(Feature::Node, 1_000_000_000)]);
        far.models[0].operations.median_permille = 999;
        let board = Board { latency: Some(far), ..board() };
        assert_eq!(costs_by_profile(&Operation::FIRST, &skeleton, &board), None);
    }
}
