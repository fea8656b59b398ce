//! `cargo xtask bench`: us and a named peer in turn, in one run, on the same work; an update under power cuts; a fleet of
//! thousands.

pub mod delivery;
pub mod fleet;
pub mod forge;
pub mod infer;
pub mod kill;
pub mod labels;
pub mod machine;
pub mod peer;
pub mod quantise;
pub mod search;
pub mod spread;
pub mod turns;
pub mod worker;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Measures us against others, in turn, on the same work.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
pub struct Options {
    #[command(subcommand)]
    pub bench: Bench,
    /// Write what was measured to this JSON file.
    #[arg(long, value_name = "FILE", global = true)]
    pub report: Option<PathBuf>,
}

/// The benches.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Milliseconds of one DARTS step, against the same cell in PyTorch eager.
    Search(search::Options),
    /// The forge from a data set to a measured INT8 model: our search, random search, a hand-made network.
    Forge(forge::Options),
    /// The same network from few labels, with and without a start that needs none.
    FewLabels(labels::Options),
    /// Microseconds of one inference: our agent, raw runtimes, Python's onnxruntime.
    Infer(infer::Options),
    /// A model to many devices, against HTTPS; deltas between versions, against other tools.
    Delivery(delivery::Options),
    /// Thousands of simulated devices: to converge, to be taken in, to be asked about meanwhile; the broker alone beside it.
    Fleet(fleet::Options),
    /// Signal to noise, accuracy, bytes and microseconds of INT8 models, against onnxruntime.quantization.
    Quantise(quantise::Options),
    /// Power cuts and a full disk at the file operations of an update.
    Kill(kill::Options),
}

/// Runs the bench that was asked for.
pub fn run(options: &Options) -> Result<()> {
    if let Some(folder) = options.report.as_deref().and_then(Path::parent) {
        let there = folder.as_os_str().is_empty() || folder.is_dir();
        ensure!(there, "--report goes to {}, which is no folder", folder.display());
    }
    match &options.bench {
        Bench::Search(search) => write_report(options.report.as_deref(), &search::run(search)?),
        Bench::Forge(forge) => write_report(options.report.as_deref(), &forge::run(forge)?),
        Bench::FewLabels(labels) => write_report(options.report.as_deref(), &labels::run(labels)?),
        Bench::Infer(infer) => write_report(options.report.as_deref(), &infer::run(infer)?),
        Bench::Delivery(delivery) => write_report(options.report.as_deref(), &delivery::run(delivery)?),
        Bench::Fleet(fleet) => {
            let seen = fleet::run(fleet)?;
            write_report(options.report.as_deref(), &seen)?;
            ensure!(seen.is_good(), "records were lost or came twice; see the lines above");
            Ok(())
        }
        Bench::Quantise(quantise) => write_report(options.report.as_deref(), &quantise::run(quantise)?),
        Bench::Kill(kill) => {
            let seen = kill::run(kill)?;
            write_report(options.report.as_deref(), &seen)?;
            ensure!(seen.is_good(), "a device did not come back as it should; see the lines above");
            Ok(())
        }
    }
}

fn write_report(path: Option<&Path>, report: &impl Serialize) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(report)?;
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    println!("report written to {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_option_stands_before_or_after_the_benchs_own() {
        for words in [["bench", "--report", "r.json", "search"], ["bench", "search", "--report", "r.json"]] {
            assert_eq!(Options::try_parse_from(words).unwrap().report, Some(PathBuf::from("r.json")));
        }
    }
}
