//! `edgewright-fleet-sim`: devices against any control plane, until their time is over or somebody ends them.

use super::{
    Room,
    api::Api,
    character::Faults,
    counts::Reading,
    enrol::{AT_ONCE, Label, Roll},
    files,
    swarm::Swarm,
    work::Work,
};
use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use shared::BoardId;
use std::{
    fmt::Write,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
};

/// Most devices of one process.
pub const DEVICES_MAX: usize = 100_000;
/// Most messages a second that may be asked for.
const RATE_MAX: f64 = 1e6;
const SECONDS_MAX: u64 = 30 * 24 * 3600;
/// At the end what was made is waited for this long: a device that is away comes back within.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(250);
/// As a shell tells of a program that was ended by SIGINT.
const ENDED_TWICE: i32 = 130;

/// Simulated devices: the real agent core, link and state over real MQTT and TLS, with a runtime that runs nothing.
#[derive(Debug, Parser)]
#[command(name = "edgewright-fleet-sim", version)]
pub struct Options {
    /// How many devices
    #[arg(long, value_name = "N")]
    pub devices: usize,
    /// The control plane's context.json, whose token enrols devices; not needed where --identities holds all of them
    #[arg(long, value_name = "FILE", env = "EDGEWRIGHT_CONTEXT")]
    pub context: Option<PathBuf>,
    /// Folder that keeps identities and states between runs; otherwise both go with this one
    #[arg(long, value_name = "DIR")]
    pub identities: Option<PathBuf>,
    /// Devices are named after it, as in sim-1
    #[arg(long, value_name = "NAME", default_value = "sim")]
    pub prefix: String,
    /// Boards of the devices, by turns
    #[arg(long, value_name = "BOARD", value_delimiter = ',', default_value = "x86-64")]
    pub boards: Vec<BoardId>,
    /// Label that devices get when they are enrolled, with values by turns: site=a,b,c; may be given again
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<Label>,
    /// Seconds between two records of telemetry of one device; 0 says nothing
    #[arg(long, value_name = "S", default_value_t = 60)]
    pub telemetry_s: u64,
    /// Messages a second over the whole fleet, as many of them as are taken; in place of --telemetry-s
    #[arg(long, value_name = "R", conflicts_with = "telemetry_s")]
    pub rate: Option<f64>,
    /// Every second record is feedback
    #[arg(long)]
    pub feedback: bool,
    /// How long they live, as in 90s, 10m or 2h; without it until they are ended
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub duration: Option<Duration>,
    /// Says who behaves how, and when
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    pub faults: Faults,
    /// Devices that are enrolled beside each other
    #[arg(long, value_name = "N", default_value_t = AT_ONCE)]
    pub enrolling: usize,
    /// Devices that make their first connection beside each other
    #[arg(long, value_name = "N", default_value_t = super::CONNECTING_MAX)]
    pub connecting: usize,
    /// Most connections at one time; devices beyond take turns. As many as files may be open where not given
    #[arg(long, value_name = "N")]
    pub connections: Option<usize>,
    /// Print what was counted as JSON
    #[arg(long)]
    pub json: bool,
}

fn span(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no time: write 90s, 10m or 2h, at most 30 days");
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit_s = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(bad()),
    };
    let seconds = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit_s));
    let seconds = seconds.filter(|seconds| (1..=SECONDS_MAX).contains(seconds)).ok_or_else(bad)?;
    Ok(Duration::from_secs(seconds))
}

/// What a run was.
#[derive(Debug, Serialize)]
pub struct Report {
    pub devices: usize,
    /// Those that had no identity before.
    pub enrolled: usize,
    /// Those on which a version can end well.
    pub healthy: usize,
    pub seed: u64,
    /// From the first connection that was tried until every device had one; none where not all had.
    pub connect_s: Option<f64>,
    /// From there, or from the start, until the end.
    pub seconds: f64,
    /// In that time.
    pub messages_per_s: f64,
    /// Of this process.
    pub rss_bytes: Option<u64>,
    #[serde(flatten)]
    pub counts: Reading,
    /// The first of what should not have happened.
    pub first_complaints: Vec<String>,
}

/// Runs it, and prints what was counted.
pub fn run(options: &Options) -> Result<()> {
    let report = live(options)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", text(&report));
    }
    let complaints = report.counts.complaints;
    ensure!(
        complaints == 0,
        "{complaints} things happened that should not: {}",
        report.first_complaints.join("; ")
    );
    Ok(())
}

