//! Milliseconds of one DARTS step: ours against PyTorch eager, default layout, channels last, and restructured.

use super::{peer::Peer, spread::Spread};
use crate::harness::{binary, cache, root};
use anyhow::{Result, ensure};
use serde::Serialize;
use serde_json::json;
use std::process::Command;

/// Options of the bench.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Steps of each, at least.
    #[arg(long, default_value_t = 50)]
    pub steps: usize,
    /// Steps that one runs before it is another's turn.
    #[arg(long, default_value_t = 5)]
    pub turn: usize,
    /// Numbers of threads.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    pub threads: Vec<usize>,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What each did in a step.
    pub work: String,
    pub steps: Vec<Line>,
}

/// One number of threads; medians in milliseconds.
#[derive(Debug, Serialize)]
pub struct Line {
    pub threads: usize,
    pub ours_ms: f64,
    pub torch_default_ms: f64,
    pub torch_channels_last_ms: f64,
    pub torch_restructured_ms: f64,
    pub ours: Spread,
    pub torch_default: Spread,
    pub torch_channels_last: Spread,
    pub torch_restructured: Spread,
    /// Ours divided by PyTorch's restructured, turn by turn.
    pub ratio_to_restructured: Spread,
}

const VARIANTS: [&str; 4] = ["ours", "default", "channels_last", "restructured"];

/// Runs every variant in turn.
pub fn run(options: &Options) -> Result<Report> {
    ensure!(options.turn >= 1 && options.steps >= 1, "--steps and --turn are at least 1");
    let mut lines = Vec::new();
    for &threads in &options.threads {
        lines.push(measure(options, threads)?);
    }
    let work =
        "one weight step and one architecture step; batch 64, 28x28, 16 channels, 8 edges x 6 operations";
    println!("{work}");
    println!(
        "{:<8} {:>24} {:>24} {:>24} {:>24} {:>18}",
        "threads", "ours ms", "torch ms", "channels_last", "restructured", "ours/restructured"
    );
    for line in &lines {
        println!(
            "{:<8} {:>24} {:>24} {:>24} {:>24} {:>18}",
            line.threads,
            line.ours.text(0),
            line.torch_default.text(0),
            line.torch_channels_last.text(0),
            line.torch_restructured.text(0),
            line.ratio_to_restructured.text(2)
        );
    }
    Ok(Report { work: work.to_owned(), steps: lines })
}

fn measure(options: &Options, threads: usize) -> Result<Line> {
    let mut peers = Vec::new();
    for variant in VARIANTS {
        let mut command = if variant == "ours" {
            let mut command = Command::new(binary("edgewright-forge")?);
            command.args(["bench-step", "--serve", "--threads", &threads.to_string()]);
            command
        } else {
            let mut command = Command::new(cache()?.join("venv-torch/bin/python"));
            command.arg(root().join("tests/peers/darts_step.py")).args([variant, &threads.to_string()]);
            command
        };
        peers.push(Peer::start(variant, &mut command)?);
    }
    for peer in &mut peers {
        peer.numbers(&json!({ "run": 2 }))?;
    }
    let mut times = vec![Vec::new(); VARIANTS.len()];
    let mut ratios = Vec::new();
    while times[0].len() < options.steps {
        let mut medians = Vec::new();
        for (peer, all) in peers.iter_mut().zip(&mut times) {
            let turn = peer.numbers(&json!({ "run": options.turn }))?;
            medians.push(Spread::of(&turn).median);
            all.extend(turn);
        }
        ratios.push(medians[0] / medians[3]);
        eprintln!("{threads} threads: {} of {} steps", times[0].len(), options.steps);
    }
    let [ours, torch_default, torch_channels_last, torch_restructured] =
        [&times[0], &times[1], &times[2], &times[3]].map(|all| Spread::of(all));
    Ok(Line {
        threads,
        ours_ms: ours.median,
        torch_default_ms: torch_default.median,
        torch_channels_last_ms: torch_channels_last.median,
        torch_restructured_ms: torch_restructured.median,
        ours,
        torch_default,
        torch_channels_last,
        torch_restructured,
        ratio_to_restructured: Spread::of(&ratios),
    })
}
