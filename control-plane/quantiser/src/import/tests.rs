use super::*;
use crate::testing::{Build, ort, residual, samples};

const OPTIONS: Options = Options { reduce_range: false, sqnr_min_db: 20.0, agreement_min: 0.9 };

#[test]
fn a_model_comes_out_in_the_form_of_devices_and_the_same_each_time() {
    let Some(ort) = ort() else { return };
    let bytes = residual(11).bytes(&["v13"]);
    let values = samples(12, 20, 432);
    let seen = Samples { shape: &[3, 12, 12], values: &values };
    let done = import(&bytes, seen, &Wishes::default(), &OPTIONS, &ort).unwrap();
    assert_eq!(
        (done.outputs, &done.input.device_shape[..], done.input.batch_free),
        (5, &[3, 12, 12][..], true)
    );
    // 8·27+8, 16·72+16, 8·16+8, 8·9+8, 5·16+5.
    assert_eq!(done.cost.parameters, 224 + 1168 + 136 + 80 + 85);
    assert_eq!(done.cost.macs, 144 * (8 * 27 + 16 * 72 + 8 * 16 + 8 * 9) + 80);
    // Stem, 16 channels and their Relu at once.
    assert_eq!(done.cost.activation_bytes, 144 * (8 + 16 + 16));
    let again = import(&bytes, seen, &Wishes::default(), &OPTIONS, &ort).unwrap();
    assert_eq!((again.onnx_fp32, again.quantised.onnx), (done.onnx_fp32, done.quantised.onnx));
}

#[test]
fn a_model_that_mixes_its_samples_takes_one_at_a_time() {
    let Some(ort) = ort() else { return };
    let mut build = Build::new(13, &[8, 6, 6]);
    let conv = build.conv("x", 8, 8, 3, 1);
    let over_all = build.node("ReduceMean", &[&conv], vec![crate::proto::AttributeProto::ints("axes", [0])]);
    let mixed = build.node("Sub", &[&conv, &over_all], Vec::new());
    let sum = build.node("Add", &[&mixed, &conv], Vec::new());
    let flat = build.node("Flatten", &[&sum], Vec::new());
    let bytes = build.bytes(&[&flat]);
    let values = samples(14, 8, 288);
    let seen = Samples { shape: &[8, 6, 6], values: &values };
    let done =
        import(&bytes, seen, &Wishes::default(), &Options { agreement_min: 0.0, ..OPTIONS }, &ort).unwrap();
    assert!(!done.input.batch_free);
}

#[test]
fn what_onnx_runtime_does_not_run_is_refused_in_one_line() {
    let Some(ort) = ort() else { return };
    let mut build = residual(15);
    // A Gemm over values that do not fit it.
    build.graph.node[12].input[0] = "v9".to_owned();
    let bytes = build.bytes(&["v13"]);
    let values = samples(16, 4, 432);
    let seen = Samples { shape: &[3, 12, 12], values: &values };
    let error = import(&bytes, seen, &Wishes::default(), &OPTIONS, &ort).unwrap_err();
    assert!(matches!(error, Error::Run(_)), "{error}");
}
