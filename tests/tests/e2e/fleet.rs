//! Two hundred simulated devices, some of which behave badly, on a real control plane.

use anyhow::{Context, Result, ensure};
use edgewright_tests::{
    bench::kill::models,
    fleet::{
        api::Api,
        character::{Character, Faults},
    },
    harness::{
        ControlPlane, Process, ServeOptions, binary,
        control::{count_of, list_of, text_of},
        wait_for,
    },
};
use rustix::process::Signal;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const DEVICES: u64 = 200;
const SEED: u64 = 7;
const FAULTS: Faults =
    Faults { offline: 0.1, slow: 0.1, failing_selftest: 0.05, failing_trial: 0.05, bad_clock: 0.1 };
const MODEL: &str = "simulated";
const MODEL_BYTES: usize = 200_000;
const LIMIT: Duration = Duration::from_secs(240);

/// A running `edgewright-fleet-sim`.
struct Sim {
    process: Process,
    log: PathBuf,
}

impl Sim {
    fn start(folder: &Path, run: &str, context: Option<&Path>) -> Result<Self> {
        let log = folder.join(format!("sim-{run}.log"));
        let mut command = Command::new(binary("edgewright-fleet-sim")?);
        command.env_remove("EDGEWRIGHT_CONTEXT").arg("--identities").arg(folder.join("identities"));
        command.args([
            "--devices",
            &DEVICES.to_string(),
            "--seed",
            &SEED.to_string(),
            "--json",
            "--feedback",
        ]);
        command.args(["--telemetry-s", "2", "--label", "site=a,b"]);
        for (fault, share) in [
            ("--offline", FAULTS.offline),
            ("--slow", FAULTS.slow),
            ("--failing-selftest", FAULTS.failing_selftest),
            ("--failing-trial", FAULTS.failing_trial),
            ("--bad-clock", FAULTS.bad_clock),
        ] {
            command.args([fault, &share.to_string()]);
        }
        if let Some(context) = context {
            command.arg("--context").arg(context);
        }
        Ok(Self { process: Process::start("edgewright-fleet-sim", command, &log)?, log })
    }

    /// Ends it; gives what it counted.
    fn end(mut self) -> Result<Value> {
        self.process.signal(Signal::TERM)?;
        let status = wait_for("the fleet to end", LIMIT, || self.process.ended())?;
        let text = fs::read_to_string(&self.log).context("reading the fleet's log")?;
        ensure!(status.success(), "the fleet ended with {status}: {text}");
        let json = text.find('{').and_then(|at| text.get(at..)).context("the fleet printed no JSON")?;
        serde_json::from_str(json).with_context(|| format!("the fleet printed {text}"))
    }
}

fn character(number: u64) -> Character {
    Character::draw(&FAULTS, SEED, number)
}

fn name(number: u64) -> String {
    format!("sim-{number}")
}

/// Rolls the version out in two waves, the second over both sites; gives how it ended.
fn roll_out(control: &ControlPlane, version: &str) -> Result<Value> {
    let policy = [
        ["--wave", "10%"],
        ["--wave", "100%"],
        ["--pause-s", "0"],
        ["--failed-permille-max", "400"],
        ["--device-timeout-s", "200"],
        ["--trial-duration-ms", "500"],
    ]
    .concat();
    let rollout = control.start_rollout(version, MODEL, &policy)?;
    let ended = control.wait_rollout_within(&rollout, LIMIT)?;
    ensure!(text_of(&ended, "/state")? == "completed", "the rollout ended as {}", text_of(&ended, "/state")?);
    Ok(ended)
}

fn ingested(api: &Api) -> Result<u64> {
    let status = api.get("/status")?;
    ensure!(
        count_of(&status, "/ingest/duplicate_rows")? == 0,
        "a record is there twice: {}",
        status["ingest"]
    );
    let of = |kind: &str| count_of(&status, &format!("/ingest/{kind}"));
    Ok(of("events")? + of("feedback")? + of("telemetry")?)
}

