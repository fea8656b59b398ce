//! What is wrong is said in one line that names what, where and what to do; the exit code is not zero; nothing is left
//! half-written.

use super::world::world;
use anyhow::{Context, Result, ensure};
use edgewright_tests::harness::{binary, free_port};
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

/// One line on standard error, with every word of `words` in it, and an exit code over zero.
fn said(what: &str, code: Option<i32>, stderr: &str, words: &[&str]) -> Result<()> {
    let text = stderr.trim();
    ensure!(code.is_some_and(|code| code > 0), "{what}: exit code {code:?}: {text}");
    ensure!(text.lines().count() == 1, "{what}: not one line: {text}");
    for word in words {
        ensure!(text.contains(word), "{what}: no {word:?} in: {text}");
    }
    Ok(())
}

fn said_by(what: &str, output: &Output, words: &[&str]) -> Result<()> {
    said(what, output.status.code(), &String::from_utf8_lossy(&output.stderr), words)
}

fn inspect(path: &Path) -> Result<Output> {
    Command::new(binary("edgewright-forge")?)
        .args(["inspect", "--json", "--path"])
        .arg(path)
        .output()
        .context("forge")
}

fn idx(magic: u32, sizes: &[u32], values: &[u8]) -> Vec<u8> {
    let words = std::iter::once(magic).chain(sizes.iter().copied());
    words.flat_map(u32::to_be_bytes).chain(values.iter().copied()).collect()
}

fn write_idx(folder: &Path, images: &[u8], labels: &[u8]) -> Result<()> {
    for split in ["train", "t10k"] {
        fs::write(folder.join(format!("{split}-images-idx3-ubyte")), images)?;
        fs::write(folder.join(format!("{split}-labels-idx1-ubyte")), labels)?;
    }
    Ok(())
}

#[test]
fn damaged_data_sets_are_refused_by_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let images = idx(0x0803, &[4, 8, 8], &[7; 4 * 64]);
    write_idx(folder, &images[..images.len() - 3], &idx(0x0801, &[4], &[0, 1, 0, 1]))?;
    said_by("cut images", &inspect(folder)?, &["train-images-idx3-ubyte"])?;
    write_idx(folder, &images, &idx(0x0801, &[3], &[0, 1, 0]))?;
    said_by("fewer labels", &inspect(folder)?, &["train-labels-idx1-ubyte"])?;
    write_idx(folder, &images, &idx(0x0801, &[4], &[5; 4]))?;
    said_by("one class", &inspect(folder)?, &["class"])?;
    write_idx(folder, &images, &idx(0x0803, &[4], &[0, 1, 0, 1]))?;
    said_by("labels that are images", &inspect(folder)?, &["train-labels-idx1-ubyte"])?;
    let series = folder.join("Bad");
    for (what, text, words) in [
        ("a word among numbers", "1\t0.5\t0.6\n2\tpear\t0.7\n", ["Bad_TRAIN.tsv", "2"]),
        ("lines of unequal length", "1\t0.5\t0.6\n2\t0.7\n", ["Bad_TRAIN.tsv", "2"]),
        ("one class of series", "1\t0.5\t0.6\n1\t0.5\t0.7\n", ["class", "Bad"]),
        ("an empty file", "", ["Bad_TRAIN.tsv", ""]),
    ] {
        fs::write(folder.join("Bad_TRAIN.tsv"), text)?;
        fs::write(folder.join("Bad_TEST.tsv"), text)?;
        said_by(what, &inspect(&series)?, &words)?;
    }
    said_by("nothing there", &inspect(&folder.join("nowhere"))?, &["nowhere"])
}

#[test]
fn the_control_plane_refuses_what_it_does_not_know() -> Result<()> {
    let world = world();
    let refused = |what: &str, arguments: &[&str], words: &[&str]| -> Result<()> {
        let (code, text) = world.control.cli_refused(arguments)?;
        said(what, Some(code), &text, words)
    };
    refused(
        "unknown board",
        &["search", "start", "--dataset", "italy", "--board", "abacus", "--model", "m"],
        &["abacus"],
    )?;
    refused(
        "unknown data set",
        &["search", "start", "--dataset", "nothing", "--board", "x86-64", "--model", "m"],
        &["nothing"],
    )?;
    refused(
        "unknown version",
        &["rollout", "create", "--version", "italy@v9.9", "--wave", "1"],
        &["italy@v9.9"],
    )?;
    refused(
        "a wave over 100 %",
        &["rollout", "create", "--version", "italy@v1.0", "--wave", "101%"],
        &["101"],
    )?;
    refused("unknown device", &["device", "show", "nobody"], &["nobody"])?;
    let folder = tempfile::tempdir()?;
    for name in fs::read_dir(&world.series.result)? {
        let path = name?.path();
        fs::copy(&path, folder.path().join(path.file_name().context("no name")?))?;
    }
    fs::write(folder.path().join("model.onnx"), b"this is no model")?;
    let before = world.control.cli(&["model", "list"])?;
    let text = folder.path().to_str().context("not UTF-8")?;
    refused(
        "an ONNX file that is none",
        &["model", "publish", text, "--model", "italy", "--board", "x86-64"],
        &["model.onnx"],
    )?;
    ensure!(world.control.cli(&["model", "list"])? == before, "a version was left behind");
    Ok(())
}

