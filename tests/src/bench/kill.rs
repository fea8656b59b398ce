//! An update with the power cut, or the disk full, at each file operation of the unmodified agent.
//!
//! A device with a good version gets a newer one. At one operation the fault happens; then the device starts again
//! without a network, meets a control plane that knows only the older version, and at last the right one. It must
//! answer rightly from its start on, never go back behind what it accepted, and fetch what it has not got and no more.

pub mod device;
pub mod durable;
pub mod models;
pub mod plan;
pub mod stage;

use super::machine::Machine;
use crate::powercut::{self, Fault};
use anyhow::{Context, Result, ensure};
use device::Played;
use indicatif::{ProgressBar, ProgressStyle};
use plan::Point;
use serde::Serialize;
use stage::Stage;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// Options of the bench.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Points to try, spread over the kinds of operations and over the update.
    #[arg(long, default_value_t = POINTS_DEFAULT)]
    pub points: usize,
    /// Try every operation with every fault; takes some four times as long.
    #[arg(long, conflicts_with = "points")]
    pub all: bool,
    /// Devices that are updated beside each other.
    #[arg(long, default_value_t = DEVICES_DEFAULT)]
    pub devices: usize,
}

/// What takes about five minutes on two cores.
const POINTS_DEFAULT: usize = 240;
const DEVICES_DEFAULT: usize = 4;
const DEVICES_MAX: usize = 64;
/// Failures that are told one by one.
const FAILURES_SHOWN_MAX: usize = 50;

/// What was seen.
#[derive(Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    /// Points at which the fault happened.
    pub points: usize,
    /// Points at which the device did not start, not answer rightly, or not come to the new version.
    pub bricked: usize,
    /// Points at which it went back behind what it had accepted.
    pub older_accepted: usize,
    /// Points at which it fetched again what was on disk.
    pub restarted_from_zero: usize,
    pub seconds: f64,
    /// File operations of one update without a fault.
    pub operations: usize,
    /// Every operation was tried with every fault.
    pub all: bool,
    /// Points after whose number this update had no operation more: no two are quite the same.
    pub missed: usize,
    /// Points of each fault.
    pub by_fault: BTreeMap<&'static str, usize>,
    /// Operations of one update, and points, of each system call.
    pub by_call: BTreeMap<String, Tally>,
    pub failures: Vec<Failure>,
}

/// Of one system call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub operations: usize,
    pub points: usize,
}

/// A point at which something was wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    pub fault: Fault,
    pub at: u64,
    /// As in `rename blobs/ab12.partial`.
    pub operation: String,
    pub what: String,
}

impl Report {
    /// Nothing was wrong.
    pub fn is_good(&self) -> bool {
        self.bricked == 0 && self.older_accepted == 0 && self.restarted_from_zero == 0
    }
}

/// Tries the points.
pub fn run(options: &Options) -> Result<Report> {
    let Options { points, all, devices } = *options;
    ensure!(points > 0, "--points is 0, allowed are 1 and more");
    ensure!((1..=DEVICES_MAX).contains(&devices), "--devices is {devices}, allowed are 1 to {DEVICES_MAX}");
    powercut::check()?;
    let started = Instant::now();
    let folder = tempfile::tempdir().context("making a folder")?;
    eprintln!("bringing {devices} devices to their first version");
    let mut stage = Stage::set(folder.path(), devices)?;
    let life = &stage.lives[0];
    let chosen = if all { plan::all(life) } else { plan::sample(life, points) };
    let mut report = blank(life);
    report.all = all;
    let bar = bar(chosen.len());
    let results = play(&mut stage, &chosen, &bar)?;
    bar.finish_and_clear();
    for (point, played) in chosen.iter().zip(&results) {
        report.count(point, played);
    }
    report.seconds = started.elapsed().as_secs_f64();
    print!("{}", table(&report));
    Ok(report)
}

