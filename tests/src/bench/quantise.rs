//! Our quantiser against `onnxruntime.quantization`: the same f32 models, the same calibration samples; of what comes out
//! signal to noise or accuracy on other samples, bytes, and microseconds in turn.

pub mod subjects;

use super::{machine::Machine, peer::Peer, spread::Spread};
use crate::harness::{binary, python_program, root};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::job::{JobReport, MODEL_FP32_FILE};
use shared::manifest::MODEL_FILE;
use std::{
    path::{Path, PathBuf},
    process::Command,
};
use subjects::Subject;

/// Options of the bench.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Folders in which `cargo xtask demo --report FILE` kept exported models (FILE with the ending `models`). What
    /// none of them keeps, of MNIST and of one series set, is trained first.
    #[arg(long, value_name = "DIR")]
    pub models: Vec<PathBuf>,
    /// Only these models.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub only: Vec<String>,
    /// Inferences of each, at least.
    #[arg(long, default_value_t = 400)]
    pub runs: usize,
    /// Inferences that one does before it is another's turn.
    #[arg(long, default_value_t = 20)]
    pub turn: usize,
}

/// The peer's calibrators.
const PEER_CALIBRATORS: [&str; 3] = ["MinMax", "Entropy", "Percentile"];
const RUNS_MAX: usize = 1_000_000;
/// Least accuracy of an f32 model of the forge, on either data set.
const ACCURACY_MIN: f64 = 0.8;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    /// Of onnxruntime, which quantised for the peer and ran all models.
    pub onnxruntime: String,
    pub results: Vec<Line>,
}

/// One INT8 model.
#[derive(Debug, Serialize)]
pub struct Line {
    pub model: String,
    /// `edgewright` or `onnxruntime.quantization`.
    pub quantiser: String,
    /// Of ours, the way that it chose.
    pub calibrator: String,
    /// Of the outputs to those of the f32 model.
    pub sqnr_db: Option<f64>,
    /// Share of right answers; `None` where there are no labels.
    pub accuracy: Option<f64>,
    /// The same of the f32 model.
    pub accuracy_fp32: Option<f64>,
    pub bytes: u64,
    pub bytes_fp32: u64,
    /// Medians.
    pub us_int8: Option<f64>,
    pub us_fp32: Option<f64>,
    /// Seconds that quantising took.
    pub seconds: f64,
    /// Why there is no model.
    pub error: Option<String>,
}

/// Quantises and measures every model.
pub fn run(options: &Options) -> Result<Report> {
    ensure!(
        (1..=RUNS_MAX).contains(&options.runs),
        "--runs is {}, allowed are 1 to {RUNS_MAX}",
        options.runs
    );
    ensure!(
        (1..=options.runs).contains(&options.turn),
        "--turn is {}, allowed are 1 to {}",
        options.turn,
        options.runs
    );
    let folder = tempfile::tempdir().context("making a folder")?;
    let mut peer = Peer::start(
        "onnxruntime.quantization",
        Command::new(python_program()?).arg(root().join("tests/peers/quantise.py")),
    )?;
    let mut report = Report { machine: Machine::this(), onnxruntime: String::new(), results: Vec::new() };
    for subject in subjects::all(&options.models, &options.only, folder.path())? {
        eprintln!("quantising {}", subject.name);
        let lines = one(&subject, &mut peer, options, folder.path(), &mut report.onnxruntime)?;
        report.results.extend(lines);
    }
    print!("{}", table(&report));
    Ok(report)
}

/// An INT8 model to be measured, or why there is none.
struct Contender {
    quantiser: &'static str,
    calibrator: String,
    made: Result<PathBuf, String>,
    seconds: f64,
}

