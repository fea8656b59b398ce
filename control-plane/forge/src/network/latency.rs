//! How long one inference takes on a board that is not at hand.
//!
//! An estimate, to keep a search within `limits.latency_us_max`: every node costs a fixed number of cycles, and every
//! multiply-accumulate of a convolution or a linear layer a share of a vector instruction. The shares are those of INT8
//! models of the forge (1 to 10 million multiply-accumulates, 20 to 60 nodes) on x86-64 with AVX2. A processor that
//! starts fewer vector instructions than one a cycle is slower than estimated; the agent measures on the device.

use crate::graph::Graph;
use shared::board::{Board, RuntimeName};

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
    let lanes = f64::from((board.cpu.vector_bits / LANE_BITS).max(1));
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
mod tests {
    use super::*;
    use crate::graph::{Conv, Op, Shape, ValueId, Window};

    const BOARD: &str = include_str!("../../../../firmware-configs/generic-arm64.toml");

    #[test]
    fn a_slower_board_a_slower_runtime_and_a_larger_network_take_longer() {
        let graph = |channels: usize| {
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
        };
        let board = Board::from_toml(BOARD, "generic-arm64.toml").unwrap();
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
}
