//! `edgewright search`, and waiting for jobs.

use super::{
    Failure, Outcome, PageArgs,
    client::Client,
    compression,
    output::{ago, bytes, ends, facts, plain, show, table, word},
    query::Query,
};
use crate::{
    api::List,
    app::jobs::{Effort, NewSearch, NewTraining},
};
use clap::{Args, Subcommand, ValueEnum};
use control_core::entity::{Job, JobState};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use shared::{
    BoardId, DatasetId, JobId, ModelName,
    job::{
        self, Budget, Compression, EstimateReport, FrontPoint, FrontRef, JobReport, Pretext, PretextReport,
        SearchMethod, Stage, TeachersReport,
    },
    latency::percent,
    manifest::Alarm,
    space::{self, SearchSpace},
};
use std::{
    fs, io,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Searches.
#[derive(Debug, Subcommand)]
pub enum SearchCommand {
    /// Search an architecture, train it, quantise it
    #[command(after_help = "\
Examples:
  edgewright search start --dataset mnist --board raspberry-pi-4 --model mnist --wait
  edgewright search start --dataset mnist --board x86-64 --model mnist --budget 30m --compress auto --accuracy-loss 2
  edgewright search start --dataset mnist --board x86-64 --model mnist --space mine.toml --method evolution")]
    Start {
        /// The data set, as `edgewright dataset list` names it
        #[arg(long)]
        dataset: DatasetId,
        /// The board whose limits the model keeps
        #[arg(long)]
        board: BoardId,
        /// Name of the model; its versions count up
        #[arg(long)]
        model: ModelName,
        /// How the cell is found: darts, darts-second-order, gdas, partial-channels, random, successive-halving,
        /// evolution, hypernetwork
        #[arg(long, default_value_t)]
        method: SearchMethod,
        /// What may be found: a TOML file, or a built-in space, as `edgewright search spaces` lists them; what is usual
        /// for the data where not given
        #[arg(long, value_name = "FILE|NAME")]
        space: Option<String>,
        #[command(flatten)]
        effort: EffortArgs,
    },
    /// List searches, trainings and retrainings, the newest first
    List(#[command(flatten)] PageArgs),
    /// Show one
    Show { id: JobId },
    /// Wait for one to end
    Wait { id: JobId },
    /// Train another one of the networks that a finished search judged, for the same data set and board
    Train {
        /// Which one, as `edgewright search show` lists them
        #[arg(value_name = "SEARCH:INDEX")]
        point: FrontRef,
        /// Name of the model; the search's where not given
        #[arg(long)]
        model: Option<ModelName>,
        #[command(flatten)]
        effort: EffortArgs,
    },
    /// List the built-in search spaces, or print one: the start of a file for --space
    Spaces {
        #[arg(value_parser = SearchSpace::built_in_names())]
        name: Option<String>,
    },
    /// Draw how a finished one went, as SVG
    #[command(after_help = "\
Example:
  edgewright search plot 01890a5d-ac96-774b-bcce-b302099a8057 --kind pareto --out pareto.svg")]
    Plot {
        id: JobId,
        /// Loss and accuracy, architecture weights, or the networks that were judged
        #[arg(long, value_enum, default_value_t)]
        kind: PlotKind,
        /// The file to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// End one
    Cancel { id: JobId },
}

/// What is drawn.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum PlotKind {
    #[default]
    Loss,
    Alpha,
    Pareto,
}

impl PlotKind {
    fn file(self) -> &'static str {
        match self {
            Self::Loss => job::LOSS_PLOT_FILE,
            Self::Alpha => job::ALPHA_PLOT_FILE,
            Self::Pareto => job::FRONT_PLOT_FILE,
        }
    }
}

/// How much work a job may do.
#[derive(Clone, Debug, Args)]
pub struct EffortArgs {
    /// The same seed gives the same model
    #[arg(long)]
    seed: Option<u64>,
    /// Threads of the worker; all of the machine where not given
    #[arg(long)]
    threads: Option<u32>,
    /// `quick`, the time that it may take, such as 30m, or a JSON file with a whole budget
    #[arg(long, value_name = "quick|TIME|FILE", default_value = "quick")]
    budget: String,
    /// Architecture steps of the search
    #[arg(long)]
    search_steps: Option<u32>,
    /// Passes over the training split
    #[arg(long)]
    epochs: Option<u32>,
    /// Train so many wider networks first, and learn from their answers too
    #[arg(long, value_name = "N")]
    teachers: Option<u32>,
    /// Learn from the samples alone first: `masked` or `contrastive`; not of text
    #[arg(long, value_name = "masked|contrastive")]
    pretext: Option<Pretext>,
    /// Passes over all training samples for that; as many as over those with labels where not given
    #[arg(long, value_name = "N", requires = "pretext")]
    pretext_epochs: Option<u32>,
    /// Use the labels of so many per cent of the training samples, and no others; not of text
    #[arg(long, value_name = "PERCENT")]
    labels: Option<u32>,
    /// How the network is made small: int8 by calibration alone, prune, low-rank, adaptive-rounding, quantisation-aware,
    /// fp16, or auto for the best sequence of these; int8 where not given, auto where a time is given
    #[arg(long, value_name = "WAY")]
    compress: Option<Compression>,
    /// How many of the right answers compression may cost, in percent; 1 where not given
    #[arg(long, value_name = "PERCENT", value_parser = permille)]
    accuracy_loss: Option<u32>,
    /// Wait for the end
    #[arg(long)]
    pub(super) wait: bool,
}

impl EffortArgs {
    pub(super) fn effort(&self) -> Result<Effort, Failure> {
        let (budget, seconds) = match (self.budget.as_str(), seconds(&self.budget)) {
            ("quick", _) => (None, None),
            (_, Ok(seconds)) => (None, Some(seconds)),
            (file, Err(_)) => (Some(read_budget(file)?), None),
        };
        Ok(Effort {
            seed: self.seed,
            threads: self.threads,
            budget,
            seconds,
            search_steps: self.search_steps,
            epochs: self.epochs,
            teachers: self.teachers,
            pretext: self.pretext,
            pretext_epochs: self.pretext_epochs,
            labelled_percent: self.labels,
            compress: self.compress,
            accuracy_loss_permille: self.accuracy_loss,
        })
    }
}

/// A share in percent such as `1` or `0.5`, in whole thousandths.
pub(super) fn permille(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is no share in percent such as 1 or 0.5, from 0 to 50");
    let percent: f64 = text.trim_end_matches('%').parse().map_err(|_| wrong())?;
    if !(0.0..=50.0).contains(&percent) {
        return Err(wrong());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 500")]
    let permille = (percent * 10.0).round() as u32;
    Ok(permille)
}

/// A time such as `90s`, `30m` or `1h 30m`, in whole seconds.
pub(super) fn seconds(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is no time such as 90s, 30m or 1h30m");
    let time: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    u32::try_from(time.as_secs()).ok().filter(|seconds| *seconds > 0).ok_or_else(wrong)
}

fn read_budget(path: &str) -> Result<Budget, Failure> {
    let text =
        fs::read_to_string(path).map_err(|error| Failure::Usage(format!("--budget {path}: {error}")))?;
    serde_json::from_str(&text).map_err(|error| Failure::Usage(format!("--budget {path}: {error}")))
}

/// A space by the name of a built-in one, or of a file.
fn read_space(name: &str) -> Result<SearchSpace, Failure> {
    let wrong = |text: String| Failure::Usage(format!("--space {text}"));
    let text = match SearchSpace::built_in_text(name) {
        Some(text) => text.to_owned(),
        None => {
            let builtin = SearchSpace::built_in_names().join(", ");
            let file = fs::File::open(name)
                .map_err(|error| wrong(format!("{name}: {error}; built in are {builtin}")))?;
            let bytes = shared::read::at_most(file, space::FILE_BYTES_MAX as u64)
                .map_err(|error| wrong(format!("{name}: {error}")))?;
            String::from_utf8(bytes).map_err(|_| wrong(format!("{name}: no text in UTF-8")))?
        }
    };
    SearchSpace::from_toml(&text, name).map_err(|error| wrong(error.to_string()))
}

/// A built-in space, shown.
#[derive(Debug, Serialize)]
struct BuiltIn {
    name: &'static str,
    text: &'static str,
}

pub(super) fn spaces(name: Option<&str>, json: bool) -> Outcome {
    let named =
        SearchSpace::built_in_names().into_iter().filter(|known| name.is_none_or(|name| name == *known));
    let all: Vec<BuiltIn> = named
        .map(|name| BuiltIn { name, text: SearchSpace::built_in_text(name).unwrap_or_default() })
        .collect();
    show(json, &all, |all| match (name, all.as_slice()) {
        (Some(_), [one]) => one.text.to_owned(),
        _ => {
            let rows = all.iter().map(|one| {
                let said = one.text.lines().next().unwrap_or_default();
                vec![one.name.to_owned(), said.trim_start_matches("# ").to_owned()]
            });
            table(&["space", "what it is"], rows)
        }
    })
}

pub(super) fn run(command: &SearchCommand, client: &Client) -> Outcome {
    match command {
        SearchCommand::Start { dataset, board, model, method, space, effort } => {
            let new = NewSearch {
                dataset: dataset.clone(),
                board: board.clone(),
                model: model.clone(),
                method: *method,
                space: space.as_deref().map(read_space).transpose()?,
                effort: effort.effort()?,
            };
            let job: Job = client.create("/searches", &new)?;
            finish(client, job, effort.wait)
        }
        SearchCommand::Train { point, model, effort } => {
            let new = NewTraining { point: *point, model: model.clone(), effort: effort.effort()? };
            let job: Job = client.create("/trainings", &new)?;
            finish(client, job, effort.wait)
        }
        SearchCommand::Spaces { name } => spaces(name.as_deref(), client.json),
        SearchCommand::List(page) => {
            let list: List<Job> = page.list(client, "/jobs", Query::default())?;
            show(client.json, &list, |list| {
                let rows = list.items.iter().map(|job| {
                    vec![
                        job.id.to_string(),
                        word(&job.task),
                        job.model.to_string(),
                        job.dataset.to_string(),
                        word(&job.state),
                        job.version.clone().or(job.error.clone()).unwrap_or_default(),
                        ago(job.created_at),
                    ]
                });
                table(&["job", "task", "model", "data set", "state", "result", "created"], rows)
            })
        }
        SearchCommand::Show { id } => {
            let job: Job = client.get(&format!("/jobs/{id}"))?;
            ends(job.state.is_final());
            show(client.json, &job, describe)
        }
        SearchCommand::Wait { id } => {
            let job: Job = client.get(&format!("/jobs/{id}"))?;
            finish(client, job, true)
        }
        SearchCommand::Plot { id, kind, out } => {
            let mut svg = client.download(&format!("/jobs/{id}/plots/{}", kind.file()))?;
            let failed = |error| Failure::Failed(format!("{} cannot be written: {error}", out.display()));
            let mut file = fs::File::create(out).map_err(failed)?;
            io::copy(&mut svg, &mut file).map_err(failed)?;
            show(client.json, &serde_json::json!({ "written": out }), |_| {
                format!("written to {}\n", out.display())
            })
        }
        SearchCommand::Cancel { id } => {
            let job: Job = client.post(&format!("/jobs/{id}/cancel"), &())?;
            show(client.json, &job, describe)
        }
    }
}

/// Shows a job, after its end if asked to; one that gave no version is a failure.
pub(super) fn finish(client: &Client, job: Job, wait: bool) -> Outcome {
    let job = if wait { wait_for(client, job)? } else { job };
    show(client.json, &job, describe)?;
    match job.state {
        JobState::Queued | JobState::Running | JobState::Done => Ok(()),
        JobState::Failed => Err(Failure::Failed(job.error.unwrap_or_else(|| "the job failed".to_owned()))),
        JobState::Cancelled => Err(Failure::Failed("the job was cancelled".to_owned())),
    }
}

/// A job is looked at this often at least, and when the server says that it changed.
const POLL: Duration = Duration::from_secs(1);
/// Between two lines of a stage, where there is no bar.
const LINE_EVERY: Duration = Duration::from_secs(20);
/// A server that is being restarted is asked again this often.
const LOST_MAX: u32 = 100;

pub(super) fn wait_for(client: &Client, mut job: Job) -> Result<Job, Failure> {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{prefix:10} {bar:36} {pos:>5}/{len:<5} {elapsed} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style);
    let mut changes = client.changes("job");
    let mut lost = 0;
    let mut said: Option<(Option<Stage>, Instant)> = None;
    while !job.state.is_final() {
        let progress = &job.progress;
        bar.set_prefix(progress.stage.map_or_else(|| word(&job.state), |stage| word(&stage)));
        bar.set_length(progress.total);
        bar.set_position(progress.step);
        bar.set_message(plain(&figures(&job), false));
        // Where no person watches a bar, a line a stage and now and then one in between.
        let due = said.is_none_or(|(stage, at)| stage != progress.stage || at.elapsed() >= LINE_EVERY);
        if bar.is_hidden() && due && progress.stage.is_some() {
            said = Some((progress.stage, Instant::now()));
            eprintln!("  {}", plain(&self::progress(&job), false));
        }
        changes.wait(POLL);
        match client.get(&format!("/jobs/{}", job.id)) {
            Ok(newer) => (job, lost) = (newer, 0),
            Err(Failure::Failed(_)) if lost < LOST_MAX => lost += 1,
            Err(error) => return Err(error),
        }
    }
    bar.finish_and_clear();
    Ok(job)
}

fn figures(job: &Job) -> String {
    let progress = &job.progress;
    let loss = progress.loss.map(|loss| format!("loss {loss:.3}"));
    let accuracy = progress.accuracy.map(|accuracy| format!("accuracy {accuracy:.4}"));
    [loss, accuracy, progress.message.clone()].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn describe(job: &Job) -> String {
    let mut text = facts(&[
        ("job", job.id.to_string()),
        ("task", word(&job.task)),
        ("model", job.model.to_string()),
        ("data set", job.dataset.to_string()),
        ("board", job.board.to_string()),
        ("method", job.method.map(|method| method.to_string()).unwrap_or_default()),
        ("space", job.space.as_ref().map(|space| space.name.clone()).unwrap_or_default()),
        ("of", job.point.map(|point| point.to_string()).unwrap_or_default()),
        ("seed", job.seed.to_string()),
        ("state", word(&job.state)),
        ("progress", progress(job)),
        ("version", job.version.clone().unwrap_or_default()),
        ("error", job.error.clone().unwrap_or_default()),
    ]);
    if let Some(report) = &job.report {
        let model = &report.model;
        text.push_str(&facts(&[
            ("quality", report.quality()),
            (
                "size",
                format!(
                    "{} FP32, {} {}",
                    bytes(model.bytes_fp32_onnx),
                    bytes(model.bytes_int8_onnx),
                    model.form.name()
                ),
            ),
            ("parameters", model.parameters.to_string()),
            ("latency", report.estimate.as_ref().map(EstimateReport::line).unwrap_or_default()),
            ("teachers", report.teachers.as_ref().map(taught).unwrap_or_default()),
            ("pretext", report.pretext.as_ref().map(pretext).unwrap_or_default()),
            ("labels", report.labelled.map(|count| format!("of {count} samples")).unwrap_or_default()),
            ("line", report.alarm.as_ref().map(line).unwrap_or_default()),
            ("device", computed_on(report)),
            ("remarks", model.remarks.join("; ")),
        ]));
        let of_data: Vec<_> =
            report.dataset.remarks.iter().map(|remark| ("of the data", remark.clone())).collect();
        text.push_str(&facts(&of_data));
        text.push_str(&report.compression.as_ref().map(compression::tables).unwrap_or_default());
    }
    if let Some(cell) = &job.cell {
        text.push_str(cell);
    }
    if let Some(search) = job.report.as_ref().and_then(|report| report.search.as_ref())
        && !search.front.is_empty()
    {
        text.push_str(&front(&search.front));
    }
    text
}

/// The networks that no other one beats; the trained one is marked.
fn front(points: &[FrontPoint]) -> String {
    let rows = points.iter().map(|point| {
        let mark = match (point.chosen, point.on_front) {
            (true, true) => "trained",
            (true, false) => "trained, beaten",
            (false, _) => "",
        };
        vec![
            point.index.to_string(),
            format!("{:.4}", point.accuracy),
            bytes(point.weight_bytes),
            point.latency_us.to_string(),
            point.channels.to_string(),
            point.cell.clone(),
            mark.to_owned(),
        ]
    });
    table(&["index", "accuracy", "weights", "us", "channels", "cell", ""], rows)
}

fn taught(teachers: &TeachersReport) -> String {
    format!("{} of {} parameters, {:.4} FP32", teachers.count, teachers.parameters, teachers.accuracy)
}

fn pretext(report: &PretextReport) -> String {
    format!("{} over {} samples without labels, loss {:.4}", report.pretext, report.samples, report.loss)
}

/// Empty where the report does not say.
fn computed_on(report: &JobReport) -> String {
    let precision = report.precision.as_ref().map(|precision| format!(" in {precision}")).unwrap_or_default();
    report.device.as_ref().map(|device| format!("{device}{precision}")).unwrap_or_default()
}

fn line(alarm: &Alarm) -> String {
    format!(
        "{} % false alarms among {} normal samples held back",
        percent(alarm.false_alarms_permille),
        alarm.normal_samples
    )
}

fn progress(job: &Job) -> String {
    match (job.state, job.progress.stage) {
        (JobState::Running, Some(stage)) => {
            format!("{} {} of {} {}", word(&stage), job.progress.step, job.progress.total, figures(job))
        }
        _ => String::new(),
    }
}
