//! Networks, boards and samples for tests.

use super::Trainable;
use crate::{
    batch::Samples,
    data::Split,
    graph::{Graph, Op, Shape, ValueId, Window},
    onnx::tests::{conv, linear},
    optim::{self, Sgd},
    seeds::{self, Purpose},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shared::board::Board;

/// An ARM board with vectors of four values.
pub(crate) fn board() -> Board {
    let text = include_str!("../../../../firmware-configs/generic-arm64.toml");
    Board::from_toml(text, "generic-arm64.toml").unwrap()
}

/// Convolutions of 16 and 24 channels with a residual over 1x8x8, three classes.
pub(crate) fn wide_graph() -> Graph {
    let rng = &mut ChaCha8Rng::seed_from_u64(3);
    let mut graph = Graph::new(Shape::image(1, 8, 8)).unwrap();
    let same = || Window::same(2, 3, 1, 1, 1);
    let mut relu = |graph: &mut Graph, from: ValueId, channels: usize, groups: usize| {
        let shape = graph.shape(from).unwrap().clone();
        let Op::Conv(mut made) = conv(rng, &shape, channels, groups, same()) else { unreachable!() };
        made.relu = true;
        graph.push(Op::Conv(made), &[from]).unwrap()
    };
    let stem = relu(&mut graph, ValueId::INPUT, 16, 1);
    let deep = relu(&mut graph, stem, 16, 16);
    let side = relu(&mut graph, deep, 24, 1);
    let other = relu(&mut graph, stem, 24, 1);
    let sum = graph.push(Op::Add { relu: true }, &[side, other]).unwrap();
    let last = relu(&mut graph, sum, 32, 1);
    let mean = graph.push(Op::GlobalAvgPool, &[last]).unwrap();
    let logits = graph.push(linear(rng, 32, 3, false), &[mean]).unwrap();
    graph.push(Op::Softmax, &[logits]).unwrap();
    graph
}

/// [`wide_graph`] after a training that has it answer most of [`stripes`] right.
pub(crate) fn trained_graph() -> Graph {
    let samples = Samples::new(&stripes(96, 0.6, 1), &[1, 8, 8]);
    let all: Vec<i64> = (0..96).collect();
    let (x, labels) = samples.batch(&all);
    let net = Trainable::new(&wide_graph());
    let mut sgd = Sgd::new(net.params.len(), 0.9, 0.0);
    for _ in 0..60 {
        let loss = net.logits(&x).cross_entropy_for_logits(&labels);
        let gradient = optim::clip(&net.params.gradients(&loss), 1.0);
        sgd.step(&mut net.params.flat(), &gradient, net.params.decay(), 0.05);
    }
    net.to_graph().unwrap()
}

/// Images of 8x8 of three classes: stripes along one axis, along the other, and a chequered one, each with noise.
pub(crate) fn stripes(count: usize, noise: f32, seed: u64) -> Split {
    let rng = &mut seeds::stream(seed, Purpose::Samples, 7);
    let mut split = Split::default();
    for sample in 0..count {
        let class = sample % 3;
        for y in 0..8u8 {
            for x in 0..8u8 {
                let on = match class {
                    0 => x % 2,
                    1 => y % 2,
                    _ => (x + y) % 2,
                };
                split.samples.push(f32::from(on) + noise * rng.random_range(-1.0..1.0));
            }
        }
        split.labels.push(class as i64);
    }
    split
}
