//! Microseconds of one inference of the exported models: through our agent's API, inside it, raw runtimes, Python's
//! onnxruntime; all in turn, on one thread each, one sample a time.

pub mod exported;
pub mod ways;

use super::{machine::Machine, spread::Spread, turns::Turns};
use crate::{
    demo::{self, Subject, TaskChoice},
    harness::{Agent, AgentOptions, ControlPlane, ServeOptions, binary, ort_library},
};
use anyhow::{Context, Result, anyhow, bail, ensure};
use exported::Exported;
use ort::environment::Environment;
use serde::Serialize;
use std::{path::PathBuf, sync::Arc};
use ways::{Api, Form, Python, RawOrt, RawTract, Samples, Way};

/// Options of the bench.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Folders in which `cargo xtask demo --report FILE` kept exported models (FILE with the ending `models`). What
    /// none of them keeps, of MNIST and of one series set, is trained first.
    #[arg(long, value_name = "DIR")]
    pub models: Vec<PathBuf>,
    /// Inferences of each, at least.
    #[arg(long, default_value_t = 2000)]
    pub runs: usize,
    /// Inferences that one does before it is another's turn.
    #[arg(long, default_value_t = 100)]
    pub turn: usize,
}

impl Options {
    fn validate(&self) -> Result<()> {
        let Self { models, runs, turn } = self;
        ensure!(
            (RUNS_MIN..=RUNS_MAX).contains(runs),
            "--runs is {runs}, allowed are {RUNS_MIN} to {RUNS_MAX}"
        );
        ensure!(
            (1..=runs / TURNS_MIN).contains(turn),
            "--turn is {turn}, allowed are 1 to {}: each runs in {TURNS_MIN} turns or more",
            runs / TURNS_MIN
        );
        for folder in models {
            ensure!(folder.is_dir(), "--models {} is no folder", folder.display());
        }
        Ok(())
    }
}

/// Inferences of each between which a median is worth reporting and a person waits.
const RUNS_MIN: usize = 100;
const RUNS_MAX: usize = 1_000_000;
/// Fewest turns of each from which a ratio's spread is worth reporting.
const TURNS_MIN: usize = 5;
/// Test samples that are run over and over; each way runs all of them once before the clock counts.
const SAMPLES: usize = 256;
/// Every way but raw tract has to give the label of raw ONNX Runtime on this share of the samples: two runtimes round
/// differently, and a sample may lie between two classes. What raw tract makes of a quantised model is only reported.
const AGREEMENT_MIN: f64 = 0.95;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub models: Vec<Model>,
    pub lines: Vec<Line>,
}

/// One exported file.
#[derive(Debug, Serialize)]
pub struct Model {
    pub model: String,
    /// `fp32` or `int8`.
    pub precision: String,
    pub bytes: u64,
    /// The runtime that the agent chose for it.
    pub agent_runtime: String,
}

/// One way to run one exported file.
#[derive(Debug, Serialize)]
pub struct Line {
    pub model: String,
    pub precision: String,
    pub way: String,
    /// Microseconds of one inference; inside the agent, means of turns.
    pub us: Spread,
    /// Divided by raw ONNX Runtime on the same file, turn by turn; below 1 it is faster.
    pub ratio_to_raw_ort: Spread,
    /// Share of the samples with the label of raw ONNX Runtime, 0 to 1.
    pub agreement: f64,
}

/// The ways, in the order of [`contenders`]; behind them what the agent measures during its own.
const WAYS: [&str; 5] =
    ["raw ort", "raw tract", "python onnxruntime", "agent, binary tensors", "agent, JSON"];
const RAW_ORT: usize = 0;
const RAW_TRACT: usize = 1;
const AGENT: usize = 3;
const INSIDE: usize = WAYS.len();
const INSIDE_NAME: &str = "inside the agent";

/// Measures every way in turn.
pub fn run(options: &Options) -> Result<Report> {
    options.validate()?;
    binary("edgewright-forge")?;
    let environment = open_ort()?;
    let folder = tempfile::tempdir().context("making a folder")?;
    let control = ControlPlane::start(&folder.path().join("control"), ServeOptions::default())?;
    let devices = folder.path().join("devices");
    let agent = Agent::enrol(&control, "bench-1", &devices, AgentOptions::default())?;
    let mut report = Report { machine: Machine::this(), models: Vec::new(), lines: Vec::new() };
    for task in [TaskChoice::Image, TaskChoice::Series] {
        let subjects = demo::subjects(task, None)?;
        let (subject, result) = match exported::kept(&subjects, &options.models, folder.path())? {
            Some(found) => found,
            None => {
                let subject = subjects.first().context("no data set")?;
                eprintln!("training a model of {}", subject.name);
                (subject, exported::make(&control, subject)?)
            }
        };
        for model in exported::install(&control, &agent, subject, &result, folder.path())? {
            eprintln!("measuring {}, {}", model.model, model.precision);
            let samples = Arc::new(samples(subject)?);
            let mut ways = contenders(&environment, &agent, &model, &samples)?;
            let (turns, agreements) = in_turn(&mut ways, &samples, options)?;
            report.lines.extend(lines(&model, &turns, &agreements)?);
            let bytes = std::fs::metadata(&model.path).context("asking for the model's size")?.len();
            let Exported { model, precision, agent_runtime, .. } = model;
            report.models.push(Model { model, precision: precision.to_owned(), bytes, agent_runtime });
        }
    }
    print!("{}", table(&report));
    Ok(report)
}

