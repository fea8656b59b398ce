#![allow(clippy::unwrap_used)]
//! One suite over both runtimes. ONNX Runtime is left out, with a line that says so, where `EDGEWRIGHT_ORT` names no
//! library and the loader finds none; a library that is named has to open.

#[path = "conformance/models.rs"]
mod models;

use models::{expected, floats, int, model, node, plain, quantised, value};
use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};
use runtime::{Error, Golden, LoadOptions, Mismatch, Ort, Probe, Runnable, Runtime, Tract, choose};
use shared::profile::{Form, Step, Workload};
use std::sync::Arc;
use tract_onnx::pb::tensor_proto::DataType;

fn runtimes() -> Vec<Box<dyn Runtime>> {
    let mut all: Vec<Box<dyn Runtime>> = vec![Box::new(Tract)];
    all.extend(ort().map(|ort| Box::new(ort) as Box<dyn Runtime>));
    all
}

fn ort() -> Option<Ort> {
    match Ort::open(None) {
        Ok(ort) => Some(ort),
        Err(error) => {
            let named = std::env::var_os("EDGEWRIGHT_ORT").filter(|path| !path.is_empty());
            assert!(named.is_none(), "EDGEWRIGHT_ORT is {named:?}: {error}");
            println!("tract alone: {error}");
            None
        }
    }
}

fn load(runtime: &dyn Runtime, bytes: &[u8]) -> Arc<dyn Runnable> {
    runtime.load(bytes, &LoadOptions::default()).unwrap()
}

fn run(model: &dyn Runnable, input: &[f32], batch: usize) -> Vec<f32> {
    let mut output = vec![7.0; 3];
    model.run_into(input, batch, &mut output).unwrap();
    output
}

fn close(a: &[f32], b: &[f32], tolerance: f32) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance)
}

const SAMPLES: [f32; 8] = [0.3, 0.9, -1.0, 2.0, 3.5, 0.1, 0.0, 0.0];

#[test]
fn describes_the_model() {
    for runtime in runtimes() {
        let model = load(runtime.as_ref(), &model(plain()));
        assert_eq!(model.runtime(), runtime.name());
        assert_eq!((model.input().name.as_str(), &model.input().shape[..]), ("input", &[2][..]));
        assert_eq!((model.output().name.as_str(), &model.output().shape[..]), ("probabilities", &[3][..]));
    }
}

#[test]
fn runs_any_batch_in_f32_and_in_int8() {
    for runtime in runtimes() {
        for (graph, tolerance) in [(plain(), 1e-6), (quantised(), 0.01)] {
            let model = load(runtime.as_ref(), &model(graph));
            for batch in [1, 3, 4, 2, 1] {
                let input = &SAMPLES[..batch * 2];
                assert!(
                    close(&run(model.as_ref(), input, batch), &expected(input), tolerance),
                    "{runtime:?}",
                    runtime = runtime.name()
                );
            }
            // Less than one run takes, as much, and more.
            for batch in (5..10).chain(31..34).chain([64, 70]) {
                let input = vec![0.5; batch * 2];
                assert!(close(&run(model.as_ref(), &input, batch), &expected(&input), tolerance));
            }
        }
    }
}

#[test]
fn int8_saturates_on_both() {
    for runtime in runtimes() {
        let model = load(runtime.as_ref(), &model(quantised()));
        let input = [9.0, 1.0, -5.0, 80.0];
        assert!(close(&run(model.as_ref(), &input, 2), &expected(&input), 0.01), "{}", runtime.name());
    }
}

#[test]
fn a_large_batch_keeps_the_order_of_its_samples() {
    #[expect(clippy::cast_precision_loss)]
    let input: Vec<f32> = (0..2 * 75).map(|index| (index % 37) as f32 * 0.1).collect();
    for runtime in runtimes() {
        let model = load(runtime.as_ref(), &model(plain()));
        assert!(close(&run(model.as_ref(), &input, 75), &expected(&input), 1e-6), "{}", runtime.name());
    }
}

/// A graph whose sizes only fit a batch of one.
fn one_at_a_time() -> tract_onnx::pb::GraphProto {
    let mut graph = plain();
    graph.initializer.push(models::tensor(
        "one",
        DataType::Int64,
        &[2],
        [1i64, 2].iter().flat_map(|size| size.to_le_bytes()).collect(),
    ));
    graph.node.insert(0, node("Reshape", &["input", "one"], "shaped", vec![]));
    graph.node[1].input[0] = "shaped".into();
    graph
}

