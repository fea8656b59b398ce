//! A fleet on a mosquitto of its own: the files that `edgewright broker files` writes, the control plane as its client, and
//! real agents.

use super::isolation::{Stranger, refused};
use anyhow::{Context, Result, ensure};
use edgewright_tests::{
    bench::kill::models,
    harness::{
        Agent, AgentOptions, ControlPlane, Process, ServeOptions,
        control::{count_of, list_of, text_of},
        mosquitto, wait_for,
    },
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

const LIMIT: Duration = Duration::from_secs(60);
/// Within this a revoked device's connection has ended.
const SOON: Duration = Duration::from_secs(5);
const MODEL: &str = "selftest";
const MODEL_BYTES: usize = 640 * 1024;
/// Small chunks at a low rate: a transfer that something can happen in.
const CHUNK_BYTES: u32 = 4096;
const BYTES_PER_S: u64 = 150_000;
/// Of each device.
const FEEDBACK: u64 = 20;

/// A control plane with a mosquitto and devices.
struct Fleet {
    folder: tempfile::TempDir,
    /// The folder of mosquitto's files.
    broker: PathBuf,
    control: ControlPlane,
    mosquitto: Option<Process>,
    agents: Vec<Agent>,
}

impl Fleet {
    /// The control plane first, which waits for the broker; then the broker, then the devices.
    fn start(devices: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let broker = folder.path().join("broker");
        fs::create_dir(&broker)?;
        let serve = ServeOptions {
            chunk_bytes: CHUNK_BYTES,
            blob_bytes_per_s: BYTES_PER_S,
            broker_crl: Some(broker.join("crl.pem")),
            ..ServeOptions::default()
        };
        let control = ControlPlane::start(&folder.path().join("control"), serve)?;
        let mut fleet = Self { broker, control, mosquitto: None, agents: Vec::new(), folder };
        let status = fleet.control.cli(&["status"])?;
        ensure!(
            status["broker"]["external"] == true && status["broker"]["connected"] == false,
            "{}",
            status["broker"]
        );
        fleet.write_files()?;
        fleet.start_mosquitto()?;
        for id in devices {
            let devices = fleet.folder.path().join("devices");
            fleet.agents.push(Agent::enrol(&fleet.control, id, &devices, AgentOptions::default())?);
        }
        Ok(fleet)
    }

    fn write_files(&self) -> Result<Value> {
        let out = self.broker.to_str().context("not UTF-8")?;
        let listen = format!("127.0.0.1:{}", self.control.mqtt);
        self.control.cli(&["broker", "files", "--out", out, "--listen", &listen])
    }

    fn start_mosquitto(&mut self) -> Result<()> {
        self.mosquitto = Some(mosquitto::start(&self.broker, self.control.mqtt)?);
        self.wait_connected()
    }

    fn wait_connected(&self) -> Result<()> {
        wait_for("the control plane to reach the broker", LIMIT, || {
            Ok((self.control.cli(&["status"])?["broker"]["connected"] == true).then_some(()))
        })
    }

    fn mosquitto(&mut self) -> Result<&mut Process> {
        self.mosquitto.as_mut().context("mosquitto is stopped")
    }

    fn stop_mosquitto(&mut self) -> Result<()> {
        self.mosquitto.take().context("mosquitto is stopped")?.stop().map(drop)?;
        self.wait_noticed()
    }

    /// As after a power cut, on a disk that is lost: no session, nothing retained.
    fn lose_mosquitto(&mut self) -> Result<()> {
        self.mosquitto.take().context("mosquitto is stopped")?.kill()?;
        fs::remove_file(self.broker.join("mosquitto.db")).context("removing what mosquitto had saved")?;
        self.wait_noticed()
    }

    fn wait_noticed(&self) -> Result<()> {
        for agent in &self.agents {
            wait_for("the device to notice", LIMIT, || {
                Ok((agent.metric("edgewright_mqtt_connected")? == 0.0).then_some(()))
            })?;
        }
        Ok(())
    }

    /// A device as mosquitto's clients are it.
    fn stranger(&self, agent: &Agent) -> Result<Stranger> {
        let identity = agent.export_identity(&self.folder.path().join(format!("{}-identity", agent.id)))?;
        Ok(Stranger { id: agent.id.clone(), identity, mqtt: self.control.mqtt })
    }

    fn publish(&self) -> Result<()> {
        let bundle = self.folder.path().join("bundle");
        models::write_bundle(&bundle, "external broker", MODEL_BYTES)?;
        let bundle = bundle.to_str().context("not UTF-8")?;
        self.control.cli(&["model", "publish", bundle, "--model", MODEL, "--board", "x86-64"]).map(drop)
    }

    fn ingested(&self, what: &str) -> Result<u64> {
        count_of(&self.control.cli(&["status"])?, &format!("/ingest/{what}"))
    }

    /// Hands feedback over to every device, which puts it into its outbox.
    fn say(&self, word: &str) -> Result<()> {
        for agent in &self.agents {
            for index in 0..FEEDBACK {
                let body = json!({ "request_id": format!("{word}-{index}"), "kind": "click" });
                let (status, answer) =
                    agent.client().post_json(&format!("/v2/models/{MODEL}/feedback"), &body)?;
                ensure!(status == 202, "feedback answered {status}: {answer}");
            }
        }
        Ok(())
    }

    fn wait_outboxes(&self) -> Result<()> {
        wait_for("the outboxes to empty", LIMIT, || {
            let mut left = 0.0;
            for agent in &self.agents {
                left += agent.metric("edgewright_outbox_records")?;
            }
            Ok((left == 0.0).then_some(()))
        })
    }

    /// Everything that was handed over has arrived, and nothing of it twice.
    fn wait_feedback(&self, count: u64) -> Result<()> {
        wait_for(&format!("{count} records of feedback"), LIMIT, || {
            Ok((self.ingested("feedback")? >= count).then_some(()))
        })?;
        let (feedback, twice) = (self.ingested("feedback")?, self.ingested("duplicate_rows")?);
        ensure!(feedback == count && twice == 0, "{feedback} of {count} records, {twice} twice");
        Ok(())
    }

    fn wait_online(&self, count: usize) -> Result<()> {
        wait_for(&format!("{count} devices to be online"), LIMIT, || {
            let list = self.control.cli(&["device", "list"])?;
            let online = list_of(&list, "/items")?.iter().filter(|device| device["online"] == true).count();
            Ok((online == count).then_some(()))
        })
    }
}

pub(crate) fn a_fleet_lives_on_a_mosquitto_that_comes_and_goes() -> Result<()> {
    let mut fleet = Fleet::start(&["ext-1", "ext-2"])?;
    fleet.wait_online(2)?;
    fleet.publish()?;
    let policy = ["--wave", "100%", "--trial-duration-ms", "500"];
    let rollout = fleet.control.start_rollout(&format!("{MODEL}@v1.0"), MODEL, &policy)?;
    let chunks = |fleet: &Fleet, kind: &str| -> Result<u64> {
        count_of(&fleet.control.cli(&["status"])?, &format!("/delivery/chunks_{kind}"))
    };
    wait_for("some chunks", LIMIT, || Ok((chunks(&fleet, "broadcast")? >= 20).then_some(())))?;

    // In mid-transfer.
    fleet.stop_mosquitto()?;
    let shown = fleet.control.cli(&["rollout", "show", &rollout])?;
    ensure!(text_of(&shown, "/state")? == "running", "the rollout was over already: {shown}");
    let status = fleet.control.cli(&["status"])?;
    ensure!(status["broker"]["trouble"].is_string(), "no trouble is told: {}", status["broker"]);
    fleet.start_mosquitto()?;
    let ended = fleet.control.wait_rollout(&rollout)?;
    ensure!(text_of(&ended, "/state")? == "completed", "the rollout ended as {ended}");
    for agent in &fleet.agents {
        let active = agent.active_version(MODEL)?;
        ensure!(active.as_deref() == Some("v1.0"), "{} runs {active:?}", agent.id);
    }
    let (broadcast, unicast) = (chunks(&fleet, "broadcast")?, chunks(&fleet, "unicast")?);
    let whole = MODEL_BYTES as u64 / u64::from(CHUNK_BYTES);
    ensure!(broadcast >= whole && unicast < whole, "{broadcast} chunks to all, {unicast} to one");

    // The broker dies and forgets everything: the outboxes keep what is said, and everything is told again.
    fleet.lose_mosquitto()?;
    fleet.say("broker-lost")?;
    fleet.start_mosquitto()?;
    fleet.wait_outboxes()?;
    fleet.wait_feedback(2 * FEEDBACK)?;
    let devices = fleet.folder.path().join("devices");
    let late = Agent::enrol(&fleet.control, "ext-late", &devices, AgentOptions::default())?;
    let to_late = [&policy[..], &["--device", "ext-late"]].concat();
    let rollout = fleet.control.start_rollout(&format!("{MODEL}@v1.0"), MODEL, &to_late)?;
    let ended = fleet.control.wait_rollout(&rollout)?;
    ensure!(text_of(&ended, "/state")? == "completed", "a device that came later did not get it: {ended}");
    drop(late);
    fleet.wait_online(2)?;

    // The control plane is away: the broker keeps it.
    fleet.control.stop()?;
    fleet.say("server-away")?;
    fleet.wait_outboxes()?;
    fleet.control.resume()?;
    fleet.wait_feedback(4 * FEEDBACK)?;
    // What is retained says who is there.
    fleet.wait_online(2)?;

    // The same, with a control plane that was killed, and with a device that went meanwhile.
    fleet.control.kill()?;
    fleet.say("server-killed")?;
    fleet.wait_outboxes()?;
    fleet.agents[1].kill()?;
    fleet.control.resume()?;
    fleet.wait_feedback(6 * FEEDBACK)?;
    fleet.wait_online(1)?;
    let gone = fleet.stranger(&fleet.agents[1])?;
    wait_for("its desired state", LIMIT, || {
        Ok(gone.read(&format!("ew/v1/device/{}/desired", gone.id))?.contains("payloadType").then_some(()))
    })
}

pub(crate) fn a_revoked_device_is_put_out_of_a_mosquitto() -> Result<()> {
    let mut fleet = Fleet::start(&["ext-stays", "ext-goes"])?;
    fleet.wait_online(2)?;
    let before = fleet.ingested("refused")?;
    let list = fleet.broker.join("crl.pem");
    let read = |path: &Path| fs::read(path).context("reading the list");
    let old = read(&list)?;
    fleet.control.cli(&["device", "revoke", "ext-goes"])?;
    wait_for("its connection to end", SOON, || {
        Ok((fleet.agents[1].metric("edgewright_mqtt_connected")? == 0.0).then_some(()))
    })?;
    // It comes again, for mosquitto does not know yet, and is refused whatever it says.
    wait_for(
        "its messages to be refused",
        LIMIT,
        || Ok((fleet.ingested("refused")? > before).then_some(())),
    )?;
    let shown = fleet.control.cli(&["device", "show", "ext-goes"])?;
    ensure!(shown["online"] == false, "{shown}");

    wait_for("the list to name it", LIMIT, || Ok((read(&list)? != old).then_some(())))?;
    let presence = |id: &str| format!("ew/v1/device/{id}/presence");
    let goes = fleet.stranger(&fleet.agents[1])?;
    fleet.mosquitto()?.signal(Signal::HUP)?;
    wait_for("mosquitto to refuse its certificate", LIMIT, || {
        Ok(refused(&goes.write(&presence("ext-goes"))?).then_some(()))
    })?;
    wait_for("the agent to be out", LIMIT, || {
        Ok((fleet.agents[1].metric("edgewright_mqtt_connected")? == 0.0).then_some(()))
    })?;
    ensure!(fleet.agents[0].metric("edgewright_mqtt_connected")? == 1.0, "the other one is out too");
    // Revoked, its name gets no token; a device that enrols anew gets in.
    let (_, said) = fleet.control.cli_refused(&["device", "token", "create", "--device", "ext-goes"])?;
    ensure!(said.contains("revoked"), "{said}");
    let late = Agent::enrol(
        &fleet.control,
        "ext-late",
        &fleet.folder.path().join("devices"),
        AgentOptions::default(),
    )?;
    fleet.wait_online(2)?;
    drop(late);
    fleet.wait_online(1)
}

pub(crate) fn a_mosquitto_moves_to_another_ca() -> Result<()> {
    let mut fleet = Fleet::start(&["ext-moves"])?;
    fleet.control.cli(&["ca", "rotate"])?;
    fleet.wait_connected()?;
    // mosquitto reads its CAs when it starts.
    fleet.write_files()?;
    fleet.stop_mosquitto()?;
    fleet.start_mosquitto()?;
    fleet.agents[0].wait_connected()?;
    fleet.agents[0].renew()?;
    let (_, said) = fleet.control.cli_refused(&["ca", "retire"])?;
    ensure!(said.contains("1 devices use certificates of the old CA"), "{said}");
    // It shows its certificate with the next renewal.
    fleet.agents[0].renew()?;
    fleet.control.cli(&["ca", "retire"])?;
    let trouble = wait_for("the broker's certificate to be refused", LIMIT, || {
        let status = fleet.control.cli(&["status"])?;
        Ok(status["broker"]["trouble"].as_str().filter(|it| it.contains("certificate")).map(str::to_owned))
    })?;
    ensure!(trouble.contains("edgewright broker files"), "{trouble}");
    fleet.write_files()?;
    fleet.stop_mosquitto()?;
    fleet.start_mosquitto()?;
    fleet.agents[0].wait_connected()?;
    fleet.wait_online(1)
}
