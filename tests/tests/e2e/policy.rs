//! A policy with rings, an approval and a gate: a good version goes through them, a bad one stops at the gate, and that is
//! explained and on record until another takes its place.

use anyhow::{Context, Result, ensure};
use edgewright_tests::{
    bench::kill::models,
    harness::{
        Agent, AgentOptions, ControlPlane, ServeOptions,
        control::{list_of, text_of},
        wait_for,
    },
    load::Load,
};
use runtime::golden::Golden;
use serde_json::{Value, json};
use std::{fs, path::PathBuf, sync::Arc, time::Duration};

const LIMIT: Duration = Duration::from_secs(60);
const MODEL: &str = "selftest";
const MODEL_BYTES: usize = 64 * 1024;
/// Each device with its ring.
const RINGS: [(&str, &str); 3] = [("pol-1", "canary"), ("pol-2", "early"), ("pol-3", "broad")];
const POLICY: &str = "\
waves = { label = \"ring\", order = [\"canary\", \"early\", \"broad\"], approval = [\"early\"] }
pause_ms = 0
rollback_committed = true

[[gates]]
signal = \"agreement\"
min = 0.7
";

struct Fleet {
    folder: tempfile::TempDir,
    control: ControlPlane,
    agents: Vec<Agent>,
}

impl Fleet {
    fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let control = ControlPlane::start(&folder.path().join("control"), ServeOptions::default())?;
        let mut agents = Vec::new();
        for (device, ring) in RINGS {
            let devices = folder.path().join("devices");
            agents.push(Agent::enrol(&control, device, &devices, AgentOptions::default())?);
            control.cli(&["device", "label", device, &format!("ring={ring}")])?;
        }
        Ok(Self { folder, control, agents })
    }

    /// Publishes the model with other bytes; with `labels` in another order it is wrong about some, though its golden outputs
    /// agree.
    fn publish(&self, seed: &str, labels: &[&str]) -> Result<String> {
        let bundle: PathBuf = self.folder.path().join(seed);
        models::write_bundle(&bundle, seed, MODEL_BYTES)?;
        let path = bundle.join(shared::job::REPORT_FILE);
        let mut report: Value = serde_json::from_slice(&fs::read(&path)?)?;
        report["dataset"]["labels"] = json!(labels);
        fs::write(&path, report.to_string())?;
        let bundle = bundle.to_str().context("not UTF-8")?;
        let published =
            self.control.cli(&["model", "publish", bundle, "--model", MODEL, "--board", "x86-64"])?;
        Ok(text_of(&published, "/name")?.to_owned())
    }

    /// To all at once, without a gate.
    fn roll_out(&self, version: &str) -> Result<()> {
        let policy = ["--wave", "100%", "--trial-duration-ms", "500"];
        let id = self.control.start_rollout(version, MODEL, &policy)?;
        let ended = self.control.wait_rollout(&id)?;
        ensure!(text_of(&ended, "/state")? == "completed", "{version}: {ended}");
        Ok(())
    }

    /// By the policy. What the trial itself would stop is left to the gate.
    fn roll_out_in_rings(&self, version: &str) -> Result<String> {
        let path = self.folder.path().join("policy.toml");
        fs::write(&path, POLICY)?;
        let path = path.to_str().context("not UTF-8")?;
        let trial = ["--trial-duration-ms", "3000", "--agreement-permille-min", "1"];
        self.control.start_rollout(version, MODEL, &[&["--policy", path][..], &trial].concat())
    }

    fn why(&self, rollout: &str, device: &str) -> Result<Value> {
        self.control.cli(&["rollout", "why", rollout, device])
    }

    fn wait_active(&self, label: &str) -> Result<()> {
        for agent in &self.agents {
            wait_for(&format!("{} to answer with {label}", agent.id), LIMIT, || {
                Ok((agent.active_version(MODEL)?.as_deref() == Some(label)).then_some(()))
            })?;
        }
        Ok(())
    }

    /// Requests that keep coming to every device: the golden inputs, of two classes.
    fn load(&self) -> Result<Vec<Load>> {
        let golden = Golden::read(&models::asset("selftest.safetensors")?)?;
        let inputs: Vec<Vec<f32>> =
            golden.input().chunks(models::SHAPE.iter().product()).map(<[f32]>::to_vec).collect();
        let inputs = Arc::new(inputs);
        let shape: Vec<usize> = [&[1][..], &models::SHAPE[..]].concat();
        let pause = Duration::from_millis(10);
        let start = |agent: &Agent| Load::start(agent.client(), MODEL, shape.clone(), inputs.clone(), pause);
        Ok(self.agents.iter().map(start).collect())
    }
}

