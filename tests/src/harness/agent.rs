//! A device: the agent as a child process with its own folder and port.

use super::{ControlPlane, Process, binary, control::text_of, free_port, oip::Client, ort_library, wait_for};
use anyhow::{Context, Result};
use serde_json::Value;
use shared::wire::{Phase, Reported, SlotReport};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// How `edgewright-agent run` is started.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    pub board: String,
    /// `auto`, `tract` or `onnxruntime`.
    pub runtime: String,
    /// Further arguments.
    pub extra: Vec<String>,
    /// A program that becomes the agent, with its arguments; none to start the agent itself.
    pub launcher: Vec<String>,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self {
            board: "x86-64".to_owned(),
            runtime: "auto".to_owned(),
            extra: Vec::new(),
            launcher: Vec::new(),
        }
    }
}

/// One device, running or stopped.
#[derive(Debug)]
pub struct Agent {
    pub id: String,
    pub data: PathBuf,
    pub port: u16,
    options: AgentOptions,
    enroll: PathBuf,
    process: Option<Process>,
}

/// What another MQTT client needs to be this device.
#[derive(Clone, Debug)]
pub struct Identity {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

const START_LIMIT: Duration = Duration::from_secs(60);

impl Agent {
    /// Makes a one-time token at the control plane, starts the agent with it, and waits until it is connected.
    pub fn enrol(control: &ControlPlane, id: &str, folder: &Path, options: AgentOptions) -> Result<Self> {
        let data = folder.join(id);
        std::fs::create_dir_all(&data).with_context(|| format!("making {}", data.display()))?;
        let enroll = folder.join(format!("{id}-enrol.json"));
        let out = enroll.to_str().context("folder name is not UTF-8")?;
        control.cli(&["device", "token", "create", "--device", id, "--out", out])?;
        let mut agent = Self { id: id.to_owned(), data, port: free_port()?, options, enroll, process: None };
        agent.start()?;
        agent.wait_connected()?;
        Ok(agent)
    }

    /// Further arguments for the next start.
    pub fn set_extra(&mut self, extra: Vec<String>) {
        self.options.extra = extra;
    }

    /// What becomes the agent at the next start, with its arguments; none to start the agent itself.
    pub fn set_launcher(&mut self, launcher: Vec<String>) {
        self.options.launcher = launcher;
    }

    /// Starts a stopped agent again and waits until its local API answers.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.wait_live(START_LIMIT)
    }

    /// Waits until the local API answers; an agent that ended meanwhile is an error.
    pub fn wait_live(&mut self, limit: Duration) -> Result<()> {
        let (client, what) = (self.client(), format!("{} to answer", self.id));
        self.process()?.wait_for(&what, limit, || Ok(client.is_live().then_some(())))
    }

    /// Starts a stopped agent and waits for nothing.
    pub fn launch(&mut self) -> Result<()> {
        let program = binary("edgewright-agent")?;
        let mut command = match self.options.launcher.split_first() {
            Some((launcher, arguments)) => {
                let mut command = Command::new(launcher);
                command.args(arguments).arg(program);
                command
            }
            None => Command::new(program),
        };
        command
            .args(["run", "--data"])
            .arg(&self.data)
            .arg("--enroll")
            .arg(&self.enroll)
            .args(["--api", &format!("127.0.0.1:{}", self.port)])
            .args(["--board", &self.options.board, "--runtime", &self.options.runtime])
            .arg("--ort")
            .arg(ort_library()?)
            .args(&self.options.extra);
        self.process = Some(Process::start(&format!("agent {}", self.id), command, &self.log())?);
        Ok(())
    }

    /// Where its output goes.
    pub fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// Waits until the agent holds a connection to the broker.
    pub fn wait_connected(&self) -> Result<()> {
        wait_for(&format!("{} to connect to the broker", self.id), START_LIMIT, || {
            Ok((self.metric("edgewright_mqtt_connected")? == 1.0).then_some(()))
        })
    }

