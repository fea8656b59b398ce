//! `cargo xtask`: sets up what the project needs, then does it.

mod boards;
mod cache;
mod cross;
mod dashboard;
mod doctor;
mod fuzz;
mod pins;
mod progress;
mod setup;
mod steps;
mod system;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::{ffi::OsString, process::ExitCode};

/// Sets up what Edgewright needs, then does it.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring libtorch, ONNX Runtime, the data sets and the tools into the cache, and build the dashboard; a second run downloads
    /// nothing.
    Setup {
        /// Also bring what only `cross` needs.
        #[arg(long)]
        cross: bool,
        /// Also bring the peers of the benches: PyTorch (several gigabytes), nginx, others' makers of deltas and models.
        #[arg(long)]
        peers: bool,
        /// Also bring what the forge computes on an NVIDIA GPU with (several gigabytes; the driver is the machine's own).
        #[arg(long)]
        gpu: bool,
    },
    /// Say what is there, what is missing and how to get it.
    Doctor {
        #[arg(long)]
        json: bool,
    },
    /// Format, lints, docs and all tests.
    Test {
        /// Only these steps.
        #[arg(long, value_delimiter = ',', value_enum)]
        only: Vec<steps::Step>,
        /// Go on after a step that failed.
        #[arg(long)]
        keep_going: bool,
    },
    /// A model's whole life on real data; `cargo xtask demo --help` shows its options.
    #[command(disable_help_flag = true)]
    Demo {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Measure us against others, in turn; `cargo xtask bench --help` shows the benches.
    #[command(disable_help_flag = true)]
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Build the agent for a board, and run it under emulation.
    Cross(cross::Options),
    /// Give hostile bytes to every decoder, for a while each.
    Fuzz(fuzz::Options),
    /// Build every binary in the dev profile, as the demo and the tests use them.
    Build,
    /// Print what a shell needs to use them by hand: `eval "$(cargo xtask env)"`.
    Env,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let cache = cache::Cache::find()?;
    match command {
        Command::Setup { cross, peers, gpu } => {
            let torch = peers || gpu;
            setup::run(&cache, setup::Wanted { cross, torch, delivery: peers, models: peers })?;
            if gpu { setup::say_where_cuda_is(&cache) } else { Ok(()) }
        }
        Command::Doctor { json } => doctor::run(&cache, json),
        Command::Test { only, keep_going } => {
            setup::run(&cache, setup::Wanted::default())?;
            steps::test(&cache, &only, keep_going)
        }
        Command::Demo { arguments } => {
            setup::run(&cache, setup::Wanted::default())?;
            steps::build(&cache, steps::Profile::Dev)?;
            steps::run_binary(&cache, steps::Profile::Dev, "edgewright-demo", &arguments)
        }
        Command::Bench { arguments } => {
            let is = |bench: &str| arguments.iter().any(|argument| argument == bench);
            let (torch, delivery, models) = (is("search"), is("delivery"), is("quantise"));
            setup::run(&cache, setup::Wanted { cross: false, torch, delivery, models })?;
            // What is killed again and again has to be right, not fast.
            let profile = if is("kill") { steps::Profile::Dev } else { steps::Profile::Release };
            steps::build(&cache, profile)?;
            steps::run_binary(&cache, profile, "edgewright-bench", &arguments)
        }
        Command::Cross(options) => cross::run(&cache, &options),
        Command::Fuzz(options) => fuzz::run(&cache, &options),
        Command::Build => {
            setup::run(&cache, setup::Wanted::default())?;
            steps::build(&cache, steps::Profile::Dev)
        }
        Command::Env => {
            print!("{}", cache.exports());
            Ok(())
        }
    }
}
