//! The control plane as a child process, driven by its own command line.

use super::{Process, binary, free_port, root, wait_for};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use shared::job::RESULT_DIR;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// How `edgewright serve` is started.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Bytes of one chunk.
    pub chunk_bytes: u32,
    /// Cap on the delivery of blobs; zero is none.
    pub blob_bytes_per_s: u64,
    /// A broker elsewhere at the MQTT port in place of the server's own, which reads its list of revoked certificates
    /// from this file.
    pub broker_crl: Option<PathBuf>,
    /// PostgreSQL's address in place of SQLite in the folder.
    pub database: Option<String>,
    /// Its name among several servers on that database.
    pub name: Option<String>,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self { chunk_bytes: 65_536, blob_bytes_per_s: 0, broker_crl: None, database: None, name: None }
    }
}

/// A control plane with its folder and its fixed ports, running or stopped.
#[derive(Debug)]
pub struct ControlPlane {
    pub data: PathBuf,
    pub api: u16,
    pub mqtt: u16,
    options: ServeOptions,
    process: Option<Process>,
}

const START_LIMIT: Duration = Duration::from_secs(60);
const ROLLOUT_LIMIT: Duration = Duration::from_secs(120);

impl ControlPlane {
    /// Starts `edgewright serve` on `data` with free ports and waits until it answers.
    pub fn start(data: &Path, options: ServeOptions) -> Result<Self> {
        std::fs::create_dir_all(data).with_context(|| format!("making {}", data.display()))?;
        let mut control =
            Self { data: data.to_path_buf(), api: free_port()?, mqtt: free_port()?, options, process: None };
        control.resume()?;
        Ok(control)
    }

    /// Starts another server under `name` beside this one: on the same folder and database, and on the same broker where
    /// that is elsewhere.
    pub fn beside(&self, name: &str) -> Result<Self> {
        let options = ServeOptions { name: Some(name.to_owned()), ..self.options.clone() };
        let mqtt = if options.broker_crl.is_some() { self.mqtt } else { free_port()? };
        let mut control = Self { data: self.data.clone(), api: free_port()?, mqtt, options, process: None };
        control.resume()?;
        Ok(control)
    }