    /// A client of the local API.
    pub fn client(&self) -> Client {
        Client::new(self.port)
    }

    /// Has the agent renew its certificate, and waits until it has and is connected with it.
    pub fn renew(&mut self) -> Result<()> {
        let renewals = |agent: &Self| -> Result<u64> {
            agent.status()?.pointer("/certificate/renewals").and_then(Value::as_u64).context("no certificate")
        };
        let before = renewals(self)?;
        self.process()?.signal(rustix::process::Signal::USR1)?;
        wait_for(&format!("{} to renew its certificate", self.id), START_LIMIT, || {
            let status = self.status()?;
            if let Some(trouble) = status.pointer("/certificate/trouble").and_then(Value::as_str) {
                return Ok(Some(Err(anyhow::anyhow!("{} has not renewed: {trouble}", self.id))));
            }
            Ok((renewals(self)? > before).then_some(Ok(())))
        })??;
        self.wait_connected()
    }

    /// The running process.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().with_context(|| format!("{} is stopped", self.id))
    }

    /// SIGTERM.
    pub fn stop(&mut self) -> Result<()> {
        self.process.take().with_context(|| format!("{} is stopped already", self.id))?.stop().map(|_| ())
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().with_context(|| format!("{} is stopped already", self.id))?.kill()
    }

    /// The device's certificate, key and CA as PEM files that other tools take, written to `folder`.
    pub fn export_identity(&self, folder: &Path) -> Result<Identity> {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let source = self.data.join("identity/identity.json");
        let text =
            std::fs::read_to_string(&source).with_context(|| format!("reading {}", source.display()))?;
        let identity: Value =
            serde_json::from_str(&text).with_context(|| format!("reading {}", source.display()))?;
        let write = |name: &str, field: &str| -> Result<PathBuf> {
            let path = folder.join(name);
            std::fs::write(&path, text_of(&identity, field)?)
                .with_context(|| format!("writing {}", path.display()))?;
            Ok(path)
        };
        Ok(Identity {
            ca: write("ca.pem", "/ca_pem")?,
            certificate: write("certificate.pem", "/certificate_pem")?,
            key: write("key.pem", "/key_pem")?,
        })
    }

    /// `GET /status`.
    pub fn status(&self) -> Result<Value> {
        self.client().get_json("/status")
    }

    /// The sum over all label sets of one metric of `/metrics`.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let text = self.client().get_text("/metrics")?;
        let mut found = None;
        for line in text.lines() {
            let Some(rest) = line.strip_prefix(name) else { continue };
            if !rest.starts_with(' ') && !rest.starts_with('{') {
                continue;
            }
            let value = rest.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
            found = Some(found.unwrap_or(0.0) + value.with_context(|| format!("metric line {line:?}"))?);
        }
        found.with_context(|| format!("{} has no metric {name}", self.id))
    }

    /// What it reports to the control plane.
    pub fn reported(&self) -> Result<Reported> {
        let status = self.status()?;
        serde_json::from_value(status["reported"].clone()).context("reading /status")
    }

    /// The report of one slot.
    pub fn slot(&self, slot: &str) -> Result<Option<SlotReport>> {
        Ok(self.reported()?.slots.into_iter().find(|report| report.slot.as_str() == slot))
    }

    /// The version that answers in `slot`, as `v1.0`.
    pub fn active_version(&self, slot: &str) -> Result<Option<String>> {
        Ok(self.slot(slot)?.and_then(|report| report.active).map(|active| active.version.to_string()))
    }

    /// The runtime that `slot` uses.
    pub fn runtime(&self, slot: &str) -> Result<String> {
        self.slot(slot)?
            .and_then(|report| report.runtime)
            .with_context(|| format!("{} has no runtime", self.id))
    }

    /// What `slot` is doing.
    pub fn phase(&self, slot: &str) -> Result<Phase> {
        Ok(self.slot(slot)?.map_or(Phase::Idle, |report| report.phase))
    }
}
