//! What a device needs to be updated: a control plane with two versions, one that knows only the first, a network.

use super::{
    device::{Device, VERSIONS},
    models,
};
use crate::{
    harness::{Agent, AgentOptions, ControlPlane, Proxy, ServeOptions, control::text_of, copy_folder},
    powercut::Record,
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::Path;

/// The board that the devices are: this machine.
const BOARD: &str = "x86-64";
/// Small chunks make many steps.
const CHUNK_BYTES: u32 = 4096;
/// Bytes of the model's file: more than two windows of the agent.
const MODEL_BYTES: usize = 640 * 1024;
const POLICY: [&str; 4] = ["--wave", "100%", "--trial-duration-ms", "500"];

/// Control planes and devices. Each device has a model of its own, so that no chunk is sent to two of them.
#[derive(Debug)]
pub struct Stage {
    pub devices: Vec<Device>,
    /// What each device did in an update without a fault.
    pub lives: Vec<Record>,
    _control: ControlPlane,
    _older: ControlPlane,
}

impl Stage {
    /// Brings `count` devices to the first version, keeps that, and lets them live through the update once.
    pub fn set(folder: &Path, count: usize) -> Result<Self> {
        // The record names files as the kernel does.
        let folder = &std::fs::canonicalize(folder).context("finding the folder")?;
        let serve = ServeOptions { chunk_bytes: CHUNK_BYTES, ..ServeOptions::default() };
        let data = folder.join("control");
        let mut control = ControlPlane::start(&data, serve.clone())?;
        // One runtime: what is chosen is not what is tried here, and a start is quicker.
        let options = AgentOptions { runtime: "tract".to_owned(), ..AgentOptions::default() };
        let mut agents = Vec::new();
        for number in 1..=count {
            let name = format!("kill-{number}");
            let agent = Agent::enrol(&control, &name, &folder.join("devices"), options.clone())?;
            publish(&control, folder, &name, VERSIONS[0])?;
            let id = roll_out(&control, &name, VERSIONS[0])?;
            completed(&control, &id)?;
            agents.push(agent);
        }
        agents.iter_mut().try_for_each(Agent::stop)?;
        control.stop()?;
        let older_data = folder.join("control-older");
        copy_folder(&data, &older_data)?;
        // It names the other one's address until there is a new one.
        std::fs::remove_file(older_data.join("context.json")).context("removing the copied context")?;
        control.resume()?;
        let older = ControlPlane::start(&older_data, serve)?;
        let mut devices = Vec::new();
        for agent in agents {
            devices.push(device(agent, folder, control.mqtt, older.mqtt)?);
        }
        let lives = live(&control, folder, &mut devices)?;
        Ok(Self { devices, lives, _control: control, _older: older })
    }
}

/// The device with its network, and a copy of its folder.
fn device(agent: Agent, folder: &Path, broker: u16, older_broker: u16) -> Result<Device> {
    let proxy = Proxy::start()?;
    let path = agent.data.join("identity/identity.json");
    let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut identity: Value =
        serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?;
    ensure!(identity["mqtt_port"] == broker, "the device's broker is not at port {broker}");
    identity["mqtt_port"] = proxy.port.into();
    std::fs::write(&path, identity.to_string()).with_context(|| format!("writing {}", path.display()))?;
    let name = agent.id.clone();
    let kept = folder.join("kept").join(&name);
    copy_folder(&agent.data, &kept)?;
    let record = folder.join(format!("{name}.record"));
    let chunk_bytes = CHUNK_BYTES.into();
    Ok(Device { agent, proxy, name, kept, record, broker, older_broker, chunk_bytes, life_bytes: 0 })
}

/// The update without a fault, on every device at once.
fn live(control: &ControlPlane, folder: &Path, devices: &mut [Device]) -> Result<Vec<Record>> {
    let mut rollouts = Vec::new();
    for device in &mut *devices {
        device.proxy.lead_to(device.broker);
        device.launch(None)?;
        publish(control, folder, &device.name, VERSIONS[1])?;
        rollouts.push(roll_out(control, &device.name, VERSIONS[1])?);
    }
    let mut lives = Vec::new();
    for (device, rollout) in devices.iter_mut().zip(rollouts) {
        completed(control, &rollout)?;
        lives.push(device.live()?);
        device.life_bytes = device.proxy.received_bytes();
    }
    Ok(lives)
}

fn publish(control: &ControlPlane, folder: &Path, name: &str, version: &str) -> Result<()> {
    let bundle = folder.join("bundles").join(format!("{name}-{version}"));
    models::write_bundle(&bundle, &format!("{name} {version}"), MODEL_BYTES)?;
    let bundle = bundle.to_str().context("folder name is not UTF-8")?;
    let shown = control.cli(&["model", "publish", bundle, "--model", name, "--board", BOARD])?;
    let label = text_of(&shown, "/name")?;
    ensure!(label == format!("{name}@{version}"), "{name} {version} was published as {label}");
    Ok(())
}

fn roll_out(control: &ControlPlane, name: &str, version: &str) -> Result<String> {
    let policy: Vec<&str> = POLICY.into_iter().chain(["--device", name]).collect();
    control.start_rollout(&format!("{name}@{version}"), name, &policy)
}

fn completed(control: &ControlPlane, rollout: &str) -> Result<()> {
    let ended = control.wait_rollout(rollout)?;
    ensure!(text_of(&ended, "/state")? == "completed", "a rollout without a fault ended as {ended}");
    Ok(())
}
