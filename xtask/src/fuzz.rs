//! `cargo xtask fuzz`: hostile bytes for every decoder, by libFuzzer, on the installed toolchain.
//!
//! The targets are a package of their own in `fuzz/`, laid out as cargo-fuzz has it. Here they are built with the
//! coverage that libFuzzer needs and without a sanitizer, which a stable toolchain does not have; Rust's own checks, a
//! cap on memory and one on time stand in for it.

mod build;
mod round;
mod targets;

use crate::cache::Cache;
use anyhow::{Context, Result, bail, ensure};
use indicatif::{MultiProgress, ProgressDrawTarget};
use round::{Outcome, Round};
use std::{
    collections::VecDeque,
    fs, io,
    num::NonZero,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    thread,
};
use targets::Target;

/// Most resident memory of a target, in MiB.
const RSS_MIB_MAX: u32 = 512;
/// Longest time that one input may take, in seconds.
const INPUT_S_MAX: u32 = 10;

/// Options of the command.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// How long each target runs.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Only these targets; all where none is named.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    target: Vec<String>,
    /// Targets that run side by side; as many as there are cores, where it is not given.
    #[arg(long, value_name = "N")]
    jobs: Option<NonZero<usize>>,
    /// Give this one input to the target, as it was written when it was found.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
}

/// Builds and runs the targets; an error where one found something.
pub(crate) fn run(cache: &Cache, options: &Options) -> Result<()> {
    let targets = targets::chosen(&options.target)?;
    // Beside the others' work, and gone with it: targets read through files.
    let work = Work::new(cache)?;
    if let Some(input) = &options.replay {
        let [target] = targets.as_slice() else { bail!("--replay goes with one --target NAME") };
        return replay(cache, &work, target, input);
    }
    let mut outcomes = Vec::new();
    // What builds in a moment is run before what takes long is built.
    for group in targets::by_features(targets) {
        match build::build(cache, &group) {
            Ok(folder) => outcomes.extend(run_group(cache, options, &work, &folder, &group)?),
            Err(error) => {
                eprintln!("error: {error:#}");
                outcomes.extend(group.iter().map(|target| Outcome::not_built(&target.name)));
            }
        }
    }
    print!("{}", table(&outcomes));
    let bad: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.trouble.is_some()).collect();
    for outcome in &bad {
        explain(outcome);
    }
    ensure!(bad.is_empty(), "{} of {} targets found something", bad.len(), outcomes.len());
    Ok(())
}

fn run_group(
    cache: &Cache,
    options: &Options,
    work: &Work,
    folder: &Path,
    group: &[Target],
) -> Result<Vec<Outcome>> {
    let cores = thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    let jobs = options.jobs.unwrap_or(cores).get().min(group.len());
    let rounds =
        group.iter().map(|target| Round::prepare(cache, work.path(), folder, &target.name, options.seconds));
    let queue = Mutex::new(rounds.collect::<Result<VecDeque<_>>>()?);
    let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let mut outcomes = thread::scope(|scope| {
        let worker = || {
            let mut outcomes = Vec::new();
            while let Some(round) = next() {
                outcomes.push(round.run(&bars)?);
            }
            Ok::<_, anyhow::Error>(outcomes)
        };
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(worker)).collect();
        let mut outcomes = Vec::new();
        for worker in workers {
            match worker.join() {
                Ok(found) => outcomes.extend(found?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<_, anyhow::Error>(outcomes)
    })?;
    outcomes.sort_by_key(|outcome| group.iter().position(|target| target.name == outcome.target));
    Ok(outcomes)
}

fn replay(cache: &Cache, work: &Work, target: &Target, input: &Path) -> Result<()> {
    ensure!(input.is_file(), "there is no file {}", input.display());
    let input = std::path::absolute(input)?;
    let folder = build::build(cache, std::slice::from_ref(target))?;
    let status = Command::new(folder.join(&target.name))
        .arg(format!("-rss_limit_mb={RSS_MIB_MAX}"))
        .arg(format!("-timeout={INPUT_S_MAX}"))
        .arg(&input)
        .env("TMPDIR", work.path())
        .env("RUST_BACKTRACE", "1")
        .status()
        .with_context(|| format!("starting {}", target.name))?;
    ensure!(status.success(), "{} fails on {}: {status}", target.name, input.display());
    println!("{}: nothing is wrong with {}", target.name, input.display());
    Ok(())
}

fn explain(outcome: &Outcome) {
    let Some(trouble) = &outcome.trouble else { return };
    println!("\n{}: {}", outcome.target, trouble.what);
    if let Some(input) = &trouble.input {
        println!("  input   {}", input.display());
        println!("  replay  cargo xtask fuzz --target {} --replay {}", outcome.target, input.display());
    }
    if let Some(log) = &trouble.log {
        println!("  log     {}", log.display());
    }
}

/// One line for each target.
fn table(outcomes: &[Outcome]) -> String {
    let widest = outcomes.iter().map(|outcome| outcome.target.len()).max().unwrap_or(0).max("target".len());
    let mut text = format!(
        "{:<widest$}  {:>12}  {:>8}  {:>8}  {:>6}  result\n",
        "target", "runs", "runs/s", "coverage", "corpus"
    );
    for outcome in outcomes {
        let seen = &outcome.seen;
        let per_second = seen.runs.checked_div(outcome.seconds).unwrap_or(seen.runs);
        let result = outcome.trouble.as_ref().map_or("nothing found", |trouble| trouble.kind);
        text.push_str(&format!(
            "{:<widest$}  {:>12}  {per_second:>8}  {:>8}  {:>6}  {result}\n",
            outcome.target, seen.runs, seen.coverage, seen.corpus
        ));
    }
    text
}

/// A folder for what targets write, in memory where the system has one there; removed at the end.
struct Work(PathBuf);

impl Work {
    fn new(cache: &Cache) -> Result<Self> {
        let name = format!("edgewright-fuzz-{}", std::process::id());
        let in_memory = Path::new("/dev/shm").join(&name);
        if fs::create_dir(&in_memory).is_ok() {
            return Ok(Self(in_memory));
        }
        let folder = cache.join("fuzz/work").join(name);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Self(folder))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                eprintln!("{} is left behind: {error}", self.0.display());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use round::{Seen, Trouble};

    #[test]
    fn the_table_has_a_line_for_each_target_with_what_it_found() {
        let seen = Seen { runs: 6000, coverage: 321, corpus: 12 };
        let good = Outcome { target: "envelope".to_owned(), seconds: 60, seen, trouble: None };
        let trouble = Trouble { kind: "crash", what: "it panicked".to_owned(), input: None, log: None };
        let bad = Outcome { trouble: Some(trouble), ..Outcome::not_built("ts") };
        let text = table(&[good, bad]);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["envelope", "6000", "100", "321", "12", "nothing", "found"]);
        assert_eq!(lines[2], ["ts", "0", "0", "0", "0", "crash"]);
    }
}
