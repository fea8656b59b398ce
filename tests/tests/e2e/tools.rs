//! Others' tools agree with what we write and serve.

use super::world::{Model, World};
use anyhow::{Context, Result, ensure};
use edgewright_tests::harness::{
    control::{list_of, number_of, text_of},
    python, python_program,
};
use serde_json::json;
use shared::manifest::{LINEAGE_FILE, MODEL_FILE, SIGNATURE_FILE};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

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
        (MODEL_FILE, model.report.model.accuracy_int8.context("no accuracy")?),
        (shared::job::MODEL_FP32_FILE, model.report.model.accuracy_fp32.context("no accuracy")?),
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

/// Runs the reference tool of OpenSSF Model Signing; whether it agreed, and what it said.
fn model_signing(arguments: &[&str]) -> Result<(bool, String)> {
    let python = python_program()?;
    let output = Command::new(&python)
        .args(["-m", "model_signing"])
        .args(arguments)
        .output()
        .with_context(|| format!("running {}: `cargo xtask setup` brings it", python.display()))?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("path is not UTF-8")
}

/// Changes one bit of the file's last byte.
fn flip_last_byte(path: &Path) -> Result<()> {
    let mut bytes = std::fs::read(path)?;
    *bytes.last_mut().context("the file is empty")? ^= 1;
    Ok(std::fs::write(path, bytes)?)
}

fn export(world: &World, folder: &Path) -> Result<PathBuf> {
    let out = folder.join("exported");
    world.control.cli(&["model", "export", &format!("{}@v1.0", world.series.name), "--out", text(&out)?])?;
    Ok(out)
}

pub(crate) fn model_signing_and_we_accept_each_others_signatures_and_no_changed_model(
    world: &mut World,
) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let exported = export(world, folder.path())?;
    let (signature, key) = (exported.join(SIGNATURE_FILE), exported.join("model.pub"));
    let (signature, key, model) = (text(&signature)?, text(&key)?, text(&exported)?);
    let theirs = ["verify", "key", model, "--signature", signature, "--public_key", key];
    let ours = ["model", "verify", model, "--public-key", key];
    let (agreed, said) = model_signing(&theirs)?;
    ensure!(agreed, "model_signing refuses our signature: {said}");
    let verified = world.control.cli(&ours)?;
    ensure!(list_of(&verified, "/files")?.len() == 3, "not all files are signed: {verified}");
    flip_last_byte(&exported.join(MODEL_FILE))?;
    let (agreed, said) = model_signing(&theirs)?;
    ensure!(!agreed && said.contains(MODEL_FILE), "model_signing on a changed model: {said}");
    let (code, said) = world.control.cli_refused(&ours)?;
    ensure!(code == 1 && said.contains("changed: model.onnx"), "a changed model: {code} {said}");

    // The other way round: they sign what we verify.
    let (private, public) = (folder.path().join("theirs.pem"), folder.path().join("theirs.pub"));
    openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", text(&private)?])?;
    openssl(&["ec", "-in", text(&private)?, "-pubout", "-out", text(&public)?])?;
    let foreign = folder.path().join("foreign");
    std::fs::create_dir_all(foreign.join("sub"))?;
    for (name, content) in [("weights.bin", "w"), ("sub/tokens", "t"), ("sub-1", "s")] {
        std::fs::write(foreign.join(name), content)?;
    }
    let signature = foreign.join(SIGNATURE_FILE);
    let (signed, said) = model_signing(&[
        "sign",
        "key",
        text(&foreign)?,
        "--signature",
        text(&signature)?,
        "--private_key",
        text(&private)?,
    ])?;
    ensure!(signed, "model_signing does not sign: {said}");
    let ours = ["model", "verify", text(&foreign)?, "--public-key", text(&public)?];
    world.control.cli(&ours)?;
    flip_last_byte(&foreign.join("sub/tokens"))?;
    let (code, said) = world.control.cli_refused(&ours)?;
    ensure!(code == 1 && said.contains("changed: sub/tokens"), "a changed foreign model: {code} {said}");
    Ok(())
}

fn openssl(arguments: &[&str]) -> Result<()> {
    let output = Command::new("openssl").args(arguments).output().context("running openssl")?;
    ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

pub(crate) fn an_exported_version_says_how_it_came_to_be(world: &mut World) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let exported = export(world, folder.path())?;
    let shown = world.control.cli(&["model", "lineage", &format!("{}@v1.0", world.series.name)])?;
    let steps = list_of(&shown, "/0/steps")?;
    let kinds = steps.iter().map(|step| text_of(step, "/step")).collect::<Result<Vec<_>>>()?;
    ensure!(kinds == ["data", "search", "training", "compression", "signing"], "steps: {kinds:?}");
    let keyring = exported.join("keyring.json");
    let local = ["model", "lineage", "--dir", text(&exported)?, "--keyring", text(&keyring)?];
    ensure!(
        world.control.cli(&local)?.as_array().map(Vec::as_slice) == Some(steps),
        "the folder says otherwise"
    );
    flip_last_byte(&exported.join(MODEL_FILE))?;
    let (code, said) = world.control.cli_refused(&local)?;
    ensure!(code == 1 && said.contains(LINEAGE_FILE) && said.contains(MODEL_FILE), "{code} {said}");
    Ok(())
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
        &model.result.join(MODEL_FILE),
        &world.agents[0].runtime(model.name)?,
        &model.test.cycled(500),
        &model.report.dataset.labels,
    )?;
    ensure!((theirs - ours).abs() < 1e-9, "tritonclient measures {theirs}, the exported model has {ours}");
    Ok(())
}
