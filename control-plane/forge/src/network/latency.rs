//! How long one inference takes on a board that is not at hand.
//!
//! An estimate, to keep a search within `limits.latency_us_max`: where devices of the board have measured, by what was
//! fitted to that ([`shared::latency`]), else by the board's description. By that every node costs a fixed number of
//! cycles, and every multiply-accumulate of a convolution or a linear layer a share of a vector instruction. The shares
//! are those of INT8 models of the forge (1 to 10 million multiply-accumulates, 20 to 60 nodes) on x86-64 with AVX2. A
//! processor that starts fewer vector instructions than one a cycle is slower than estimated.

use crate::graph::{Graph, Node, Op, Shape, ValueId};
use shared::{
    board::{Board, RuntimeName},
    job::{EstimateReport, EstimateSource, LatencyTable},
    latency::{Features, Work},
};

/// Cycles of one node beside its arithmetic.
const NODE_CYCLES: f64 = 2500.0;
/// Bits of one value in a vector register. INT8 products are summed in more bits than they have.
const LANE_BITS: u32 = 32;
/// Multiply-accumulates a lane and cycle on ONNX Runtime.
const RATE_ONNX_RUNTIME: f64 = 1.0;
/// The same on tract, which computes the INT8 model in f32.
const RATE_TRACT: f64 = 0.3;
/// How much faster ONNX Runtime is with an 8-bit dot product.
const DOT_FACTOR: f64 = 2.0;

/// Microseconds of one inference of `graph` as INT8 model on `board`, one thread, the best runtime that it allows.
pub fn estimate_us(graph: &Graph, board: &Board) -> u64 {
    estimate(graph, board).us
}

/// The same, with what it rests on.
pub fn estimate(graph: &Graph, board: &Board) -> EstimateReport {
    let by_description = |why_not_profile| EstimateReport {
        us: by_description_us(graph, board),
        by: EstimateSource::Description { why_not_profile },
        here_us: None,
    };
    let Some(latency) = &board.latency else { return by_description(None) };
    let spatial_axes = graph.input_shape().spatial.len();
    match latency.fastest_int8(&board.runtime.allowed, spatial_axes, &features(graph)) {
        Ok((us, model)) => {
            let (devices, runtime, error) = (latency.devices, model.runtime, model.networks);
            let by = EstimateSource::Profile { devices, runtime, error };
            EstimateReport { us: us.ceil() as u64, by, here_us: None }
        }
        Err(reason) => by_description(Some(reason)),
    }
}

/// The estimate beside what the worker measured of the exported model, on the runtime that the estimate is of.
pub fn beside(estimate: EstimateReport, here: &LatencyTable, board: &Board) -> EstimateReport {
    let on = |runtime: &RuntimeName| match runtime {
        RuntimeName::OnnxRuntime => Some(here.ort_int8),
        RuntimeName::Tract => here.tract_int8,
    };
    let us = match &estimate.by {
        EstimateSource::Profile { runtime, .. } => on(runtime),
        EstimateSource::Description { .. } => {
            board.runtime.allowed.iter().filter_map(on).min_by(f64::total_cmp)
        }
    };
    EstimateReport { here_us: us.map(|us| us.round() as u64), ..estimate }
}

/// What a prediction of the graph's latency needs to know.
fn features(graph: &Graph) -> Features {
    let output = graph.shape(graph.output()).map_or(0, Shape::elements);
    let boundary = (graph.input_shape().elements() + output) as u64;
    Features::of(boundary, graph.nodes().iter().map(|node| work(graph, node)))
}

fn work(graph: &Graph, node: &Node) -> Work {
    let elements = |id: &ValueId| graph.shape(*id).map_or(0, |shape| shape.elements() as u64);
    let input: u64 = node.inputs().iter().map(elements).sum();
    let output = node.output().elements() as u64;
    let channels = node.inputs().first().and_then(|id| graph.shape(*id)).map_or(0, |x| x.channels as u64);
    match node.op() {
        Op::Conv(conv) => Work::conv(
            [channels, conv.out_channels as u64],
            conv.window.taps() as u64,
            conv.groups as u64,
            input,
            node.output().spatial_elements() as u64,
        ),
        Op::Linear(_) => Work::linear(input, output),
        Op::MaxPool(window) => Work::max_pool(channels, window.taps() as u64, input, output),
        Op::AvgPool { window, .. } => Work::average_pool(channels, window.taps() as u64, input, output),
        Op::Add { .. }
        | Op::Mul { .. }
        | Op::Concat
        | Op::Relu
        | Op::Sigmoid
        | Op::GlobalAvgPool
        | Op::Last
        | Op::Flatten
        | Op::Softmax => Work::other(input, output),
    }
}

