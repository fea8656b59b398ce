//! Two versions of the agent's self-test model with other bytes and the same answers, large enough for many chunks.

use crate::{demo::variants::push_doc_string, harness::root};
use anyhow::{Context, Result};
use serde_json::json;
use shared::{
    Digest,
    job::REPORT_FILE,
    manifest::{GOLDEN_FILE, MODEL_FILE},
};
use std::path::Path;

/// Values of one sample of the self-test model.
pub const SHAPE: [usize; 3] = [1, 8, 8];
/// How far an answer may be off.
pub const TOLERANCE: f32 = 0.02;

/// Writes a folder that `edgewright model publish` takes. The model's file is about `size_bytes` long, with bytes
/// that depend on `seed`.
pub fn write_bundle(folder: &Path, seed: &str, size_bytes: usize) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))
    };
    write(MODEL_FILE, &padded(asset("selftest.onnx")?, seed, size_bytes))?;
    write(GOLDEN_FILE, &asset("selftest.safetensors")?)?;
    write(REPORT_FILE, report().to_string().as_bytes())
}

/// A file of the agent's self-test.
pub fn asset(name: &str) -> Result<Vec<u8>> {
    let path = root().join("agent/assets").join(name);
    std::fs::read(&path).with_context(|| format!("reading {}", path.display()))
}

/// The model with a text in it that nothing reads.
fn padded(mut model: Vec<u8>, seed: &str, size_bytes: usize) -> Vec<u8> {
    let mut text = Vec::new();
    // Every chunk differs from every other.
    while text.len() < size_bytes {
        text.extend(Digest::of(format!("{seed} {}", text.len()).as_bytes()).to_string().into_bytes());
    }
    push_doc_string(&mut model, &text);
    model
}

/// What a job would have measured; only shape and labels are read.
fn report() -> serde_json::Value {
    json!({
        "job": uuid(), "seed": 0, "search": null, "train_seconds": 0.0, "train_epochs": 0, "quantise_seconds": 0.0,
        "dataset": {
            "format": "idx", "task": "image_classification", "digest": Digest::of(b"selftest"), "shape": SHAPE,
            "labels": ["a", "b", "c"], "train_count": 0, "test_count": 0,
        },
        "model": {
            "parameters": 0, "macs": 0, "activation_bytes": 0, "accuracy_fp32": 1.0, "accuracy_int8": 1.0,
            "accuracy_int8_tract": 1.0, "bytes_fp32_onnx": 0, "bytes_int8_onnx": 0,
            "us_per_inference": { "tract_fp32": 0.0, "tract_int8": 0.0, "ort_fp32": 0.0, "ort_int8": 0.0 },
            "golden_difference_max": 0.0, "golden_tolerance": TOLERANCE, "remarks": [],
        },
    })
}

fn uuid() -> &'static str {
    "00000000-0000-7000-8000-000000000000"
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::golden::Golden;

    #[test]
    fn the_report_is_one_and_the_padding_changes_bytes_only() {
        let _: shared::job::JobReport = serde_json::from_value(report()).unwrap();
        let model = asset("selftest.onnx").unwrap();
        let (one, two) = (padded(model.clone(), "1", 100_000), padded(model.clone(), "2", 100_000));
        assert!(one.starts_with(&model) && one.len() >= model.len() + 100_000 && one.len() == two.len());
        let chunks: std::collections::BTreeSet<&[u8]> = one.chunks(4096).chain(two.chunks(4096)).collect();
        assert!(chunks.len() >= 49, "{} different chunks", chunks.len());
        let golden = Golden::read(&asset("selftest.safetensors").unwrap()).unwrap();
        assert_eq!(golden.input().len() / golden.samples(), SHAPE.iter().product::<usize>());
    }
}
