//! Deltas between versions of a model that was searched and trained for this: ours, and those of zstd, bsdiff and xdelta3.
//! Each is applied again, by its own tool, and has to give the newer file.

use super::{BOARD, write};
use crate::harness::{ControlPlane, ServeOptions, cache, control::text_of, python};
use anyhow::{Context, Result, bail, ensure};
use delta::Limits;
use serde::{Deserialize, Serialize};
use shared::{job::RESULT_DIR, manifest::MODEL_FILE};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

const DATASET: &str = "mnist";
/// A cell is found and trained as in life, if not for long: what counts is which bytes of the file change.
const BUDGET: &str =
    r#"{"search_steps": 30, "search_batch": 32, "train_epochs": 1, "channels": 16, "cells": 3, "nodes": 2}"#;

/// One pair of files.
#[derive(Clone, Debug, Serialize)]
pub struct DeltaReport {
    pub case: String,
    /// Bytes of the newer file.
    pub full_bytes: u64,
    pub ours_bytes: u64,
    pub zstd_bytes: u64,
    pub bsdiff_bytes: u64,
    pub xdelta3_bytes: u64,
    /// To make ours, and to apply it.
    pub ours_make_ms: f64,
    pub ours_apply_ms: f64,
}

/// What the peer script says of what it made.
#[derive(Debug, Deserialize)]
struct Made {
    case: String,
    file: PathBuf,
    accuracy_before: f64,
    accuracy_after: f64,
}

/// Makes the versions and the deltas between them.
pub fn run(folder: &Path) -> Result<Vec<DeltaReport>> {
    let control = ControlPlane::start(&folder.join("forge"), ServeOptions::default())?;
    control.add_dataset(DATASET, &cache()?.join("data").join(DATASET))?;
    let budget = folder.join("budget.json");
    write(&budget, BUDGET.as_bytes())?;
    let budget = budget.to_str().context("folder name is not UTF-8")?;
    let job = control.search(DATASET, BOARD, &["--seed", "1", "--budget", budget])?;
    let version = text_of(&job, "/version")?;
    let base = model_of(&control, &job)?;
    let arguments =
        ["model", "retrain", version, "--dataset", DATASET, "--seed", "2", "--budget", budget, "--wait"];
    let job = control.cli_shown(&arguments)?;
    let retrained = model_of(&control, &job)?;
    let mut reports = vec![measure("full retrain", &base, &retrained, folder)?];
    let made = edit(&base, &folder.join("edited"))?;
    // Written by the same library as the edited ones.
    let rewritten = folder.join("edited").join("base.onnx");
    for Made { case, file, accuracy_before, accuracy_after } in made {
        eprintln!("{case}: accuracy {accuracy_before:.4}, then {accuracy_after:.4}");
        reports.push(measure(&case, &rewritten, &file, folder)?);
    }
    Ok(reports)
}

fn model_of(control: &ControlPlane, job: &serde_json::Value) -> Result<PathBuf> {
    let path = control.data.join("jobs").join(text_of(job, "/id")?).join(RESULT_DIR).join(MODEL_FILE);
    ensure!(path.is_file(), "the job left no {}", path.display());
    Ok(path)
}

/// Has Python train the last layer on, and calibrate anew.
fn edit(base: &Path, out: &Path) -> Result<Vec<Made>> {
    let data = cache()?.join("data").join(DATASET);
    let arguments = [base, &data, out].map(|path| path.display().to_string());
    let printed = python("edit_model.py", &arguments.each_ref().map(String::as_str))?;
    serde_json::from_value(printed).context("reading what edit_model.py printed")
}

fn measure(case: &str, old: &Path, new: &Path, folder: &Path) -> Result<DeltaReport> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    let (old_bytes, new_bytes) = (read(old)?, read(new)?);
    let began = Instant::now();
    let regions = delta::onnx::regions(&old_bytes, &new_bytes);
    let ours = delta::make(&old_bytes, &new_bytes, &regions)?;
    let ours_make_ms = began.elapsed().as_secs_f64() * 1e3;
    let limits = Limits { old_bytes_max: old_bytes.len() as u64, new_bytes_max: new_bytes.len() as u64 };
    let began = Instant::now();
    ensure!(delta::apply(&old_bytes, &ours, limits)? == new_bytes, "our delta gives another file");
    let ours_apply_ms = began.elapsed().as_secs_f64() * 1e3;
    let others: Vec<u64> =
        Tool::ALL.iter().map(|tool| tool.measure(old, new, &new_bytes, folder)).collect::<Result<_>>()?;
    let &[zstd_bytes, bsdiff_bytes, xdelta3_bytes] = others.as_slice() else { bail!("a tool is missing") };
    Ok(DeltaReport {
        case: case.to_owned(),
        full_bytes: new_bytes.len() as u64,
        ours_bytes: ours.len() as u64,
        zstd_bytes,
        bsdiff_bytes,
        xdelta3_bytes,
        ours_make_ms,
        ours_apply_ms,
    })
}

