//! Thousands of simulated devices on one machine: to connect and to converge on a version, what is taken in of what they
//! say, and what a dashboard waits for meanwhile; beside it the broker with nothing behind it, as the limit.

mod flood;
mod meter;
mod perf;
mod queries;
mod stage;
mod table;
mod usage;

use super::{kill::models::write_bundle, machine::Machine};
use crate::{
    fleet::{Room, files, swarm::Swarm, work::Work},
    harness::{control::text_of, wait_for},
};
use anyhow::{Context, Result, bail, ensure};
use meter::{Meter, Used};
use queries::{KindReport, Queries};
use serde::Serialize;
use stage::{BOARD, Stage};
use std::time::{Duration, Instant};

/// Options of the bench.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Sizes of the fleet [default: 1000,10000, with --flood 20000]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub devices: Vec<usize>,
    /// Brokers
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Broker::Embedded, Broker::Mosquitto])]
    pub broker: Vec<Broker>,
    /// Stores
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Store::Sqlite, Store::Postgres])]
    pub store: Vec<Store>,
    /// Bytes of the model
    #[arg(long, value_name = "BYTES", default_value_t = 1_000_000)]
    pub model_bytes: usize,
    /// Messages a second that the fleet offers; as many go in as are taken
    #[arg(long, value_name = "R", default_value_t = 40_000.0)]
    pub rate: f64,
    /// How long they are offered
    #[arg(long, value_name = "S", default_value_t = 30)]
    pub seconds: u64,
    /// Leave out the broker alone
    #[arg(long)]
    pub no_alone: bool,
    /// In place of that: have the largest fleet register and report, offer more and more messages, and say what keeps more
    /// from being taken in; on the first broker and the first store
    #[arg(long)]
    pub flood: bool,
}

/// Which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Broker {
    Embedded,
    Mosquitto,
}

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Store {
    Sqlite,
    Postgres,
}

impl std::fmt::Display for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Embedded => "embedded",
            Self::Mosquitto => "mosquitto",
        })
    }
}

impl std::fmt::Display for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        })
    }
}

const DEVICES: [usize; 2] = [1000, 10_000];
const DEVICES_FLOOD: usize = 20_000;
const DEVICES_MAX: usize = 50_000;
const SECONDS_MAX: u64 = 3600;
const RATE_MAX: f64 = 1e6;
const MODEL: &str = "fleet";
const SLOT: &str = "default";
/// One wave, for the time that it takes is measured, and a trial that is over soon.
const POLICY: [&str; 6] = ["--wave", "100%", "--trial-duration-ms", "1000", "--device-timeout-s", "1800"];
const CONVERGE_LIMIT: Duration = Duration::from_secs(1800);
/// What was acknowledged is in the store within this; with a broker elsewhere it was acknowledged before.
const STORE_LIMIT: Duration = Duration::from_secs(300);
/// How often the server is asked whether the rollout is through: its answer names every device.
const ASK: Duration = Duration::from_millis(500);

/// What was measured.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub machine: Option<Machine>,
    pub runs: Vec<RunReport>,
    pub flood: Option<flood::FloodReport>,
}

impl Report {
    /// Was nothing lost, and nothing stored twice?
    pub fn is_good(&self) -> bool {
        let runs = self.runs.iter().map(|run| &run.settled);
        runs.chain(self.flood.as_ref().map(|flood| &flood.settled)).all(Settled::is_good)
    }
}

/// One fleet on one broker and one store.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    pub devices: usize,
    pub broker: Broker,
    pub store: Store,
    pub model_bytes: usize,
    /// A key, a token, a certificate and a registration for each device.
    pub enrolled_s: f64,
    /// From the first connection that is tried until every device had one.
    pub connected_s: f64,
    /// From the order to roll out until the rollout was completed: desired states, chunks, tests, trials, reports.
    pub converged_s: f64,
    /// Of the server, from the first connection until then.
    pub server_cpu_s: f64,
    /// Most that was seen of the server.
    pub server_rss_bytes: u64,
    pub server_rss_bytes_per_device: u64,
    #[serde(flatten)]
    pub settled: Settled,
    /// Messages that were acknowledged in a second while as many were offered as go in.
    pub ingest_per_s: f64,
    pub acknowledged_p99_ms: f64,
    /// What was used while that went on.
    pub ingest: Used,
    /// The same with nothing behind the broker.
    pub broker_only_per_s: Option<f64>,
    /// What a dashboard asked from the first connection to the last message.
    pub query_p99_ms: f64,
    pub queries: Vec<KindReport>,
    pub queries_failed: usize,
}

