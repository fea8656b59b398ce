//! The agent's configuration in three stages: what was written ([`File`] and the command line's [`Flags`]), merged
//! with the defaults, and checked. Only a [`Config`] reaches the rest.

use serde::Deserialize;
use shared::{BoardId, board::RuntimeName};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Largest file that is read as a configuration.
pub const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Most records that the outbox may be told to hold.
pub const OUTBOX_RECORDS_MAX: u64 = 10_000_000;
/// Most threads that the API may be told to use.
pub const THREADS_MAX: usize = 256;

/// Why there is no configuration. One line, naming file, key, value and what is allowed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read the configuration {path}: {source}; give another with --config")]
    Read { path: PathBuf, source: std::io::Error },
    /// Not TOML, an unknown key, or a value of the wrong kind.
    #[error("{path}: {message}")]
    Toml { path: PathBuf, message: String },
    /// A value out of range.
    #[error("{origin}: {key} is {value}, allowed is {allowed}")]
    Range { origin: String, key: &'static str, value: String, allowed: String },
}

/// The TOML file as it is written. Every key is optional.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    pub board: Option<String>,
    pub api: Option<String>,
    pub runtime: Option<String>,
    pub ort: Option<PathBuf>,
    /// Free bytes that a download must leave.
    pub disk_reserve_bytes: Option<u64>,
    /// Records that the outbox holds before it drops the least precious.
    pub outbox_records_max: Option<u64>,
    /// Length of a telemetry window.
    pub telemetry_ms: Option<u64>,
    /// Threads that answer requests.
    pub threads: Option<usize>,
    /// Requests that may wait for a thread before more are refused.
    pub queue_max: Option<usize>,
    /// Largest body of a request.
    pub body_bytes_max: Option<usize>,
    /// Keep-alive of the connection to the broker.
    pub keep_alive_ms: Option<u64>,
}

/// What the command line says; it goes before the file.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub board: Option<String>,
    pub api: Option<String>,
    pub runtime: Option<String>,
    pub ort: Option<PathBuf>,
}

/// Where the local API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiAddress {
    /// A loopback address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for ApiAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The configuration that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub board: BoardId,
    pub api: ApiAddress,
    /// Runtimes that may be used, each measured on a bundle's golden inputs.
    pub runtimes: Vec<RuntimeName>,
    pub ort: Option<PathBuf>,
    pub disk_reserve_bytes: u64,
    pub outbox_records_max: u64,
    pub telemetry_ms: u64,
    pub threads: usize,
    pub queue_max: usize,
    pub body_bytes_max: usize,
    pub keep_alive_ms: u64,
}

impl Config {
    /// Reads `path`, puts `flags` over it and the defaults under it, and checks the result.
    pub fn load(path: Option<&Path>, flags: Flags) -> Result<Self, Error> {
        let (file, origin) = match path {
            Some(path) => (read(path)?, path.display().to_string()),
            None => (File::default(), "command line".to_owned()),
        };
        Self::check(merge(file, flags), &origin)
    }

    fn check(file: File, origin: &str) -> Result<Self, Error> {
        let range = |key, value: String, allowed: &str| Error::Range {
            origin: origin.to_owned(),
            key,
            value,
            allowed: allowed.to_owned(),
        };
        let within = |key, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                Ok(value)
            } else {
                Err(range(key, value.to_string(), &format!("{low} to {high}")))
            }
        };
        let board = file.board.unwrap_or_else(default_board);
        let threads = file.threads.unwrap_or_else(default_threads);
        let body_bytes_max = file.body_bytes_max.unwrap_or(16 * 1024 * 1024);
        Ok(Self {
            board: board
                .parse()
                .map_err(|_| range("board", board.clone(), "a name of a-z, 0-9, '-', '_' and '.'"))?,
            api: api(file.api.as_deref().unwrap_or("127.0.0.1:8700"), &range)?,
            runtimes: runtimes(file.runtime.as_deref().unwrap_or("auto"), &range)?,
            ort: file.ort,
            disk_reserve_bytes: file.disk_reserve_bytes.unwrap_or(16 * 1024 * 1024),
            outbox_records_max: within(
                "outbox_records_max",
                file.outbox_records_max.unwrap_or(100_000),
                100,
                OUTBOX_RECORDS_MAX,
            )?,
            telemetry_ms: within("telemetry_ms", file.telemetry_ms.unwrap_or(60_000), 100, 24 * 3_600_000)?,
            threads: within("threads", threads as u64, 1, THREADS_MAX as u64)? as usize,
            queue_max: within("queue_max", file.queue_max.unwrap_or(256) as u64, 0, 100_000)? as usize,
            body_bytes_max: within("body_bytes_max", body_bytes_max as u64, 1024, 1 << 30)? as usize,
            keep_alive_ms: within("keep_alive_ms", file.keep_alive_ms.unwrap_or(15_000), 5_000, 600_000)?,
        })
    }
}

