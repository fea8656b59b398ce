//! The worker: `edgewright-forge`.

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use forge::{
    bench_step::{Images, Kind, StepBench},
    data, device, failure, finish,
    import::{self, Import},
    job::{self, Hooks},
    memory,
};
use indicatif::{ProgressBar, ProgressStyle};
use quantiser::form::Wishes;
use runtime::Ort;
use serde::Deserialize;
use serde_json::json;
use shared::{
    board::Board,
    job::{DataFormat, FORGE_DEVICE_ENV, ForgeDevice, Progress, Reading, SearchMethod, Stage},
};
use std::{
    io::{BufRead, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

/// Milliseconds between checkpoints of a job.
const CHECKPOINT_MS: u64 = 3000;
/// Exit code for input that a person has to change.
const INPUT_EXIT: u8 = 2;
/// Seed of the weights and batches of `bench-step`.
const BENCH_SEED: u64 = 1;
/// Longest request line of `bench-step --serve`.
const REQUEST_BYTES_MAX: u64 = 4096;
/// Most steps of one bench request.
const STEPS_MAX: usize = 100_000;

/// Searches, trains, quantises and exports models.
#[derive(Debug, Parser)]
#[command(name = "edgewright-forge", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the job in a folder to its result; goes on from a checkpoint if there is one.
    Run {
        /// The folder with job.json.
        #[arg(long)]
        job: PathBuf,
        /// Show a bar on the terminal instead of JSON lines on the standard output.
        #[arg(long)]
        progress: bool,
        /// Milliseconds between checkpoints: what a kill costs at most.
        #[arg(long, value_name = "N", default_value_t = CHECKPOINT_MS)]
        checkpoint_ms: u64,
        /// MiB of memory that the samples of the data set may take; more are read from a file in the folder as they are
        /// needed. An eighth of what is to be had where not given.
        #[arg(long, value_name = "N")]
        data_mib: Option<u64>,
        /// What computes: the first GPU where there is one that libtorch can use, else the processor (auto); the processor
        /// (cpu); or a GPU by its number (cuda, cuda:N).
        #[arg(long, value_name = "auto|cpu|cuda[:N]", env = FORGE_DEVICE_ENV, default_value_t)]
        device: ForgeDevice,
    },
    /// Say what a data set holds, or what is wrong with it.
    Inspect {
        /// A folder, FOLDER/NAME, or a .csv, .txt, .jsonl or .json file.
        #[arg(long)]
        path: PathBuf,
        /// Only this format.
        #[arg(long, value_enum)]
        format: Option<Format>,
        /// The label of what is normal: the set is then for finding all others.
        #[arg(long, value_name = "LABEL")]
        normal: Option<String>,
        /// The column of a .csv table with the labels, by name or by number from 1; the last where not given.
        #[arg(long, value_name = "COLUMN")]
        label_column: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run the golden inputs of a result or bundle folder on tract and ONNX Runtime.
    Check {
        /// The folder with model.onnx and golden.safetensors.
        dir: PathBuf,
        /// Largest difference; the report's if there is one.
        #[arg(long)]
        tolerance: Option<f32>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take in an ONNX model from elsewhere: check it, quantise it, measure it on both runtimes, and write a result folder.
    Import(ImportArgs),
    /// Milliseconds of each step of the search.
    BenchStep {
        #[arg(long, default_value_t = 50)]
        steps: usize,
        #[arg(long, default_value_t = 1)]
        threads: u32,
        /// Of the search methods that train a shared network: darts, darts-second-order, gdas, partial-channels, evolution,
        /// hypernetwork.
        #[arg(long, default_value_t)]
        method: SearchMethod,
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// Answer lines {"run": N} on the standard input with {"ms": [...], "loss": [...]} of N steps, to be
        /// measured in turn with others; and {"until": ACCURACY, "most": N, "each": N} with what that took.
        #[arg(long)]
        serve: bool,
        /// Learn from the images of this data set of 28 by 28 pixels in place of the two batches.
        #[arg(long, value_name = "DIR")]
        images: Option<PathBuf>,
        /// Only write the weights and batches that the first step begins from to this safetensors file.
        #[arg(long, value_name = "FILE", conflicts_with = "serve")]
        start: Option<PathBuf>,
        /// What computes, as for `run`; what it is measured against computes on the processor.
        #[arg(long, value_name = "auto|cpu|cuda[:N]", default_value_t = ForgeDevice::Cpu)]
        device: ForgeDevice,
    },
}

#[derive(Debug, clap::Args)]
struct ImportArgs {
    /// The ONNX file, f32, opset 11 to 21.
    model: PathBuf,
    /// Samples: a folder of .npy files (a sample or a batch each), or a data set as `inspect` takes it.
    #[arg(long, value_name = "DIR")]
    calibrate: PathBuf,
    /// The board whose limits the model shall keep, a TOML file; this machine where none is given.
    #[arg(long, value_name = "FILE")]
    board: Option<PathBuf>,
    /// The result folder; the model's name with -int8 where none is given.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The output to keep, where the model has several.
    #[arg(long, value_name = "NAME")]
    output: Option<String>,
    /// An input that becomes a constant, of zeros or of NUMBER; any number of times.
    #[arg(long, value_name = "NAME[=NUMBER]", value_parser = frozen)]
    freeze: Vec<(String, f64)>,
    /// Class names, one a line.
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Least signal to noise of the INT8 model, in decibels; what costs too much stays f32.
    #[arg(long, value_name = "DB", default_value_t = import::SQNR_MIN_DB)]
    sqnr_min: f64,
    /// Of the order of the samples.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

fn frozen(text: &str) -> Result<(String, f64), String> {
    let Some((name, number)) = text.rsplit_once('=') else { return Ok((text.to_owned(), 0.0)) };
    let number: f64 = number.parse().map_err(|_| format!("{number:?} is no number"))?;
    Ok((name.to_owned(), number))
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    #[value(name = "idx")]
    Idx,
    #[value(name = "image_folder", alias = "images")]
    ImageFolder,
    #[value(name = "ucr_tsv", alias = "ucr-tsv", alias = "tsv")]
    UcrTsv,
    #[value(name = "ts")]
    Ts,
    #[value(name = "text")]
    Text,
    #[value(name = "intent_jsonl", alias = "intent-jsonl")]
    IntentJsonl,
    #[value(name = "intent_json", alias = "intent-json")]
    IntentJson,
    #[value(name = "csv")]
    Csv,
}

impl From<Format> for DataFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Idx => Self::Idx,
            Format::ImageFolder => Self::ImageFolder,
            Format::UcrTsv => Self::UcrTsv,
            Format::Ts => Self::Ts,
            Format::Text => Self::Text,
            Format::IntentJsonl => Self::IntentJsonl,
            Format::IntentJson => Self::IntentJson,
            Format::Csv => Self::Csv,
        }
    }
}

fn main() -> ExitCode {
    memory::keep_freed_memory();
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Run { job, progress, checkpoint_ms, data_mib, device } => compute_on(device)
            .and_then(|()| run(&job, progress, Duration::from_millis(checkpoint_ms), data_mib)),
        Command::Inspect { path, format, normal, label_column, json } => {
            inspect(&path, format.map(Into::into), &Reading { normal, label_column }, json)
        }
        Command::Check { dir, tolerance, json } => check(&dir, tolerance, json),
        Command::Import(args) => take_in(&args),
        Command::BenchStep { start: Some(file), method, images, device, .. } => compute_on(device)
            .and_then(|()| step_bench(method, images.as_deref()))
            .and_then(|bench| write_start(&bench, &file)),
        Command::BenchStep { steps, threads, method, json, serve, images, start: None, device } => {
            compute_on(device)
                .and_then(|()| step_bench(method, images.as_deref()))
                .and_then(|bench| bench_step(bench, steps, threads, json, serve))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let input = error.downcast_ref::<job::Error>().is_some_and(job::Error::is_input)
                || error.is::<data::Error>()
                || error.is::<device::Error>()
                || error.downcast_ref::<import::Error>().is_some_and(import::Error::is_input)
                || matches!(error.downcast_ref::<finish::CheckError>(), Some(finish::CheckError::Input(_)));
            // One line: error texts of libraries may hold several.
            let text = format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ");
            eprintln!("error: {text}");
            ExitCode::from(if input { INPUT_EXIT } else { 1 })
        }
    }
}

