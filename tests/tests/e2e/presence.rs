//! Whether a device is there, as the control plane shows it.

use anyhow::{Context, Result, ensure};
use edgewright_tests::harness::{Agent, AgentOptions, ControlPlane, ServeOptions, wait_for};
use rustix::process::Signal;
use std::{
    fs,
    time::{Duration, Instant},
};

const DEVICE: &str = "cam-01";
/// The shortest that an agent takes.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// A broker waits for one and a half keep-alives; this one takes three seconds more than a short one.
const SILENCE_MAX: Duration = Duration::from_secs(8);
/// For what follows at once, on a machine that is busy.
const SOON: Duration = Duration::from_secs(10);

fn wait_shown(control: &ControlPlane, online: bool, limit: Duration) -> Result<()> {
    let what = if online { "the device to be shown online" } else { "the device to be shown offline" };
    let is_shown = || -> Result<bool> { Ok(control.cli(&["device", "show", DEVICE])?["online"] == online) };
    wait_for(what, limit, || Ok(is_shown()?.then_some(())))
}

pub(crate) fn a_device_that_goes_without_a_goodbye_is_shown_offline() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let control = ControlPlane::start(&folder.path().join("control"), ServeOptions::default())?;
    let config = folder.path().join("agent.toml");
    fs::write(&config, format!("keep_alive_ms = {}\n", KEEP_ALIVE.as_millis()))?;
    let extra = vec!["--config".to_owned(), config.to_str().context("path is not UTF-8")?.to_owned()];
    let options = AgentOptions { extra, ..AgentOptions::default() };
    let mut agent = Agent::enrol(&control, DEVICE, &folder.path().join("devices"), options)?;
    wait_shown(&control, true, SOON)?;

    // Killed, its connection is closed for it.
    agent.kill()?;
    wait_shown(&control, false, SOON)?;
    agent.start()?;
    wait_shown(&control, true, SOON)?;

    // Frozen, as behind a network that drops everything: nobody closes the connection.
    let since = Instant::now();
    agent.process()?.signal(Signal::STOP)?;
    wait_shown(&control, false, SILENCE_MAX + SOON)?;
    ensure!(since.elapsed() >= KEEP_ALIVE, "it was given up before it could have been heard again");
    agent.process()?.signal(Signal::CONT)?;
    wait_shown(&control, true, SOON + SOON)?;
    agent.stop()
}
