//! The command line of the agent.

use clap::{Args, Parser, Subcommand};
use edgewright_agent::{config, run, selftest, status};
use std::{path::PathBuf, process::ExitCode, time::Instant};

/// Runs the models of one device and keeps them up to date.
#[derive(Parser)]
#[command(name = "edgewright-agent", version, about, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
First start on a device:
  edgewright-agent run --data /var/lib/edgewright --enroll enrol.json
Later starts:
  edgewright-agent run --data /var/lib/edgewright
Does this device run models?
  edgewright-agent selftest";

#[derive(Subcommand)]
enum Command {
    /// Serve the assigned models until told to stop. SIGUSR1 renews the device's certificate at once.
    Run(Run),
    /// Check that disk, cryptography, clock and runtimes of this device do what the agent needs.
    Selftest(SelfTest),
    /// Ask a running agent how it is.
    Status(Status),
    /// Take in trust metadata that no network brings; the agent has to be stopped for that moment.
    Trust(Import),
}

#[derive(Args)]
struct Run {
    /// Folder for identity, models and journal; made where it is missing.
    #[arg(long)]
    data: PathBuf,
    /// What `edgewright device token create --out FILE` wrote; used once, on the first start.
    #[arg(long, visible_alias = "enrol", value_name = "FILE")]
    enroll: Option<PathBuf>,
    /// Where the local API listens: a loopback address with port, or unix:/path [default: 127.0.0.1:8700].
    #[arg(long, value_name = "ADDRESS")]
    api: Option<String>,
    /// A TOML file with the same settings and more.
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// auto, tract or onnxruntime [default: auto: both are measured, the faster that is right is kept].
    #[arg(long)]
    runtime: Option<String>,
    /// The library of ONNX Runtime (libonnxruntime.so) [default: EDGEWRIGHT_ORT, or the loader's].
    #[arg(long, value_name = "LIB")]
    ort: Option<PathBuf>,
    /// What kind of device this is; says which runtimes it may use [default: by the processor this was built for].
    #[arg(long, value_name = "ID")]
    board: Option<String>,
    /// The description of a board that the agent does not know by name.
    #[arg(long, value_name = "FILE.toml")]
    board_file: Option<PathBuf>,
    /// Log JSON lines.
    #[arg(long)]
    json_log: bool,
}

#[derive(Args)]
struct SelfTest {
    /// A folder with model.onnx and golden.safetensors to test too.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// The library of ONNX Runtime.
    #[arg(long, value_name = "LIB")]
    ort: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Status {
    /// Address of the agent's API: http://127.0.0.1:8700 or unix:/path.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8700")]
    api: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Import {
    /// The agent's folder.
    #[arg(long)]
    data: PathBuf,
    /// What `edgewright trust export --out DIR` wrote, as on a USB stick.
    #[arg(long, value_name = "DIR")]
    import: PathBuf,
}

fn main() -> ExitCode {
    let started = Instant::now();
    // An error here means that a provider is installed, which is all that is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Cli::parse().command {
        Command::Run(args) => run_agent(args, started),
        Command::Selftest(args) => self_test(&args),
        Command::Status(args) => ask_status(&args),
        Command::Trust(args) => match run::import_trust(&args.data, &args.import) {
            Ok(roles) => {
                println!("newer now: {roles}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&edgewright_agent::chain(&error), error.exit_code()),
        },
    }
}

fn run_agent(args: Run, started: Instant) -> ExitCode {
    log_to_stderr(args.json_log);
    let flags = config::Flags {
        board: args.board,
        board_file: args.board_file,
        api: args.api,
        runtime: args.runtime,
        ort: args.ort,
    };
    let ran = config::Config::load(args.config.as_deref(), flags)
        .map_err(run::Error::from)
        .and_then(|config| run::run(&args.data, args.enroll, &config, started));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&edgewright_agent::chain(&error), error.exit_code()),
    }
}

fn self_test(args: &SelfTest) -> ExitCode {
    let report = selftest::run(args.model.as_deref(), args.ort.as_deref());
    if args.json {
        match serde_json::to_string_pretty(&report) {
            Ok(json) => println!("{json}"),
            Err(error) => return fail(&error.to_string(), 1),
        }
    } else {
        println!("{}", selftest::describe(&report));
    }
    if report.ok { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn ask_status(args: &Status) -> ExitCode {
    match status::ask(&args.api) {
        Ok((json, _)) if args.json => println!("{}", String::from_utf8_lossy(&json)),
        Ok((_, status)) => println!("{}", status::describe(&status)),
        Err(error @ status::Error::Address(_)) => return fail(&error.to_string(), 2),
        Err(error) => return fail(&edgewright_agent::chain(&error), 1),
    }
    ExitCode::SUCCESS
}

fn log_to_stderr(json: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,tract=error,ort=warn,rumqttc=error"));
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    if json { log.json().init() } else { log.init() }
}

fn fail(message: &str, code: u8) -> ExitCode {
    let line: Vec<_> = message.split_whitespace().collect();
    eprintln!("edgewright-agent: {}", line.join(" "));
    ExitCode::from(code)
}
