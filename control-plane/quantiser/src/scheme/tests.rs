use super::*;
use crate::{
    proto::AttributeProto,
    testing::{Build, residual},
};

fn names(scheme: &Scheme) -> Vec<&str> {
    scheme.values.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn integers_flow_from_the_stem_to_the_classifier_and_the_softmax_stays_f32() {
    let net = Net::new(residual(1).model(&["v13"]));
    let found = computes(&net);
    // The stem sums up 27 values only.
    assert_eq!(found.iter().map(|compute| compute.node).collect::<Vec<_>>(), [2, 4, 7, 12]);
    let scheme = scheme(&net, &found);
    // Behind the Relus, not in front of them; the logits and the probabilities are not encoded.
    assert_eq!(names(&scheme), ["v1", "v3", "v4", "v6", "v7", "v8", "v9", "v10", "v11"]);
    let group = |name: &str| scheme.values.iter().find(|(found, _)| found == name).unwrap().1;
    assert_eq!((group("v6"), group("v7"), group("v9")), (group("v8"), group("v8"), group("v8")));
    assert_eq!(group("v10"), group("v11"));
    assert_ne!(group("v10"), group("v9"));
    assert!(!scheme.integer.contains("v1") && scheme.integer.contains("v6"));
}

#[test]
fn with_one_node_alone_only_its_input_and_output_are_encoded() {
    let net = Net::new(residual(1).model(&["v13"]));
    let found = computes(&net);
    let alone = |index: usize| {
        let scheme = scheme(&net, &found[index..=index]);
        names(&scheme).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(alone(0), ["v1", "v3"]);
    assert_eq!(alone(3), ["v11"]);
}

#[test]
fn what_has_no_constant_f32_weights_is_left_alone() {
    let mut build = Build::new(1, &[4, 8, 8]);
    let mut last = build.node("LayerNormalization", &["x", "scale"], Vec::new());
    build.graph.initializer.push(crate::proto::TensorProto::floats("scale", &[8], &[1.0; 8]));
    last = build.node("MatMul", &[&last, "x"], Vec::new());
    last = build.node("Softmax", &[&last], vec![AttributeProto::int("axis", -1)]);
    let nan = build.constant(&[8, 2], &[f32::NAN; 16]);
    last = build.node("MatMul", &[&last, &nan], Vec::new());
    let net = Net::new(build.model(&[&last]));
    assert_eq!(computes(&net), []);
}

#[test]
fn a_product_with_constant_weights_ends_behind_its_bias_and_activation() {
    let mut build = Build::new(1, &[4, 8]);
    let weight = build.random(64, 1.0);
    let weight = build.constant(&[8, 8], &weight);
    let bias = build.constant(&[8], &[0.5; 8]);
    let mut last = build.node("MatMul", &["x", &weight], Vec::new());
    last = build.node("Add", &[&last, &bias], Vec::new());
    let end = build.node("Relu", &[&last], Vec::new());
    last = build.node("MatMul", &[&end, &weight], Vec::new());
    let net = Net::new(build.model(&[&last]));
    let found = computes(&net);
    assert_eq!((found.len(), found[0].end.as_str(), found[0].axis), (2, end.as_str(), Some(1)));
    assert_eq!(names(&scheme(&net, &found)), ["x", "v2"]);
}
