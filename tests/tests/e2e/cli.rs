//! The command line as a person and a program use it: contexts, sessions, tokens, watching, completion.

use super::world::World;
use anyhow::{Context, Result, ensure};
use edgewright_tests::harness::{
    Agent, AgentOptions, ControlPlane, Process, ServeOptions, binary,
    control::{list_of, text_of},
    wait_for,
};
use serde_json::Value;
use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

const PASSWORD: &str = "correct horse battery";
const WATCH_LIMIT: Duration = Duration::from_secs(120);

/// A person with a home, in which contexts are kept.
struct Person {
    home: tempfile::TempDir,
}

impl Person {
    fn new() -> Result<Self> {
        Ok(Self { home: tempfile::tempdir()? })
    }

    fn config(&self) -> PathBuf {
        self.home.path().join("edgewright/config.toml")
    }

    fn file(&self, name: &str, content: &str) -> Result<String> {
        let path = self.home.path().join(name);
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        Ok(path.to_str().context("not UTF-8")?.to_owned())
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary("edgewright")?);
        command.args(arguments).env("XDG_CONFIG_HOME", self.home.path());
        command.env_remove("EDGEWRIGHT_CONTEXT").env_remove("EDGEWRIGHT_TOKEN").stdin(Stdio::null());
        Ok(command)
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments)?.output().context("running edgewright")
    }

    /// Runs a command that has to succeed; gives what it printed as JSON.
    fn done(&self, arguments: &[&str]) -> Result<Value> {
        json_of(self.run(&[&["--json"], arguments].concat())?)
    }

    /// Runs a command that has to fail with `code`; gives what it said.
    fn refused(&self, code: i32, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        ensure!(output.status.code() == Some(code), "{arguments:?} ended with {}: {said}", output.status);
        Ok(said)
    }

    /// Runs a command that reads `input`.
    fn told(&self, input: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = self.command(arguments)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting edgewright")?;
        child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
        child.wait_with_output().context("waiting for edgewright")
    }

    /// Keeps the server's administrator as the context `home`.
    fn add_home(&self, control: &ControlPlane) -> Result<()> {
        self.done(&["context", "add", "home", "--file", text(&control.context())?]).map(drop)
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("not UTF-8")
}

fn json_of(output: Output) -> Result<Value> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "edgewright ended with {}: {said}", output.status);
    serde_json::from_slice(&output.stdout).context("edgewright printed no JSON")
}

fn served() -> Result<(tempfile::TempDir, ControlPlane)> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir()?;
    let control = ControlPlane::start(&folder.path().join("control"), ServeOptions::default())?;
    Ok((folder, control))
}

pub(crate) fn contexts_are_kept_and_what_damages_them_is_named() -> Result<()> {
    let (_folder, control) = served()?;
    let person = Person::new()?;
    let said = person.refused(2, &["status"])?;
    ensure!(said.contains("edgewright context add"), "without a server: {said}");
    person.add_home(&control)?;
    ensure!(person.done(&["status"])?["version"].is_string(), "the context in use is not used");
    let mode = fs::metadata(person.config())?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "the file with the token is for {mode:o}");
    let token = fs::read_to_string(control.context())?;
    let token: Value = serde_json::from_str(&token)?;
    let shown = person.run(&["context", "show"])?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    ensure!(shown.contains("home") && !shown.contains(text_of(&token, "/token")?), "shown: {shown}");
    let said = person.refused(2, &["--context", "hmoe", "status"])?;
    ensure!(said.contains("home"), "a wrong name: {said}");

    // A flag goes before what is kept.
    let said = person.refused(1, &["--server", "https://127.0.0.1:1", "status"])?;
    ensure!(said.contains("127.0.0.1:1 cannot be reached"), "{said}");
    let said = person.refused(1, &["--token", "wrong", "status"])?;
    ensure!(said.contains("edgewright login"), "a wrong token: {said}");

    let good = fs::read_to_string(person.config())?;
    for (damaged, named) in [
        (good[..good.len() / 2].to_owned(), "line "),
        (good.replace("server =", "sever ="), "contexts.home.sever"),
        (good.replace("current = \"home\"", "current = 7"), "current is of type integer"),
    ] {
        fs::write(person.config(), damaged)?;
        let said = person.refused(2, &["status"])?;
        let one_line = said.lines().filter(|line| !line.starts_with("warning")).count() == 1;
        ensure!(one_line && said.contains("config.toml") && said.contains(named), "{named}: {said}");
    }
    Ok(())
}

