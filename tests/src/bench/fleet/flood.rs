//! As many devices as the machine takes register and report; then more and more messages are offered, and what keeps more
//! from being taken in is named.

use super::{
    Broker, Settled, Store, meter::Meter, meter::Used, ms, per_s, perf, publish, settle, stage::Stage,
    usage::bottleneck,
};
use crate::{
    fleet::{Room, api::Api, files, work::Work},
    harness::{control::count_of, wait_for},
};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

/// Messages a second that are to be taken in.
const WANTED_PER_S: f64 = 30_000.0;
/// What is offered, one step after the other.
const OFFERED_PER_S: [f64; 5] = [10_000.0, 20_000.0, 30_000.0, 45_000.0, 70_000.0];
/// Small: what is measured is not its delivery.
const MODEL_BYTES: usize = 10_000;
const REPORT_LIMIT: Duration = Duration::from_secs(1800);
const ASK: Duration = Duration::from_millis(500);
/// Files of the server beside its connections.
const FILES_BESIDE: usize = 500;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct FloodReport {
    pub devices: usize,
    pub broker: Broker,
    pub store: Store,
    /// Connections at one time, where the limit of open files allows no more; then devices take turns.
    pub connections_max: Option<usize>,
    pub enrolled_s: f64,
    /// From the first connection until the store has a report of every device.
    pub reported_s: f64,
    pub server_rss_bytes: u64,
    pub steps: Vec<Step>,
    /// The most that was taken in, in a second.
    pub best_per_s: f64,
    pub wanted_per_s: f64,
    pub is_enough: bool,
    /// Of the step in which most was taken in.
    pub bottleneck: String,
    /// Functions of the server in that step, where `perf` is there.
    pub functions: Vec<String>,
    #[serde(flatten)]
    pub settled: Settled,
}

/// What was offered, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    pub offered_per_s: f64,
    /// Messages that were acknowledged in a second.
    pub messages_per_s: f64,
    /// Records that were left out because the one before was still under way, in a second.
    pub held_per_s: f64,
    pub acknowledged_p50_ms: f64,
    pub acknowledged_p99_ms: f64,
    pub used: Used,
    /// The most that the server's own gauges showed meanwhile: queues and the like.
    pub gauges: BTreeMap<String, f64>,
    #[serde(skip)]
    functions: Vec<String>,
}

/// Measures with one broker and one store, each step for `seconds`.
pub fn run(devices: usize, broker: Broker, store: Store, seconds: u64) -> Result<FloodReport> {
    Stage::check(broker, store)?;
    let folder = tempfile::tempdir().context("making a folder")?;
    let mut stage = Stage::set(folder.path().to_path_buf(), broker, store)?;
    let api = stage.api()?;
    publish(&stage, MODEL_BYTES)?;
    // The server has the same limit as this process, and other files too.
    let most = files::connections_max().saturating_sub(FILES_BESIDE).max(1);
    // Where devices take turns, whoever has just left holds a socket of the server for as long as its session lives.
    let connections_max = (most < devices).then_some((most / 2).max(1));
    let room = Room { connections_max: connections_max.unwrap_or(Semaphore::MAX_PERMITS), ..Room::default() };

    let began = Instant::now();
    let swarm = stage.swarm(devices, room)?;
    let enrolled_s = began.elapsed().as_secs_f64();
    let began = Instant::now();
    stage.wait_connected(&swarm)?;
    wait_for("a report of every device", REPORT_LIMIT, || {
        let done = reported(&api, devices)?;
        if !done {
            thread::sleep(ASK);
        }
        Ok(done.then_some(()))
    })?;
    let reported_s = began.elapsed().as_secs_f64();
    eprintln!("{devices} devices reported {reported_s:.1} s after the first connected");

    swarm.fleet.keep_places();
    let mut steps = Vec::new();
    for offered_per_s in OFFERED_PER_S {
        let step = offer(&mut stage, &swarm, &api, offered_per_s, Duration::from_secs(seconds))?;
        eprintln!("{offered_per_s:.0} offered a second, {:.0} taken in", step.messages_per_s);
        steps.push(step);
    }
    let server_rss_bytes = stage.control.process()?.rss_bytes()?;
    let settled = settle(&stage, &swarm)?;
    swarm.end();
    let best = steps.iter().max_by(|one, other| one.messages_per_s.total_cmp(&other.messages_per_s));
    let best = best.context("no step")?;
    let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(FloodReport {
        devices,
        broker,
        store,
        connections_max,
        enrolled_s,
        reported_s,
        server_rss_bytes,
        best_per_s: best.messages_per_s,
        wanted_per_s: WANTED_PER_S,
        is_enough: best.messages_per_s >= WANTED_PER_S,
        bottleneck: bottleneck(&best.used.processors(), &best.used.server_threads, processors),
        functions: best.functions.clone(),
        steps,
        settled,
    })
}

