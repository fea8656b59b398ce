//! PostgreSQL as a child process, on a socket in a folder of its own.

use super::Process;
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// It refuses to run as root: `nobody` runs it then.
const NOBODY: &str = "65534";

/// A cluster, running or stopped. Dropped, it is gone with all that it kept.
#[derive(Debug)]
pub struct Postgres {
    folder: PathBuf,
    programs: PathBuf,
    process: Option<Process>,
}

impl Postgres {
    /// Makes an empty cluster and starts it.
    pub fn start() -> Result<Self> {
        let programs = programs()?;
        // A socket's path is short, and the folder is one that another user sees.
        let made = command("mktemp").args(["-d", "/tmp/edgewright-pg-XXXXXX"]).output()?;
        ensure!(made.status.success(), "mktemp failed: {}", String::from_utf8_lossy(&made.stderr));
        let folder = PathBuf::from(String::from_utf8(made.stdout).context("mktemp")?.trim());
        let mut postgres = Self { folder, programs, process: None };
        let made = command(postgres.programs.join("initdb"))
            .arg("-D")
            .arg(postgres.data())
            .args(["-U", "edgewright", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"])
            .output()
            .context("running initdb")?;
        ensure!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));
        postgres.resume()?;
        Ok(postgres)
    }

    /// The address of its database.
    pub fn address(&self) -> String {
        format!("postgres://edgewright@localhost/postgres?host={}", self.folder.display())
    }

    /// Starts a stopped cluster again.
    pub fn resume(&mut self) -> Result<()> {
        let mut run = command(self.programs.join("postgres"));
        run.arg("-D").arg(self.data()).arg("-k").arg(&self.folder).args(["-c", "listen_addresses="]);
        let log =
            tempfile::NamedTempFile::new().context("a log")?.into_temp_path().keep().context("a log")?;
        let mut process = Process::start("postgres", run, &log)?;
        let socket = self.folder.join(".s.PGSQL.5432");
        process.wait_for("postgres to take connections", START_LIMIT, || {
            let ready =
                fs::read_to_string(&log).is_ok_and(|text| text.contains("ready to accept connections"));
            Ok((ready && socket.exists()).then_some(()))
        })?;
        fs::remove_file(&log).context("removing the log")?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends it, whoever is connected.
    pub fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("postgres is stopped already")?;
        process.signal(Signal::INT)?;
        super::wait_for("postgres to stop", STOP_LIMIT, || Ok(process.ended()?.map(drop)))
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.process.is_some() {
            // What is left of it then ends with its processes.
            let _ = self.stop();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A command that runs as a user whom PostgreSQL takes, in a folder that this one sees.
fn command(program: impl AsRef<Path>) -> Command {
    let program = program.as_ref();
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/");
    command
}

/// The folder with `postgres` and `initdb`: Debian keeps them off the path.
fn programs() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    if let Ok(versions) = fs::read_dir("/usr/lib/postgresql") {
        folders.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    let found =
        folders.into_iter().find(|folder| ["postgres", "initdb"].iter().all(|it| folder.join(it).is_file()));
    found.context("PostgreSQL is not there: `cargo xtask setup` brings it")
}