pub(crate) fn a_viewer_sees_and_changes_nothing() -> Result<()> {
    let (folder, control) = served()?;
    let person = Person::new()?;
    person.add_home(&control)?;
    let password = person.file("password", PASSWORD)?;
    person.done(&["user", "add", "vera", "--role", "viewer", "--password-file", &password])?;

    let ca = folder.path().join("ca.pem");
    fs::write(&ca, control.ca_pem()?)?;
    let server = format!("https://127.0.0.1:{}", control.api);
    person.done(&["context", "add", "viewer", "--server", &server, "--ca", text(&ca)?])?;
    person.done(&["context", "use", "viewer"])?;
    let said = person.refused(2, &["device", "list"])?;
    ensure!(said.contains("nobody is logged in"), "before the log-in: {said}");
    let wrong = person.told("not the password\n", &["login", "--user", "vera"])?;
    ensure!(wrong.status.code() == Some(1), "a wrong password: {}", wrong.status);
    let session = json_of(person.told(&format!("{PASSWORD}\n"), &["--json", "login", "--user", "vera"])?)?;
    ensure!(session["role"] == "viewer", "the session is {session}");
    ensure!(person.done(&["whoami"])?["user"] == "vera", "somebody else is logged in");

    ensure!(list_of(&person.done(&["device", "list"])?, "/items")?.is_empty(), "there are devices");
    let said = person.refused(1, &["group", "add", "pilots", "--label", "ring=1"])?;
    ensure!(said.contains("operator") && said.contains("vera"), "a change by a viewer: {said}");
    let said = person.refused(1, &["user", "list"])?;
    ensure!(said.contains("admin"), "users are shown to a viewer: {said}");

    person.done(&["logout"])?;
    let said = person.refused(2, &["device", "list"])?;
    ensure!(said.contains("nobody is logged in"), "after the end of the session: {said}");
    let audit = person.done(&["--context", "home", "audit", "list", "--user", "vera", "--since", "1h"])?;
    let refused = list_of(&audit, "/items")?.iter().any(|entry| entry["status"] == 403);
    ensure!(refused, "what was refused is not on record: {audit}");
    Ok(())
}

pub(crate) fn a_program_has_a_token_until_it_is_revoked() -> Result<()> {
    let (_folder, control) = served()?;
    let person = Person::new()?;
    person.add_home(&control)?;
    let file = person.home.path().join("ci.token");
    let create = ["token", "create", "ci", "--role", "operator", "--days", "1", "--out", text(&file)?];
    let token = person.done(&create)?;
    ensure!(fs::metadata(&file)?.permissions().mode() & 0o077 == 0, "others read the secret");
    let secret = fs::read_to_string(&file)?;
    ensure!(!token.to_string().contains(&secret), "the secret is printed too");
    let as_program = |arguments: &[&str]| -> Result<Output> {
        let mut command = person.command(&[&["--json"], arguments].concat())?;
        command.env("EDGEWRIGHT_TOKEN", &secret).output().context("running edgewright")
    };
    let made = json_of(as_program(&["group", "add", "pilots", "--label", "ring=1"])?)?;
    ensure!(made["name"] == "pilots", "the group is {made}");
    let refused = as_program(&["user", "list"])?;
    ensure!(refused.status.code() == Some(1), "an operator lists users: {}", refused.status);
    person.done(&["token", "revoke", text_of(&token, "/id")?])?;
    let revoked = as_program(&["group", "list"])?;
    ensure!(revoked.status.code() == Some(1), "a revoked token: {}", revoked.status);
    ensure!(list_of(&person.done(&["group", "list"])?, "/items")?.len() == 1, "the group is gone");
    Ok(())
}

pub(crate) fn bash_takes_the_completion() -> Result<()> {
    let person = Person::new()?;
    let script = person.run(&["completion", "bash"])?;
    ensure!(script.status.success(), "no script: {}", script.status);
    let file = person.file("completion.bash", &String::from_utf8(script.stdout)?)?;
    let checked = Command::new("bash").args(["-n", &file]).output().context("running bash")?;
    ensure!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let completed = format!(
        "source {file}; COMP_WORDS=(edgewright incident ack); COMP_CWORD=2; _edgewright edgewright ack incident; echo ${{COMPREPLY[*]}}"
    );
    let completed = Command::new("bash").args(["-c", &completed]).output().context("running bash")?;
    let said = String::from_utf8_lossy(&completed.stdout).into_owned();
    ensure!(said.contains("acknowledge"), "bash completes to {said:?}");
    Ok(())
}

pub(crate) fn a_rollout_and_its_device_are_watched_to_the_end(world: &mut World) -> Result<()> {
    let (folder, control) = served()?;
    let agent = Agent::enrol(&control, "watched-1", folder.path(), AgentOptions::default())?;
    let person = Person::new()?;
    person.add_home(&control)?;
    let bundle = text(&world.series.result)?;
    let version = control.cli(&["model", "publish", bundle, "--model", "italy", "--board", "x86-64"])?;
    let name = text_of(&version, "/name")?;
    let policy = ["--wave", "100%", "--trial-duration-ms", "500"];
    let rollout = control.start_rollout(name, "italy", &policy)?;

    let log = person.home.path().join("watch.log");
    let command = person.command(&["rollout", "show", &rollout, "--json", "--watch", "1"])?;
    let mut watching = Process::start("edgewright rollout show --watch", command, &log)?;
    let status = wait_for("the watching to end with the rollout", WATCH_LIMIT, || watching.ended())?;
    let lines = fs::read_to_string(&log)?;
    ensure!(status.success(), "watching ended with {status}: {lines}");
    let looks: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let last = looks.last().context("nothing was shown")?;
    ensure!(text_of(last, "/state")? == "completed", "the last look is {last}");
    ensure!(looks.windows(2).all(|pair| pair[0] != pair[1]), "a look without a change: {lines}");
    ensure!(agent.active_version("italy")?.is_some(), "the device runs nothing");

    let shown = person.done(&["device", "list", "--search", "watched", "--online", "--version", name])?;
    ensure!(list_of(&shown, "/items")?.len() == 1, "the device is not found: {shown}");
    let shown = person.done(&["device", "list", "--search", "elsewhere"])?;
    ensure!(list_of(&shown, "/items")?.is_empty(), "a device is found that is not there: {shown}");
    Ok(())
}
