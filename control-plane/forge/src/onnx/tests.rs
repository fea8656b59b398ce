use super::*;
use crate::compress::testing::wide_graph;
use crate::graph::{Conv, Linear, Op, Shape, ValueId, Window};
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use runtime::{LoadOptions, Ort, Runnable, Runtime, Tract};

/// ONNX Runtime, or a line that says why a test does without it.
///
/// # Panics
/// Where the environment names a library and it cannot be opened: a test must not pass by testing nothing.
pub(crate) fn ort() -> Option<Ort> {
    match Ort::open(None) {
        Ok(ort) => Some(ort),
        Err(error) if std::env::var_os("EDGEWRIGHT_ORT").is_some() => panic!("EDGEWRIGHT_ORT: {error}"),
        Err(error) => {
            println!("skipped on ONNX Runtime: {error}");
            None
        }
    }
}

pub(crate) fn values(rng: &mut ChaCha8Rng, count: usize, limit: f32) -> Vec<f32> {
    (0..count).map(|_| rng.random_range(-limit..limit)).collect()
}

pub(crate) fn conv(
    rng: &mut ChaCha8Rng,
    input: &Shape,
    out_channels: usize,
    groups: usize,
    window: Window,
) -> Op {
    let each = input.channels / groups * window.taps();
    #[expect(clippy::cast_precision_loss)]
    let limit = (6.0 / each as f32).sqrt();
    let weight = values(rng, out_channels * each, limit);
    Op::Conv(Conv {
        out_channels,
        window,
        groups,
        weight,
        bias: values(rng, out_channels, 0.2),
        relu: rng.random(),
    })
}

pub(crate) fn linear(rng: &mut ChaCha8Rng, inputs: usize, out_features: usize, relu: bool) -> Op {
    #[expect(clippy::cast_precision_loss)]
    let limit = (6.0 / inputs as f32).sqrt();
    let weight = values(rng, inputs * out_features, limit);
    Op::Linear(Linear { out_features, weight, bias: values(rng, out_features, 0.2), relu })
}

/// A random network with every operation within reach, over an image or a series.
pub(crate) fn random_graph(seed: u64) -> Graph {
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    let channels = rng.random_range(1..4);
    let input = if rng.random() {
        Shape::image(channels, rng.random_range(6..12), rng.random_range(6..12))
    } else {
        Shape::series(channels, rng.random_range(12..40))
    };
    let rank = input.spatial.len();
    let mut graph = Graph::new(input).unwrap();
    let shape = graph.input_shape().clone();
    let width = 4 * rng.random_range(1..3);
    let stem = conv(rng, &shape, width, 1, Window::same(rank, 3, 1, 1, 1));
    let mut last = graph.push(stem, &[ValueId::INPUT]).unwrap();
    for _ in 0..rng.random_range(1..5) {
        let shape = graph.shape(last).unwrap().clone();
        let channels = shape.channels;
        let roomy = shape.spatial.iter().all(|axis| *axis >= 5);
        let stride = if roomy && rng.random() { 2 } else { 1 };
        let dilation = if roomy && rng.random() { 2 } else { 1 };
        let separable =
            conv(rng, &shape, channels, channels, Window::same(rank, 3, stride, dilation, dilation));
        last = match rng.random_range(0..9) {
            0 => graph.push(separable, &[last]).unwrap(),
            1 => graph.push(Op::MaxPool(Window::same(rank, 3, stride, 1, 1)), &[last]).unwrap(),
            2 => {
                let pool = Op::AvgPool {
                    window: Window::same(rank, 3, stride, 1, 1),
                    count_include_pad: rng.random(),
                };
                graph.push(pool, &[last]).unwrap()
            }
            3 => {
                let same = conv(rng, &shape, channels, 1, Window::same(rank, 3, 1, 1, 1));
                let other = graph.push(same, &[last]).unwrap();
                graph.push(Op::Add { relu: rng.random() }, &[last, other]).unwrap()
            }
            4 => {
                let point = conv(rng, &shape, 4, 1, Window::same(rank, 1, 1, 0, 1));
                let other = graph.push(point, &[last]).unwrap();
                graph.push(Op::Concat, &[last, other]).unwrap()
            }
            5 => {
                let same = conv(rng, &shape, channels, 1, Window::same(rank, 3, 1, 1, 1));
                let gate = graph.push(same, &[last]).unwrap();
                let gate = graph.push(Op::Sigmoid, &[gate]).unwrap();
                graph.push(Op::Mul { relu: rng.random() }, &[last, gate]).unwrap()
            }
            6 => {
                let mean = graph.push(Op::GlobalAvgPool, &[last]).unwrap();
                let squeezed = graph.push(linear(rng, channels, 2, true), &[mean]).unwrap();
                let scores = graph.push(linear(rng, 2, channels, false), &[squeezed]).unwrap();
                let gate = graph.push(Op::Sigmoid, &[scores]).unwrap();
                graph.push(Op::Mul { relu: false }, &[last, gate]).unwrap()
            }
            7 => {
                let point = conv(rng, &shape, 1, 1, Window::same(rank, 5, 1, 2, 1));
                let scores = graph.push(point, &[last]).unwrap();
                let gate = graph.push(Op::Sigmoid, &[scores]).unwrap();
                graph.push(Op::Mul { relu: false }, &[last, gate]).unwrap()
            }
            _ => graph.push(Op::Relu, &[last]).unwrap(),
        };
    }
    if rng.random() {
        last = graph.push(Op::GlobalAvgPool, &[last]).unwrap();
    }
    if rng.random() {
        let hidden = linear(rng, graph.shape(last).unwrap().elements(), 12, true);
        last = graph.push(hidden, &[last]).unwrap();
    }
    let head = linear(rng, graph.shape(last).unwrap().elements(), 5, false);
    last = graph.push(head, &[last]).unwrap();
    graph.push(Op::Softmax, &[last]).unwrap();
    graph
}

