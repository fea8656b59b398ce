//! One job of the forge, run by its worker, and what it measured.

use super::{super::worker, hand_made, sets::Set};
use anyhow::{Context, Result};
use indicatif::MultiProgress;
use serde::Serialize;
use shared::job::{ARCH_FILE, JobKind, JobReport, JobSpec, MetricReport, RESULT_DIR, SearchMethod};
use std::{
    fs,
    path::{Path, PathBuf},
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
        let report = worker::run(&folder, &self.spec(&folder)?, &self.name(), bars)?;
        self.read(report)
    }

    fn name(&self) -> String {
        format!("{} {} {}", self.set.name, self.seed, self.contestant.label())
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
                JobKind::Train { architecture, weights: Some(worker::report(&ours)?.model.parameters) }
            }
        };
        Ok(JobSpec {
            id: worker::id(&self.name())?,
            seed: self.seed,
            threads: self.threads,
            dataset: self.set.reference()?,
            board: worker::board()?,
            kind,
            budget: self.set.budget,
            space: None,
        })
    }

    fn read(&self, report: JobReport) -> Result<Done> {
        let JobReport { search, train_seconds, model, .. } = report;
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
