//! A PostgreSQL cluster of its own as a child process.
//!
//! `postgres` refuses to run as root: started by root, the cluster belongs to another user, in a folder that this user
//! can reach.

use super::{Process, free_port, wait_for};
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Owner of the cluster and of its databases.
const USER: &str = "edgewright";
/// Where Debian's packages put the programs, a folder for each version.
const DEBIAN: &str = "/usr/lib/postgresql";
/// A folder that every user reaches; those of root are for root alone.
const OF_EVERYBODY: &str = "/tmp";
/// Who the cluster belongs to where there is no user `postgres`.
const NOBODY: u32 = 65_534;

/// A cluster that listens on loopback and trusts whoever comes from there, running or stopped. Dropped, it is ended and
/// its folder removed.
#[derive(Debug)]
pub struct Postgres {
    /// Before the folder: it ends first.
    process: Option<Process>,
    pub port: u16,
    owner: Option<(u32, u32)>,
    folder: TempDir,
}

impl Postgres {
    /// Makes a cluster with an empty database and starts it.
    pub fn start() -> Result<Self> {
        let is_root = rustix::process::geteuid().is_root();
        let parent = if is_root { PathBuf::from(OF_EVERYBODY) } else { std::env::temp_dir() };
        let folder = tempfile::Builder::new().prefix("edgewright-postgres-").tempdir_in(&parent);
        let folder = folder.with_context(|| format!("making a folder in {}", parent.display()))?;
        let owner = is_root.then(owner);
        if let Some((user, group)) = owner {
            chown(folder.path(), Some(user), Some(group))
                .with_context(|| format!("giving {} away", folder.path().display()))?;
        }
        let mut postgres = Self { process: None, port: free_port()?, owner, folder };
        postgres.initialise()?;
        postgres.resume()?;
        postgres.create_database(USER)?;
        Ok(postgres)
    }

    /// The address of the database that is there from the start.
    pub fn url(&self) -> String {
        self.url_of(USER)
    }

    /// Makes another database and gives its address.
    pub fn create_database(&self, name: &str) -> Result<String> {
        run(self.client("createdb")?.arg(name))?;
        Ok(self.url_of(name))
    }

    /// Runs one statement in the first database; gives what it printed, without headers.
    pub fn query(&self, sql: &str) -> Result<String> {
        let mut command = self.client("psql")?;
        run(command.args(["--no-psqlrc", "--tuples-only", "--no-align", "--dbname", USER, "--command", sql]))
    }

    /// Starts a stopped cluster again, on the same port, and waits until it takes connections.
    pub fn resume(&mut self) -> Result<()> {
        let mut command = self.command("postgres")?;
        command
            .arg("-D")
            .arg(self.data())
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", "max_connections=200", "-p", &self.port.to_string()]);
        let mut process = Process::start("postgres", command, &self.folder.path().join("postgres.log"))?;
        process.wait_for("PostgreSQL to take connections", START_LIMIT, || {
            Ok(run(self.client("pg_isready")?.arg("--quiet")).is_ok().then_some(()))
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends it with all its connections; what was committed stays.
    pub fn stop(&mut self) -> Result<()> {
        self.end(Signal::INT)
    }

    /// Ends it at once, as a power cut would; the next start recovers.
    pub fn kill(&mut self) -> Result<()> {
        self.end(Signal::QUIT)
    }

    /// The running process.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("PostgreSQL is stopped")
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        let mut process = self.process.take().context("PostgreSQL is stopped already")?;
        process.signal(signal)?;
        wait_for("PostgreSQL to stop", STOP_LIMIT, || process.ended()).map(drop)
    }

    fn initialise(&self) -> Result<()> {
        let mut command = self.command("initdb")?;
        command.arg("--pgdata").arg(self.data());
        command.args(["--username", USER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C"]);
        run(command.arg("--no-sync")).map(drop)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// A program that connects to the cluster.
    fn client(&self, name: &str) -> Result<Command> {
        let mut command = self.command(name)?;
        command.args(["--host", "127.0.0.1", "--port", &self.port.to_string(), "--username", USER]);
        Ok(command)
    }

    /// A program of PostgreSQL, as the cluster's owner.
    fn command(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(program(name)?);
        command.current_dir(self.folder.path()).env("HOME", self.folder.path());
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        Ok(command)
    }
}

impl Drop for Postgres {
    /// Killed, it would leave shared memory behind.
    fn drop(&mut self) {
        if self.process.is_some() {
            let _ = self.kill();
        }
    }
}

/// Are the programs there?
pub fn is_there() -> bool {
    program("initdb").is_ok_and(|path| path.is_file())
}

/// Of the newest version that is installed.
fn program(name: &str) -> Result<PathBuf> {
    let versions = fs::read_dir(DEBIAN).into_iter().flatten().flatten().map(|entry| entry.path());
    let number = |path: &Path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let mut versions: Vec<_> = versions.filter_map(|path| Some((number(&path)?, path))).collect();
    versions.sort();
    let debian = versions.into_iter().rev().map(|(_, path)| path.join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = debian.chain(std::env::split_paths(&path).collect::<Vec<_>>());
    folders
        .find_map(|folder| Some(folder.join(name)).filter(|path| path.is_file()))
        .with_context(|| format!("{name} is not installed; `cargo xtask setup` brings PostgreSQL"))
}

/// User and group of the cluster where root starts it.
fn owner() -> (u32, u32) {
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    user_of(&text, "postgres").unwrap_or((NOBODY, NOBODY))
}

fn user_of(passwd: &str, name: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_wanted = fields.next()? == name;
        let (user, group) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        is_wanted.then_some((user, group))
    })
}

fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("running {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} failed ({}): {}", output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_read_from_the_list_of_users() {
        let text = "root:x:0:0:root:/root:/bin/sh\npostgres:x:101:104:PostgreSQL,,,:/var/lib:/bin/bash\n";
        assert_eq!(user_of(text, "postgres"), Some((101, 104)));
        assert_eq!(user_of(text, "nobody"), None);
    }

    #[test]
    fn a_cluster_keeps_what_was_committed_over_a_kill_and_leaves_nothing_behind() {
        if !is_there() {
            println!("skipped: PostgreSQL is not installed");
            return;
        }
        let mut postgres = Postgres::start().unwrap();
        postgres.query("CREATE TABLE kept AS SELECT 7 AS number").unwrap();
        postgres.kill().unwrap();
        assert!(postgres.query("SELECT 1").is_err());
        postgres.resume().unwrap();
        assert_eq!(postgres.query("SELECT number FROM kept").unwrap(), "7");
        assert!(postgres.create_database("other").unwrap().ends_with("/other?sslmode=disable"));
        let folder = postgres.folder.path().to_owned();
        drop(postgres);
        assert!(!folder.exists());
    }
}