/// Values that one vector instruction of the board's processor takes.
pub fn lanes(board: &Board) -> u32 {
    (board.cpu.vector_bits / LANE_BITS).max(1)
}

fn by_description_us(graph: &Graph, board: &Board) -> u64 {
    let lanes = f64::from(lanes(board));
    let rate = |runtime: &RuntimeName| match runtime {
        RuntimeName::OnnxRuntime if board.cpu.int8_dot => RATE_ONNX_RUNTIME * DOT_FACTOR,
        RuntimeName::OnnxRuntime => RATE_ONNX_RUNTIME,
        RuntimeName::Tract => RATE_TRACT,
    };
    let rate = board.runtime.allowed.iter().map(rate).fold(RATE_TRACT, f64::max);
    let cycles = graph.nodes().len() as f64 * NODE_CYCLES + graph.macs() as f64 / (lanes * rate);
    (cycles / f64::from(board.cpu.clock_mhz.max(1))).ceil() as u64
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::graph::{Conv, Window};
    use shared::{
        Timestamp,
        latency::{BoardLatency, Feature, LatencyModel, PredictionError},
        profile::Form,
    };

    const BOARD: &str = include_str!("../../../../firmware-configs/generic-arm64.toml");

    pub(crate) fn board() -> Board {
        Board::from_toml(BOARD, "generic-arm64.toml").unwrap()
    }

    /// A profile in which one of each feature costs so many femtoseconds on ONNX Runtime.
    pub(crate) fn profile(cost_fs: &[(Feature, u64)]) -> BoardLatency {
        let error = PredictionError { points: 9, median_permille: 84, worst_permille: 310 };
        let model = LatencyModel {
            runtime: RuntimeName::OnnxRuntime,
            form: Form::Int8,
            spatial_axes: 2,
            cost_fs: cost_fs.iter().copied().collect(),
            points: 60,
            operations: error,
            networks: error,
        };
        BoardLatency { devices: 2, measured_at: Timestamp(0), models: vec![model] }
    }

    fn graph(channels: usize) -> Graph {
        let mut graph = Graph::new(Shape::image(1, 28, 28)).unwrap();
        let conv = Conv {
            out_channels: channels,
            window: Window::same(2, 3, 1, 1, 1),
            groups: 1,
            weight: vec![0.1; channels * 9],
            bias: vec![0.0; channels],
            relu: true,
        };
        graph.push(Op::Conv(conv), &[ValueId::INPUT]).unwrap();
        graph
    }

    #[test]
    fn a_slower_board_a_slower_runtime_and_a_larger_network_take_longer() {
        let board = board();
        // 2500 cycles and 784 * 9 * 16 / 4 more at 1200 MHz.
        assert_eq!(estimate_us(&graph(16), &board), 26);
        assert!(estimate_us(&graph(160), &board) > 200);
        let mut other = board.clone();
        other.runtime.allowed = vec![RuntimeName::Tract];
        assert!(estimate_us(&graph(16), &other) > 80);
        other = board.clone();
        other.cpu.clock_mhz = 120;
        assert!(estimate_us(&graph(16), &other) > 250);
        other = board;
        other.cpu.int8_dot = true;
        assert!(estimate_us(&graph(16), &other) < 26);
    }

    #[test]
    fn what_devices_measured_goes_before_the_description_and_says_so() {
        let costs = [(Feature::Inference, 5_000_000_000), (Feature::DenseMac, 1_000_000)];
        let measured = Board { latency: Some(profile(&costs)), ..board() };
        let found = estimate(&graph(16), &measured);
        // 5 us, and 784 * 9 * 16 multiply-accumulates of a nanosecond.
        assert_eq!(found.us, 118);
        let here = LatencyTable { tract_fp32: None, tract_int8: Some(40.0), ort_fp32: 1.0, ort_int8: 99.6 };
        assert_eq!(
            beside(found, &here, &measured).line(),
            "118 us on onnxruntime by the profile of 2 device(s), whose median error on networks is 8.4 % (worst 31.0 %); \
             100 us measured on the worker"
        );
    }

    #[test]
    fn a_profile_that_is_too_far_off_is_not_used_and_the_estimate_says_why() {
        let mut far = profile(&[(Feature::Inference, 5_000_000_000)]);
        far.models[0].networks.median_permille = 800;
        let found = estimate(&graph(16), &Board { latency: Some(far), ..board() });
        assert_eq!(found.us, 26);
        assert!(
            found.line().contains("not by its profile: onnxruntime INT8 over images: its median"),
            "{}",
            found.line()
        );
        let mut other = Board { latency: Some(profile(&[])), ..board() };
        other.runtime.allowed = vec![RuntimeName::Tract];
        let found = estimate(&graph(16), &other);
        assert!(found.line().contains("nothing was measured on the runtimes"), "{}", found.line());
    }
}