fn live(options: &Options) -> Result<Report> {
    check(options)?;
    let api = options.context.as_deref().map(Api::open).transpose()?;
    let temporary = match &options.identities {
        Some(_) => None,
        None => Some(tempfile::tempdir().context("making a folder")?),
    };
    let folder = match (&options.identities, &temporary) {
        (Some(folder), _) => folder.as_path(),
        (None, Some(folder)) => folder.path(),
        (None, None) => bail!("no folder"),
    };
    let roll = Roll {
        prefix: options.prefix.clone(),
        devices: options.devices,
        boards: options.boards.clone(),
        labels: options.labels.clone(),
        faults: options.faults,
        seed: options.seed,
        at_once: options.enrolling,
        keeps_state: options.identities.is_some(),
    };
    let bar = bar(options.devices, "identities {bar:40.cyan/dim} {pos}/{len}");
    let swarm = Swarm::begin(&roll, api.as_ref(), folder, room(options), &bar)?;
    bar.finish_and_clear();
    let ended = until_signalled(&swarm)?;
    swarm.fleet.set_work(work(options));
    let (connect_s, seconds, before) = watch(options, &swarm, &ended);
    let after = swarm.fleet.counts.read();
    // What is still under way after that is told in the report.
    let _ = swarm.drain(DRAIN_LIMIT);
    let fleet = Arc::clone(&swarm.fleet);
    let (healthy, enrolled) = (swarm.healthy, swarm.fresh());
    let rss_bytes = edgewright_agent::rss_bytes();
    let counts = swarm.end();
    #[expect(clippy::cast_precision_loss)]
    let messages_per_s = (after.messages - before.messages) as f64 / seconds.max(f64::MIN_POSITIVE);
    Ok(Report {
        devices: options.devices,
        enrolled,
        healthy,
        seed: options.seed,
        connect_s,
        seconds,
        messages_per_s,
        rss_bytes,
        counts,
        first_complaints: fleet.complaints(),
    })
}

fn check(options: &Options) -> Result<()> {
    let Options { devices, rate, boards, enrolling, connecting, connections, .. } = options;
    ensure!((1..=DEVICES_MAX).contains(devices), "--devices is {devices}, allowed are 1 to {DEVICES_MAX}");
    ensure!(!boards.is_empty(), "--boards names no board");
    if let Some(rate) = rate {
        ensure!(*rate > 0.0 && *rate <= RATE_MAX, "--rate is {rate}, allowed are more than 0 to {RATE_MAX}");
    }
    let counts =
        [("enrolling", *enrolling), ("connecting", *connecting), ("connections", connections.unwrap_or(1))];
    for (name, count) in counts {
        ensure!((1..=DEVICES_MAX).contains(&count), "--{name} is {count}, allowed are 1 to {DEVICES_MAX}");
    }
    ensure!(
        options.telemetry_s <= SECONDS_MAX,
        "--telemetry-s is {}, at most {SECONDS_MAX}",
        options.telemetry_s
    );
    Ok(())
}

/// Where there is not room for all, they take turns.
fn room(options: &Options) -> Room {
    let most = files::connections_max().min(options.connections.unwrap_or(usize::MAX));
    let connections_max = if most < options.devices { most.max(1) } else { Semaphore::MAX_PERMITS };
    if most < options.devices {
        eprintln!("{most} of {} devices are connected at one time; they take turns", options.devices);
    }
    Room { connecting_max: options.connecting, connections_max }
}

fn work(options: &Options) -> Work {
    let work = match options.rate {
        Some(rate) => Work::of_rate(options.devices, rate),
        None => Work {
            period: (options.telemetry_s > 0).then(|| Duration::from_secs(options.telemetry_s)),
            ..Work::default()
        },
    };
    Work { feedback: options.feedback, ..work }
}

/// Turns true when somebody ends the program; who does so again ends it at once.
fn until_signalled(swarm: &Swarm) -> Result<Arc<AtomicBool>> {
    let ended = Arc::new(AtomicBool::new(false));
    let _entered = swarm.enter();
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let set = Arc::clone(&ended);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if set.swap(true, Ordering::Relaxed) {
                std::process::exit(ENDED_TWICE);
            }
        }
    });
    Ok(ended)
}

/// Watches them live: seconds until all had been connected, seconds from there on, and what had been counted there.
fn watch(options: &Options, swarm: &Swarm, ended: &AtomicBool) -> (Option<f64>, f64, Reading) {
    let bar = bar(options.devices, "connected {bar:40.cyan/dim} {pos}/{len}  {msg}");
    let began = Instant::now();
    let (mut since, mut connect_s, mut before) = (began, None, swarm.fleet.counts.read());
    while !ended.load(Ordering::Relaxed) && options.duration.is_none_or(|span| began.elapsed() < span) {
        let read = swarm.fleet.counts.read();
        bar.set_position(read.connected);
        bar.set_message(line(&read, &before, since.elapsed()));
        if connect_s.is_none() && read.seen >= options.devices as u64 {
            connect_s = Some(began.elapsed().as_secs_f64());
            (since, before) = (Instant::now(), read);
            swarm.fleet.counts.forget_latency();
        }
        std::thread::sleep(LOOK);
    }
    bar.finish_and_clear();
    (connect_s, since.elapsed().as_secs_f64(), before)
}

