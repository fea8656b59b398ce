//! Others' tools agree with what we write and serve.

use super::world::{Model, World};
use anyhow::{Context, Result, ensure};
use edgewright_tests::harness::{cache, control::number_of, root};
use serde_json::{Value, json};
use std::{path::Path, process::Command};

/// Runs a script of `tests/peers` in the tools' virtual environment; it prints one JSON value.
fn python(script: &str, arguments: &[&str]) -> Result<Value> {
    let python = cache()?.join("venv-tools/bin/python");
    let output = Command::new(&python)
        .arg(root().join("tests/peers").join(script))
        .args(arguments)
        .output()
        .with_context(|| format!("running {}: `cargo xtask setup` brings it", python.display()))?;
    ensure!(output.status.success(), "{script} failed: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Writes the test split where Python finds it: raw f32 values, and the class index of each sample.
fn write_split(model: &Model, folder: &Path) -> Result<()> {
    let values: Vec<u8> = model.test.inputs.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(folder.join("inputs.f32"), values)?;
    let labels = &model.report.dataset.labels;
    let classes = model.test.labels.iter().map(|label| labels.iter().position(|known| known == label));
    let classes: Vec<usize> =
        classes.collect::<Option<_>>().context("a label that the model does not know")?;
    std::fs::write(
        folder.join("split.json"),
        json!({ "shape": model.test.shape, "classes": classes }).to_string(),
    )?;
    Ok(())
}

fn check_with_python(model: &Model) -> Result<()> {
    let folder = tempfile::tempdir()?;
    write_split(model, folder.path())?;
    for (file, measured) in [
        (shared::manifest::MODEL_FILE, model.report.model.accuracy_int8),
        (shared::job::MODEL_FP32_FILE, model.report.model.accuracy_fp32),
    ] {
        let path = model.result.join(file);
        let answer = python(
            "check_onnx.py",
            &[
                path.to_str().context("path is not UTF-8")?,
                folder.path().to_str().context("path is not UTF-8")?,
            ],
        )?;
        let theirs = number_of(&answer, "/accuracy")?;
        ensure!(
            (theirs - measured).abs() < 1e-9,
            "{} {file}: Python measures {theirs}, we say {measured}",
            model.name
        );
        ensure!(answer["opset"] == json!({ "": 17 }), "{file} imports {}", answer["opset"]);
    }
    Ok(())
}

pub(crate) fn onnx_checker_and_python_onnxruntime_agree_on_the_real_test_sets(
    world: &mut World,
) -> Result<()> {
    check_with_python(&world.series)?;
    check_with_python(&world.image)
}

pub(crate) fn tritonclient_lists_describes_and_infers(world: &mut World) -> Result<()> {
    let model = &world.image;
    let folder = tempfile::tempdir()?;
    write_split(model, folder.path())?;
    let address = format!("127.0.0.1:{}", world.agents[0].port);
    let answer = python(
        "triton_client.py",
        &[&address, model.name, folder.path().to_str().context("path is not UTF-8")?],
    )?;
    ensure!(answer["live"] == json!(true) && answer["ready"] == json!(true), "not ready: {answer}");
    let listed = answer["index"].as_array().context("no index")?;
    ensure!(
        listed.iter().any(|entry| entry["name"] == model.name && entry["state"] == "READY"),
        "index: {answer}"
    );
    ensure!(
        answer["metadata"]["inputs"][0]["shape"] == json!([-1, 1, 28, 28]),
        "metadata: {}",
        answer["metadata"]
    );
    ensure!(answer["json_equals_binary"] == json!(true), "JSON and binary tensors give different answers");
    ensure!(answer["uint8_equals_fp32"] == json!(true), "raw bytes and scaled values give different answers");
    let theirs = number_of(&answer, "/accuracy")?;
    let ours = edgewright_tests::demo::life::exported_accuracy(
        &model.result.join(shared::manifest::MODEL_FILE),
        &world.agents[0].runtime(model.name)?,
        &model.test.cycled(500),
        &model.report.dataset.labels,
    )?;
    ensure!((theirs - ours).abs() < 1e-9, "tritonclient measures {theirs}, the exported model has {ours}");
    Ok(())
}