/// Measures.
pub fn run(options: &Options) -> Result<Report> {
    let sizes = check(options)?;
    for &broker in &options.broker {
        options.store.iter().try_for_each(|&store| Stage::check(broker, store))?;
    }
    let mut report = Report { machine: Some(Machine::this()), ..Report::default() };
    if options.flood {
        let devices = sizes.into_iter().max().unwrap_or(DEVICES_FLOOD);
        let flood = flood::run(devices, options.broker[0], options.store[0], options.seconds)?;
        print!("{}", table::flood(&flood));
        report.flood = Some(flood);
        return Ok(report);
    }
    files::ensure_room_for(sizes.iter().copied().max().unwrap_or(0))?;
    for devices in sizes {
        for &broker in &options.broker {
            for &store in &options.store {
                let seen = one(options, devices, broker, store)
                    .with_context(|| format!("{devices} devices, {broker}, {store}"))?;
                eprintln!("{}", table::line(&seen));
                report.runs.push(seen);
            }
        }
    }
    print!("{}", table::runs(&report.runs));
    Ok(report)
}

/// The sizes that are to be measured.
fn check(options: &Options) -> Result<Vec<usize>> {
    let sizes = match (options.devices.as_slice(), options.flood) {
        ([], true) => vec![DEVICES_FLOOD],
        ([], false) => DEVICES.to_vec(),
        (sizes, _) => sizes.to_vec(),
    };
    for &devices in &sizes {
        ensure!(
            (1..=DEVICES_MAX).contains(&devices),
            "--devices is {devices}, allowed are 1 to {DEVICES_MAX}"
        );
    }
    ensure!(
        options.rate > 0.0 && options.rate <= RATE_MAX,
        "--rate is {}, allowed are more than 0 to {RATE_MAX}",
        options.rate
    );
    ensure!(
        (1..=SECONDS_MAX).contains(&options.seconds),
        "--seconds is {}, allowed are 1 to {SECONDS_MAX}",
        options.seconds
    );
    Ok(sizes)
}

fn one(options: &Options, devices: usize, broker: Broker, store: Store) -> Result<RunReport> {
    let folder = tempfile::tempdir().context("making a folder")?;
    let mut stage = Stage::set(folder.path().to_path_buf(), broker, store)?;
    let api = stage.api()?;
    let version = publish(&stage, options.model_bytes)?;

    let began = Instant::now();
    let swarm = stage.swarm(devices, Room::default())?;
    let enrolled_s = began.elapsed().as_secs_f64();
    let queries = Queries::begin(&api);
    let (meter, began) = (Meter::begin(&mut stage)?, Instant::now());
    stage.wait_connected(&swarm)?;
    let connected_s = began.elapsed().as_secs_f64();
    let mut rss_bytes = stage.control.process()?.rss_bytes()?;

    let converged_s = converge(&stage, &swarm, &version)?;
    let server_cpu_s = meter.end(&mut stage)?.server_cpu_s();
    rss_bytes = rss_bytes.max(stage.control.process()?.rss_bytes()?);

    let work = Work { feedback: true, ..Work::of_rate(devices, options.rate) };
    let span = Duration::from_secs(options.seconds);
    let meter = Meter::begin(&mut stage)?;
    let (before, after) = swarm.speak(work, span);
    let ingest = meter.end(&mut stage)?;
    let ingest_per_s = per_s(after.messages - before.messages, ingest.seconds);
    let answers = queries.end();
    rss_bytes = rss_bytes.max(stage.control.process()?.rss_bytes()?);
    let settled = settle(&stage, &swarm)?;
    if let Some(complaint) = swarm.fleet.complaints().first() {
        bail!("{complaint}");
    }
    swarm.end();
    let broker_only_per_s =
        if options.no_alone { None } else { Some(alone(&mut stage, devices, work, span)?) };
    if let Some(failure) = &answers.failure {
        eprintln!("{} queries failed, the first so: {failure}", answers.failed);
    }
    Ok(RunReport {
        devices,
        broker,
        store,
        model_bytes: options.model_bytes,
        enrolled_s,
        connected_s,
        converged_s,
        server_cpu_s,
        server_rss_bytes: rss_bytes,
        server_rss_bytes_per_device: rss_bytes / devices as u64,
        settled,
        ingest_per_s,
        acknowledged_p99_ms: ms(after.acknowledged_p99_us),
        ingest,
        broker_only_per_s,
        query_p99_ms: answers.p99_ms(),
        queries: answers.kinds(),
        queries_failed: answers.failed,
    })
}

