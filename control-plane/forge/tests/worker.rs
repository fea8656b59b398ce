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

/// The worker, the same on machines with a GPU and without.
fn worker() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgewright-forge"));
    command.env("EDGEWRIGHT_FORGE_DEVICE", "cpu");
    command
}

fn run(folder: &Path, set: impl FnOnce(&mut Command)) -> Output {
    let mut command = worker();
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
fn a_gpu_that_this_machine_does_not_have_is_refused_in_one_line_that_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    write_job(folder.path(), "{}");
    let asked = |device: &str| {
        run(folder.path(), |command| {
            command.env("EDGEWRIGHT_FORGE_DEVICE", device);
        })
    };
    // No machine has so many.
    let said = refusal(&asked("cuda:200"));
    assert!(said.starts_with("error: device cuda:200: "), "{said}");
    assert!(said.contains("LD_LIBRARY_PATH") || said.contains("counted from 0"), "{said}");
    let output = asked("gpu");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("allowed are auto, cpu, cuda and cuda:N"), "{said}");
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

/// Bars on the left or on the right of noise, 32 by 32: as many images for training as are asked for, 100 for testing.
fn write_images(folder: &Path, train: u32) {
    let mut state = 1u32;
    for (part, count) in [("train", train), ("t10k", 100)] {
        let head = |rank: u8, sizes: &[u32]| -> Vec<u8> {
            [0, 0, 8, rank].into_iter().chain(sizes.iter().flat_map(|size| size.to_be_bytes())).collect()
        };
        let (mut images, mut labels) = (head(3, &[count, 32, 32]), head(1, &[count]));
        for image in 0..count {
            for at in 0..1024u32 {
                // A linear congruential generator; its high bits.
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let bar = (at % 32) / 16 == image % 2;
                images.push((state >> 26) as u8 + if bar { 150 } else { 0 });
            }
            labels.push((image % 2) as u8);
        }
        fs::write(folder.join(format!("{part}-images-idx3-ubyte")), images).unwrap();
        fs::write(folder.join(format!("{part}-labels-idx1-ubyte")), labels).unwrap();
    }
}

/// Most memory that a worker with these arguments ever had, in MiB.
fn peak_mib(arguments: &[&str], folder: &Path) -> u64 {
    let mut command = self::worker();
    command.args(arguments).arg(folder).stdout(Stdio::null());
    let mut worker = command.spawn().unwrap();
    let status = format!("/proc/{}/status", worker.id());
    let mut peak = 0;
    loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
        peak = peak.max(line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() / 1024);
        if let Some(status) = worker.try_wait().unwrap() {
            assert!(status.success(), "{arguments:?} ended with {status}");
            return peak;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_set_larger_than_the_memory_for_it_is_added_and_trained_on_within_that_memory_and_gives_the_same_model() {
    const IMAGES: u32 = 60_000;
    /// What the large set takes in f32.
    const SET_MIB: u64 = (60_000 * 32 * 32 * 4) >> 20;
    let [small, large, whole] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let budget =
        r#"{"search_steps": 1, "search_batch": 8, "train_epochs": 1, "channels": 2, "cells": 1, "nodes": 1}"#;
    for (folder, images) in [(&small, 600), (&large, IMAGES), (&whole, IMAGES)] {
        write_job(folder.path(), budget);
        for part in ["TRAIN", "TEST"] {
            fs::remove_file(folder.path().join(format!("Tiny_{part}.tsv"))).unwrap();
        }
        write_images(folder.path(), images);
        let spec = fs::read_to_string(folder.path().join("job.json")).unwrap();
        fs::write(folder.path().join("job.json"), spec.replace("ucr_tsv", "idx")).unwrap();
    }
    let added = [&small, &large].map(|folder| peak_mib(&["inspect", "--path"], folder.path()));
    assert!(added[1] < added[0] + 16, "to add the sets took {added:?} MiB");
    let within = ["run", "--data-mib", "16", "--job"];
    let trained = [&small, &large].map(|folder| peak_mib(&within, folder.path()));
    let in_memory = peak_mib(&["run", "--data-mib", "4096", "--job"], whole.path());
    println!("MiB to add {added:?}, to train {trained:?}, in memory {in_memory}, the large set {SET_MIB}");
    assert!(
        trained[1] < trained[0] + SET_MIB / 4,
        "to train took {trained:?} MiB, the large set has {SET_MIB}"
    );
    assert!(in_memory > trained[1] + SET_MIB / 2, "{in_memory} MiB in memory, {trained:?} without");
    for file in ["arch.json", "weights.safetensors", "model.onnx"] {
        let read = |folder: &tempfile::TempDir| fs::read(folder.path().join("result").join(file)).unwrap();
        assert!(read(&large) == read(&whole), "{file} differs");
    }
    assert!(!large.path().join("samples.bin").exists());
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
        let mut command = self::worker();
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
