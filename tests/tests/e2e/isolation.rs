//! A device's certificate opens its own topics and nothing else, shown with mosquitto's own clients.

use super::world::World;
use anyhow::{Context, Result, ensure};
use edgewright_tests::harness::{Agent, AgentOptions, agent::Identity};
use std::process::{Command, Output};

/// A device whose agent is stopped, so that mosquitto's clients can be it.
struct Stranger {
    id: String,
    identity: Identity,
    mqtt: u16,
}

impl Stranger {
    fn enrol(world: &World, id: &str) -> Result<Self> {
        let folder = world.folder.path().join("strangers");
        let agent = Agent::enrol(&world.control, id, &folder, AgentOptions::default())?;
        Self::replace(world, agent)
    }

    /// Stops the agent and takes its place.
    fn replace(world: &World, mut agent: Agent) -> Result<Self> {
        agent.stop()?;
        let folder = world.folder.path().join("strangers");
        let identity = agent.export_identity(&folder.join(format!("{}-identity", agent.id)))?;
        Ok(Self { id: agent.id.clone(), identity, mqtt: world.control.mqtt })
    }

    fn run(
        &self,
        program: &str,
        with_certificate: bool,
        client_id: &str,
        arguments: &[&str],
    ) -> Result<Output> {
        let mut command = Command::new("timeout");
        command
            .args(["20", program, "-V", "5", "-q", "1", "-h", "127.0.0.1", "-p", &self.mqtt.to_string()])
            .args(["-i", client_id, "--cafile"])
            .arg(&self.identity.ca);
        if with_certificate {
            command.arg("--cert").arg(&self.identity.certificate);
            command.arg("--key").arg(&self.identity.key);
        }
        let output = command.args(arguments).output();
        output.with_context(|| format!("running {program}: `cargo xtask setup` brings mosquitto-clients"))
    }

    /// What `mosquitto_sub` receives on `filter` within two seconds.
    fn read(&self, filter: &str) -> Result<String> {
        let output = self.run("mosquitto_sub", true, &self.id, &["-t", filter, "-W", "2", "-v"])?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn write(&self, topic: &str) -> Result<Output> {
        self.run("mosquitto_pub", true, &self.id, &["-t", topic, "-r", "-m", "{\"online\":false}"])
    }
}

fn refused(output: &Output) -> bool {
    let text = String::from_utf8_lossy(&output.stderr).to_lowercase();
    !output.status.success() || text.contains("not authorized") || text.contains("failed")
}

pub(crate) fn a_device_reads_its_own_topics_and_no_others(world: &mut World) -> Result<()> {
    let folder = world.folder.path().join("strangers");
    let agent = Agent::enrol(&world.control, "stranger-read", &folder, AgentOptions::default())?;
    // A device that is away is not asked: it gets its desired state while it is there.
    world.control.cli(&[
        "rollout",
        "create",
        "--version",
        "italy@v1.0",
        "--slot",
        "italy",
        "--wave",
        "100%",
        "--device",
        &agent.id,
    ])?;
    edgewright_tests::harness::wait_for("its model", std::time::Duration::from_secs(30), || {
        Ok(agent.active_version("italy")?.map(|_| ()))
    })?;
    let stranger = Stranger::replace(world, agent)?;
    let own = format!("ew/v1/device/{}/desired", stranger.id);
    edgewright_tests::harness::wait_for("its own desired state", std::time::Duration::from_secs(20), || {
        Ok(stranger.read(&own)?.contains("payloadType").then_some(()))
    })?;
    for filter in [
        "ew/v1/device/device-1/desired",
        "ew/v1/device/device-1/reported",
        "ew/v1/device/+/reported",
        "ew/v1/#",
        "#",
        "$share/group/ew/v1/device/device-1/desired",
    ] {
        let got = stranger.read(filter)?;
        ensure!(got.is_empty(), "{filter} gave {got}");
    }
    Ok(())
}

pub(crate) fn a_device_writes_its_own_topics_and_no_others(world: &mut World) -> Result<()> {
    let stranger = Stranger::enrol(world, "stranger-write")?;
    let own = stranger.write(&format!("ew/v1/device/{}/presence", stranger.id))?;
    ensure!(!refused(&own), "its own presence was refused: {}", String::from_utf8_lossy(&own.stderr));
    let before = world.control.cli(&["device", "show", "device-1"])?;
    for topic in [
        "ew/v1/device/device-1/presence",
        "ew/v1/device/device-1/reported",
        "ew/v1/device/device-1/desired",
        &format!("ew/v1/device/{}/desired", stranger.id),
        "ew/v1/trust/root",
        "elsewhere",
    ] {
        ensure!(refused(&stranger.write(topic)?), "{topic} was written");
    }
    let after = world.control.cli(&["device", "show", "device-1"])?;
    ensure!(before["online"] == after["online"] && after["online"] == true, "device-1 changed: {after}");
    Ok(())
}

pub(crate) fn a_foreign_will_a_foreign_client_id_and_no_certificate_do_not_connect(
    world: &mut World,
) -> Result<()> {
    let stranger = Stranger::enrol(world, "stranger-will")?;
    let own = format!("ew/v1/device/{}/presence", stranger.id);
    let say = ["-t", own.as_str(), "-m", "{\"online\":true}"];
    let will = ["--will-topic", "ew/v1/device/device-1/presence", "--will-payload", "x"];
    let output = stranger.run("mosquitto_pub", true, &stranger.id, &[&say[..], &will[..]].concat())?;
    ensure!(refused(&output), "a will on another's topic was accepted");
    let output = stranger.run("mosquitto_pub", true, "device-1", &say)?;
    ensure!(refused(&output), "another's client id was accepted");
    let output = stranger.run("mosquitto_pub", false, &stranger.id, &say)?;
    ensure!(refused(&output), "a client without a certificate was accepted");
    Ok(())
}

pub(crate) fn a_revoked_device_does_not_connect_again(world: &mut World) -> Result<()> {
    let stranger = Stranger::enrol(world, "stranger-revoked")?;
    let own = format!("ew/v1/device/{}/presence", stranger.id);
    ensure!(!refused(&stranger.write(&own)?), "it was refused before it was revoked");
    world.control.cli(&["device", "revoke", &stranger.id])?;
    ensure!(refused(&stranger.write(&own)?), "a revoked certificate was accepted");
    Ok(())
}