pub(crate) fn a_bad_version_stops_at_a_gate_and_that_is_an_incident_until_a_good_one_takes_its_place()
-> Result<()> {
    let fleet = Fleet::start()?;
    let labels = ["a", "b", "c"];
    fleet.roll_out(&fleet.publish("first", &labels)?)?;
    let load = fleet.load()?;

    // A good one waits for its approval, says so, and goes through.
    let good = fleet.publish("good", &labels)?;
    let rollout = fleet.roll_out_in_rings(&good)?;
    let why = wait_for("the second ring to wait for its approval", LIMIT, || {
        let why = fleet.why(&rollout, "pol-2")?;
        let waits = list_of(&why, "/waits_for")?.iter().filter_map(Value::as_str).collect::<Vec<_>>();
        let approval = waits.iter().any(|reason| reason.contains("to be approved"));
        let open = why["gates"][0]["verdict"] == "open";
        Ok((approval && open).then_some(why))
    })?;
    ensure!(text_of(&why, "/state")? == "pending", "{why}");
    fleet.control.cli(&["rollout", "approve", &rollout])?;
    let ended = fleet.control.wait_rollout(&rollout)?;
    ensure!(text_of(&ended, "/state")? == "completed", "{ended}");
    fleet.wait_active("v1.1")?;

    // A bad one, which takes one class for another, stops behind the first ring.
    let bad = fleet.publish("bad", &["b", "a", "c"])?;
    let rollout = fleet.roll_out_in_rings(&bad)?;
    let ended = fleet.control.wait_rollout(&rollout)?;
    let reason = text_of(&ended, "/reason")?.to_owned();
    ensure!(text_of(&ended, "/state")? == "stopped" && reason.contains("agreement"), "{ended}");
    let states: Vec<&str> =
        list_of(&ended, "/devices")?.iter().filter_map(|device| device["state"].as_str()).collect();
    ensure!(states == ["reverted", "skipped", "skipped"], "{states:?}");
    let why = fleet.why(&rollout, "pol-3")?;
    ensure!(text_of(&why, "/rollout")? == reason && text_of(&why, "/state")? == "skipped", "{why}");
    let (_, said) = fleet.control.cli_refused(&["rollout", "approve", &rollout])?;
    ensure!(!said.is_empty(), "a rollout that is over takes approvals");
    fleet.wait_active("v1.1")?;

    // That is an incident, with its reason, until a good version takes the place of the bad one.
    let incident = wait_for("the incident", LIMIT, || {
        let list = fleet.control.cli(&["incident", "list", "--open"])?;
        let of_it = |incident: &&Value| incident["subject"] == rollout.as_str();
        Ok(list_of(&list, "/items")?.iter().find(of_it).cloned())
    })?;
    ensure!(incident["kind"] == "rollout_stopped" && incident["severity"] == "critical", "{incident}");
    let evidence = &incident["evidence"][0];
    ensure!(evidence["link"] == format!("/rollouts/{rollout}"), "{incident}");
    ensure!(evidence["text"].as_str().is_some_and(|text| text.contains("agreement")), "{incident}");
    let id = text_of(&incident, "/id")?;
    let seen = fleet.control.cli(&["incident", "acknowledge", id])?;
    ensure!(seen["acknowledged_at"].is_number() && seen["resolved_at"].is_null(), "{seen}");
    for load in load {
        let failed = load.finish()?.iter().filter(|sample| !sample.ok).count();
        ensure!(failed == 0, "{failed} requests failed meanwhile");
    }
    fleet.roll_out(&fleet.publish("better", &labels)?)?;
    wait_for("the incident to be closed", LIMIT, || {
        let shown = fleet.control.cli(&["incident", "show", id])?;
        Ok(shown["resolved_at"].is_number().then_some(()))
    })
}
