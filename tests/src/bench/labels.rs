//! What a start without labels is worth where labels are few: one network by hand, trained from random weights and from
//! each pretext, on the same share of the labels.

use super::{
    forge::sets::{self, Set},
    machine::Machine,
    worker,
};
use anyhow::{Context, Result, ensure};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;
use shared::job::{Budget, DatasetRef, JobKind, JobSpec, Pretext};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Options of the bench.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// These data sets.
    #[arg(long = "set", value_name = "NAME", default_values = SETS)]
    pub sets: Vec<String>,
    /// Per cent of the labels.
    #[arg(long, value_delimiter = ',', default_value = "1,10")]
    pub percent: Vec<u32>,
    /// One run of each start with every seed.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    pub seeds: Vec<u64>,
    /// Passes over all samples in a pretext.
    #[arg(long, default_value_t = 5)]
    pub pretext_epochs: u32,
    /// Passes over those with labels, divided by their share: all shares train for as many steps.
    #[arg(long, default_value_t = 4)]
    pub epochs: u32,
    /// Keep jobs and results here; a bench that was ended goes on from them.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Most threads of a job; all cores where not given.
    #[arg(long)]
    pub threads: Option<u32>,
}

/// Large enough that one label of a hundred leaves something to learn from.
const SETS: [&str; 3] = ["mnist", "fashion-mnist", "ford-a"];
/// From random weights, and from each pretext.
const STARTS: [Option<Pretext>; 3] = [None, Some(Pretext::Masked), Some(Pretext::Contrastive)];
/// Channels of the network's first stage.
const CHANNELS: usize = 8;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub results: Vec<Outcome>,
}

/// One start on one share of one data set. Accuracies are shares of right answers of the INT8 model on the test split,
/// 0 to 1.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub dataset: String,
    /// Per cent of the labels.
    pub percent: u32,
    /// Samples whose labels were used.
    pub labelled: u64,
    /// `None` for random weights.
    pub pretext: Option<Pretext>,
    /// One accuracy a seed.
    pub int8: Vec<f64>,
    pub int8_mean: f64,
    /// Mean seconds of the pretext, and of the training.
    pub pretext_s: f64,
    pub train_s: f64,
}

/// Runs every start on every share of every data set with every seed.
pub fn run(options: &Options) -> Result<Report> {
    ensure!(!options.seeds.is_empty(), "--seeds names no seed");
    for percent in &options.percent {
        ensure!((1..=100).contains(percent), "--percent is {percent}, allowed are 1 to 100");
    }
    let chosen = sets::chosen(&options.sets)?;
    let machine = Machine::this();
    let threads = options.threads.unwrap_or_else(|| u32::try_from(machine.cores).unwrap_or(1));
    ensure!((1..=256).contains(&threads), "--threads is {threads}, allowed are 1 to 256");
    let temporary = tempfile::tempdir().context("making a folder")?;
    let folder = options.keep.clone().unwrap_or_else(|| temporary.path().to_owned());
    let bars = MultiProgress::new();
    let jobs = chosen.len() * options.percent.len() * STARTS.len() * options.seeds.len();
    let all = bars.add(ProgressBar::new(jobs as u64));
    all.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} jobs {elapsed}")?);
    let mut results = Vec::new();
    for set in &chosen {
        for &percent in &options.percent {
            for pretext in STARTS {
                let job = Job { set, percent, pretext, threads, folder: &folder };
                let outcome = job.over_seeds(options, &bars, &all)?;
                bars.println(line(&outcome))?;
                results.push(outcome);
            }
        }
    }
    all.finish_and_clear();
    let report = Report { machine, results };
    println!("{} ({} cores)", report.machine.cpu, report.machine.cores);
    report.results.iter().for_each(|outcome| println!("{}", line(outcome)));
    Ok(report)
}

fn line(one: &Outcome) -> String {
    let low = one.int8.iter().copied().fold(f64::INFINITY, f64::min);
    let high = one.int8.iter().copied().fold(0.0, f64::max);
    format!(
        "{:<16} {:>3} % of the labels ({:>5}), {:<11} INT8 {:.4} ({low:.4} to {high:.4}), {:.0} s before, {:.0} s",
        one.dataset,
        one.percent,
        one.labelled,
        one.pretext.map_or("random", Pretext::name),
        one.int8_mean,
        one.pretext_s,
        one.train_s
    )
}