/// The graph evaluated by the book, for one sample.
pub(crate) fn reference(graph: &Graph, input: &[f32]) -> Vec<f32> {
    let mut all = vec![input.to_vec()];
    for node in graph.nodes() {
        let inputs: Vec<(&[f32], &Shape)> =
            node.inputs().iter().map(|id| (&all[id.index()][..], graph.shape(*id).unwrap())).collect();
        all.push(evaluate(node.op(), &inputs, node.output()));
    }
    all.pop().unwrap()
}

fn rectify(mut values: Vec<f32>, relu: bool) -> Vec<f32> {
    if relu {
        values.iter_mut().for_each(|value| *value = value.max(0.0));
    }
    values
}

fn evaluate(op: &Op, inputs: &[(&[f32], &Shape)], output: &Shape) -> Vec<f32> {
    let (x, shape) = inputs[0];
    match op {
        Op::Conv(conv) => {
            let per_group = shape.channels / conv.groups;
            let out_per_group = conv.out_channels / conv.groups;
            let taps = conv.window.taps();
            let mut y = Vec::new();
            for o in 0..conv.out_channels {
                for place in places(&conv.window, shape, output) {
                    let mut sum = conv.bias[o];
                    for i in 0..per_group {
                        let channel = (o / out_per_group * per_group + i) * shape.spatial_elements();
                        let weight = (o * per_group + i) * taps;
                        for (tap, at) in place.iter().enumerate() {
                            sum += at.map_or(0.0, |at| x[channel + at]) * conv.weight[weight + tap];
                        }
                    }
                    y.push(sum);
                }
            }
            rectify(y, conv.relu)
        }
        Op::MaxPool(window) => {
            pool(x, shape, window, output, |seen, _| seen.iter().copied().fold(f32::NEG_INFINITY, f32::max))
        }
        #[expect(clippy::cast_precision_loss)]
        Op::AvgPool { window, count_include_pad } => pool(x, shape, window, output, |seen, taps| {
            seen.iter().sum::<f32>() / (if *count_include_pad { taps } else { seen.len() }) as f32
        }),
        Op::Add { relu } => rectify(x.iter().zip(inputs[1].0).map(|(a, b)| a + b).collect(), *relu),
        Op::Mul { relu } => {
            let (factor, of) = inputs[1];
            let each = shape.spatial_elements().max(1);
            let at = |index: usize| match of {
                of if *of == *shape => factor[index],
                of if of.spatial.is_empty() => factor[index / each],
                _ => factor[index % each],
            };
            rectify(x.iter().enumerate().map(|(index, value)| value * at(index)).collect(), *relu)
        }
        Op::Sigmoid => x.iter().map(|value| 1.0 / (1.0 + (-value).exp())).collect(),
        Op::Concat => inputs.iter().flat_map(|(x, _)| x.iter().copied()).collect(),
        Op::Relu => rectify(x.to_vec(), true),
        #[expect(clippy::cast_precision_loss)]
        Op::GlobalAvgPool => x
            .chunks_exact(shape.spatial_elements())
            .map(|channel| channel.iter().sum::<f32>() / channel.len() as f32)
            .collect(),
        Op::Linear(linear) => {
            let rows = linear.weight.chunks_exact(x.len()).zip(&linear.bias);
            let y = rows.map(|(row, bias)| row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>() + bias);
            rectify(y.collect(), linear.relu)
        }
        Op::Last => {
            x.chunks_exact(shape.spatial_elements()).filter_map(|channel| channel.last().copied()).collect()
        }
        Op::Flatten => x.to_vec(),
        Op::Softmax if !shape.spatial.is_empty() => {
            let length = shape.spatial_elements();
            let mut y = vec![0.0; x.len()];
            for at in 0..length {
                let column: Vec<f32> = x.iter().skip(at).step_by(length).copied().collect();
                let sum: f32 = column.iter().map(|x| x.exp()).sum();
                column.iter().enumerate().for_each(|(row, x)| y[row * length + at] = x.exp() / sum);
            }
            y
        }
        Op::Softmax => {
            let top = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let e: Vec<f32> = x.iter().map(|x| (x - top).exp()).collect();
            let sum: f32 = e.iter().sum();
            e.into_iter().map(|e| e / sum).collect()
        }
    }
}