/// Chooses what computes; before anything else of libtorch.
fn compute_on(device: ForgeDevice) -> anyhow::Result<()> {
    device::choose(device)?;
    Ok(())
}

fn run(
    dir: &std::path::Path,
    bar: bool,
    checkpoint_every: Duration,
    data_mib: Option<u64>,
) -> anyhow::Result<()> {
    let bar = (bar && std::io::stderr().is_terminal()).then(Bar::new);
    // A reader that went away must not end a job that others wait for.
    let mut progress = |said: &Progress| match &bar {
        Some(bar) => bar.show(said),
        None => {
            if let Ok(line) = serde_json::to_string(said) {
                let mut out = std::io::stdout().lock();
                let _ = writeln!(out, "{line}").and_then(|()| out.flush());
            }
        }
    };
    let data_bytes = data_mib.map(|mib| mib.saturating_mul(1 << 20));
    let hooks = Hooks { progress: &mut progress, stop: &mut || false, checkpoint_every, data_bytes };
    failure::caught(|| job::run(dir, hooks)).map_err(anyhow::Error::msg)??;
    Ok(())
}

/// One bar a stage on the terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::new(1);
        if let Ok(style) = ProgressStyle::with_template("{prefix:>9} {wide_bar} {pos}/{len} {msg} {eta}") {
            bar.set_style(style);
        }
        Self(bar)
    }

    fn show(&self, said: &Progress) {
        let name = said.stage.name();
        if self.0.prefix() != name {
            self.0.set_prefix(name);
            self.0.reset_eta();
        }
        self.0.set_length(said.total);
        self.0.set_position(said.step);
        if let Some(message) = &said.message {
            self.0.println(message);
        }
        if let Some(loss) = said.loss {
            self.0.set_message(format!("loss {loss:.3}"));
        }
        if said.stage == Stage::Done {
            self.0.finish();
        }
    }
}

