//! The worker as a process: what it prints and how it ends when it cannot do a job.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
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