/// ONNX Runtime as the `ort` crate opens it.
fn open_ort() -> Result<Environment> {
    let library = ort_library()?;
    let builder = ort::init_from(&library)
        .map_err(|error| anyhow!("opening ONNX Runtime at {}: {error}", library.display()))?;
    builder.with_telemetry(false).build().map_err(|error| anyhow!("opening ONNX Runtime: {error}"))
}

fn samples(subject: &Subject) -> Result<Samples> {
    ensure!(!subject.test.inputs.is_empty(), "{} has no test samples", subject.name);
    Ok(Samples { shape: subject.test.batch_shape(1), values: subject.test.cycled(SAMPLES).inputs })
}

fn contenders<'a>(
    environment: &Environment,
    agent: &'a Agent,
    model: &Exported,
    samples: &Arc<Samples>,
) -> Result<[Box<dyn Way + 'a>; WAYS.len()]> {
    let path = &model.path;
    Ok([
        Box::new(RawOrt::load(environment, path, Arc::clone(samples))?),
        Box::new(RawTract::load(path, Arc::clone(samples))?),
        Box::new(Python::start(path, Arc::clone(samples))?),
        Box::new(Api::new(agent, &model.slot, Form::Binary, samples)?),
        Box::new(Api::new(agent, &model.slot, Form::Json, samples)?),
    ])
}

/// Runs all samples once on every way, then turns until each has done its inferences. Gives the times and each way's
/// agreement with the first.
fn in_turn(
    ways: &mut [Box<dyn Way + '_>; WAYS.len()],
    samples: &Samples,
    options: &Options,
) -> Result<(Turns, Vec<f64>)> {
    let all: Vec<usize> = (0..samples.values.len()).collect();
    let mut labels = Vec::new();
    for way in ways.iter_mut() {
        labels.push(way.turn(&all)?.labels);
    }
    let agreements = agreements(&labels)?;
    let mut turns = Turns::new(WAYS.len() + 1);
    let mut next = all.iter().copied().cycle();
    let mut done = 0;
    while done < options.runs {
        let indices: Vec<usize> = next.by_ref().take(options.turn).collect();
        let mut inside_us = Vec::new();
        for way in turns.order(WAYS.len()) {
            let turn = ways[way].turn(&indices)?;
            inside_us.extend(turn.inside_us);
            turns.push(way, turn.us)?;
        }
        turns.push(INSIDE, inside_us)?;
        done += options.turn;
    }
    Ok((turns, agreements))
}

/// Of each way the share of labels that are those of raw ONNX Runtime.
///
/// # Errors
/// A way below [`AGREEMENT_MIN`], raw tract aside: then it runs another model.
#[expect(clippy::cast_precision_loss)]
fn agreements(labels: &[Vec<usize>]) -> Result<Vec<f64>> {
    let Some(reference) = labels.get(RAW_ORT).filter(|labels| !labels.is_empty()) else {
        bail!("raw ONNX Runtime gave no label");
    };
    let mut agreements = Vec::new();
    for (way, given) in labels.iter().enumerate() {
        ensure!(
            given.len() == reference.len(),
            "{} gave {} labels of {} samples",
            WAYS[way],
            given.len(),
            reference.len()
        );
        let same = given.iter().zip(reference).filter(|(a, b)| a == b).count();
        let agreement = same as f64 / reference.len() as f64;
        ensure!(
            agreement >= AGREEMENT_MIN || way == RAW_TRACT,
            "{} gives the label of raw ONNX Runtime on {:.0} % of the samples: it runs another model",
            WAYS[way],
            agreement * 100.0
        );
        agreements.push(agreement);
    }
    Ok(agreements)
}

fn lines(model: &Exported, turns: &Turns, agreements: &[f64]) -> Result<Vec<Line>> {
    let names = WAYS.iter().copied().chain([INSIDE_NAME]).enumerate();
    // Inside the agent the same is computed as through its API.
    let agreement = |way: usize| agreements.get(way).or(agreements.get(AGENT)).copied();
    names
        .map(|(way, name)| {
            Ok(Line {
                model: model.model.clone(),
                precision: model.precision.to_owned(),
                way: name.to_owned(),
                us: turns.spread(way)?,
                ratio_to_raw_ort: turns.ratio(way, RAW_ORT)?,
                agreement: agreement(way).context("an agreement is missing")?,
            })
        })
        .collect()
}

/// Microseconds and ratios for people, medians with the middle half.
fn table(report: &Report) -> String {
    let mut text = format!("{} ({} cores)\n", report.machine.cpu, report.machine.cores);
    for model in &report.models {
        let Model { model, precision, bytes, agent_runtime } = model;
        text += &format!("{model} {precision}: {bytes} bytes, the agent runs it on {agent_runtime}\n");
    }
    let mut row = |[model, precision, way, us, ratio, agreement]: [&str; 6]| {
        text += &format!("{model:<18} {precision:<5} {way:<22} {us:>22} {ratio:>20} {agreement:>10}\n");
    };
    row(["model", "", "way", "µs (middle half)", "of raw ort", "same label"]);
    for line in &report.lines {
        row([
            &line.model,
            &line.precision,
            &line.way,
            &line.us.text(1),
            &line.ratio_to_raw_ort.text(2),
            &format!("{:.1} %", line.agreement * 100.0),
        ]);
    }
    text
}

#[cfg(test)]
mod tests;
