use super::*;
use crate::{
    graph::{Conv, Graph, Linear, Op, Shape, ValueId, Window},
    onnx::tests::{conv, distance, linear, ort, random_graph, run, runtimes, values},
};
use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use runtime::{Tract, golden::argmax};

/// Three convolutions, residual and pool: about 60,000 parameters on 28x28.
fn digits_network() -> Graph {
    let rng = &mut ChaCha8Rng::seed_from_u64(7);
    let mut graph = Graph::new(Shape::image(1, 28, 28)).unwrap();
    let mut last = ValueId::INPUT;
    for (channels, stride) in [(16, 1), (32, 2), (48, 2)] {
        let shape = graph.shape(last).unwrap().clone();
        last = graph.push(conv(rng, &shape, channels, 1, Window::same(2, 3, stride, 1, 1)), &[last]).unwrap();
    }
    let shape = graph.shape(last).unwrap().clone();
    let side = graph.push(conv(rng, &shape, 48, 1, Window::same(2, 3, 1, 1, 1)), &[last]).unwrap();
    last = graph.push(Op::Add { relu: true }, &[last, side]).unwrap();
    let pooled = graph.push(Op::MaxPool(Window::same(2, 3, 1, 1, 1)), &[last]).unwrap();
    let mean = Op::AvgPool { window: Window::same(2, 3, 1, 1, 1), count_include_pad: true };
    let mean = graph.push(mean, &[last]).unwrap();
    let narrow = graph.shape(pooled).unwrap().clone();
    let joined = graph.push(Op::Concat, &[pooled, mean]).unwrap();
    let wide = Shape { channels: 2 * narrow.channels, ..narrow };
    last = graph.push(conv(rng, &wide, 64, 1, Window::same(2, 1, 1, 0, 1)), &[joined]).unwrap();
    last = graph.push(Op::GlobalAvgPool, &[last]).unwrap();
    last = graph.push(linear(rng, 64, 10, false), &[last]).unwrap();
    graph.push(Op::Softmax, &[last]).unwrap();
    graph
}