    /// Starts a stopped control plane again, on the same folder and ports.
    pub fn resume(&mut self) -> Result<()> {
        let mut command = Command::new(binary("edgewright")?);
        command
            .args(["serve", "--json", "--data"])
            .arg(&self.data)
            .args(["--api", &format!("127.0.0.1:{}", self.api)])
            .args(["--chunk-bytes", &self.options.chunk_bytes.to_string()])
            .args(["--blob-bytes-per-s", &self.options.blob_bytes_per_s.to_string()])
            .arg("--forge")
            .arg(binary("edgewright-forge")?)
            .arg("--boards")
            .arg(root().join("firmware-configs"));
        match &self.options.broker_crl {
            Some(crl) => command
                .args(["--broker", &format!("mqtts://127.0.0.1:{}", self.mqtt)])
                .arg("--broker-crl")
                .arg(crl),
            None => command.args(["--mqtt", &format!("127.0.0.1:{}", self.mqtt)]),
        };
        if let Some(database) = &self.options.database {
            command.args(["--database", database]);
        }
        let log = match &self.options.name {
            Some(name) => {
                command.args(["--name", name]);
                format!("serve-{name}.log")
            }
            None => "serve.log".to_owned(),
        };
        let mut process = Process::start("edgewright serve", command, &self.data.join(log))?;
        process.wait_for("the control plane to answer", START_LIMIT, || {
            Ok((self.context().is_file() && self.cli(&["status"]).is_ok()).then_some(()))
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// The file from which the command line takes address, CA and token.
    pub fn context(&self) -> PathBuf {
        match &self.options.name {
            Some(name) => self.data.join("servers").join(format!("{name}.json")),
            None => self.data.join("context.json"),
        }
    }

    /// The control plane's certificate authority.
    pub fn ca_pem(&self) -> Result<String> {
        let path = self.context();
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let context: Value =
            serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        text_of(&context, "/ca_pem").map(str::to_owned)
    }

    /// The running process.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the control plane is stopped")
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.process.take().context("the control plane is stopped already")?.stop()?;
        if status.success() { Ok(()) } else { bail!("edgewright serve ended with {status}") }
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("the control plane is stopped already")?.kill()
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary("edgewright")?);
        command.arg("--context").arg(self.context()).arg("--json").args(arguments).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs `edgewright --json ARGUMENTS` and gives what it printed.
    pub fn cli(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.command(arguments)?.output().context("running edgewright")?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            bail!("edgewright {} failed ({}): {}", arguments.join(" "), output.status, text.trim());
        }
        read_json(arguments, &output.stdout)
    }

    /// The same, with standard error left to the person who watches: bars and remarks show.
    pub fn cli_shown(&self, arguments: &[&str]) -> Result<Value> {
        let output =
            self.command(arguments)?.stderr(Stdio::inherit()).output().context("running edgewright")?;
        if !output.status.success() {
            bail!("edgewright {} failed ({})", arguments.join(" "), output.status);
        }
        read_json(arguments, &output.stdout)
    }

    /// Runs a command that has to fail; gives the exit code and what it said.
    pub fn cli_refused(&self, arguments: &[&str]) -> Result<(i32, String)> {
        let output = self.command(arguments)?.output().context("running edgewright")?;
        if output.status.success() {
            bail!("edgewright {} was accepted", arguments.join(" "));
        }
        let code = output.status.code().context("edgewright was ended by a signal")?;
        Ok((code, String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

/// What the tests, the demo and the benches have it do.
impl ControlPlane {
    /// Registers the folder `path` as the data set `name`, and gives what is known of it.
    pub fn add_dataset(&self, name: &str, path: &Path) -> Result<Value> {
        let path = path.to_str().context("the data set's path is not UTF-8")?;
        self.cli(&["dataset", "add", name, "--path", path])
    }

    /// Searches and trains a model named as its data set, with the bars shown; gives the job when it has ended.
    pub fn search(&self, dataset: &str, board: &str, extra: &[&str]) -> Result<Value> {
        let mut arguments = vec!["search", "start", "--dataset", dataset, "--board", board];
        arguments.extend(["--model", dataset, "--wait"]);
        arguments.extend_from_slice(extra);
        self.cli_shown(&arguments)
    }

    /// Where the job `id` leaves what it made.
    pub fn result_folder(&self, id: &str) -> PathBuf {
        self.data.join("jobs").join(id).join(RESULT_DIR)
    }

    /// Creates a rollout of `version` (as in `mnist@v1.0`) to `slot` with the options `policy`; gives its id.
    pub fn start_rollout(&self, version: &str, slot: &str, policy: &[&str]) -> Result<String> {
        let mut arguments = vec!["rollout", "create", "--version", version, "--slot", slot];
        arguments.extend_from_slice(policy);
        Ok(text_of(&self.cli(&arguments)?, "/id")?.to_owned())
    }

    /// Waits until the rollout has ended, however it did.
    pub fn wait_rollout(&self, id: &str) -> Result<Value> {
        self.wait_rollout_within(id, ROLLOUT_LIMIT)
    }

    /// The same, for rollouts to many devices.
    pub fn wait_rollout_within(&self, id: &str, limit: Duration) -> Result<Value> {
        wait_for("the rollout to end", limit, || {
            let shown = self.cli(&["rollout", "show", id])?;
            let ended = matches!(text_of(&shown, "/state")?, "completed" | "stopped" | "aborted");
            Ok(ended.then_some(shown))
        })
    }
}

fn read_json(arguments: &[&str], bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes).with_context(|| {
        format!("edgewright {} printed no JSON: {}", arguments.join(" "), String::from_utf8_lossy(bytes))
    })
}

/// The text at a JSON pointer.
pub fn text_of<'a>(value: &'a Value, pointer: &str) -> Result<&'a str> {
    value.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no text at {pointer} in {value}"))
}

/// The number at a JSON pointer.
pub fn number_of(value: &Value, pointer: &str) -> Result<f64> {
    value
        .pointer(pointer)
        .and_then(Value::as_f64)
        .with_context(|| format!("no number at {pointer} in {value}"))
}

/// The count at a JSON pointer.
pub fn count_of(value: &Value, pointer: &str) -> Result<u64> {
    value
        .pointer(pointer)
        .and_then(Value::as_u64)
        .with_context(|| format!("no count at {pointer} in {value}"))
}

/// The list at a JSON pointer.
pub fn list_of<'a>(value: &'a Value, pointer: &str) -> Result<&'a [Value]> {
    let list = value.pointer(pointer).and_then(Value::as_array);
    Ok(list.with_context(|| format!("no list at {pointer} in {value}"))?.as_slice())
}