struct Job<'a> {
    set: &'a Set,
    percent: u32,
    pretext: Option<Pretext>,
    threads: u32,
    folder: &'a Path,
}

impl Job<'_> {
    fn over_seeds(&self, options: &Options, bars: &MultiProgress, all: &ProgressBar) -> Result<Outcome> {
        let (mut int8, mut labelled, mut pretext_s, mut train_s) = (Vec::new(), 0, 0.0, 0.0);
        let dataset = self.dataset()?;
        for &seed in &options.seeds {
            let name = format!(
                "{} {} % {} {seed}",
                self.set.name,
                self.percent,
                self.pretext.map_or("random", Pretext::name)
            );
            let folder = self.folder.join(name.replace([' ', '%'], "-"));
            fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
            let architecture = folder.join("by-hand.json");
            fs::write(&architecture, by_hand(&dataset.shape, dataset.labels.len()))
                .with_context(|| format!("writing {}", architecture.display()))?;
            let spec = JobSpec {
                id: worker::id(&name)?,
                seed,
                threads: self.threads,
                dataset: self.reference()?,
                board: worker::board()?,
                kind: JobKind::Train { architecture, weights: None },
                budget: self.budget(options),
                space: None,
            };
            let report = worker::run(&folder, &spec, &name, bars)?;
            int8.push(report.model.accuracy_int8.context("the report names no accuracy")?);
            labelled = report.labelled.context("the report does not say how many labels were used")?;
            pretext_s += report.pretext.as_ref().map_or(0.0, |pretext| pretext.seconds);
            train_s += report.train_seconds;
            all.inc(1);
        }
        let runs = int8.len() as f64;
        Ok(Outcome {
            dataset: self.set.name.to_owned(),
            percent: self.percent,
            labelled,
            pretext: self.pretext,
            int8_mean: int8.iter().sum::<f64>() / runs,
            int8,
            pretext_s: pretext_s / runs,
            train_s: train_s / runs,
        })
    }

    fn budget(&self, options: &Options) -> Budget {
        Budget {
            train_epochs: (options.epochs * 100).div_ceil(self.percent),
            pretext: self.pretext,
            pretext_epochs: self.pretext.map(|_| options.pretext_epochs),
            labelled_percent: Some(self.percent),
            ..self.set.budget
        }
    }

    fn reference(&self) -> Result<DatasetRef> {
        self.set.reference()
    }

    fn dataset(&self) -> Result<shared::job::DatasetSchema> {
        let mut command = std::process::Command::new(crate::harness::binary("edgewright-forge")?);
        command.arg("inspect").arg("--path").arg(self.set.path()?).arg("--json");
        let output = command.output().context("starting edgewright-forge")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        serde_json::from_slice(&output.stdout).context("edgewright-forge inspect gave no schema")
    }
}

/// Three residual cells of two convolutions.
fn by_hand(shape: &[usize], classes: usize) -> String {
    let dim = if shape.len() == 2 { "series" } else { "image" };
    let node = |at: usize| json!([{ "from": at + 1, "op": "conv" }, { "from": at, "op": "skip" }]);
    let genotype = json!({ "nodes": [node(0), node(1)] });
    json!({
        "dim": dim, "input": shape, "classes": classes, "channels": CHANNELS, "cells": 3, "genotype": genotype
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_share_trains_for_as_many_steps_and_only_a_pretext_has_passes_of_its_own() {
        let set = sets::chosen(&["mnist".to_owned()]).unwrap().remove(0);
        let options = Options {
            sets: vec![],
            percent: vec![1, 10],
            seeds: vec![1],
            pretext_epochs: 5,
            epochs: 4,
            keep: None,
            threads: None,
        };
        let budget = |percent, pretext| {
            let folder = Path::new("/");
            Job { set: &set, percent, pretext, threads: 1, folder }.budget(&options)
        };
        assert_eq!((budget(1, None).train_epochs, budget(10, None).train_epochs), (400, 40));
        for pretext in STARTS {
            budget(10, pretext).validate().unwrap();
        }
        assert_eq!(budget(1, None).pretext_epochs, None);
    }
}