#[test]
fn a_model_that_takes_one_sample_at_a_time_answers_a_batch_of_them() {
    for runtime in runtimes() {
        let model = load(runtime.as_ref(), &model(one_at_a_time()));
        let input = vec![0.5; 40 * 2];
        assert!(close(&run(model.as_ref(), &input, 40), &expected(&input), 1e-6), "{}", runtime.name());
    }
}

#[test]
fn answers_many_threads_at_once() {
    for (runtime, sessions) in runtimes().into_iter().flat_map(|runtime| {
        let runtime: Arc<dyn Runtime> = runtime.into();
        [(runtime.clone(), 1), (runtime, 4)]
    }) {
        let options = LoadOptions { sessions, ..LoadOptions::default() };
        let model = runtime.load(&model(quantised()), &options).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8u8 {
                let model = &model;
                scope.spawn(move || {
                    for step in 0..50u8 {
                        let input = [f32::from(thread) * 0.3, f32::from(step) * 0.05];
                        assert!(close(&run(model.as_ref(), &input, 1), &expected(&input), 0.02));
                    }
                });
            }
        });
    }
}

#[test]
fn refuses_an_input_of_the_wrong_size() {
    for runtime in runtimes() {
        let model = load(runtime.as_ref(), &model(plain()));
        let mut output = Vec::new();
        for (input, batch) in [(&[][..], 0), (&[1.0][..], 1), (&[1.0; 4][..], 1), (&[1.0; 2][..], usize::MAX)]
        {
            let result = model.run_into(input, batch, &mut output);
            assert!(matches!(result, Err(Error::Input { .. })), "{} {batch}", runtime.name());
        }
        assert!(close(&run(model.as_ref(), &SAMPLES, 4), &expected(&SAMPLES), 1e-6), "it still works");
    }
}

#[test]
fn refuses_models_of_another_form() {
    let mut two_inputs = plain();
    two_inputs.input.push(value("other", &[2]));
    two_inputs.node[0] = node("Add", &["input", "other"], "r", vec![]);
    let mut two_outputs = plain();
    two_outputs.output.push(value("l", &[3]));
    let mut free_axis = plain();
    free_axis.input = vec![value("input", &[-1])];
    for graph in [two_inputs, two_outputs, free_axis] {
        for runtime in runtimes() {
            let result = runtime.load(&model(graph.clone()), &LoadOptions::default());
            assert!(matches!(result, Err(Error::Form { .. } | Error::Load { .. })), "{}", runtime.name());
        }
    }
}

#[test]
fn refuses_bytes_that_would_read_files_or_allocate_without_bound() {
    let mut huge = plain();
    huge.initializer[0].dims = vec![1 << 40, 1 << 20];
    let mut hollow = plain();
    hollow.initializer[0] = models::tensor("w", DataType::Float, &[1 << 28], Vec::new());
    let mut negative = plain();
    negative.initializer[0].dims = vec![-3, -2];
    let mut outside = plain();
    outside.initializer[0].data_location = Some(1);
    let mut wide = plain();
    let mut pads = int("pads", 0);
    pads.ints = vec![1 << 40; 4];
    wide.node.insert(0, node("MaxPool", &["input"], "p", vec![pads]));
    let mut nested = plain();
    let mut body = int("then_branch", 0);
    body.g = Some(plain());
    nested.node.insert(0, node("If", &["input"], "p", vec![body]));
    let shape = |sizes: &[i64]| {
        let raw = sizes.iter().flat_map(|size| size.to_le_bytes()).collect();
        models::tensor("size", DataType::Int64, &[sizes.len() as i64], raw)
    };
    let mut made = plain();
    made.initializer.push(shape(&[1 << 20, 1 << 20]));
    made.node.insert(0, node("ConstantOfShape", &["size"], "made", vec![]));
    let mut expanded = plain();
    expanded.initializer.push(shape(&[1 << 40, 2]));
    expanded.node.insert(0, node("Expand", &["input", "size"], "made", vec![]));
    let mut padded = plain();
    padded.initializer.push(shape(&[0, 0, 0, 1 << 40]));
    padded.node.insert(0, node("Pad", &["input", "size"], "made", vec![]));
    let mut unwired = plain();
    unwired.node[1].input[0] = "nowhere".into();
    let mut no_output = plain();
    no_output.output[0].name = "nothing".into();
    for graph in [huge, hollow, negative, outside, wide, nested, made, expanded, padded, unwired, no_output] {
        for runtime in runtimes() {
            let result = runtime.load(&model(graph.clone()), &LoadOptions::default());
            assert!(matches!(result, Err(Error::Load { .. })), "{}", runtime.name());
        }
    }
    for bytes in [&b""[..], b"not a model", &[0xff; 4096]] {
        for runtime in runtimes() {
            let text = runtime.load(bytes, &LoadOptions::default()).unwrap_err().to_string();
            assert!(text.contains("ONNX") && !text.contains('\n'), "{text}");
        }
    }
}