/// Plays the points on all devices of the stage; gives what became of each, in their order.
pub fn play(stage: &mut Stage, points: &[Point], bar: &ProgressBar) -> Result<Vec<Played>> {
    let next = Mutex::new(points.iter().enumerate());
    let results = Mutex::new(vec![Played::default(); points.len()]);
    std::thread::scope(|scope| {
        let workers: Vec<_> = stage
            .devices
            .iter_mut()
            .map(|device| {
                let (next, results) = (&next, &results);
                scope.spawn(move || -> Result<()> {
                    loop {
                        let taken = next.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some((index, point)) = taken else { return Ok(()) };
                        let played = device
                            .play(point)
                            .with_context(|| format!("{} at operation {}", point.fault.name(), point.at))?;
                        say(bar, point, &played);
                        results.lock().unwrap_or_else(PoisonError::into_inner)[index] = played;
                    }
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    Ok(results.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// A bar in a terminal; elsewhere [`say`] writes lines.
fn bar(count: usize) -> ProgressBar {
    let bar = ProgressBar::new(count as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40.cyan/dim} {pos}/{len} points, {msg} {eta} left")
    {
        bar.set_style(style.progress_chars("━━╌"));
    }
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    bar
}

/// Points between two lines where there is no terminal.
const LINE_EVERY: u64 = 20;

fn say(bar: &ProgressBar, point: &Point, played: &Played) {
    bar.inc(1);
    bar.set_message(point.fault.name());
    for what in played.faults() {
        let operation = played.operation();
        bar.suspend(|| eprintln!("{} at {}, {operation}: {what}", point.fault.name(), point.at));
    }
    if bar.is_hidden() && bar.position().is_multiple_of(LINE_EVERY) {
        eprintln!("{} of {} points", bar.position(), bar.length().unwrap_or(0));
    }
}

impl Played {
    /// What was wrong.
    pub fn faults(&self) -> impl Iterator<Item = &str> {
        [&self.bricked, &self.older, &self.from_zero].into_iter().filter_map(Option::as_deref)
    }

    fn operation(&self) -> String {
        self.hit.as_ref().map_or_else(|| "after the update".to_owned(), powercut::Operation::describe)
    }
}

fn blank(life: &powercut::Record) -> Report {
    let tally = |(call, count): (String, u64)| {
        (call, Tally { operations: usize::try_from(count).unwrap_or(usize::MAX), points: 0 })
    };
    Report {
        machine: Machine::this(),
        points: 0,
        bricked: 0,
        older_accepted: 0,
        restarted_from_zero: 0,
        seconds: 0.0,
        operations: life.operations.len(),
        all: false,
        missed: 0,
        by_fault: BTreeMap::new(),
        by_call: life.by_call().into_iter().map(tally).collect(),
        failures: Vec::new(),
    }
}

impl Report {
    fn count(&mut self, point: &Point, played: &Played) {
        match &played.hit {
            Some(operation) => {
                self.points += 1;
                *self.by_fault.entry(point.fault.name()).or_default() += 1;
                self.by_call.entry(operation.call.clone()).or_default().points += 1;
            }
            None => self.missed += 1,
        }
        self.bricked += usize::from(played.bricked.is_some());
        self.older_accepted += usize::from(played.older.is_some());
        self.restarted_from_zero += usize::from(played.from_zero.is_some());
        for what in played.faults() {
            self.failures.push(Failure {
                fault: point.fault,
                at: point.at,
                operation: played.operation(),
                what: what.to_owned(),
            });
        }
    }
}

/// What was seen, for people.
fn table(report: &Report) -> String {
    let Report { operations, points, missed, seconds, .. } = report;
    let how = if report.all { "every one, every fault" } else { "a sample of them; --all tries every one" };
    let mut text = format!("an update is {operations} file operations; tried: {how}\n");
    text += &format!("{:<24} {:>10} {:>8}\n", "system call", "operations", "points");
    for (call, tally) in &report.by_call {
        text += &format!("{call:<24} {:>10} {:>8}\n", tally.operations, tally.points);
    }
    for (fault, count) in &report.by_fault {
        text += &format!("{fault:<24} {:>10} {count:>8}\n", "");
    }
    for failure in report.failures.iter().take(FAILURES_SHOWN_MAX) {
        let Failure { fault, at, operation, what } = failure;
        text += &format!("{} at {at}, {operation}: {what}\n", fault.name());
    }
    text += &format!(
        "{points} points in {seconds:.0} s ({missed} missed): {} bricked, {} older accepted, {} restarted from zero\n",
        report.bricked, report.older_accepted, report.restarted_from_zero
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::powercut::{Operation, Record};

    fn operation(call: &str) -> Operation {
        Operation {
            call: call.to_owned(),
            path: "store.sled/db".to_owned(),
            size_bytes: 0,
            offset: None,
            refused: false,
        }
    }

    #[test]
    fn the_report_counts_points_by_what_they_hit_and_names_what_was_wrong() {
        let life = Record { process: 1, operations: ["pwrite64", "fsync", "fsync"].map(operation).to_vec() };
        let mut report = blank(&life);
        let point = |fault, at| Point { fault, at };
        let good = Played { hit: Some(operation("fsync")), ..Played::default() };
        report.count(&point(Fault::Kill, 2), &good);
        report.count(&point(Fault::FullOn, 9), &Played::default());
        assert!(report.is_good());
        let bad = Played { bricked: Some("no answer".to_owned()), ..good };
        report.count(&point(Fault::Torn, 3), &bad);
        assert!(!report.is_good());
        assert_eq!((report.points, report.missed, report.bricked), (2, 1, 1));
        assert_eq!(report.by_call["fsync"], Tally { operations: 2, points: 2 });
        assert_eq!(report.failures[0].operation, "fsync store.sled/db");
        let text = table(&report);
        assert!(text.contains("power cut in a write at 3, fsync store.sled/db: no answer"), "{text}");
        assert!(text.ends_with("1 bricked, 0 older accepted, 0 restarted from zero\n"), "{text}");
        let value = serde_json::to_value(&report).unwrap();
        for key in ["points", "bricked", "older_accepted", "restarted_from_zero", "seconds"] {
            assert!(value[key].is_number(), "{key}");
        }
    }
}
