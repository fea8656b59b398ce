use super::*;
use crate::{
    calibrate::{Samples, answers},
    testing::{Build, ort, residual, samples},
};

fn refused(build: Build, outputs: &[&str], sample: &[usize], wishes: &Wishes) -> String {
    shape_input(&mut Net::new(build.model(outputs)), sample, wishes).unwrap_err().to_string()
}

#[test]
fn what_devices_cannot_give_is_named_with_what_to_do() {
    let none = Wishes::default();
    let text = refused(residual(1), &["v13", "v9"], &[3, 12, 12], &none);
    assert_eq!(
        text,
        "the model has 2 outputs (v13, v9), devices run models with one: choose it with --output NAME"
    );
    let wishes = Wishes { output: Some("v14".to_owned()), ..Wishes::default() };
    assert_eq!(
        refused(residual(1), &["v13"], &[3, 12, 12], &wishes),
        "the model has no output \"v14\"; it has v13"
    );
    let text = refused(residual(1), &["v13"], &[3, 12, 10], &none);
    assert_eq!(text, "input \"x\" takes samples of [3, 12, 12], the calibration samples are [3, 12, 10]");
    let mut build = residual(1);
    build.graph.input.push(ValueInfoProto::tensor("state", DataType::F32, numbers(&[2, 4])));
    let text = refused(build, &["v13"], &[3, 12, 12], &none);
    assert!(text.starts_with("the model has 2 inputs (x, state)") && text.contains("--freeze"), "{text}");
    let mut build = residual(1);
    build.graph.input[0] = ValueInfoProto::tensor("x", DataType::F32, numbers(&[8, 3, 12, 12]));
    let text = refused(build, &["v13"], &[3, 12, 12], &none);
    assert!(text.contains("takes 8 samples at a time"), "{text}");
    let mut build = residual(1);
    build.graph.input[0] = ValueInfoProto::tensor("x", DataType::Bool, numbers(&[1, 3]));
    assert!(refused(build, &["v13"], &[3], &none).contains("a type that no f32 value becomes"));
}

#[test]
fn a_row_of_integers_becomes_an_f32_input_of_two_axes() {
    let Some(ort) = ort() else { return };
    let mut build = Build::new(1, &[4]);
    let batch = Dimension::Param("b".to_owned());
    let axes = [batch].into_iter().chain(numbers(&[4]));
    build.graph.input[0] = ValueInfoProto::tensor("input", DataType::I32, axes);
    // The name that the output shall get is taken by something else.
    let twice = NodeProto::new("Add", &["input".to_owned(), "input".to_owned()], OUTPUT, Vec::new());
    build.graph.node.push(twice);
    let last = build.node("Neg", &[OUTPUT], Vec::new());
    let mut model = build.model(&[&last]);
    model.graph.as_mut().unwrap().output[0] = ValueInfoProto::tensor(&last, DataType::I32, Vec::new());
    model.graph.as_mut().unwrap().output[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap().shape =
        None;
    let mut net = Net::new(model);
    let input = shape_input(&mut net, &[4], &Wishes::default()).unwrap();
    assert_eq!((&input.device_shape[..], input.batch_free), (&[1, 4][..], true));
    assert_eq!(shape_output(&mut net, &[1, 4], true).unwrap(), 4);
    let values = [1.0, 2.0, -3.0, 250.0];
    let (found, shape) = answers(&ort, &net.encode(), Samples { shape: &[1, 4], values: &values }).unwrap();
    assert_eq!((&found[..], &shape[..]), (&[-2.0, -4.0, 6.0, -500.0][..], &[1, 4][..]));
    assert_eq!((net.graph.input[0].name.as_str(), net.graph.output[0].name.as_str()), (INPUT, OUTPUT));
}

#[test]
fn other_inputs_are_frozen_and_further_outputs_dropped() {
    let Some(ort) = ort() else { return };
    let mut build = Build::new(1, &[2, 3]);
    build.graph.input.push(ValueInfoProto::tensor(
        "state",
        DataType::F32,
        [Dimension::Param("b".to_owned())].into_iter().chain(numbers(&[2, 3])),
    ));
    let sum = build.node("Add", &["x", "state"], Vec::new());
    build.node("Neg", &["state"], Vec::new());
    let wishes = Wishes { output: Some(sum.clone()), freeze: vec![("state".to_owned(), 0.5)] };
    let mut net = Net::new(build.model(&["v1", &sum]));
    shape_input(&mut net, &[2, 3], &wishes).unwrap();
    assert_eq!(shape_output(&mut net, &[1, 2, 3], true).unwrap(), 6);
    let values = samples(1, 1, 6);
    let (found, shape) = answers(&ort, &net.encode(), Samples { shape: &[2, 3], values: &values }).unwrap();
    assert_eq!(shape, [1, 6]);
    assert!(found.iter().zip(&values).all(|(found, value)| (found - value - 0.5).abs() < 1e-6));
    let wishes = Wishes { freeze: vec![("sate".to_owned(), 0.0)], ..Wishes::default() };
    let text = refused(residual(1), &["v13"], &[3, 12, 12], &wishes);
    assert_eq!(text, "the model has no input \"sate\"; it has x");
}

#[test]
fn an_output_that_is_no_row_a_sample_is_refused() {
    let mut net = Net::new(residual(1).model(&["v13"]));
    for shape in [&[][..], &[2, 5], &[0, 5]] {
        let text = shape_output(&mut net, shape, true).unwrap_err().to_string();
        assert!(text.starts_with("output \"v13\" has the shape"), "{text}");
    }
}
