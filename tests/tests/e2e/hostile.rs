//! A control plane in the hands of somebody else: the database, the blobs and every key that is on the server are
//! theirs. The offline keys are not.

use super::world::World;
use anyhow::{Context, Result, ensure};
use edgewright_tests::{
    demo::variants,
    harness::{
        Agent, AgentOptions, ControlPlane, ServeOptions,
        control::{list_of, text_of},
        wait_for,
    },
};
use serde_json::{Value, json};
use std::{path::Path, process::Command, time::Duration};

const STEP_LIMIT: Duration = Duration::from_secs(60);
const SLOT: &str = "italy";

/// Gives the device another wish in the database, under the next generation: `serve` signs it with its own key.
const OVERWRITE: &str = r#"
import json, sqlite3, sys
path, device, version = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
database = sqlite3.connect(path)
(text,) = database.execute("SELECT assignments FROM devices WHERE id = ?", (device,)).fetchone()
assignments = json.loads(text)
for assignment in assignments:
    for key in ("version", "bundle", "bundle_bytes"):
        assignment[key] = version[key]
    assignment["version_id"] = version["id"]
    assignment["rollout"] = None
changed = database.execute(
    "UPDATE devices SET assignments = ?, generation = generation + 1 WHERE id = ?",
    (json.dumps(assignments), device),
)
database.commit()
assert changed.rowcount == 1
"#;

pub(crate) fn a_stolen_control_plane_makes_no_device_run_what_the_offline_keys_did_not_sign(
    world: &mut World,
) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut control = ControlPlane::start(&folder.path().join("control"), ServeOptions::default())?;
    let agent = Agent::enrol(&control, "gate-1", folder.path(), AgentOptions::default())?;
    let published = |control: &ControlPlane, text: &str| -> Result<Value> {
        let bundle = folder.path().join(text);
        variants::with_doc_string(&world.series.result, &bundle, text)?;
        let bundle = bundle.to_str().context("the folder's name is not UTF-8")?;
        control.cli(&["model", "publish", bundle, "--model", SLOT, "--board", "x86-64"])
    };
    let (old, new) = (published(&control, "old")?, published(&control, "new")?);
    for version in [&old, &new] {
        let policy = ["--wave", "100%", "--trial-duration-ms", "500"];
        let rollout = control.start_rollout(text_of(version, "/name")?, SLOT, &policy)?;
        let ended = control.wait_rollout(&rollout)?;
        ensure!(text_of(&ended, "/state")? == "completed", "the rollout ended as {ended}");
    }
    // A person comes for the offline keys. What is published from now on is signed by the server's keys alone.
    std::fs::rename(control.data.join("keys/offline"), folder.path().join("safe"))?;
    let forged = published(&control, "forged")?;
    let (_, said) = control.cli_refused(&["rollout", "create", "--version", text_of(&forged, "/name")?])?;
    ensure!(said.contains("edgewright trust sign"), "{said}");

    for (version, word) in [(&forged, "NotVouchedFor"), (&old, "Older")] {
        control.stop()?;
        overwrite(&control.data, &agent.id, version)?;
        control.resume()?;
        wait_for("the device to refuse", STEP_LIMIT, || {
            let events = control.cli(&["device", "events", &agent.id])?;
            let refused = list_of(&events, "/items")?.iter().any(|event| {
                event["kind"] == "bundle_refused"
                    && event["detail"].as_str().is_some_and(|it| it.contains(word))
            });
            Ok(refused.then_some(()))
        })?;
        let active = agent.active_version(SLOT)?;
        ensure!(active.as_deref() == Some(text_of(&new, "/version")?), "the device runs {active:?}");
    }
    new_repository_of_the_thief(&mut control, &agent)?;
    let sample = &world.series.test;
    agent.client().infer(SLOT, &sample.batch_shape(1), &sample.inputs[0])?;
    Ok(())
}

/// The thief founds a repository with offline keys of their own. The device goes on believing the one it knows.
fn new_repository_of_the_thief(control: &mut ControlPlane, agent: &Agent) -> Result<()> {
    control.stop()?;
    std::fs::rename(control.data.join("trust"), control.data.join("trust-of-the-owner"))?;
    let before = agent.active_version(SLOT)?;
    control.resume()?;
    agent.wait_connected()?;
    wait_for("the device to refuse the metadata", STEP_LIMIT, || {
        let events = control.cli(&["device", "events", &agent.id])?;
        Ok(list_of(&events, "/items")?.iter().any(|event| event["kind"] == "trust_refused").then_some(()))
    })?;
    ensure!(agent.active_version(SLOT)? == before, "the device runs another version");
    Ok(())
}

fn overwrite(data: &Path, device: &str, version: &Value) -> Result<()> {
    let fields = json!({
        "version": version["version"], "id": version["id"],
        "bundle": version["bundle"], "bundle_bytes": version["bundle_bytes"],
    });
    let done = Command::new("python3")
        .args(["-c", OVERWRITE])
        .arg(data.join("edgewright.db"))
        .args([device, &fields.to_string()])
        .output()
        .context("running python3")?;
    ensure!(done.status.success(), "the database was not changed: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
