//! One job of the forge, run by its worker, and what it measured.

use super::{
    super::worker,
    hand_made,
    record::{Record, Records},
    sets::Set,
};
use anyhow::{Context, Result};
use indicatif::MultiProgress;
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::{
    Digest,
    job::{ARCH_FILE, JobKind, JobReport, JobSpec, MetricReport, RESULT_DIR, SearchMethod},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Who makes the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
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
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
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
    /// That it ran on, where git knows.
    pub commit: Option<String>,
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

/// What is asked of a job.
struct Asked {
    spec: JobSpec,
    /// The hand-made network, which belongs into the file that the job names.
    drawn: Option<String>,
    /// Stands for all of it.
    task: Digest,
}

impl Run<'_> {
    /// What an earlier bench has recorded of it; none where nothing is, or of another task.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub fn recorded(&self, records: &Records) -> Result<Option<Done>> {
        let Some(record) = records.find(&self.file_of(self.contestant))? else { return Ok(None) };
        let asked = self.asked(records)?;
        Ok((record.task == asked.task).then_some(record.done))
    }

    /// Runs the job to its end, or reads what an earlier bench has left of it, and records it.
    ///
    /// # Errors
    /// The worker's own words, where it fails.
    pub fn play(&self, records: &Records, bars: &MultiProgress) -> Result<Done> {
        let folder = self.folder_of(self.contestant);
        let Asked { spec, drawn, task } = self.asked(records)?;
        if let (JobKind::Train { architecture, .. }, Some(drawn)) = (&spec.kind, &drawn) {
            fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
            fs::write(architecture, drawn).with_context(|| format!("writing {}", architecture.display()))?;
        }
        let report = worker::run(&folder, &spec, &self.name(), bars)?;
        let architecture = fs::read_to_string(folder.join(RESULT_DIR).join(ARCH_FILE)).ok();
        let done = self.read(report)?;
        records.keep(&self.file_of(self.contestant), Record { task, architecture, done: done.clone() })?;
        Ok(done)
    }

    fn name(&self) -> String {
        format!("{} {} {}", self.set.name, self.seed, self.contestant.label())
    }

    fn file_of(&self, contestant: Contestant) -> String {
        format!("{}-{}-{}", self.set.name, self.seed, contestant.label())
    }

    fn folder_of(&self, contestant: Contestant) -> PathBuf {
        self.folder.join(self.file_of(contestant))
    }

    fn asked(&self, records: &Records) -> Result<Asked> {
        let (kind, drawn) = self.kind(&self.folder_of(self.contestant), records)?;
        let spec = self.spec(kind)?;
        let task = self.task(&spec, drawn.as_deref())?;
        Ok(Asked { spec, drawn, task })
    }

    /// What the job does; for the hand-made network also that, which belongs into the file that the job names.
    fn kind(&self, folder: &Path, records: &Records) -> Result<(JobKind, Option<String>)> {
        let search = |method| (JobKind::Search { method }, None);
        Ok(match self.contestant {
            Contestant::Ours => search(SearchMethod::default()),
            Contestant::Random => search(SearchMethod::Random),
            Contestant::HandMade => {
                let (found, weights) = self.ours(records)?;
                let drawn = hand_made::of_the_layout_of(&found)?;
                let architecture = folder.join("hand-made.json");
                (JobKind::Train { architecture, weights: Some(weights) }, Some(drawn))
            }
        })
    }

    /// The architecture that we found with this seed, and its weights.
    fn ours(&self, records: &Records) -> Result<(String, u64)> {
        if let Some(Record { architecture: Some(found), done, .. }) =
            records.find(&self.file_of(Contestant::Ours))?
        {
            return Ok((found, done.parameters));
        }
        let ours = self.folder_of(Contestant::Ours).join(RESULT_DIR);
        let found = fs::read_to_string(ours.join(ARCH_FILE)).with_context(|| {
            format!("{} has no network of ours to be measured by: run it too", ours.display())
        })?;
        Ok((found, worker::report(&ours)?.model.parameters))
    }

    fn spec(&self, kind: JobKind) -> Result<JobSpec> {
        Ok(JobSpec {
            id: worker::id(&self.name())?,
            seed: self.seed,
            threads: self.threads,
            dataset: self.set.reference()?,
            board: worker::board()?,
            kind,
            budget: self.set.budget,
            space: self.set.space()?,
        })
    }

    /// Stands for all that is asked of the job, wherever the files lie: a record of another task is none of this.
    fn task(&self, spec: &JobSpec, drawn: Option<&str>) -> Result<Digest> {
        let kind = match &spec.kind {
            JobKind::Train { weights, .. } => json!({ "drawn": drawn, "weights": weights }),
            kind => json!(kind),
        };
        let JobSpec { budget, board, threads, space, dataset, .. } = spec;
        let asked = json!([self.name(), kind, budget, board, threads, space, dataset.reading]);
        Ok(Digest::of(&serde_json::to_vec(&asked)?))
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
            commit: super::record::commit(),
        })
    }
}
