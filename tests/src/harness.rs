//! Starting, watching and stopping the real binaries.

pub mod agent;
pub mod browser;
pub mod control;
pub mod mosquitto;
pub mod oip;
pub mod postgres;
pub mod process;
pub mod proxy;

pub use agent::{Agent, AgentOptions};
pub use control::{ControlPlane, ServeOptions};
pub use postgres::Postgres;
pub use process::Process;
pub use proxy::Proxy;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

/// The folder with the binaries under test: `EDGEWRIGHT_BIN`, else where this program itself was built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("EDGEWRIGHT_BIN") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let own = std::env::current_exe().context("finding this program's own path")?;
            let folder = own.parent().context("this program lies in no folder")?;
            // Test programs lie one level deeper.
            let deeper = folder.file_name().is_some_and(|name| name == "deps");
            if deeper { folder.parent().unwrap_or(folder).to_path_buf() } else { folder.to_path_buf() }
        }
    };
    let path = folder.join(name);
    if !path.is_file() {
        bail!(
            "{name} is not in {}: build it with `cargo build -p {name}`, or run `cargo xtask test`",
            folder.display()
        );
    }
    Ok(path)
}

/// The cache folder that `cargo xtask setup` fills.
pub fn cache() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("EDGEWRIGHT_CACHE") {
        return Ok(folder.into());
    }
    if let Some(folder) = std::env::var_os("XDG_CACHE_HOME") {
        return Ok(Path::new(&folder).join("edgewright"));
    }
    let home = std::env::var_os("HOME").context("neither EDGEWRIGHT_CACHE nor HOME is set")?;
    Ok(Path::new(&home).join(".cache/edgewright"))
}

/// ONNX Runtime's library: `EDGEWRIGHT_ORT`, else the one in the cache.
pub fn ort_library() -> Result<PathBuf> {
    match std::env::var_os("EDGEWRIGHT_ORT") {
        Some(path) => Ok(path.into()),
        None => Ok(cache()?.join("onnxruntime-1.32.0/onnxruntime/capi/libonnxruntime.so.1.32.0")),
    }
}

/// Python with the packages that the peers need.
pub fn python_program() -> Result<PathBuf> {
    Ok(cache()?.join("venv-tools/bin/python"))
}

/// Schemathesis, which tests an API against its document.
pub fn schemathesis_program() -> Result<PathBuf> {
    Ok(cache()?.join("venv-api/bin/schemathesis"))
}

/// Runs a script of `tests/peers`; it prints one JSON value.
pub fn python(script: &str, arguments: &[&str]) -> Result<Value> {
    let python = python_program()?;
    let output = Command::new(&python)
        .arg(root().join("tests/peers").join(script))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {}: `cargo xtask setup` brings it", python.display()))?;
    ensure!(output.status.success(), "{script} failed: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The root of the checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."))
}

/// The bytes of a file; none where there is no such file.
pub fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// Writes a file: afterwards, whatever happens, it is the old one or the new one.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, bytes).with_context(|| format!("writing {}", fresh.display()))?;
    std::fs::rename(&fresh, path).with_context(|| format!("writing {}", path.display()))
}

/// Copies a folder with all that is in it.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let copying = || format!("copying {} to {}", from.display(), to.display());
    std::fs::create_dir_all(to).with_context(copying)?;
    for entry in std::fs::read_dir(from).with_context(copying)? {
        let entry = entry.with_context(copying)?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type().with_context(copying)?;
        if kind.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), &target).with_context(copying)?;
        } else {
            bail!("{} is neither a file nor a folder", entry.path().display());
        }
    }
    Ok(())
}

/// First port handed out; all stay below 32768, out of the range from which the kernel takes ports for
/// outgoing connections.
const PORT_FIRST: u16 = 20_000;
const PORT_LAST: u16 = 32_000;
static PORT_NEXT: AtomicU16 = AtomicU16::new(0);

/// A loopback port on which nothing listens. Each call of this process gives another one; processes start at
/// different places.
pub fn free_port() -> Result<u16> {
    let span = PORT_LAST - PORT_FIRST;
    let start = u16::try_from(std::process::id() % u32::from(span)).unwrap_or(0);
    for _ in 0..span {
        let offset = PORT_NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(start.wrapping_mul(37)) % span;
        let port = PORT_FIRST + offset;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between {PORT_FIRST} and {PORT_LAST}")
}

/// Asks `condition` until it gives a value; after `limit`, an error that names `what` and the newest error.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    let mut newest = None;
    loop {
        match condition() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => {}
            Err(error) => newest = Some(error),
        }
        if start.elapsed() > limit {
            let why = newest.map(|error| format!(" ({error:#})")).unwrap_or_default();
            bail!("waited {} s for {what}{why}", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
