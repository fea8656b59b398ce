use super::*;
use crate::{
    calibrate::{Samples, answers},
    closeness::compare,
    form::{self, Wishes},
    proto::{DataType, NodeProto, ValueInfoProto},
    testing::{Build, ort, residual, samples},
};

/// The operators that are left, after the model before and after was compared on ONNX Runtime.
fn prepared(build: Build, output: &str, shape: &[usize]) -> Option<Vec<String>> {
    let ort = ort()?;
    let mut net = Net::new(build.model(&[output]));
    form::shape_input(&mut net, shape, &Wishes::default()).unwrap();
    let values = samples(5, 3, shape.iter().product());
    let samples = Samples { shape, values: &values };
    let (before, given) = answers(&ort, &net.encode(), samples).unwrap();
    prepare(&mut net);
    let (after, same) = answers(&ort, &net.encode(), samples).unwrap();
    assert_eq!(given, same);
    let closeness = compare(&before, &after, given.iter().skip(1).product());
    assert!(closeness.sqnr_db > 90.0, "{closeness:?}");
    Some(net.graph.node.iter().map(|node| node.op_type.clone()).collect())
}

#[test]
fn what_scales_and_shifts_the_channels_of_a_convolution_is_folded_into_it() {
    let mut build = Build::new(3, &[2, 6, 6]);
    let mut last = build.conv("x", 2, 4, 3, 1);
    let (scale, shift, mean) = (build.random(4, 1.0), build.random(4, 1.0), build.random(4, 1.0));
    let [scale, shift, mean] = [scale, shift, mean].map(|values| build.constant(&[4], &values));
    let variance = build.constant(&[4], &[0.5, 1.0, 2.0, 0.1]);
    last = build.node("BatchNormalization", &[&last, &scale, &shift, &mean, &variance], Vec::new());
    let (factor, offset) = (build.random(4, 2.0), build.random(4, 2.0));
    let factor = build.constant(&[1, 4, 1, 1], &factor);
    last = build.node("Mul", &[&factor, &last], Vec::new());
    let offset = build.constant(&[4], &offset);
    let axes = build.ints(&[1, 4, 1, 1]);
    let offset = build.node("Reshape", &[&offset, &axes], Vec::new());
    last = build.node("Add", &[&last, &offset], Vec::new());
    let three = build.constant(&[], &[3.0]);
    last = build.node("Sub", &[&last, &three], Vec::new());
    last = build.node("Div", &[&last, &three], Vec::new());
    last = build.node("Relu", &[&last], Vec::new());
    if let Some(operators) = prepared(build, &last, &[2, 6, 6]) {
        assert_eq!(operators, ["Conv", "Relu"]);
    }
}

#[test]
fn a_transposed_convolution_in_groups_takes_its_normalisation_in() {
    let mut build = Build::new(4, &[4, 5, 5]);
    let weight = build.random(4 * 3 * 4, 1.0);
    let weight = build.constant(&[4, 3, 2, 2], &weight);
    let mut last = build.node("ConvTranspose", &["x", &weight], vec![AttributeProto::int("group", 2)]);
    let factor = build.random(6, 2.0);
    let factor = build.constant(&[6, 1, 1], &factor);
    last = build.node("Mul", &[&last, &factor], Vec::new());
    if let Some(operators) = prepared(build, &last, &[4, 5, 5]) {
        assert_eq!(operators, ["ConvTranspose"]);
    }
}

#[test]
fn what_others_read_too_or_what_changes_places_is_not_folded() {
    let mut build = Build::new(5, &[2, 6, 6]);
    let conv = build.conv("x", 2, 4, 3, 1);
    let two = build.constant(&[], &[2.0]);
    let twice = build.node("Mul", &[&conv, &two], Vec::new());
    let sum = build.node("Add", &[&conv, &twice], Vec::new());
    let second = build.conv(&sum, 4, 4, 3, 1);
    let places = build.random(36, 1.0);
    let places = build.constant(&[6, 6], &places);
    let last = build.node("Mul", &[&second, &places], Vec::new());
    if let Some(operators) = prepared(build, &last, &[2, 6, 6]) {
        assert_eq!(operators, ["Conv", "Mul", "Add", "Conv", "Mul"]);
    }
}

#[test]
fn the_factors_of_a_gemm_go_into_its_constants() {
    let mut build = Build::new(6, &[1, 6]);
    let flat = build.node("Flatten", &["x"], Vec::new());
    let last = build.gemm(&flat, 6, 3);
    let float = |name: &str, value| AttributeProto {
        name: name.to_owned(),
        f: Some(value),
        r#type: 1,
        ..AttributeProto::default()
    };
    build.graph.node[1].attribute.extend([float("alpha", 0.5), float("beta", -2.0)]);
    if let Some(operators) = prepared(build, &last, &[1, 6]) {
        assert_eq!(operators, ["Flatten", "Gemm"]);
    }
}

#[test]
fn opset_11_becomes_13_and_computes_the_same() {
    let mut build = Build::new(7, &[4, 3, 5]);
    build.opset = 11;
    build.ir_version = 6;
    let squeezed = build.node("Unsqueeze", &["x"], vec![AttributeProto::ints("axes", [1])]);
    let squeezed = build.node("Squeeze", &[&squeezed], vec![AttributeProto::ints("axes", [1])]);
    let softmax = build.node("Softmax", &[&squeezed], vec![AttributeProto::int("axis", 2)]);
    let usual = build.node("Softmax", &[&softmax], Vec::new());
    let sum = build.node("ReduceSum", &[&usual], vec![AttributeProto::ints("axes", [3])]);
    let halves = vec![AttributeProto::int("axis", 1), AttributeProto::ints("split", [1, 3])];
    build.graph.node.push(NodeProto {
        output: vec!["one".to_owned(), "three".to_owned()],
        ..NodeProto::new("Split", &[sum], "", halves)
    });
    let last = build.node("Identity", &["three"], Vec::new());
    if let Some(operators) = prepared(build, &last, &[4, 3, 5]) {
        assert_eq!(operators.iter().filter(|operator| *operator == "Softmax").count(), 2);
        assert_eq!(operators.iter().filter(|operator| *operator == "Flatten").count(), 2);
    }
}

#[test]
fn constants_of_nodes_and_inputs_become_constants_and_idle_nodes_go() {
    let mut build = residual(8);
    let node = NodeProto {
        attribute: vec![AttributeProto {
            name: "value".to_owned(),
            t: Some(TensorProto::floats("", &[], &[2.0])),
            r#type: 4,
            ..AttributeProto::default()
        }],
        ..NodeProto::new("Constant", &[], "two", Vec::new())
    };
    build.graph.node.insert(0, node);
    let last = build.graph.node.last().unwrap().output[0].clone();
    let idle = build.node("Identity", &[&last], Vec::new());
    let idle = build.node("Dropout", &[&idle], Vec::new());
    let last = build.node("Mul", &[&idle, "two"], Vec::new());
    let constant = ValueInfoProto::tensor("c0", DataType::F32, Vec::new());
    build.graph.input.push(constant);
    if let Some(operators) = prepared(build, &last, &[3, 12, 12]) {
        assert!(
            !operators
                .iter()
                .any(|operator| ["Constant", "Identity", "Dropout"].contains(&operator.as_str()))
        );
    }
}
