//! The control plane on PostgreSQL: two servers of which one acts, and a database that goes away.

use anyhow::{Context, Result, ensure};
use edgewright_tests::{
    bench::kill::models,
    harness::{
        Agent, AgentOptions, ControlPlane, Postgres, Process, ServeOptions,
        control::{count_of, list_of, text_of},
        mosquitto, wait_for,
    },
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, path::Path, time::Duration};

const LIMIT: Duration = Duration::from_secs(60);
/// A device whose broker refused it for want of a database comes again after a while.
const LONG: Duration = Duration::from_secs(150);
const MODEL: &str = "selftest";
const MODEL_BYTES: usize = 640 * 1024;
/// Small chunks at a low rate: a transfer that something can happen in.
const CHUNK_BYTES: u32 = 4096;
const BYTES_PER_S: u64 = 150_000;
const POLICY: [&str; 6] = ["--wave", "1", "--wave", "100%", "--trial-duration-ms", "500"];
/// Of each device.
const FEEDBACK: u64 = 20;

fn publish(control: &ControlPlane, folder: &Path) -> Result<()> {
    let bundle = folder.join("bundle");
    models::write_bundle(&bundle, "two servers", MODEL_BYTES)?;
    let bundle = bundle.to_str().context("not UTF-8")?;
    control.cli(&["model", "publish", bundle, "--model", MODEL, "--board", "x86-64"]).map(drop)
}

fn wait_leads(control: &ControlPlane, name: &str, limit: Duration) -> Result<Value> {
    wait_for(&format!("{name} to act"), limit, || {
        let status = control.cli(&["status"])?;
        let acts = status["leader"]["here"] == true
            && status["leader"]["name"] == name
            && status["broker"]["connected"] == true;
        Ok(acts.then_some(status))
    })
}

fn start_mosquitto(control: &ControlPlane, folder: &Path) -> Result<Process> {
    let out = folder.to_str().context("not UTF-8")?;
    let listen = format!("127.0.0.1:{}", control.mqtt);
    control.cli(&["broker", "files", "--out", out, "--listen", &listen])?;
    mosquitto::start(folder, control.mqtt)
}

/// How often a device has told that it began to run a version.
fn activations(control: &ControlPlane, device: &str) -> Result<usize> {
    let events = control.cli(&["device", "events", device, "--all"])?;
    Ok(list_of(&events, "/items")?.iter().filter(|event| event["kind"] == "version_activated").count())
}

pub(crate) fn of_two_servers_the_one_acts_and_the_other_goes_on_when_it_is_killed() -> Result<()> {
    let postgres = Postgres::start()?;
    let folder = tempfile::tempdir()?;
    let broker = folder.path().join("broker");
    fs::create_dir(&broker)?;
    let options = ServeOptions {
        chunk_bytes: CHUNK_BYTES,
        blob_bytes_per_s: BYTES_PER_S,
        broker_crl: Some(broker.join("crl.pem")),
        database: Some(postgres.address()),
        name: Some("one".to_owned()),
    };
    let mut one = ControlPlane::start(&folder.path().join("control"), options)?;
    let mut two = one.beside("two")?;
    let _mosquitto = start_mosquitto(&one, &broker)?;
    wait_leads(&one, "one", LIMIT)?;
    let status = two.cli(&["status"])?;
    ensure!(status["leader"]["here"] == false && status["leader"]["name"] == "one", "{}", status["leader"]);
    let devices = folder.path().join("devices");
    let mut agents = Vec::new();
    for id in ["two-1", "two-2", "two-3"] {
        // Either server answers: a token of the one is taken by the other.
        let server = if agents.len() % 2 == 0 { &two } else { &one };
        agents.push(Agent::enrol(server, id, &devices, AgentOptions::default())?);
    }

    // All that people ask for is done by the server that does not act.
    publish(&two, folder.path())?;
    let rollout = two.start_rollout(&format!("{MODEL}@v1.0"), MODEL, &POLICY)?;
    wait_for("some chunks", LIMIT, || {
        Ok((count_of(&one.cli(&["status"])?, "/delivery/chunks_broadcast")? >= 20).then_some(()))
    })?;
    let shown = two.cli(&["rollout", "show", &rollout])?;
    ensure!(text_of(&shown, "/state")? == "running", "the rollout was over already: {shown}");
    one.kill()?;
    wait_leads(&two, "two", LIMIT)?;
    let ended = two.wait_rollout(&rollout)?;
    ensure!(text_of(&ended, "/state")? == "completed", "the rollout ended as {ended}");

    // Nothing was done twice.
    let history = list_of(&ended, "/history")?;
    let told: Vec<&str> = history.iter().filter_map(|entry| entry["text"].as_str()).collect();
    let different: BTreeSet<&&str> = told.iter().collect();
    ensure!(different.len() == told.len(), "the history has entries twice: {told:?}");
    let members = list_of(&ended, "/devices")?;
    ensure!(
        members.len() == agents.len() && members.iter().all(|member| member["state"] == "committed"),
        "{ended}"
    );
    for agent in &agents {
        let active = agent.active_version(MODEL)?;
        ensure!(active.as_deref() == Some("v1.0"), "{} runs {active:?}", agent.id);
        let device = two.cli(&["device", "show", &agent.id])?;
        ensure!(device["generation"] == 1, "{device}");
        wait_for("the device to have told it", LIMIT, || {
            Ok((activations(&two, &agent.id)? > 0).then_some(()))
        })?;
        ensure!(activations(&two, &agent.id)? == 1, "{} was activated again", agent.id);
    }

    // The one comes back and waits until the other hands over.
    one.resume()?;
    let status = one.cli(&["status"])?;
    ensure!(status["leader"]["here"] == false && status["leader"]["name"] == "two", "{}", status["leader"]);
    two.stop()?;
    wait_leads(&one, "one", LIMIT)?;
    let version = format!("{MODEL}@v1.0");
    let again = one.start_rollout(&version, "other", &["--device", "two-1", "--trial-duration-ms", "500"])?;
    let ended = one.wait_rollout(&again)?;
    ensure!(text_of(&ended, "/state")? == "completed", "the rollout ended as {ended}");
    Ok(())
}