fn line(read: &Reading, before: &Reading, since: Duration) -> String {
    #[expect(clippy::cast_precision_loss)]
    let rate = read.messages.saturating_sub(before.messages) as f64 / since.as_secs_f64().max(0.001);
    let Reading { committed, refused, rolled_back, .. } = read;
    format!("{rate:.0} messages/s  {committed} committed, {refused} refused, {rolled_back} rolled back")
}

fn bar(devices: usize, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(devices as u64);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━━╌"));
    }
    bar
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    let connected = match report.connect_s {
        Some(seconds) => format!("all connected after {seconds:.1} s"),
        None => format!("{} of {} were connected", report.counts.seen, report.devices),
    };
    let Reading { messages, made, delivered, held, dropped, .. } = report.counts;
    let Reading { staged, committed, refused, rolled_back, .. } = report.counts;
    let ms = |us: Option<u64>| {
        us.map_or_else(|| "-".to_owned(), |us| format!("{}.{}", us / 1000, us % 1000 / 100))
    };
    let (p50, p99) = (ms(report.counts.acknowledged_p50_us), ms(report.counts.acknowledged_p99_us));
    let mib = report.rss_bytes.unwrap_or(0) >> 20;
    // Writing to a string cannot fail.
    let _ =
        writeln!(text, "{} devices, {} of them new, {connected}; {mib} MiB", report.devices, report.enrolled);
    let _ = writeln!(
        text,
        "{messages} messages, {:.0} a second over {:.1} s; acknowledged within {p50} ms (p99 {p99} ms)",
        report.messages_per_s, report.seconds
    );
    let _ = writeln!(text, "{delivered} of {made} records acknowledged, {held} held back, {dropped} dropped");
    let _ = writeln!(
        text,
        "{staged} times a version was staged, {committed} committed, {refused} refused, {rolled_back} rolled back"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> Result<Options, clap::Error> {
        Options::try_parse_from(["edgewright-fleet-sim"].iter().chain(words))
    }

    #[test]
    fn times_are_read_in_seconds_minutes_and_hours() {
        assert_eq!(span("90"), Ok(Duration::from_secs(90)));
        assert_eq!(span("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(span("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "0", "h", "1d", "-1s", "99999999999h", "1 m"] {
            assert!(span(bad).unwrap_err().contains("90s, 10m or 2h"), "{bad:?}");
        }
    }

    #[test]
    fn options_are_read_and_those_out_of_range_are_named() {
        let read = options(&[
            "--devices",
            "10",
            "--boards",
            "x86-64,raspberry-pi-4",
            "--label",
            "site=a,b",
            "--rate",
            "100",
            "--offline",
            "0.1",
            "--feedback",
        ])
        .unwrap();
        check(&read).unwrap();
        assert_eq!((read.boards.len(), read.labels.len(), read.faults.offline), (2, 1, 0.1));
        assert_eq!(work(&read), Work { feedback: true, ..Work::of_rate(10, 100.0) });
        assert!(options(&["--devices", "1", "--slow", "2"]).is_err());
        for (words, named) in [
            (["--devices", "0", "--seed", "1"], "--devices is 0"),
            (["--devices", "1", "--rate", "0"], "--rate is 0"),
            (["--devices", "1", "--connecting", "0"], "--connecting is 0"),
        ] {
            assert!(check(&options(&words).unwrap()).unwrap_err().to_string().contains(named), "{named}");
        }
    }

    #[test]
    fn a_report_has_its_counts_beside_it_and_reads_well() {
        let report = Report {
            devices: 3,
            enrolled: 2,
            healthy: 3,
            seed: 1,
            connect_s: Some(0.5),
            seconds: 10.0,
            messages_per_s: 7.0,
            rss_bytes: None,
            counts: Reading { messages: 70, acknowledged_p50_us: Some(1_250), ..Reading::default() },
            first_complaints: Vec::new(),
        };
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((json["messages"].as_u64(), json["complaints"].as_u64()), (Some(70), Some(0)));
        let text = text(&report);
        assert!(text.contains("all connected after 0.5 s") && text.contains("1.2 ms"), "{text}");
    }
}