#[test]
fn a_token_opens_once() -> Result<()> {
    let world = world();
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("enrol.json");
    let out = file.to_str().context("not UTF-8")?;
    let enrol = |data: &str| -> Result<Output> {
        let api = format!("127.0.0.1:{}", free_port()?);
        let mut command = Command::new("timeout");
        command
            .args(["10"])
            .arg(binary("edgewright-agent")?)
            .args(["run", "--board", "x86-64", "--api", &api]);
        command.arg("--data").arg(folder.path().join(data)).arg("--enroll").arg(&file);
        command.output().context("agent")
    };
    world.control.cli(&["device", "token", "create", "--device", "once", "--out", out])?;
    let first = enrol("first")?;
    ensure!(
        first.status.code() == Some(124),
        "the first use failed: {}",
        String::from_utf8_lossy(&first.stderr)
    );
    let last_line = |output: &Output| {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
    };
    let second = enrol("second")?;
    said("a used token", second.status.code(), &last_line(&second), &["token"])?;
    ensure!(second.status.code() == Some(2), "a used token ended with {:?}", second.status.code());
    world.control.cli(&["device", "token", "create", "--device", "late", "--ttl-s", "1", "--out", out])?;
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let late = enrol("late")?;
    said("an expired token", late.status.code(), &last_line(&late), &["token", "expired"])
}

#[test]
fn a_port_in_use_is_named() -> Result<()> {
    let world = world();
    let folder = tempfile::tempdir()?;
    let taken = format!("127.0.0.1:{}", world.control.api);
    let output = Command::new(binary("edgewright")?)
        .args(["serve", "--api", &taken, "--mqtt", &format!("127.0.0.1:{}", free_port()?), "--data"])
        .arg(folder.path().join("other"))
        .output()?;
    said_by("serve on a taken port", &output, &[&world.control.api.to_string(), "--api"])
}

/// A disk of its own for one agent: a tmpfs in a private mount namespace, which takes root.
#[test]
fn a_full_disk_while_staging_leaves_the_working_model() -> Result<()> {
    let world = world();
    let agent = &world.agents[0];
    let before = agent.active_version("italy")?.context("no model")?;
    let free = fs::metadata(&agent.data)?.is_dir();
    ensure!(free, "the agent's folder is gone");
    // The agent's own reserve is raised over what the disk has: to it, the disk is full.
    let mut other = edgewright_tests::harness::Agent::enrol(
        &world.control,
        "full-disk",
        &world.folder.path().join("devices"),
        edgewright_tests::harness::AgentOptions::default(),
    )?;
    world.control.cli(&[
        "rollout",
        "create",
        "--version",
        "italy@v1.0",
        "--slot",
        "italy",
        "--wave",
        "100%",
        "--device",
        "full-disk",
        "--trial-duration-ms",
        "300",
    ])?;
    let limit = std::time::Duration::from_secs(60);
    edgewright_tests::harness::wait_for("the first model", limit, || {
        Ok(other.active_version("italy")?.filter(|version| *version == before).map(|_| ()))
    })?;
    other.stop()?;
    let config = world.folder.path().join("full-disk.toml");
    fs::write(&config, "disk_reserve_bytes = 1152921504606846976\n")?;
    other.set_extra(vec!["--config".to_owned(), config.display().to_string()]);
    other.start()?;
    world.control.cli(&[
        "rollout",
        "create",
        "--version",
        "mnist@v1.0",
        "--slot",
        "mnist",
        "--wave",
        "100%",
        "--device",
        "full-disk",
    ])?;
    edgewright_tests::harness::wait_for("the device to report its full disk", limit, || {
        let events = world.control.cli(&["device", "events", "full-disk"])?;
        let items = events["items"].as_array().cloned().unwrap_or_default();
        Ok(items.iter().any(|event| event["kind"] == "disk_full").then_some(()))
    })?;
    ensure!(other.active_version("italy")?.as_deref() == Some(&before), "the working model is gone");
    other.client().infer("italy", &world.series.test.batch_shape(1), &world.series.test.inputs[0])?;
    Ok(())
}