/// Has every device said what it runs? Those of a fleet are counted without a look at each.
fn reported(api: &Api, devices: usize) -> Result<bool> {
    let status = api.get("/status")?;
    // Each start of a device is an event, which comes after its first report.
    Ok(count_of(&status, "/devices/total")? >= devices as u64
        && count_of(&status, "/ingest/events")? >= devices as u64)
}

fn offer(
    stage: &mut Stage,
    swarm: &crate::fleet::swarm::Swarm,
    api: &Api,
    offered_per_s: f64,
    span: Duration,
) -> Result<Step> {
    let file = stage.folder.join(format!("perf-{offered_per_s:.0}.data"));
    let recording = perf::record(stage.control.process()?.id(), span / 2, &file);
    let meter = Meter::begin(stage)?;
    let ending = AtomicBool::new(false);
    let ((before, after), gauges) = thread::scope(|scope| {
        let watching = scope.spawn(|| watch(api, &ending));
        let spoken = swarm.speak(Work::of_rate(swarm.names.len(), offered_per_s), span);
        ending.store(true, Ordering::Relaxed);
        (spoken, watching.join().unwrap_or_default())
    });
    let used = meter.end(stage)?;
    // What is under way ends before the next step begins.
    swarm.drain(REPORT_LIMIT)?;
    ensure!(after.messages > before.messages, "nothing was taken in");
    Ok(Step {
        offered_per_s,
        messages_per_s: per_s(after.messages - before.messages, used.seconds),
        held_per_s: per_s(after.held - before.held, used.seconds),
        acknowledged_p50_ms: ms(after.acknowledged_p50_us),
        acknowledged_p99_ms: ms(after.acknowledged_p99_us),
        used,
        gauges,
        functions: recording.map(|recording| recording.functions(&file)).unwrap_or_default(),
    })
}

/// The most that each gauge of the server shows until it is ended.
fn watch(api: &Api, ending: &AtomicBool) -> BTreeMap<String, f64> {
    let mut most: BTreeMap<String, f64> = BTreeMap::new();
    while !ending.load(Ordering::Relaxed) {
        // One look less does no harm.
        for (name, value) in gauges(&api.metrics().unwrap_or_default()) {
            let known = most.entry(name).or_insert(value);
            *known = known.max(value);
        }
        thread::sleep(ASK);
    }
    most
}

/// Gauges of a text for Prometheus, without those that have labels.
fn gauges(text: &str) -> BTreeMap<String, f64> {
    let kind = |line: &str| Some(line.strip_prefix("# TYPE ")?.strip_suffix(" gauge")?.to_owned());
    let names: Vec<String> = text.lines().filter_map(kind).collect();
    let value = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(value).filter(|(name, _)| names.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_are_read_and_counters_are_not() {
        let text = "# HELP q Waiting.\n# TYPE q gauge\nq 7\n# HELP n All.\n# TYPE n counter\nn 9\n# TYPE l gauge\nl{a=\"b\"} 1\n";
        assert_eq!(gauges(text), [("q".to_owned(), 7.0)].into());
    }
}