pub(crate) fn a_fleet_with_faults_converges_and_nothing_is_lost_or_done_twice() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir()?;
    let control = ControlPlane::start(&folder.path().join("control"), ServeOptions::default())?;
    let bundle = folder.path().join("bundle");
    models::write_bundle(&bundle, "fleet", MODEL_BYTES)?;
    let path = bundle.to_str().context("not UTF-8")?;
    control.cli(&["model", "publish", path, "--model", MODEL, "--board", "x86-64"])?;
    let sim = Sim::start(folder.path(), "first", Some(&control.context()))?;
    let api = Api::open(&control.context())?;
    wait_for("the devices to be there", LIMIT, || {
        // With their boards: who has not said what it is, gets nothing.
        let overview = api.get("/overview")?;
        let known = list_of(&overview, "/boards")?.iter().find(|board| board["board"] == "x86-64");
        Ok((known.is_some_and(|board| board["devices"] == DEVICES)).then_some(()))
    })?;

    let ended = roll_out(&control, &format!("{MODEL}@v1.0"))?;
    let members = list_of(&ended, "/devices")?;
    ensure!(members.len() as u64 == DEVICES, "{} members", members.len());
    let failing = (1..=DEVICES).filter(|&number| !character(number).is_healthy()).count();
    ensure!((1..60).contains(&failing), "{failing} devices fail");
    for number in 1..=DEVICES {
        let member = members.iter().find(|member| member["device"] == name(number).as_str());
        let member = member.with_context(|| format!("{} is no member", name(number)))?;
        let expected = if character(number).is_healthy() { "committed" } else { "failed" };
        ensure!(text_of(member, "/state")? == expected, "{expected} is expected, not {member}");
    }
    for number in (1..=DEVICES).filter(|&number| !character(number).is_healthy()) {
        wait_for("a device that failed to be without the version", LIMIT, || {
            let device = api.get(&format!("/devices/{}", name(number)))?;
            let slots =
                device.pointer("/reported/slots").and_then(Value::as_array).cloned().unwrap_or_default();
            Ok(slots.iter().all(|slot| slot["active"].is_null()).then_some(()))
        })?;
    }
    let said = sim.end()?;
    let made = count_of(&said, "/made")?;
    ensure!(count_of(&said, "/enrolled")? == DEVICES && count_of(&said, "/dropped")? == 0, "{said}");
    ensure!(count_of(&said, "/delivered")? == made, "not all was acknowledged: {said}");
    ensure!(count_of(&said, "/feedback")? > 0 && count_of(&said, "/telemetry")? > 0, "{said}");
    wait_for("the store to have all that was sent", LIMIT, || Ok((ingested(&api)? >= made).then_some(())))?;
    ensure!(ingested(&api)? == made, "{} records are stored, {made} were made", ingested(&api)?);

    for number in 1..=DEVICES {
        let events = api.get(&format!("/devices/{}/events?limit=500", name(number)))?;
        let count = |kind: &str| {
            list_of(&events, "/items").map(|all| all.iter().filter(|one| one["kind"] == kind).count())
        };
        let passed = usize::from(character(number).is_healthy());
        ensure!(count("trial_passed")? == passed, "{}: {events}", name(number));
        ensure!(count("version_activated")? <= 1, "{} activated it twice: {events}", name(number));
        ensure!(count("agent_started")? == 1, "{}: {events}", name(number));
    }

    // The same devices again, without a token: they know who they are and what they run.
    let sim = Sim::start(folder.path(), "second", None)?;
    let healthy = DEVICES - failing as u64;
    wait_for("most of them to be back", LIMIT, || {
        let online = count_of(&api.get("/status")?, "/devices/online")?;
        Ok((online >= DEVICES * 3 / 4).then_some(()))
    })?;
    let said = sim.end()?;
    ensure!(count_of(&said, "/enrolled")? == 0 && count_of(&said, "/healthy")? == healthy, "{said}");
    ensure!(
        count_of(&said, "/staged")? == 0 && count_of(&said, "/committed")? == 0,
        "installed again: {said}"
    );
    let all = made + count_of(&said, "/made")?;
    wait_for("the store to have that too", LIMIT, || Ok((ingested(&api)? == all).then_some(())))
}