/// For each output place, where each tap reads inside one channel; `None` in the padding.
fn places(window: &Window, input: &Shape, output: &Shape) -> Vec<Vec<Option<usize>>> {
    let lift =
        |list: &[usize], fill: usize| if list.len() == 1 { vec![fill, list[0]] } else { list.to_vec() };
    let (size, out) = (lift(&input.spatial, 1), lift(&output.spatial, 1));
    let (kernel, stride) = (lift(&window.kernel, 1), lift(&window.stride, 1));
    let (padding, dilation) = (lift(&window.padding, 0), lift(&window.dilation, 1));
    let along = |axis: usize, place: usize, tap: usize| {
        (place * stride[axis] + tap * dilation[axis]).checked_sub(padding[axis]).filter(|at| *at < size[axis])
    };
    let mut all = Vec::new();
    for y in 0..out[0] {
        for x in 0..out[1] {
            let taps = (0..kernel[0]).flat_map(|i| (0..kernel[1]).map(move |j| (i, j)));
            all.push(taps.map(|(i, j)| Some(along(0, y, i)? * size[1] + along(1, x, j)?)).collect());
        }
    }
    all
}

fn pool(
    x: &[f32],
    shape: &Shape,
    window: &Window,
    output: &Shape,
    reduce: impl Fn(&[f32], usize) -> f32,
) -> Vec<f32> {
    let places = places(window, shape, output);
    x.chunks_exact(shape.spatial_elements())
        .flat_map(|channel| {
            let values = |taps: &Vec<Option<usize>>| {
                let seen: Vec<f32> = taps.iter().flatten().map(|at| channel[*at]).collect();
                reduce(&seen, taps.len())
            };
            places.iter().map(values).collect::<Vec<_>>()
        })
        .collect()
}