#[derive(Deserialize)]
struct Made {
    seconds: Option<f64>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Measured {
    version: String,
    models: Vec<MeasuredModel>,
}

#[derive(Deserialize)]
struct MeasuredModel {
    sqnr_db: f64,
    accuracy: Option<f64>,
    us: Vec<f64>,
}

fn one(
    subject: &Subject,
    peer: &mut Peer,
    options: &Options,
    folder: &Path,
    version: &mut String,
) -> Result<Vec<Line>> {
    let ours = folder.join(format!("{}-ours", subject.name));
    let ours_report = import(subject, &ours)?;
    // In the form of devices, its constants folded: both quantise the same file.
    let fp32 = ours.join(MODEL_FP32_FILE);
    let way = ours_report.import.as_ref().map(|import| import.way.clone()).unwrap_or_default();
    let mut contenders = vec![Contender {
        quantiser: "edgewright",
        calibrator: way,
        made: Ok(ours.join(MODEL_FILE)),
        seconds: ours_report.quantise_seconds,
    }];
    let shape = &ours_report.dataset.shape;
    for calibrator in PEER_CALIBRATORS {
        let out = folder.join(format!("{}-{calibrator}.onnx", subject.name));
        let request = json!({
            "quantise": calibrator, "fp32": fp32, "calibrate": subject.calibrate_file(), "shape": shape,
            "out": out, "reduce_range": saturates(),
        });
        let Made { seconds, error } = peer.ask(&request)?;
        let made = error.map_or(Ok(out), Err);
        let seconds = seconds.unwrap_or_default();
        let calibrator = calibrator.to_owned();
        contenders.push(Contender { quantiser: "onnxruntime.quantization", calibrator, made, seconds });
    }
    let models: Vec<&PathBuf> =
        std::iter::once(&fp32).chain(contenders.iter().filter_map(|made| made.made.as_ref().ok())).collect();
    let request = json!({
        "measure": models, "samples": subject.evaluate_file(), "shape": shape, "labels": subject.labels,
        "runs": options.runs, "turn": options.turn,
    });
    let answer: Value = peer.ask(&request)?;
    if let Some(error) = answer.get("error") {
        bail!("measuring {}: {error}", subject.name);
    }
    let Measured { version: said, models } =
        serde_json::from_value(answer).context("reading what was measured")?;
    *version = said;
    let (fp32_measured, rest) = models.split_first().context("nothing was measured")?;
    let sound = fp32_measured.accuracy.is_none_or(|accuracy| accuracy >= ACCURACY_MIN);
    ensure!(sound, "the f32 model of {} answers no better than by chance: it is fed wrongly", subject.name);
    let median = |model: &MeasuredModel| Spread::of(&model.us).map(|spread| spread.median);
    let mut rest = rest.iter();
    let mut lines = Vec::new();
    for contender in contenders {
        let measured = contender.made.as_ref().ok().and_then(|_| rest.next());
        let bytes = contender.made.as_ref().ok().map(std::fs::metadata).transpose()?;
        lines.push(Line {
            model: subject.name.clone(),
            quantiser: contender.quantiser.to_owned(),
            calibrator: contender.calibrator,
            sqnr_db: measured.map(|measured| measured.sqnr_db),
            accuracy: measured.and_then(|measured| measured.accuracy),
            accuracy_fp32: fp32_measured.accuracy,
            bytes: bytes.map_or(0, |bytes| bytes.len()),
            bytes_fp32: std::fs::metadata(&fp32)?.len(),
            us_int8: measured.and_then(median),
            us_fp32: median(fp32_measured),
            seconds: contender.seconds,
            error: contender.made.err(),
        });
    }
    Ok(lines)
}

/// Has our worker take the model in.
fn import(subject: &Subject, out: &Path) -> Result<JobReport> {
    let mut command = Command::new(binary("edgewright-forge")?);
    command.arg("import").arg(&subject.model).arg("--calibrate").arg(subject.calibrate());
    command.arg("--out").arg(out).arg("--json").args(&subject.options);
    let output = command.output().context("starting edgewright-forge")?;
    ensure!(
        output.status.success(),
        "edgewright-forge does not take {} in: {}",
        subject.name,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    serde_json::from_slice(&output.stdout).context("reading the report of edgewright-forge")
}

/// Whether this processor's fast kernels saturate with weights of 8 bits: then both sides take 7, as ours does by itself.
fn saturates() -> bool {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cfg!(target_arch = "x86_64") && !text.contains("avx512_vnni") && !text.contains("avx_vnni")
}

/// For people, one INT8 model a line.
fn table(report: &Report) -> String {
    let mut text = format!(
        "{:<14} {:<26} {:<44} {:>8} {:>9} {:>8} {:>10} {:>10}\n",
        "model", "quantiser", "calibrator", "SQNR dB", "accuracy", "KiB", "us INT8", "us FP32"
    );
    let number = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    for line in &report.results {
        let calibrator = line.error.as_ref().map_or(line.calibrator.clone(), |error| {
            format!("{}: {}", line.calibrator, error.chars().take(32).collect::<String>())
        });
        text.push_str(&format!(
            "{:<14} {:<26} {:<44} {:>8} {:>9} {:>8} {:>10} {:>10}\n",
            line.model,
            line.quantiser,
            calibrator,
            number(line.sqnr_db, 1),
            number(line.accuracy, 4),
            line.bytes / 1024,
            number(line.us_int8, 1),
            number(line.us_fp32, 1)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calibrator_that_failed_has_a_line_with_its_reason() {
        let line = |error: Option<&str>| Line {
            model: "m".to_owned(),
            quantiser: "q".to_owned(),
            calibrator: "Entropy".to_owned(),
            sqnr_db: error.is_none().then_some(31.25),
            accuracy: None,
            accuracy_fp32: None,
            bytes: 2048,
            bytes_fp32: 4096,
            us_int8: error.is_none().then_some(10.0),
            us_fp32: Some(20.0),
            seconds: 1.0,
            error: error.map(str::to_owned),
        };
        let results = vec![line(None), line(Some("ValueError: no"))];
        let machine = Machine { cpu: String::new(), cores: 1 };
        let text = table(&Report { machine, onnxruntime: "1".to_owned(), results });
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("31.2") && lines[1].contains("10.0"), "{text}");
        assert!(lines[2].contains("Entropy: ValueError: no"), "{text}");
    }
}
