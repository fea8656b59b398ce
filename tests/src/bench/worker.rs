//! One job of the forge, run by its worker process as the control plane starts it.

use crate::harness::{binary, ort_library, root};
use anyhow::{Context, Result, ensure};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use shared::{
    Digest, JobId,
    board::Board,
    job::{JobReport, JobSpec, Progress, REPORT_FILE, RESULT_DIR, SPEC_FILE},
};
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
};

/// Runs a job in its folder to its end, or reads what an earlier bench has left of it; `name` is for people.
///
/// # Errors
/// The worker's own words, where it fails.
pub fn run(folder: &Path, spec: &JobSpec, name: &str, bars: &MultiProgress) -> Result<JobReport> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let spec = serde_json::to_vec_pretty(spec)?;
    let file = folder.join(SPEC_FILE);
    // A worker throws away the checkpoint of a job that reads otherwise.
    if fs::read(&file).ok().as_deref() != Some(&spec) {
        let _ = fs::remove_dir_all(folder.join(RESULT_DIR));
        fs::write(&file, spec).with_context(|| format!("writing {}", file.display()))?;
    }
    work(folder, name, bars).with_context(|| name.to_owned())?;
    report(&folder.join(RESULT_DIR))
}

/// The report in a result folder.
///
/// # Errors
/// It cannot be read.
pub fn report(result: &Path) -> Result<JobReport> {
    let path = result.join(REPORT_FILE);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no report of a job", path.display()))
}

/// The id of the job of this name. It repeats, so that a bench that was ended goes on from what its jobs left.
///
/// # Errors
/// None that is known.
pub fn id(name: &str) -> Result<JobId> {
    let text = format!("00000000-0000-7000-8000-{}", &Digest::of(name.as_bytes()).to_string()[..12]);
    text.parse().with_context(|| format!("{text} is no job id"))
}

/// The board that the benches make models for.
///
/// # Errors
/// Its file cannot be read.
pub fn board() -> Result<Board> {
    let path = root().join("firmware-configs/x86-64.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(Board::from_toml(&text, "x86-64.toml")?)
}

fn work(folder: &Path, name: &str, bars: &MultiProgress) -> Result<()> {
    let mut command = Command::new(binary("edgewright-forge")?);
    command.arg("run").arg("--job").arg(folder).env("EDGEWRIGHT_ORT", ort_library()?);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut worker = command.spawn().context("starting edgewright-forge")?;
    let said = worker.stdout.take().context("the worker has no output")?;
    let bar = bars.add(ProgressBar::new(1));
    bar.set_style(ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg}")?);
    for line in BufReader::new(said).lines() {
        let line = line.context("reading what the worker says")?;
        if let Ok(progress) = serde_json::from_str::<Progress>(&line) {
            show(&bar, name, &progress);
        }
    }
    bar.finish_and_clear();
    let mut complaint = String::new();
    if let Some(mut errors) = worker.stderr.take() {
        errors.read_to_string(&mut complaint).context("reading what the worker complains of")?;
    }
    let status = worker.wait().context("waiting for the worker")?;
    let last = complaint.lines().last().unwrap_or("it said nothing");
    ensure!(status.success(), "edgewright-forge ended with {status}: {last}");
    Ok(())
}

fn show(bar: &ProgressBar, name: &str, progress: &Progress) {
    bar.set_prefix(format!("{name} {}", progress.stage.name()));
    bar.set_length(progress.total);
    bar.set_position(progress.step);
    if let Some(loss) = progress.loss {
        bar.set_message(format!("loss {loss:.3}"));
    }
}