pub(crate) fn run(model: &dyn Runnable, input: &[f32], batch: usize) -> Vec<f32> {
    let mut output = Vec::new();
    model.run_into(input, batch, &mut output).unwrap();
    output
}

pub(crate) fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Every runtime that is there.
pub(crate) fn runtimes() -> Vec<Box<dyn Runtime>> {
    let mut all: Vec<Box<dyn Runtime>> = vec![Box::new(Tract)];
    all.extend(ort().map(|ort| Box::new(ort) as Box<dyn Runtime>));
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn both_runtimes_compute_what_the_graph_says(seed in any::<u64>()) {
        let graph = random_graph(seed);
        let bytes = write_f32(&graph).unwrap();
        let each = graph.input_shape().elements();
        let input = values(&mut ChaCha8Rng::seed_from_u64(seed ^ 1), each * 3, 1.0);
        let expected: Vec<f32> = input.chunks_exact(each).flat_map(|x| reference(&graph, x)).collect();
        for runtime in runtimes() {
            let model = runtime.load(&bytes, &LoadOptions::default()).unwrap();
            prop_assert_eq!(&model.input().shape, &graph.input_shape().axes());
            prop_assert_eq!(model.input().name.as_str(), INPUT);
            let off = distance(&run(model.as_ref(), &input, 3), &expected);
            prop_assert!(off < 1e-4, "{} is off by {off}", runtime.name());
        }
    }

    #[test]
    fn damaged_bytes_are_refused_or_run_but_never_panic(
        seed in 0u64..8,
        cut in any::<proptest::sample::Index>(),
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), 0u8..8), 0..6),
    ) {
        let mut bytes = write_f32(&random_graph(seed)).unwrap();
        for (at, bit) in &flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        if flips.is_empty() {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = inspect(&bytes);
        for runtime in runtimes() {
            if let Ok(model) = runtime.load(&bytes, &LoadOptions::default()) {
                let mut output = Vec::new();
                let _ = model.run_into(&vec![0.5; model.input().elements()], 1, &mut output);
            }
        }
    }
}

#[test]
fn sixteen_bits_halve_the_weights_and_both_runtimes_take_them() {
    let wide = wide_graph();
    let (full, half) = (write_f32(&wide).unwrap(), write_f16(&wide).unwrap());
    assert_eq!(2 * constant_bytes(&half).unwrap(), constant_bytes(&full).unwrap());
    for seed in 0..6 {
        let graph = random_graph(seed);
        let each = graph.input_shape().elements();
        let input = values(&mut ChaCha8Rng::seed_from_u64(seed), each * 3, 1.0);
        let expected: Vec<f32> = input.chunks_exact(each).flat_map(|x| reference(&graph, x)).collect();
        for runtime in runtimes() {
            let model = runtime.load(&write_f16(&graph).unwrap(), &LoadOptions::default()).unwrap();
            let off = distance(&run(model.as_ref(), &input, 3), &expected);
            assert!(off < 0.01, "{} is off by {off}", runtime.name());
        }
    }
    let huge = crate::compress::correct::with_weights(&wide, |_, weight, _| weight[0] = 1e6).unwrap();
    assert!(write_f16(&huge).unwrap_err().to_string().contains("value 0 is beyond 16-bit floats"));
}

#[test]
fn says_what_is_no_onnx() {
    for bytes in [&b""[..], b"hello", &[0x08, 0x08], &[0xff; 64]] {
        assert!(matches!(inspect(bytes), Err(Error::NotOnnx(_))));
    }
    let summary = inspect(&write_f32(&random_graph(3)).unwrap()).unwrap();
    assert_eq!(summary.inputs, [INPUT]);
    assert_eq!(summary.outputs, [OUTPUT]);
    assert_eq!(summary.opset, OPSET);
    assert!(!summary.quantised);
}

#[test]
fn refuses_a_graph_that_is_no_classifier() {
    let graph = Graph::new(Shape::vector(4)).unwrap();
    assert!(matches!(write_f32(&graph), Err(Error::Graph(_))));
}