fn read(path: &Path) -> Result<File, Error> {
    let error = |source| Error::Read { path: path.to_owned(), source };
    let size_bytes = std::fs::metadata(path).map_err(error)?.len();
    if size_bytes > FILE_BYTES_MAX {
        let allowed = format!("at most {FILE_BYTES_MAX}");
        let origin = path.display().to_string();
        return Err(Error::Range { origin, key: "size in bytes", value: size_bytes.to_string(), allowed });
    }
    let text = std::fs::read_to_string(path).map_err(error)?;
    toml::from_str(&text).map_err(|error| {
        let message = error.message().lines().collect::<Vec<_>>().join(" ");
        let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let message = line.map_or_else(|| message.clone(), |line| format!("line {line}: {message}"));
        Error::Toml { path: path.to_owned(), message }
    })
}

fn merge(file: File, flags: Flags) -> File {
    File {
        board: flags.board.or(file.board),
        api: flags.api.or(file.api),
        runtime: flags.runtime.or(file.runtime),
        ort: flags.ort.or(file.ort),
        ..file
    }
}

fn api(text: &str, range: &dyn Fn(&'static str, String, &str) -> Error) -> Result<ApiAddress, Error> {
    const ALLOWED: &str = "a loopback address such as 127.0.0.1:8700, or unix:/path";
    if let Some(path) = text.strip_prefix("unix:") {
        let absolute = Path::new(path).is_absolute();
        return if absolute {
            Ok(ApiAddress::Unix(path.into()))
        } else {
            Err(range("api", text.to_owned(), ALLOWED))
        };
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(ApiAddress::Tcp(address)),
        _ => Err(range("api", text.to_owned(), ALLOWED)),
    }
}

fn runtimes(
    text: &str,
    range: &dyn Fn(&'static str, String, &str) -> Error,
) -> Result<Vec<RuntimeName>, Error> {
    match text {
        "auto" => Ok(vec![RuntimeName::OnnxRuntime, RuntimeName::Tract]),
        "tract" => Ok(vec![RuntimeName::Tract]),
        "onnxruntime" => Ok(vec![RuntimeName::OnnxRuntime]),
        _ => Err(range("runtime", text.to_owned(), "auto, tract or onnxruntime")),
    }
}

fn default_board() -> String {
    if cfg!(target_arch = "x86_64") { "x86-64".to_owned() } else { "generic-arm64".to_owned() }
}

fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(2, 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, flags: Flags) -> Result<Config, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(Some(&path), flags)
    }

    #[test]
    fn the_command_line_goes_before_the_file_and_the_file_before_the_defaults() {
        let text = "board = \"pi\"\nruntime = \"tract\"\nthreads = 3";
        let flags = Flags { board: Some("jetson".to_owned()), ..Flags::default() };
        let config = load(text, flags).unwrap();
        assert_eq!(config.board.as_str(), "jetson");
        assert_eq!(config.runtimes, [RuntimeName::Tract]);
        assert_eq!((config.threads, config.queue_max), (3, 256));
    }

    #[test]
    fn an_error_names_file_key_value_and_what_is_allowed() {
        for (text, parts) in [
            ("api = \"0.0.0.0:80\"", ["agent.toml", "api is 0.0.0.0:80", "loopback"]),
            ("api = \"unix:here\"", ["agent.toml", "api is unix:here", "unix:/path"]),
            ("runtime = \"cuda\"", ["agent.toml", "runtime is cuda", "auto, tract or onnxruntime"]),
            ("threads = 0", ["agent.toml", "threads is 0", "1 to 256"]),
            ("telemetry_ms = 1", ["agent.toml", "telemetry_ms is 1", "100 to"]),
            ("board = \"../x\"", ["agent.toml", "board is ../x", "name"]),
            ("\nthread = 1", ["agent.toml", "line 2", "unknown field"]),
            ("threads = \"two\"", ["agent.toml", "line 1", "invalid type"]),
        ] {
            let message = load(text, Flags::default()).unwrap_err().to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
            assert_eq!(message.lines().count(), 1);
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let message =
            Config::load(Some(Path::new("/nowhere/a.toml")), Flags::default()).unwrap_err().to_string();
        assert!(message.contains("/nowhere/a.toml") && message.contains("--config"), "{message}");
    }
}