/// Publishes a model of that size; gives its version.
fn publish(stage: &Stage, model_bytes: usize) -> Result<String> {
    let bundle = stage.folder.join("bundle");
    write_bundle(&bundle, "fleet", model_bytes)?;
    let path = bundle.to_str().context("folder name is not UTF-8")?;
    let shown = stage.control.cli(&["model", "publish", path, "--model", MODEL, "--board", BOARD])?;
    Ok(text_of(&shown, "/name")?.to_owned())
}

/// Brings the version to everybody; gives the seconds until the server has heard so of each.
fn converge(stage: &Stage, swarm: &Swarm, version: &str) -> Result<f64> {
    let (api, began) = (stage.api()?, Instant::now());
    let rollout = stage.control.start_rollout(version, SLOT, &POLICY)?;
    let devices = swarm.names.len() as u64;
    let committed = wait_for("every device to commit the version", CONVERGE_LIMIT, || {
        let read = swarm.fleet.counts.read();
        let failed = read.refused + read.rolled_back + read.complaints;
        Ok((read.committed >= devices || failed > 0).then_some(read))
    })?;
    ensure!(
        committed.committed >= devices,
        "{} devices refused it, {} rolled it back: {:?}",
        committed.refused,
        committed.rolled_back,
        swarm.fleet.complaints()
    );
    let ended = wait_for("the rollout to end", CONVERGE_LIMIT, || {
        let shown = api.get(&format!("/rollouts/{rollout}"))?;
        let state = text_of(&shown, "/state")?.to_owned();
        let ended = matches!(state.as_str(), "completed" | "stopped" | "aborted");
        if !ended {
            std::thread::sleep(ASK);
        }
        Ok(ended.then(|| (state, began.elapsed().as_secs_f64())))
    })?;
    ensure!(ended.0 == "completed", "the rollout ended as {}", ended.0);
    Ok(ended.1)
}

/// What came of all records of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Settled {
    /// That devices made, of all kinds.
    pub sent: u64,
    /// That the store counts.
    pub stored: u64,
    /// That the store holds although they are there already.
    pub duplicates: u64,
    /// From the last that was made until the store had counted all.
    pub stored_after_s: f64,
}

impl Settled {
    /// Was nothing lost, and nothing stored twice?
    fn is_good(&self) -> bool {
        self.sent == self.stored && self.duplicates == 0
    }
}

/// Waits until everything that was made was acknowledged, and until the store has counted it.
fn settle(stage: &Stage, swarm: &Swarm) -> Result<Settled> {
    let (api, began) = (stage.api()?, Instant::now());
    let mut settled = Settled { sent: swarm.drain(STORE_LIMIT)?.made, ..Settled::default() };
    // What is never stored is told by the counts.
    let _ = wait_for("every record to be stored", STORE_LIMIT, || {
        (settled.stored, settled.duplicates) = stage.stored(&api)?;
        settled.stored_after_s = began.elapsed().as_secs_f64();
        let done = settled.stored >= settled.sent;
        if !done {
            std::thread::sleep(ASK);
        }
        Ok(done.then_some(()))
    });
    Ok(settled)
}

/// The same devices say as much to the broker alone; gives what it took in a second.
fn alone(stage: &mut Stage, devices: usize, work: Work, span: Duration) -> Result<f64> {
    let _broker = stage.leave_broker_alone()?;
    let swarm = stage.swarm(devices, Room::default())?;
    stage.wait_connected(&swarm)?;
    let (before, after) = swarm.speak(work, span);
    Ok(per_s(after.messages - before.messages, span.as_secs_f64()))
}

#[expect(clippy::cast_precision_loss)]
fn per_s(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds.max(f64::MIN_POSITIVE)
}

#[expect(clippy::cast_precision_loss)]
fn ms(us: Option<u64>) -> f64 {
    us.unwrap_or(0) as f64 / 1000.0
}

#[cfg(test)]
mod tests;
