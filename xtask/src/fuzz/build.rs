//! Builds targets with what libFuzzer needs to see where an input leads.

use super::targets::{Target, package};
use crate::cache::Cache;
use anyhow::{Context, Result, ensure};
use std::{path::PathBuf, process::Command};

/// As cargo-fuzz sets them, but for a sanitizer: every toolchain takes these.
const FLAGS: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "--cfg=fuzzing",
];

/// Builds targets that need the same features; the folder that the programs are in.
pub(crate) fn build(cache: &Cache, targets: &[Target]) -> Result<PathBuf> {
    let host = host()?;
    let folder = cache.target().join("fuzz");
    let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
    eprintln!("building {}", names.join(", "));
    let mut cargo = cache.cargo();
    cargo.args(["build", "--release", "--no-default-features", "--manifest-path"]);
    cargo.arg(package().join("Cargo.toml"));
    // With a target of its own, flags reach neither build scripts nor macros, which libFuzzer is not linked into.
    cargo.args(["--target", &host]);
    if let Some(first) = targets.first().filter(|first| !first.features.is_empty()) {
        cargo.args(["--features", &first.features.join(",")]);
    }
    for name in &names {
        cargo.args(["--bin", name]);
    }
    cargo.env("CARGO_TARGET_DIR", &folder).env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    let status = cargo.status().context("running cargo build")?;
    ensure!(status.success(), "{} did not build: {status}", names.join(", "));
    Ok(folder.join(host).join("release"))
}

/// This machine's target.
fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("running rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say what it builds for")?.to_owned())
}