fn inspect(
    path: &std::path::Path,
    format: Option<DataFormat>,
    reading: &Reading,
    json: bool,
) -> anyhow::Result<()> {
    let schema = data::inspect(path, format, reading)?;
    if json {
        print(&serde_json::to_string(&schema)?)
    } else {
        print(&format!(
            "{:?}, samples {:?}, {} classes ({}), {} to train, {} to test, sha256 {}",
            schema.task,
            schema.shape,
            schema.labels.len(),
            schema.labels.iter().take(20).map(|label| printable(label)).collect::<Vec<_>>().join(", "),
            schema.train_count,
            schema.test_count,
            schema.digest
        ))?;
        for head in &schema.heads {
            print(&format!(
                "{}: {} labels at each of {} positions",
                head.name,
                head.labels.len(),
                head.positions
            ))?;
        }
        if !schema.columns.is_empty() {
            let names = schema.columns.iter().take(20).map(|column| printable(&column.name));
            print(&format!("columns: {}", names.collect::<Vec<_>>().join(", ")))?;
        }
        schema.remarks.iter().try_for_each(|remark| print(remark))
    }
}

/// A label that may be any character.
fn printable(label: &str) -> String {
    label.chars().flat_map(char::escape_debug).collect()
}

fn check(dir: &std::path::Path, tolerance: Option<f32>, json: bool) -> anyhow::Result<()> {
    let passed = finish::check(dir, tolerance)?;
    for checked in &passed {
        if json {
            print(
                &json!({ "runtime": checked.runtime, "difference_max": checked.difference_max }).to_string(),
            )?;
        } else {
            print(&format!("{}: right, largest difference {:.5}", checked.runtime, checked.difference_max))?;
        }
    }
    Ok(())
}

