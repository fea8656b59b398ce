//! The worker as a process: what it prints and how it ends when it cannot do a job.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use rand::RngExt;
use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

/// A job over two lines of data, with `budget` and everything else as small as it can be.
fn write_job(folder: &Path, budget: &str) {
    let rows = "0\t1\t2\t3\t4\n1\t4\t3\t2\t1\n".repeat(8);
    for part in ["TRAIN", "TEST"] {
        fs::write(folder.join(format!("Tiny_{part}.tsv")), &rows).unwrap();
    }
    let board = include_str!("../../../firmware-configs/generic-arm64.toml");
    let board = shared::board::Board::from_toml(board, "generic-arm64.toml").unwrap();
    let text = serde_json::json!({
        "id": "0198c0de-0000-7000-8000-000000000001",
        "seed": 1,
        "threads": 1,
        "dataset": { "path": folder, "format": "ucr_tsv", "digest": null },
        "board": board,
        "kind": { "name": "search" },
        "budget": serde_json::from_str::<serde_json::Value>(budget).unwrap(),
    });
    fs::write(folder.join("job.json"), text.to_string()).unwrap();
}

fn run(folder: &Path, set: impl FnOnce(&mut Command)) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgewright-forge"));
    command.arg("run").arg("--job").arg(folder);
    set(&mut command);
    command.output().unwrap()
}

/// The one line on standard error of a worker that refused its input.
fn refusal(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn a_budget_beyond_any_memory_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let largest = r#"{"search_steps": 5, "search_batch": 16, "train_epochs": 1, "channels": 512, "cells": 32, "nodes": 8}"#;
    write_job(folder.path(), largest);
    let said = refusal(&run(folder.path(), |_| ()));
    assert!(said.starts_with("error: the search needs about "), "{said}");
    assert!(said.contains("lower the budget's channels, search_batch, cells or nodes"), "{said}");
}

#[test]
fn a_missing_onnx_runtime_is_said_before_the_search() {
    let folder = tempfile::tempdir().unwrap();
    let small =
        r#"{"search_steps": 5, "search_batch": 4, "train_epochs": 1, "channels": 2, "cells": 1, "nodes": 1}"#;
    write_job(folder.path(), small);
    let output = run(folder.path(), |command| {
        command.env("EDGEWRIGHT_ORT", folder.path().join("none.so"));
    });
    assert!(refusal(&output).contains("ONNX Runtime is not usable"));
    assert!(!String::from_utf8(output.stdout).unwrap().contains("search"));
}

/// Sines and square waves of many phases.
fn write_waves(folder: &Path) {
    for (part, shift) in [("TRAIN", 0.0f32), ("TEST", 0.3)] {
        let row = |sample: u8| {
            let at = |t: u8| (f32::from(t) * 0.5 + f32::from(sample) * 0.37 + shift).sin();
            let value = |t| if sample.is_multiple_of(2) { at(t) } else { at(t).signum() };
            let values: Vec<String> = (0..32).map(|t| value(t).to_string()).collect();
            format!("{}\t{}\n", sample % 2, values.join("\t"))
        };
        let text: String = (0..48).map(row).collect();
        fs::write(folder.join(format!("Tiny_{part}.tsv")), text).unwrap();
    }
}

#[test]
fn a_worker_killed_at_ten_random_moments_gives_the_same_result_bit_for_bit() {
    let [whole, killed] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let budget = r#"{"search_steps": 60, "search_batch": 12, "train_epochs": 60, "channels": 4, "cells": 2, "nodes": 2,
        "teachers": 1, "pretext": "masked", "pretext_epochs": 20}"#;
    for folder in [&whole, &killed] {
        write_job(folder.path(), budget);
        write_waves(folder.path());
    }
    // The jobs name the same data: what differs in them would be another job.
    let spec = fs::read_to_string(whole.path().join("job.json")).unwrap();
    fs::write(killed.path().join("job.json"), spec).unwrap();
    let output = run(whole.path(), |_| ());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (mut rng, mut moments, mut resumed) = (rand::rng(), Vec::new(), 0);
    while moments.len() < 10 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edgewright-forge"));
        command.args(["run", "--checkpoint-ms", "0", "--job"]).arg(killed.path());
        let mut worker = command.stdout(Stdio::piped()).spawn().unwrap();
        // So many lines of progress, and then at any moment until the next.
        let lines = rng.random_range(2..6usize);
        let mut said = BufReader::new(worker.stdout.take().unwrap()).lines().map_while(Result::ok);
        for line in said.by_ref().take(lines) {
            resumed +=
                usize::from(line.contains(r#""resumed_from":"#) && !line.contains(r#""resumed_from":null"#));
        }
        let pause = Duration::from_millis(rng.random_range(0..120));
        std::thread::sleep(pause);
        worker.kill().unwrap();
        worker.wait().unwrap();
        moments.push((lines, pause));
        assert!(!killed.path().join("result").exists(), "it was done before it was killed: {moments:?}");
    }
    let output = run(killed.path(), |_| ());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(resumed >= 5, "{resumed} of ten went on from a checkpoint: {moments:?}");
    for file in [
        "arch.json",
        "weights.safetensors",
        "model.onnx",
        "model-fp32.onnx",
        "golden.safetensors",
        "history.json",
        "loss.svg",
    ] {
        let read = |folder: &tempfile::TempDir| fs::read(folder.path().join("result").join(file)).unwrap();
        assert!(read(&whole) == read(&killed), "{file} differs; killed after {moments:?}");
    }
}
