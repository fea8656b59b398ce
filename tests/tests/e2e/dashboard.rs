//! The dashboard in a browser, over a running server.

use super::world::World;
use anyhow::{Context, Result, ensure};
use edgewright_tests::harness::{
    Agent, AgentOptions, ControlPlane, ServeOptions, binary, browser, control::text_of, python, root,
};
use serde_json::{Value, json};
use std::{fs, process::Command};

/// Devices that a list has to stand.
const DEVICES: u64 = 10_000;
const SLOT: &str = "shown";
/// Waves of one device; the gate has to open from the second on, and sees nothing before somebody looks.
const POLICY: &str = r#"
pause_ms = 500
waves = [{ count = 1 }, { count = 1 }, { percent = 100 }]

[[gates]]
signal = "ctr"
min = 0.5
from_wave = 2
settle_ms = 1000
"#;

fn say_skipped(played: bool) {
    if !played {
        println!("skipped: `apt-get install chromium` brings the browser");
    }
}

pub(crate) fn a_device_is_found_among_ten_thousand() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut control = ControlPlane::start(&folder.path().join("control"), ServeOptions::default())?;
    control.stop()?;
    let database = control.data.join("edgewright.db");
    let database = database.to_str().context("path is not UTF-8")?;
    let seeded = python("seed_devices.py", &[database, &DEVICES.to_string()])?;
    ensure!(seeded["devices"] == DEVICES, "{seeded}");
    control.resume()?;
    let scene = json!({ "needle": "cam-07421", "devices": DEVICES });
    say_skipped(browser::play(&control, "fleet.spec.ts", scene)?);
    control.stop()
}

pub(crate) fn a_rollout_is_watched_and_a_lineage_followed(world: &mut World) -> Result<()> {
    let control = &world.control;
    let devices = world.folder.path().join("shown");
    let mut agents = Vec::new();
    for id in ["shown-1", "shown-2", "shown-3"] {
        agents.push(Agent::enrol(control, id, &devices, AgentOptions::default())?);
        control.cli(&["device", "label", id, "shown=yes"])?;
    }
    let parent = format!("{}@v1.0", world.series.name);
    let job = control.cli_shown(&[
        "model",
        "retrain",
        &parent,
        "--dataset",
        world.series.name,
        "--epochs",
        "5",
        "--seed",
        "8",
        "--wait",
    ])?;
    let version = text_of(&job, "/version")?;

    let policy = world.folder.path().join("shown.toml");
    fs::write(&policy, POLICY)?;
    let policy = policy.to_str().context("path is not UTF-8")?;
    let options = ["--label", "shown=yes", "--policy", policy, "--trial-duration-ms", "500"];
    let rollout = control.start_rollout(version, SLOT, &options)?;
    // Waves are in the order of ids: the first two have the version when somebody looks at it.
    let feedback: Vec<String> = agents
        .iter()
        .take(2)
        .map(|agent| format!("http://127.0.0.1:{}/v2/models/{SLOT}/feedback", agent.port))
        .collect();
    let scene = json!({ "rollout": rollout, "feedback": feedback, "parent": parent, "version": version });
    let played = browser::play(control, "life.spec.ts", scene)?;
    say_skipped(played);
    if played {
        let ended = control.cli(&["rollout", "show", &rollout])?;
        ensure!(text_of(&ended, "/state")? == "stopped", "the rollout is {ended}");
    } else {
        control.cli(&["rollout", "abort", &rollout])?;
    }
    for agent in &mut agents {
        agent.stop()?;
    }
    Ok(())
}

pub(crate) fn its_types_are_those_of_the_server() -> Result<()> {
    let output = Command::new(binary("edgewright")?).arg("openapi").output().context("running edgewright")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let server: Value = serde_json::from_slice(&output.stdout).context("the server's document")?;
    let path = root().join("control-plane/dashboard/openapi.json");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let kept: Value = serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    ensure!(
        server == kept,
        "{} is not what the server serves: `edgewright openapi --out` writes it anew",
        path.display()
    );
    Ok(())
}