#[test]
fn the_golden_check_refuses_what_answers_otherwise() {
    let input = SAMPLES.to_vec();
    let right = Golden::new(vec![2], input.clone(), expected(&input)).unwrap();
    let right = Golden::read(&right.write().unwrap()).unwrap();
    let mut swapped = expected(&input);
    swapped.swap(0, 1);
    let swapped = Golden::new(vec![2], input.clone(), swapped).unwrap();
    let mut shifted = expected(&input);
    shifted[4] += 0.03;
    let shifted = Golden::new(vec![2], input.clone(), shifted).unwrap();
    let other = Golden::new(vec![4], input, vec![0.5; 4]).unwrap();
    for runtime in runtimes() {
        let model = load(runtime.as_ref(), &model(quantised()));
        assert_eq!(right.check(model.as_ref(), 0.02).unwrap().samples, 4);
        assert!(matches!(swapped.check(model.as_ref(), 0.02), Err(Mismatch::Label { sample: 0, .. })));
        assert!(matches!(shifted.check(model.as_ref(), 0.02), Err(Mismatch::Value { sample: 1, .. })));
        assert!(matches!(other.check(model.as_ref(), 0.02), Err(Mismatch::Shape(_))));
    }
}

#[test]
fn the_golden_check_refuses_answers_that_are_not_finite() {
    let mut graph = plain();
    graph.initializer[1] = floats("b", &[3], &[f32::NAN; 3]);
    let golden = Golden::new(vec![2], vec![0.5; 2], vec![0.2, 0.3, 0.5]).unwrap();
    for runtime in runtimes() {
        let model = load(runtime.as_ref(), &model(graph.clone()));
        assert!(matches!(golden.check(model.as_ref(), 10.0), Err(Mismatch::NotFinite { sample: 0 })));
    }
}

#[test]
fn the_fastest_that_is_right_is_chosen_and_the_rest_explained() {
    let all = runtimes();
    let candidates: Vec<&dyn Runtime> = all.iter().map(AsRef::as_ref).collect();
    let input = SAMPLES.to_vec();
    let golden = Golden::new(vec![2], input.clone(), expected(&input)).unwrap();
    let choice = choose(&candidates, &model(plain()), &golden, 0.01, &LoadOptions::default());
    let least = choice
        .verdicts
        .iter()
        .min_by(|a, b| a.result.as_ref().unwrap().total_cmp(b.result.as_ref().unwrap()));
    assert_eq!(choice.model.unwrap().runtime(), least.unwrap().runtime);
    assert_eq!(choice.verdicts.len(), all.len());

    let wrong = Golden::new(vec![2], input.clone(), vec![0.1; 12]).unwrap();
    let choice = choose(&candidates, &model(plain()), &wrong, 0.01, &LoadOptions::default());
    assert!(choice.model.is_none());
    assert!(choice.verdicts.iter().all(|verdict| verdict.loaded && verdict.result.is_err()));

    let choice = choose(&candidates, b"none", &golden, 0.01, &LoadOptions::default());
    assert!(choice.model.is_none());
    assert!(choice.verdicts.iter().all(|verdict| !verdict.loaded));
}

