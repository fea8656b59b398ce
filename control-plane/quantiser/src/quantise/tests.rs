use super::*;
use crate::{
    form::{self, Wishes},
    proto::TensorProto,
    testing::{Build, ort, residual, samples},
};
use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};
use runtime::{LoadOptions, Runtime, Tract};

const OPTIONS: Options = Options { reduce_range: false, sqnr_min_db: 15.0, agreement_min: 0.0 };

/// The network in the form of devices.
fn shaped(build: Build, output: &str, shape: &[usize], outputs: usize) -> Net {
    let mut net = Net::new(build.model(&[output]));
    form::shape_input(&mut net, shape, &Wishes::default()).unwrap();
    form::shape_output(&mut net, &[1, outputs], true).unwrap();
    net
}

/// A network in which one layer has an output channel a thousand times as large as the others.
fn with_one_sensitive_node() -> Net {
    let mut build = Build::new(21, &[8, 8, 8]);
    let mut last = build.conv("x", 8, 8, 3, 1);
    for _ in 0..3 {
        last = build.conv(&last, 8, 8, 3, 1);
        last = build.node("Relu", &[&last], Vec::new());
    }
    let wild = build.conv(&last, 8, 8, 1, 1);
    let weight = build.graph.initializer.iter_mut().rev().nth(1).unwrap();
    let mut values = weight.f32_values().unwrap();
    values[..8].iter_mut().for_each(|value| *value = value.abs() * 3e3 + 3e3);
    *weight = TensorProto { name: weight.name.clone(), ..TensorProto::floats("", &[8, 8, 1, 1], &values) };
    let tamed = build.constant(&[1, 8, 1, 1], &[1e-5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    let wild = build.node("Mul", &[&wild, &tamed], Vec::new());
    let last = build.conv(&wild, 8, 8, 3, 1);
    let mean = build.node("GlobalAveragePool", &[&last], Vec::new());
    let flat = build.node("Flatten", &[&mean], Vec::new());
    let last = build.gemm(&flat, 8, 4);
    shaped(build, &last, &[8, 8, 8], 4)
}

#[test]
fn the_model_is_close_small_and_right_on_both_runtimes() {
    let Some(ort) = ort() else { return };
    let net = shaped(residual(2), "v13", &[3, 12, 12], 5);
    let values = samples(3, 40, 432);
    let seen = Samples { shape: &[3, 12, 12], values: &values };
    let done = quantise(&net, seen, &ort, &OPTIONS).unwrap();
    assert!(done.closeness.sqnr_db > 25.0, "{:?}", done.closeness);
    assert_eq!((done.integer_nodes, &done.kept[..]), (4, &[][..]));
    assert!(done.tried.len() > Calibrator::ALL.len());
    assert!(done.tried.iter().all(|tried| tried.closeness.sqnr_db <= done.closeness.sqnr_db));
    assert_eq!(done.tensors.len(), 9);
    assert!(done.tensors.iter().all(|tensor| tensor.sqnr_db > 15.0), "{:#?}", done.tensors);
    let run = |runtime: &dyn Runtime, bytes: &[u8]| {
        let model = runtime.load(bytes, &LoadOptions::default()).unwrap();
        let mut output = Vec::new();
        model.run_into(&values, 40, &mut output).unwrap();
        output
    };
    let reference = run(&ort, &net.encode());
    for runtime in [&ort as &dyn Runtime, &Tract] {
        let closeness = compare(&reference, &run(runtime, &done.onnx), 5);
        assert!(closeness.sqnr_db > 25.0, "{}: {closeness:?}", runtime.name());
    }
    let again = quantise(&net, seen, &ort, &OPTIONS).unwrap();
    assert_eq!(again.onnx, done.onnx);
}

#[test]
fn the_node_that_costs_most_stays_f32_and_is_named() {
    let Some(ort) = ort() else { return };
    let net = with_one_sensitive_node();
    let values = samples(4, 24, 512);
    let seen = Samples { shape: &[8, 8, 8], values: &values };
    let loose = quantise(&net, seen, &ort, &Options { sqnr_min_db: -200.0, ..OPTIONS }).unwrap();
    assert_eq!(loose.kept, []);
    let bound = loose.closeness.sqnr_db + 6.0;
    let done = quantise(&net, seen, &ort, &Options { sqnr_min_db: bound, ..OPTIONS }).unwrap();
    assert!(done.closeness.sqnr_db >= bound, "{:?}", done.closeness);
    assert!(!done.kept.is_empty() && done.integer_nodes + done.kept.len() == loose.integer_nodes);
    // Its output has a channel beside which all others vanish in eight bits.
    assert_eq!(done.kept[0].node, "Conv \"v7\"");
    assert!(done.kept.is_sorted_by(|a, b| a.alone_db <= b.alone_db));
    let error = quantise(&net, seen, &ort, &Options { sqnr_min_db: 190.0, ..OPTIONS }).unwrap_err();
    assert!(error.to_string().contains("no INT8 form keeps the bound of 190 dB"), "{error}");
}

#[test]
fn equalised_channels_compute_the_same_and_need_fewer_steps() {
    let Some(ort) = ort() else { return };
    let mut build = Build::new(5, &[8, 8, 8]);
    let first = build.conv("x", 8, 8, 3, 1);
    // Channels of very unequal size, which the next layer evens out.
    let uneven = |values: &mut [f32], inner: usize, up: bool| {
        for (index, value) in values.iter_mut().enumerate() {
            let factor = 4f32.powi((index / inner % 8) as i32 - 4);
            *value *= if up { factor } else { 1.0 / factor };
        }
    };
    let relu = build.node("Relu", &[&first], Vec::new());
    let second = build.conv(&relu, 8, 8, 3, 1);
    for (tensor, inner, up) in [(0, 72, true), (1, 1, true), (2, 9, false)] {
        let tensor = &mut build.graph.initializer[tensor];
        let mut values = tensor.f32_values().unwrap();
        uneven(&mut values, inner, up);
        let shape = tensor.shape().unwrap();
        *tensor = TensorProto { name: tensor.name.clone(), ..TensorProto::floats("", &shape, &values) };
    }
    let flat = build.node("Flatten", &[&second], Vec::new());
    let net = shaped(build, &flat, &[8, 8, 8], 512);
    let values = samples(6, 16, 512);
    let seen = Samples { shape: &[8, 8, 8], values: &values };
    let equalised = equalise::equalise(&net, &scheme::computes(&net)).unwrap();
    let (reference, _) = answers(&ort, &net.encode(), seen).unwrap();
    let (found, _) = answers(&ort, &equalised.encode(), seen).unwrap();
    assert!(compare(&reference, &found, 512).sqnr_db > 90.0);
    let done = quantise(&net, seen, &ort, &Options { sqnr_min_db: -200.0, ..OPTIONS }).unwrap();
    assert!(done.way.equalised, "{:?}", done.tried);
    let plain = done.tried.iter().find(|tried| tried.way == Way { equalised: false, ..done.way });
    let plain = plain.or_else(|| done.tried.iter().find(|tried| !tried.way.equalised)).unwrap();
    assert!(done.closeness.sqnr_db > plain.closeness.sqnr_db + 3.0, "{:?}", done.tried);
}

#[test]
fn corrected_biases_bring_the_mean_of_the_output_back() {
    let Some(ort) = ort() else { return };
    let mut build = Build::new(9, &[16, 6, 6]);
    let conv = build.conv("x", 16, 4, 3, 1);
    // One large weight a channel leaves the others few steps, and the input is far from zero.
    let tensor = &mut build.graph.initializer[0];
    let mut values = tensor.f32_values().unwrap();
    values.iter_mut().step_by(144).for_each(|value| *value = 40.0);
    *tensor = TensorProto { name: tensor.name.clone(), ..TensorProto::floats("", &[4, 16, 3, 3], &values) };
    let mean = build.node("GlobalAveragePool", &[&conv], Vec::new());
    let flat = build.node("Flatten", &[&mean], Vec::new());
    let net = shaped(build, &flat, &[16, 6, 6], 4);
    let values: Vec<f32> = samples(7, 16, 576).iter().map(|value| value + 2.0).collect();
    let seen = Samples { shape: &[16, 6, 6], values: &values };
    let base = Base::new(net.clone(), seen, &ort, WEIGHT_MAX).unwrap();
    let (reference, _) = answers(&ort, &net.encode(), seen).unwrap();
    let off = |bias_corrected| {
        let way = Way { calibrator: Calibrator::MinMax, equalised: false, bias_corrected };
        let (model, ..) = base.build(&base.computes, way).unwrap();
        let (found, _) = answers(&ort, &model, seen).unwrap();
        let mut sums = [0f64; 4];
        for (index, (a, b)) in found.iter().zip(&reference).enumerate() {
            sums[index % 4] += f64::from(a - b);
        }
        sums.iter().map(|sum| sum.abs()).sum::<f64>() / 16.0
    };
    assert!(off(true) < off(false) / 2.0, "{} against {}", off(true), off(false));
}

#[test]
fn a_model_without_weights_and_samples_that_are_none_are_refused() {
    let Some(ort) = ort() else { return };
    let mut build = Build::new(1, &[2, 4]);
    let last = build.node("Relu", &["x"], Vec::new());
    let flat = build.node("Flatten", &[&last], Vec::new());
    let net = shaped(build, &flat, &[2, 4], 8);
    let values = samples(1, 4, 8);
    let seen = Samples { shape: &[2, 4], values: &values };
    assert!(matches!(quantise(&net, seen, &ort, &OPTIONS), Err(Error::Nothing)));
    let none = Samples { shape: &[2, 4], values: &[] };
    assert!(matches!(quantise(&net, none, &ort, &OPTIONS), Err(Error::Samples(_))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn the_closest_way_stays_close_to_f32(seed in any::<u64>(), reduce_range in any::<bool>()) {
        let Some(ort) = ort() else { return Ok(()) };
        let net = shaped(residual(seed), "v13", &[3, 12, 12], 5);
        let values = samples(seed ^ 1, 16, 432);
        let seen = Samples { shape: &[3, 12, 12], values: &values };
        let done = quantise(&net, seen, &ort, &Options { reduce_range, ..OPTIONS }).unwrap();
        prop_assert!(done.closeness.sqnr_db > 18.0, "{:?}", done.tried);
        // Others may be far off: the entropy rule clips what a random network has as much of as of anything.
        for tried in &done.tried {
            prop_assert!(tried.closeness.sqnr_db <= done.closeness.sqnr_db, "{tried:?}");
        }
    }
}
