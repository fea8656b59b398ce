//! mosquitto as a child process.

use super::Process;
use anyhow::{Context, Result};
use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const START_LIMIT: Duration = Duration::from_secs(20);

/// Starts it with the configuration `mosquitto.conf` of `folder`, which listens on loopback at `port`, and waits until it
/// does. Its log is beside that.
pub fn start(folder: &Path, port: u16) -> Result<Process> {
    let path = folder.join("mosquitto.conf");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    const AS_ROOT: &str = "user root\n";
    if rustix::process::geteuid().is_root() && !text.ends_with(AS_ROOT) {
        // It would become a user that does not see the folder.
        fs::write(&path, text + AS_ROOT).with_context(|| format!("writing {}", path.display()))?;
    }
    let mut command = Command::new(program());
    command.arg("-c").arg(&path);
    let mut process = Process::start("mosquitto", command, &folder.join("mosquitto.log"))
        .context("`cargo xtask setup` brings mosquitto")?;
    process.wait_for("mosquitto to listen", START_LIMIT, || {
        Ok(TcpStream::connect(("127.0.0.1", port)).ok().map(|_| ()))
    })?;
    Ok(process)
}

/// Where packages put it, though not every PATH leads there.
pub fn program() -> PathBuf {
    let known = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"].map(PathBuf::from);
    known.into_iter().find(|path| path.is_file()).unwrap_or_else(|| "mosquitto".into())
}