/// Others that make deltas, each at its best.
#[derive(Clone, Copy, Debug)]
enum Tool {
    Zstd,
    Bsdiff,
    Xdelta3,
}

impl Tool {
    const ALL: [Self; 3] = [Self::Zstd, Self::Bsdiff, Self::Xdelta3];

    /// Bytes of the delta.
    fn measure(self, old: &Path, new: &Path, new_bytes: &[u8], folder: &Path) -> Result<u64> {
        let (patch, back) = (folder.join("patch"), folder.join("patched"));
        let text = |path: &Path| path.display().to_string();
        let (old, new) = (text(old), text(new));
        let (patch_name, back_name) = (text(&patch), text(&back));
        let from = format!("--patch-from={old}");
        let (make, apply): (Vec<&str>, Vec<&str>) = match self {
            Self::Zstd => (
                vec!["zstd", "--ultra", "-22", "-q", "-f", &from, &new, "-o", &patch_name],
                vec!["zstd", "-d", "-q", "-f", &from, &patch_name, "-o", &back_name],
            ),
            Self::Bsdiff => {
                (vec!["bsdiff", &old, &new, &patch_name], vec!["bspatch", &old, &back_name, &patch_name])
            }
            Self::Xdelta3 => (
                vec!["xdelta3", "-e", "-9", "-S", "lzma", "-f", "-s", &old, &new, &patch_name],
                vec!["xdelta3", "-d", "-f", "-s", &old, &patch_name, &back_name],
            ),
        };
        run_tool(&make)?;
        run_tool(&apply)?;
        let given = std::fs::read(&back).with_context(|| format!("reading {}", back.display()))?;
        ensure!(given == new_bytes, "the delta of {} gives another file", make[0]);
        let bytes = std::fs::metadata(&patch).with_context(|| format!("reading {}", patch.display()))?.len();
        for file in [patch, back] {
            std::fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
        }
        Ok(bytes)
    }
}

fn run_tool(words: &[&str]) -> Result<()> {
    let output = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {}; `cargo xtask setup --peers` brings it", words[0]))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} failed: {}", words.join(" "), said.trim());
    Ok(())
}

/// What was measured, for people: bytes, and the share of the file that is saved.
pub fn table(reports: &[DeltaReport]) -> String {
    let mut text = format!("{:<24} {:>9}", "delta", "full");
    for name in ["ours", "zstd", "bsdiff", "xdelta3"] {
        text += &format!(" {name:>17}");
    }
    text += &format!(" {:>20}\n", "ours make, apply ms");
    for report in reports {
        text += &format!("{:<24} {:>9}", report.case, report.full_bytes);
        for bytes in [report.ours_bytes, report.zstd_bytes, report.bsdiff_bytes, report.xdelta3_bytes] {
            let saved = 100.0 * (1.0 - super::share(bytes, report.full_bytes));
            text += &format!(" {bytes:>9} ({saved:>4.1}%)");
        }
        text += &format!(" {:>11.1}, {:>7.1}\n", report.ours_make_ms, report.ours_apply_ms);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_budget_is_one_and_the_report_has_its_fields() {
        let budget: shared::job::Budget = serde_json::from_str(BUDGET).unwrap();
        budget.validate().unwrap();
        let report = DeltaReport {
            case: "last layer".to_owned(),
            full_bytes: 1000,
            ours_bytes: 100,
            zstd_bytes: 200,
            bsdiff_bytes: 300,
            xdelta3_bytes: 400,
            ours_make_ms: 1.0,
            ours_apply_ms: 1.0,
        };
        assert!(table(std::slice::from_ref(&report)).contains("100 (90.0%)"));
        let value = serde_json::to_value(report).unwrap();
        for key in ["full_bytes", "ours_bytes", "zstd_bytes", "bsdiff_bytes", "xdelta3_bytes"] {
            assert!(value[key].is_u64(), "{key}");
        }
        let said = json!([{ "case": "a", "file": "b.onnx", "accuracy_before": 0.5, "accuracy_after": 1 }]);
        let made: Vec<Made> = serde_json::from_value(said).unwrap();
        assert_eq!(made[0].file, Path::new("b.onnx"));
    }
}