fn take_in(args: &ImportArgs) -> anyhow::Result<()> {
    let input = |text: String| anyhow::Error::new(import::Error::Input(text));
    let board = match &args.board {
        Some(path) => Some(read_board(path).map_err(input)?),
        None => None,
    };
    if !(-200.0..=200.0).contains(&args.sqnr_min) {
        return Err(input(format!("--sqnr-min is {}, allowed are -200 to 200", args.sqnr_min)));
    }
    let out = match &args.out {
        Some(out) => out.clone(),
        None => {
            let stem = args.model.file_stem().unwrap_or_default().to_string_lossy();
            PathBuf::from(format!("{stem}-int8"))
        }
    };
    // Known before minutes of work: a person's folder is not written over.
    if out.exists() {
        return Err(input(format!("{}: it is there already; name another folder with --out", out.display())));
    }
    let ort = Ort::open(None).map_err(|error| input(error.to_string()))?;
    let wanted = Import {
        model: &args.model,
        calibrate: &args.calibrate,
        board: board.as_ref(),
        labels: args.labels.as_deref(),
        wishes: Wishes { output: args.output.clone(), freeze: args.freeze.clone() },
        sqnr_min_db: args.sqnr_min,
        seed: args.seed,
    };
    let outcome = import::import(&wanted, &ort)?;
    outcome.write(&out)?;
    if args.json {
        return print(&serde_json::to_string(&outcome.report)?);
    }
    print(&import::describe(&outcome.report))?;
    print(&format!("written to {}", out.display()))
}

fn read_board(path: &std::path::Path) -> Result<Board, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Board::from_toml(&text, &path.display().to_string()).map_err(|error| error.to_string())
}

fn step_bench(method: SearchMethod, images: Option<&std::path::Path>) -> anyhow::Result<StepBench> {
    let kind = Kind::of(method).with_context(|| {
        let allowed = SearchMethod::ALL.into_iter().filter(|method| Kind::of(*method).is_some());
        let allowed: Vec<&str> = allowed.map(SearchMethod::name).collect();
        format!("--method {method} trains no shared network, allowed are {}", allowed.join(", "))
    })?;
    let bench = StepBench::new(kind, BENCH_SEED);
    let Some(folder) = images else { return Ok(bench) };
    Ok(bench.with_images(Images::of(&data::open(folder, None)?)?))
}

fn bench_step(
    mut bench: StepBench,
    steps: usize,
    threads: u32,
    json: bool,
    serve: bool,
) -> anyhow::Result<()> {
    anyhow::ensure!((1..=STEPS_MAX).contains(&steps), "--steps is {steps}, allowed are 1 to {STEPS_MAX}");
    anyhow::ensure!((1..=256).contains(&threads), "--threads is {threads}, allowed are 1 to 256");
    tch::set_num_threads(threads as i32);
    if serve {
        return serve_bench(&mut bench);
    }
    bench.run(2);
    let done = bench.run(steps);
    if json {
        return print(&json!({ "threads": threads, "ms": done.ms, "loss": done.loss }).to_string());
    }
    let mut times = done.ms;
    times.sort_by(f64::total_cmp);
    print(&format!("{threads} threads: median {:.1} ms of {steps} steps", times[times.len() / 2]))
}

fn write_start(bench: &StepBench, file: &std::path::Path) -> anyhow::Result<()> {
    let bytes = bench.start().context("writing down where the steps start")?;
    std::fs::write(file, bytes).with_context(|| format!("writing {}", file.display()))
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Request {
    Run { run: usize },
    Until { until: f64, most: usize, each: usize },
}

fn serve_bench(bench: &mut StepBench) -> anyhow::Result<()> {
    let mut input = std::io::stdin().lock();
    loop {
        let mut line = String::new();
        let read = std::io::Read::take(&mut input, REQUEST_BYTES_MAX).read_line(&mut line);
        if read.context("reading a request")? == 0 {
            return Ok(());
        }
        let request = serde_json::from_str(&line)
            .context("a request is {\"run\": N} or {\"until\": ACCURACY, \"most\": N, \"each\": N}")?;
        let within = |name, steps: usize| {
            anyhow::ensure!(steps <= STEPS_MAX, "{name} is {steps}, allowed are 0 to {STEPS_MAX}");
            Ok(())
        };
        match request {
            Request::Run { run } => {
                within("run", run)?;
                print(&serde_json::to_string(&bench.run(run))?)?;
            }
            Request::Until { until, most, each } => {
                within("most", most)?;
                print(&serde_json::to_string(&bench.until(until, most, each))?)?;
            }
        }
    }
}

fn print(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("writing to the standard output")
}