/// The closest candidate.
fn best(graph: &Graph, samples: &[f32], ort: &Ort) -> Candidate {
    quantise(graph, &onnx::write_f32(graph).unwrap(), samples, ort, false).unwrap().remove(0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn int8_stays_close_to_f32_on_both_runtimes(seed in any::<u64>(), reduce_range in any::<bool>()) {
        let Some(ort) = ort() else { return Ok(()) };
        let graph = random_graph(seed);
        let each = graph.input_shape().elements();
        let samples = values(&mut ChaCha8Rng::seed_from_u64(seed ^ 2), each * 32, 1.0);
        let fp32 = onnx::write_f32(&graph).unwrap();
        let done = quantise(&graph, &fp32, &samples, &ort, reduce_range).unwrap().remove(0);
        let (bytes, at_most) = (onnx::constant_bytes(&done.onnx_int8).unwrap(), weight_bytes(&graph) as u64);
        prop_assert!(bytes <= at_most && at_most <= bytes + bytes / 4 + 200, "{bytes} bytes, at most {at_most}");
        let limit = if reduce_range { 0.2 } else { 0.12 };
        prop_assert!(done.closeness.difference_max < limit, "{:?}", done.closeness);
        prop_assert!(done.closeness.agreement > 0.8, "{:?}", done.closeness);
        let expected = run(ort.load(&fp32, &LoadOptions::default()).unwrap().as_ref(), &samples, 32);
        for runtime in runtimes() {
            let model = runtime.load(&done.onnx_int8, &LoadOptions::default()).unwrap();
            let off = distance(&run(model.as_ref(), &samples, 32), &expected);
            prop_assert!(off < limit, "{} is off by {off}", runtime.name());
        }
    }

    #[test]
    fn an_encoding_holds_zero_exactly_and_every_value_within_half_a_step(
        a in -1e4f32..1e4, b in -1e4f32..1e4, share in 0f32..1.0,
    ) {
        let (low, high) = (a.min(b), a.max(b));
        let affine = Affine::from_range(low, high).unwrap();
        prop_assert!(affine.round_trip(0.0).abs() == 0.0);
        let (low, high) = (affine.low(), affine.high());
        let value = low + (high - low) * share;
        let off = (affine.round_trip(value) - value).abs();
        prop_assert!(off <= affine.scale * 0.5001 + value.abs() * 1e-5, "{off} for {affine:?}");
    }
}

#[test]
fn int8_is_small_and_the_runtimes_agree() {
    let Some(ort) = ort() else { return };
    // Per-channel numbers weigh more in the smaller network, whose depthwise filters have five weights each.
    for (graph, classes, share_max) in [(digits_network(), 10, 0.30), (series_network(), 2, 0.37)] {
        check_small_and_agreeing(&ort, &graph, classes, share_max);
    }
}

fn check_small_and_agreeing(ort: &Ort, graph: &Graph, classes: usize, share_max: f64) {
    let count = graph.input_shape().elements() * 64;
    let samples: Vec<f32> =
        values(&mut ChaCha8Rng::seed_from_u64(1), count, 1.0).into_iter().map(f32::abs).collect();
    let fp32 = onnx::write_f32(graph).unwrap();
    let mut candidates = quantise(graph, &fp32, &samples, ort, false).unwrap();
    assert_eq!(candidates.len(), Calibrator::ALL.len());
    assert!(candidates.is_sorted_by(|a, b| a.closeness.sqnr_db >= b.closeness.sqnr_db));
    let done = candidates.remove(0);
    assert!(done.closeness.sqnr_db > 20.0, "{:?}", done.closeness);
    assert!(done.tensors.iter().all(|tensor| tensor.sqnr_db > 15.0), "{:#?}", done.tensors);
    let share = done.onnx_int8.len() as f64 / fp32.len() as f64;
    assert!(share < share_max, "{share}");
    assert!(onnx::inspect(&done.onnx_int8).unwrap().quantised);
    let on_ort = run(ort.load(&done.onnx_int8, &LoadOptions::default()).unwrap().as_ref(), &samples, 64);
    let on_tract = run(Tract.load(&done.onnx_int8, &LoadOptions::default()).unwrap().as_ref(), &samples, 64);
    let rows = on_ort.chunks_exact(classes).zip(on_tract.chunks_exact(classes));
    for (a, b) in rows.filter(|(a, _)| {
        let mut sorted = a.to_vec();
        sorted.sort_by(f32::total_cmp);
        sorted[classes - 1] - sorted[classes - 2] > 0.05
    }) {
        assert_eq!(argmax(a), argmax(b));
    }
    assert!(distance(&on_ort, &on_tract) < 0.03);
}

#[test]
fn dead_channels_and_silent_activations_get_a_usable_scale() {
    let Some(ort) = ort() else { return };
    let mut graph = Graph::new(Shape::series(1, 8)).unwrap();
    let dead = Op::Conv(Conv {
        out_channels: 3,
        window: Window::same(1, 3, 1, 1, 1),
        groups: 1,
        weight: vec![0.0, 0.0, 0.0, 1e-30, 0.0, 0.0, 0.3, -0.2, 0.1],
        bias: vec![-1.0, 0.7, 0.0],
        relu: true,
    });
    let last = graph.push(dead, &[ValueId::INPUT]).unwrap();
    // Never above zero behind this one.
    let silent = Op::Conv(Conv {
        out_channels: 3,
        window: Window::same(1, 1, 1, 0, 1),
        groups: 3,
        weight: vec![-1.0, -1.0, -1.0],
        bias: vec![0.0; 3],
        relu: true,
    });
    let silent = graph.push(silent, &[last]).unwrap();
    let sum = graph.push(Op::Add { relu: false }, &[last, silent]).unwrap();
    let mean = graph.push(Op::GlobalAvgPool, &[sum]).unwrap();
    let head = Linear {
        out_features: 2,
        weight: vec![1.0, 1.0, 1.0, -1.0, 0.0, 1.0],
        bias: vec![0.0, 0.1],
        relu: false,
    };
    let logits = graph.push(Op::Linear(head), &[mean]).unwrap();
    graph.push(Op::Softmax, &[logits]).unwrap();
    let samples = values(&mut ChaCha8Rng::seed_from_u64(5), 8 * 20, 1.0);
    let done = best(&graph, &samples, &ort);
    assert!(done.tensors.iter().all(|tensor| tensor.scale.is_normal() && tensor.scale > 0.0));
    assert!(done.closeness.difference_max < 0.02, "{:?}", done.closeness);
}

#[test]
fn refuses_samples_that_are_none_ragged_or_not_finite() {
    let Some(ort) = ort() else { return };
    let graph = random_graph(1);
    let each = graph.input_shape().elements();
    let mut nan = vec![0.0; each * 2];
    nan[each] = f32::NAN;
    for samples in [Vec::new(), vec![0.0; each + 1], nan] {
        let result = quantise(&graph, &onnx::write_f32(&graph).unwrap(), &samples, &ort, false);
        assert!(matches!(result, Err(Error::Samples(_))));
    }
}

#[test]
fn refuses_ranges_that_are_none() {
    let graph = random_graph(1);
    let count = graph.nodes().len() + 1;
    assert!(Encoding::from_ranges(&graph, &vec![(0.0, 1.0); count], false).is_ok());
    assert!(Encoding::from_ranges(&graph, &vec![(0.0, 1.0); count - 1], false).is_err());
    for bad in [(0.0, f32::NAN), (f32::NEG_INFINITY, 0.0), (1.0, 0.0), (f32::MIN, f32::MAX)] {
        assert!(Encoding::from_ranges(&graph, &vec![bad; count], false).is_err());
    }
    let other = Encoding::from_ranges(&graph, &vec![(0.0, 1.0); count], false).unwrap();
    assert!(onnx::write_qdq(&digits_network(), &other).is_err(), "an encoding of another graph");
}

/// A 1-D network of about 30,000 parameters over 150 values, with separable convolutions and pools.
fn series_network() -> Graph {
    let rng = &mut ChaCha8Rng::seed_from_u64(9);
    let mut graph = Graph::new(Shape::series(1, 150)).unwrap();
    let shape = graph.input_shape().clone();
    let mut last =
        graph.push(conv(rng, &shape, 32, 1, Window::same(1, 3, 1, 1, 1)), &[ValueId::INPUT]).unwrap();
    for (channels, stride) in [(32, 1), (48, 2), (64, 2)] {
        let shape = graph.shape(last).unwrap().clone();
        let width = shape.channels;
        let deep = graph.push(conv(rng, &shape, width, width, Window::same(1, 5, 1, 2, 1)), &[last]).unwrap();
        let point = graph.push(conv(rng, &shape, width, 1, Window::same(1, 1, 1, 0, 1)), &[deep]).unwrap();
        let mean = Op::AvgPool { window: Window::same(1, 3, 1, 1, 1), count_include_pad: true };
        let mean = graph.push(mean, &[last]).unwrap();
        let top = graph.push(Op::MaxPool(Window::same(1, 3, 1, 1, 1)), &[last]).unwrap();
        let sum = graph.push(Op::Add { relu: false }, &[point, mean]).unwrap();
        let sum = graph.push(Op::Add { relu: false }, &[sum, top]).unwrap();
        last = graph.push(conv(rng, &shape, channels, 1, Window::same(1, 3, stride, 1, 1)), &[sum]).unwrap();
    }
    last = graph.push(Op::GlobalAvgPool, &[last]).unwrap();
    last = graph.push(linear(rng, 64, 2, false), &[last]).unwrap();
    graph.push(Op::Softmax, &[last]).unwrap();
    graph
}