pub(crate) fn a_database_that_goes_away_and_comes_back_loses_nothing() -> Result<()> {
    let mut postgres = Postgres::start()?;
    let folder = tempfile::tempdir()?;
    let options = ServeOptions {
        chunk_bytes: CHUNK_BYTES,
        blob_bytes_per_s: BYTES_PER_S,
        database: Some(postgres.address()),
        ..ServeOptions::default()
    };
    let mut control = ControlPlane::start(&folder.path().join("control"), options)?;
    let devices = folder.path().join("devices");
    let agent = Agent::enrol(&control, "db-1", &devices, AgentOptions::default())?;
    publish(&control, folder.path())?;
    let rollout = control.start_rollout(&format!("{MODEL}@v1.0"), MODEL, &POLICY)?;
    wait_for("some chunks", LIMIT, || {
        // One device alone gets them to itself.
        let sent = count_of(&control.cli(&["status"])?, "/delivery/chunks_unicast")?;
        Ok((sent >= 20).then_some(()))
    })?;

    postgres.stop()?;
    let (code, said) = control.cli_refused(&["status"])?;
    ensure!(code == 1 && said.contains("the database cannot be reached"), "{code}: {said}");
    let (_, said) = control.cli_refused(&["device", "token", "create"])?;
    ensure!(said.contains("the database cannot be reached"), "{said}");
    control.process()?.check_alive()?;
    postgres.resume()?;
    let ended = control.wait_rollout_within(&rollout, LONG)?;
    ensure!(text_of(&ended, "/state")? == "completed", "the rollout ended as {ended}");
    for index in 0..FEEDBACK {
        let body = json!({ "request_id": format!("back-{index}"), "kind": "click" });
        let (status, answer) = agent.client().post_json(&format!("/v2/models/{MODEL}/feedback"), &body)?;
        ensure!(status == 202, "feedback answered {status}: {answer}");
    }
    // What a device says while nobody can keep it stays with the device.
    postgres.stop()?;
    for index in 0..FEEDBACK {
        let body = json!({ "request_id": format!("away-{index}"), "kind": "click" });
        let (status, answer) = agent.client().post_json(&format!("/v2/models/{MODEL}/feedback"), &body)?;
        ensure!(status == 202, "feedback answered {status}: {answer}");
    }
    postgres.resume()?;
    wait_for("everything that was said", LONG, || {
        let left = agent.metric("edgewright_outbox_records")?;
        let status = control.cli(&["status"])?;
        Ok((left == 0.0 && count_of(&status, "/ingest/feedback")? >= 2 * FEEDBACK).then_some(()))
    })?;
    let status = control.cli(&["status"])?;
    ensure!(count_of(&status, "/ingest/duplicate_rows")? == 0, "{status}");
    control.process()?.check_alive()?;
    control.stop()
}

pub(crate) fn two_servers_with_brokers_of_their_own_are_refused() -> Result<()> {
    let postgres = Postgres::start()?;
    let folder = tempfile::tempdir()?;
    let options = ServeOptions { database: Some(postgres.address()), ..ServeOptions::default() };
    let one = ControlPlane::start(&folder.path().join("control"), options)?;
    ensure!(one.cli(&["status"])?["leader"]["here"] == true, "it does not act");
    let refused = one.beside("two").err().context("a second broker was taken")?;
    ensure!(format!("{refused:#}").contains("--broker"), "{refused:#}");
    Ok(())
}
