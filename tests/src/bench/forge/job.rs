//! One job of the forge, run by its worker, and what it measured.

use super::{hand_made, sets::Set};
use crate::harness::{binary, ort_library, root};
use anyhow::{Context, Result, ensure};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;
use shared::{
    Digest, JobId,
    board::Board,
    job::{
        ARCH_FILE, DatasetRef, JobKind, JobReport, JobSpec, MetricReport, Progress, REPORT_FILE, RESULT_DIR,
        SPEC_FILE, SearchMethod,
    },
};
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Who makes the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Contestant {
    /// Our search.
    #[default]
    Ours,
    /// Cells drawn at random, each trained for a share of the same steps; the best is trained on.
    Random,
    /// A person: a residual network with as many weights as ours of the same seed.
    HandMade,
}

impl Contestant {
    /// Ours first: the others are measured by it.
    pub const ALL: [Self; 3] = [Self::Ours, Self::Random, Self::HandMade];

    /// For people.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Random => "random",
            Self::HandMade => "hand-made",
        }
    }
}

/// What one job gave.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Done {
    pub contestant: Contestant,
    pub seed: u64,
    /// Share of right answers of the INT8 model on the test split, on ONNX Runtime.
    pub int8: f64,
    pub fp32: f64,
    pub parameters: u64,
    pub bytes_int8: u64,
    /// Microseconds of one inference on ONNX Runtime, one thread.
    pub us_int8: f64,
    pub us_fp32: f64,
    pub search_s: f64,
    pub train_s: f64,
    /// The found cell in one line; none where nothing was searched.
    pub cell: Option<String>,
    /// The measure of the task, where it has one.
    pub metric: Option<MetricReport>,
    pub remarks: Vec<String>,
}

/// One job.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    pub set: &'a Set,
    pub seed: u64,
    pub contestant: Contestant,
    pub threads: u32,
    /// The folder of all jobs.
    pub folder: &'a Path,
}

impl Run<'_> {
    /// Runs the job to its end, or reads what an earlier bench has left of it.
    ///
    /// # Errors
    /// The worker's own words, where it fails.
    pub fn play(&self, bars: &MultiProgress) -> Result<Done> {
        let folder = self.folder_of(self.contestant);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let spec = serde_json::to_vec_pretty(&self.spec(&folder)?)?;
        let file = folder.join(SPEC_FILE);
        // A worker throws away the checkpoint of a job that reads otherwise.
        if fs::read(&file).ok().as_deref() != Some(&spec) {
            let _ = fs::remove_dir_all(folder.join(RESULT_DIR));
            fs::write(&file, spec).with_context(|| format!("writing {}", file.display()))?;
        }
        self.work(&folder, bars).with_context(|| {
            format!("{} with seed {}, {}", self.set.name, self.seed, self.contestant.label())
        })?;
        self.read(&folder)
    }

    fn folder_of(&self, contestant: Contestant) -> PathBuf {
        self.folder.join(format!("{}-{}-{}", self.set.name, self.seed, contestant.label()))
    }

    fn spec(&self, folder: &Path) -> Result<JobSpec> {
        let kind = match self.contestant {
            Contestant::Ours => JobKind::Search { method: SearchMethod::default() },
            Contestant::Random => JobKind::Search { method: SearchMethod::Random },
            Contestant::HandMade => {
                let ours = self.folder_of(Contestant::Ours).join(RESULT_DIR);
                let found = fs::read_to_string(ours.join(ARCH_FILE)).with_context(|| {
                    format!("{} has no network of ours to be measured by: run it too", ours.display())
                })?;
                let architecture = folder.join("hand-made.json");
                fs::write(&architecture, hand_made::of_the_layout_of(&found)?)
                    .with_context(|| format!("writing {}", architecture.display()))?;
                JobKind::Train { architecture, weights: Some(report(&ours)?.model.parameters) }
            }
        };
        let board = root().join("firmware-configs/x86-64.toml");
        let text = fs::read_to_string(&board).with_context(|| format!("reading {}", board.display()))?;
        Ok(JobSpec {
            id: self.id()?,
            seed: self.seed,
            threads: self.threads,
            dataset: DatasetRef { path: self.set.path()?, format: self.set.format, digest: None },
            board: Board::from_toml(&text, "x86-64.toml")?,
            kind,
            budget: self.set.budget,
        })
    }

    /// Repeats, so that a bench that was ended goes on from what its jobs left.
    fn id(&self) -> Result<JobId> {
        let name = format!("{} {} {}", self.set.name, self.seed, self.contestant.label());
        let text = format!("00000000-0000-7000-8000-{}", &Digest::of(name.as_bytes()).to_string()[..12]);
        text.parse().with_context(|| format!("{text} is no job id"))
    }

    fn work(&self, folder: &Path, bars: &MultiProgress) -> Result<()> {
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
                show(&bar, self, &progress);
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

    fn read(&self, folder: &Path) -> Result<Done> {
        let JobReport { search, train_seconds, model, .. } = report(&folder.join(RESULT_DIR))?;
        Ok(Done {
            contestant: self.contestant,
            seed: self.seed,
            int8: model.accuracy_int8.context("the report names no accuracy")?,
            fp32: model.accuracy_fp32.context("the report names no accuracy")?,
            parameters: model.parameters,
            bytes_int8: model.bytes_int8_onnx,
            us_int8: model.us_per_inference.ort_int8,
            us_fp32: model.us_per_inference.ort_fp32,
            search_s: search.as_ref().map_or(0.0, |search| search.seconds),
            train_s: train_seconds,
            cell: search.map(|search| search.cell),
            metric: model.metrics.first().copied(),
            remarks: model.remarks,
        })
    }
}

fn show(bar: &ProgressBar, run: &Run<'_>, progress: &Progress) {
    let stage = progress.stage.name();
    bar.set_prefix(format!("{} {} {} {stage}", run.set.name, run.seed, run.contestant.label()));
    bar.set_length(progress.total);
    bar.set_position(progress.step);
    if let Some(loss) = progress.loss {
        bar.set_message(format!("loss {loss:.3}"));
    }
}

fn report(result: &Path) -> Result<JobReport> {
    let path = result.join(REPORT_FILE);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no report of a job", path.display()))
}