#[test]
fn a_probe_reads_every_output() {
    let Some(ort) = ort() else { return };
    let mut graph = plain();
    graph.output.insert(0, value("r", &[2]));
    let mut probe = Probe::load(&ort, &model(graph)).unwrap();
    let mut seen = Vec::new();
    probe
        .run(&[-1.0, 2.0], &[1, 2], |index, shape, values| {
            seen.push((index, shape.to_vec(), values.to_vec()));
        })
        .unwrap();
    assert_eq!(seen[0], (0, vec![1, 2], vec![0.0, 2.0]));
    assert!(close(&seen[1].2, &expected(&[-1.0, 2.0]), 1e-6));
    assert_eq!(probe.shapes(&[-1.0, 2.0, 0.5, 1.0], &[2, 2]).unwrap(), [vec![2, 2], vec![2, 3]]);
    assert!(probe.run(&[1.0], &[1, 2], |_, _, _| ()).is_err());
    assert!(probe.run(&[], &[0, 2], |_, _, _| ()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_models_never_panic(
        small in any::<bool>(),
        cut in any::<proptest::sample::Index>(),
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), 0u8..8), 0..5),
    ) {
        let mut bytes = model(if small { plain() } else { quantised() });
        for (at, bit) in &flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        if flips.is_empty() {
            bytes.truncate(cut.index(bytes.len()));
        }
        for runtime in runtimes() {
            if let Ok(model) = runtime.load(&bytes, &LoadOptions::default()) {
                let mut output = Vec::new();
                let result = model.run_into(&vec![0.5; model.input().elements()], 1, &mut output);
                prop_assert!(result.is_err() || output.len() == model.output().elements());
            }
        }
    }

    #[test]
    fn damaged_golden_files_never_panic(
        at in any::<proptest::sample::Index>(), bit in 0u8..8, cut in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = Golden::new(vec![2], vec![0.5; 4], vec![0.25; 8]).unwrap().write().unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let _ = Golden::read(&bytes);
        let cut = cut.index(bytes.len());
        prop_assert!(Golden::read(&bytes[..cut]).is_err());
    }
}

/// Every operation that a workload can have, over images and over series.
fn workloads() -> Vec<Workload> {
    let conv = |channels, kernel, stride, groups, relu| Step::Conv { channels, kernel, stride, groups, relu };
    let steps = vec![
        conv(4, 3, 2, 1, true),
        conv(4, 5, 1, 4, false),
        conv(4, 1, 1, 1, false),
        Step::Add,
        Step::MaxPool { kernel: 3, stride: 1 },
        Step::AveragePool { kernel: 3, stride: 2 },
        conv(6, 3, 1, 1, true),
        Step::Concat,
        Step::GlobalAverage,
        Step::Linear { features: 3 },
    ];
    let series = steps.iter().take(7).copied().collect();
    vec![Workload { input: vec![2, 9, 11], steps }, Workload { input: vec![2, 31], steps: series }]
}

#[test]
fn a_workload_is_the_same_model_on_both_runtimes_in_both_forms() {
    for workload in workloads() {
        let input = runtime::workload::input(&workload);
        let mut answers = Vec::new();
        for form in [Form::Fp32, Form::Int8] {
            let bytes = runtime::workload::write(&workload, form).unwrap();
            for runtime in runtimes() {
                let model = load(runtime.as_ref(), &bytes);
                let mut output = Vec::new();
                model.run_into(&input, 1, &mut output).unwrap();
                assert_eq!(output.len(), model.output().elements());
                let varies = output.iter().any(|value| *value != output[0]);
                assert!(varies || form == Form::Int8, "the model computes nothing");
                answers.push((form, runtime.name(), output));
            }
        }
        let (_, _, first) = &answers[0];
        for (form, runtime, output) in &answers {
            let tolerance = if *form == Form::Fp32 { 1e-4 } else { 0.2 };
            assert!(close(output, first, tolerance), "{form} on {runtime}: {output:?} for {first:?}");
        }
    }
}

#[test]
fn a_workload_beyond_the_limits_becomes_no_model() {
    let step = Step::Conv { channels: 1 << 30, kernel: 3, stride: 1, groups: 1, relu: true };
    let huge = Workload { input: vec![8, 14, 14], steps: vec![step] };
    assert!(runtime::workload::write(&huge, Form::Int8).unwrap_err().contains("channels"));
}

#[test]
fn the_middle_half_of_the_runs_lies_around_the_median() {
    let model = load(&Tract, &model(plain()));
    let spread =
        runtime::measure_spread(model.as_ref(), &SAMPLES, std::time::Duration::from_millis(20)).unwrap();
    assert!(spread.low_us <= spread.median_us && spread.median_us <= spread.high_us);
    assert!(spread.runs >= 5);
}
