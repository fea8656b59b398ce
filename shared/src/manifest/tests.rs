use super::*;
use crate::signing::Payload;

/// A valid manifest.
pub(crate) fn manifest() -> Manifest {
    let file =
        |name: &str| FileEntry { name: name.to_owned(), digest: Digest::of(name.as_bytes()), size_bytes: 9 };
    Manifest {
        format: FORMAT,
        model: "mnist".parse().unwrap(),
        version: "v1.0".parse().unwrap(),
        version_id: "018f3c2e-7c00-7000-8000-000000000001".parse().unwrap(),
        task: Task::ImageClassification,
        board: "generic-arm64".parse().unwrap(),
        created_at: Timestamp(1_700_000_000_000),
        input: TensorSpec { name: "input".to_owned(), shape: vec![1, 28, 28] },
        output: TensorSpec { name: "probabilities".to_owned(), shape: vec![2] },
        preprocess: Preprocess::linear(0.5, 0.0),
        labels: vec!["no".to_owned(), "yes".to_owned()],
        heads: Vec::new(),
        alarm: None,
        golden_tolerance: 0.125,
        files: vec![file(MODEL_FILE), file(GOLDEN_FILE)],
        lineage: Lineage { dataset: Digest::of(b"data"), job: None, seed: 42, parent: None },
    }
}

#[test]
fn a_valid_manifest_passes() {
    manifest().validate().unwrap();
}

#[test]
fn lineage_and_a_signature_may_come_with_the_model() {
    let mut manifest = manifest();
    for name in [LINEAGE_FILE, SIGNATURE_FILE] {
        manifest.files.push(FileEntry { name: name.to_owned(), ..manifest.files[0].clone() });
    }
    manifest.validate().unwrap();
}

#[test]
fn each_broken_rule_is_named() {
    let broken = |change: fn(&mut Manifest)| {
        let mut manifest = manifest();
        change(&mut manifest);
        manifest.validate().unwrap_err()
    };
    assert!(broken(|m| m.format = 2).contains("format is 2"));
    assert!(broken(|m| m.input.shape = vec![]).contains("input.shape"));
    assert!(broken(|m| m.input.shape = vec![1, 0, 28]).contains("input.shape"));
    assert!(broken(|m| m.input.shape = vec![usize::MAX, 2, 2]).contains("input.shape"));
    assert!(broken(|m| m.input.name = String::new()).contains("input.name"));
    assert!(broken(|m| m.labels.truncate(1)).contains("labels has 1 names for 2 outputs"));
    assert!(broken(|m| m.golden_tolerance = f32::NAN).contains("golden_tolerance"));
    assert!(broken(|m| m.golden_tolerance = 0.0).contains("golden_tolerance"));
    assert!(broken(|m| m.preprocess.scale = f32::INFINITY).contains("preprocess"));
    assert!(broken(|m| m.files[0].name = "../model.onnx".to_owned()).contains("unsafe name"));
    assert!(broken(|m| m.files[1].name = MODEL_FILE.to_owned()).contains("twice"));
    assert!(broken(|m| m.files[0].size_bytes = u64::MAX).contains("bytes"));
    assert!(broken(|m| m.files.truncate(1)).contains("lacks \"golden.safetensors\""));
}

#[test]
fn a_text_model_names_its_alphabet_and_one_that_contradicts_its_shapes_is_refused() {
    use crate::text::{Align, TextPreprocess};
    let text = |align| TextPreprocess { alphabet: "ab".to_owned(), unknown: 'a', lowercase: false, align };
    let good = Manifest {
        task: Task::TextGeneration,
        input: TensorSpec { name: "input".to_owned(), shape: vec![2, 9] },
        preprocess: Preprocess::of_text(text(Align::End)),
        labels: vec!["a".to_owned(), "b".to_owned()],
        ..manifest()
    };
    good.validate().unwrap();
    let head = |positions| Head { name: "slots".to_owned(), labels: vec!["O".to_owned()], positions };
    let slots = Manifest {
        task: Task::IntentSlots,
        output: TensorSpec { name: "probabilities".to_owned(), shape: vec![2 + 9] },
        preprocess: Preprocess::of_text(text(Align::Start)),
        heads: vec![head(9)],
        ..good.clone()
    };
    slots.validate().unwrap();
    let without = Manifest { preprocess: Preprocess::linear(1.0, 0.0), ..good.clone() };
    assert_eq!(without.validate().unwrap_err(), "preprocess.text is missing");
    let short = Manifest { heads: vec![head(8)], ..slots.clone() };
    assert!(short.validate().unwrap_err().contains("labels has 2 names for 3 outputs"));
    let reversed = Manifest { labels: vec!["b".to_owned(), "a".to_owned()], ..good.clone() };
    assert!(reversed.validate().unwrap_err().contains("its labels are the alphabet"));
    let wide = Manifest { input: TensorSpec { name: "input".to_owned(), shape: vec![3, 9] }, ..good };
    assert_eq!(wide.validate().unwrap_err(), "input.shape is not [2, length], as the alphabet needs");
    let old: Manifest = serde_json::from_str(&serde_json::to_string(&manifest()).unwrap()).unwrap();
    assert!(old.heads.is_empty() && !serde_json::to_string(&old).unwrap().contains("heads"));
}

#[test]
fn what_finds_anomalies_says_so_by_its_labels_and_rows_of_a_table_have_a_column_for_each_value() {
    let column = |name: &str| Column { name: name.to_owned(), scale: 0.5, offset: -1.0 };
    let alarm = Alarm { false_alarms_permille: 10, normal_samples: 500 };
    let good = Manifest {
        task: Task::AnomalyDetection,
        input: TensorSpec { name: "input".to_owned(), shape: vec![2, 1] },
        preprocess: Preprocess::of_columns(vec![column("speed"), column("heat")]),
        labels: ANOMALY_LABELS.map(str::to_owned).to_vec(),
        alarm: Some(alarm),
        ..manifest()
    };
    good.validate().unwrap();
    let text = serde_json::to_string(&good).unwrap();
    assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), good);
    let broken = |change: fn(&mut Manifest)| {
        let mut manifest = good.clone();
        change(&mut manifest);
        manifest.validate().unwrap_err()
    };
    assert!(broken(|m| m.labels.reverse()).contains("has the labels"));
    assert!(broken(|m| m.task = Task::SeriesClassification).contains("alarm is for models"));
    assert!(broken(|m| m.alarm.as_mut().unwrap().false_alarms_permille = 1001).contains("1001"));
    assert!(broken(|m| m.preprocess.columns.truncate(1)).contains("preprocess.columns has 1 entries"));
    assert!(broken(|m| m.input.shape = vec![1, 2]).contains("input.shape is [1, 2]"));
    assert!(broken(|m| m.preprocess.columns[0].scale = f32::NAN).contains("\"speed\" has a scale"));
    assert!(broken(|m| m.preprocess.columns[0].name = String::new()).contains("1 to 64 bytes"));
}
