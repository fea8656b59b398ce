//! The agent's configuration in three stages: what was written ([`File`] and the command line's [`Flags`]), merged
//! with the board's description and the defaults, and checked. Only a [`Config`] reaches the rest.

mod boards;

use agent_core::budget;
use serde::Deserialize;
use shared::{
    BoardId,
    board::{self, Board, RuntimeName},
    wire::one_line,
};
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Largest file that is read as a configuration.
pub const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Most records that the outbox may be told to hold.
pub const OUTBOX_RECORDS_MAX: u64 = 10_000_000;
/// Most threads that the API may be told to use.
pub const THREADS_MAX: usize = 256;
/// Most threads that one inference may be told to use.
pub const INFERENCE_THREADS_MAX: usize = 64;
/// Most free bytes that a download may be told to leave.
pub const DISK_RESERVE_BYTES_MAX: u64 = 1 << 40;
/// Fewest bytes that an update, or a day, may be held to: below it not a chunk comes.
pub const BUDGET_BYTES_MIN: u64 = shared::limits::CHUNK_BYTES_MAX as u64;
/// Most bytes that an update, or a day, may be held to.
pub const BUDGET_BYTES_MAX: u64 = 1 << 50;
/// Largest body that the API may be told to take.
pub const BODY_BYTES_MAX: usize = 1 << 30;
/// Most bytes of bodies at a time that the API may be told to hold; on a 32-bit board less than four of the largest.
pub const BODIES_BYTES_MAX: usize = BODY_BYTES_MAX.saturating_mul(4);

/// Why there is no configuration. One line, naming file, key, value and what is allowed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read the configuration {path}; give another with --config")]
    Read { path: PathBuf, source: io::Error },
    /// The board's file could not be read.
    #[error("cannot read the board {path}; give another with --board-file")]
    ReadBoard { path: PathBuf, source: io::Error },
    /// Not TOML, an unknown key, or a value of the wrong kind.
    #[error("{path}: {message}")]
    Toml { path: PathBuf, message: String },
    /// The board's file is none.
    #[error(transparent)]
    Board(#[from] board::Error),
    /// A value out of range.
    #[error("{origin}: {key} is {value}, allowed is {allowed}")]
    Range { origin: String, key: &'static str, value: String, allowed: String },
}

/// The TOML file as it is written. Every key is optional.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// A board of `firmware-configs/`.
    pub board: Option<String>,
    /// The description of another board.
    pub board_file: Option<PathBuf>,
    pub api: Option<String>,
    pub runtime: Option<String>,
    pub ort: Option<PathBuf>,
    /// Free bytes that a download must leave.
    pub disk_reserve_bytes: Option<u64>,
    /// Most bytes that may come for one update; without it as many as it takes.
    pub update_bytes_max: Option<u64>,
    /// Most bytes of updates that may come within a day; without it as many as it takes.
    pub day_bytes_max: Option<u64>,
    /// Records that the outbox holds before it drops the least precious.
    pub outbox_records_max: Option<u64>,
    /// Length of a telemetry window.
    pub telemetry_ms: Option<u64>,
    /// Threads that answer requests.
    pub threads: Option<usize>,
    /// Threads of one inference, instead of the board's.
    pub inference_threads: Option<usize>,
    /// Requests that may wait for a thread before more are refused.
    pub queue_max: Option<usize>,
    /// Largest body of a request.
    pub body_bytes_max: Option<usize>,
    /// Bytes of all bodies in memory together.
    pub bodies_bytes_max: Option<usize>,
    /// Keep-alive of the connection to the broker.
    pub keep_alive_ms: Option<u64>,
}

/// What the command line says; it goes before the file.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub board: Option<String>,
    pub board_file: Option<PathBuf>,
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
    /// Runtimes that may be used, each measured on a bundle's golden inputs. The board allows them all.
    pub runtimes: Vec<RuntimeName>,
    /// Threads of one inference.
    pub inference_threads: usize,
    pub ort: Option<PathBuf>,
    pub disk_reserve_bytes: u64,
    pub budget: budget::Limits,
    pub outbox_records_max: u64,
    pub telemetry_ms: u64,
    pub threads: usize,
    pub queue_max: usize,
    pub body_bytes_max: usize,
    pub bodies_bytes_max: usize,
    pub keep_alive_ms: u64,
}

impl Config {
    /// Reads `path`, puts `flags` over it, the board's description and the defaults under it, and checks the result.
    pub fn load(path: Option<&Path>, flags: Flags) -> Result<Self, Error> {
        let file = path.map_or_else(|| Ok(File::default()), read)?;
        let origins = Origins { file: path.map(|path| path.display().to_string()), flagged: flagged(&flags) };
        Self::check(merge(file, flags), &origins)
    }

    fn check(file: File, origins: &Origins) -> Result<Self, Error> {
        let range = |key, value: String, allowed: &str| Error::Range {
            origin: origins.of(key),
            key,
            value: one_line(&value),
            allowed: allowed.to_owned(),
        };
        let within = |key, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                Ok(value)
            } else {
                Err(range(key, value.to_string(), &format!("{low} to {high}")))
            }
        };
        let within_usize = |key, value: usize, low: usize, high: usize| {
            within(key, value as u64, low as u64, high as u64).map(|_| value)
        };
        let budget = |key, value: Option<u64>| {
            value.map(|value| within(key, value, BUDGET_BYTES_MIN, BUDGET_BYTES_MAX)).transpose()
        };
        let board = board(file.board, file.board_file.as_deref(), &range)?;
        let inference_threads = file.inference_threads.unwrap_or(board.runtime.threads as usize);
        let inference_threads =
            within_usize("inference_threads", inference_threads, 1, INFERENCE_THREADS_MAX)?;
        let threads = file.threads.unwrap_or_else(|| default_threads(inference_threads));
        let body_bytes_max = file.body_bytes_max.unwrap_or(16 * 1024 * 1024);
        let body_bytes_max = within_usize("body_bytes_max", body_bytes_max, 1024, BODY_BYTES_MAX)?;
        Ok(Self {
            api: api(file.api.as_deref().unwrap_or("127.0.0.1:8700"), &range)?,
            runtimes: runtimes(file.runtime.as_deref().unwrap_or("auto"), &board, &range)?,
            inference_threads,
            ort: file.ort,
            disk_reserve_bytes: within(
                "disk_reserve_bytes",
                file.disk_reserve_bytes.unwrap_or(16 * 1024 * 1024),
                0,
                DISK_RESERVE_BYTES_MAX,
            )?,
            budget: budget::Limits {
                update_bytes_max: budget("update_bytes_max", file.update_bytes_max)?,
                day_bytes_max: budget("day_bytes_max", file.day_bytes_max)?,
            },
            outbox_records_max: within(
                "outbox_records_max",
                file.outbox_records_max.unwrap_or(100_000),
                100,
                OUTBOX_RECORDS_MAX,
            )?,
            telemetry_ms: within("telemetry_ms", file.telemetry_ms.unwrap_or(60_000), 100, 24 * 3_600_000)?,
            threads: within_usize("threads", threads, 1, THREADS_MAX)?,
            queue_max: within_usize("queue_max", file.queue_max.unwrap_or(256), 0, 100_000)?,
            body_bytes_max,
            bodies_bytes_max: within_usize(
                "bodies_bytes_max",
                file.bodies_bytes_max.unwrap_or(body_bytes_max),
                body_bytes_max,
                BODIES_BYTES_MAX,
            )?,
            keep_alive_ms: within("keep_alive_ms", file.keep_alive_ms.unwrap_or(15_000), 5_000, 600_000)?,
            board: board.id,
        })
    }
}

/// Who set a key, for errors.
struct Origins {
    file: Option<String>,
    flagged: Vec<&'static str>,
}

impl Origins {
    fn of(&self, key: &str) -> String {
        match &self.file {
            Some(file) if !self.flagged.contains(&key) => file.clone(),
            _ => "command line".to_owned(),
        }
    }
}

fn flagged(flags: &Flags) -> Vec<&'static str> {
    let Flags { board, board_file, api, runtime, ort } = flags;
    let set = [
        ("board", board.is_some()),
        ("board_file", board_file.is_some()),
        ("api", api.is_some()),
        ("runtime", runtime.is_some()),
        ("ort", ort.is_some()),
    ];
    set.into_iter().filter(|(_, set)| *set).map(|(key, _)| key).collect()
}

type Range<'a> = &'a dyn Fn(&'static str, String, &str) -> Error;

/// The board of `file`, which `name` may repeat, or else the known one of that name.
fn board(name: Option<String>, file: Option<&Path>, range: Range<'_>) -> Result<Board, Error> {
    let Some(file) = file else {
        let name = name.unwrap_or_else(|| boards::default_name().to_owned());
        let allowed =
            || format!("{}, or another described by a file given with --board-file", boards::names());
        return match boards::known(&name) {
            Some(board) => Ok(board?),
            None => Err(range("board", name, &allowed())),
        };
    };
    let unreadable = |source| Error::ReadBoard { path: file.to_owned(), source };
    let text = crate::blobs::read_limited(file, FILE_BYTES_MAX).map_err(unreadable)?;
    let text = String::from_utf8(text)
        .map_err(|error| unreadable(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    let board = Board::from_toml(&text, &file.display().to_string())?;
    match name {
        Some(name) if name != board.id.as_str() => {
            Err(range("board", name, &format!("{}, as the board file says", board.id)))
        }
        _ => Ok(board),
    }
}

fn read(path: &Path) -> Result<File, Error> {
    let error = |source| Error::Read { path: path.to_owned(), source };
    let text = crate::blobs::read_limited(path, FILE_BYTES_MAX).map_err(error)?;
    let text =
        String::from_utf8(text).map_err(|bad| error(io::Error::new(io::ErrorKind::InvalidData, bad)))?;
    toml::from_str(&text).map_err(|error| {
        let message = error.message().lines().collect::<Vec<_>>().join(" ");
        let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let message = line.map_or_else(|| message.clone(), |line| format!("line {line}: {message}"));
        Error::Toml { path: path.to_owned(), message: one_line(&message) }
    })
}

fn merge(file: File, flags: Flags) -> File {
    File {
        board: flags.board.or(file.board),
        board_file: flags.board_file.or(file.board_file),
        api: flags.api.or(file.api),
        runtime: flags.runtime.or(file.runtime),
        ort: flags.ort.or(file.ort),
        ..file
    }
}

fn api(text: &str, range: Range<'_>) -> Result<ApiAddress, Error> {
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

fn runtimes(text: &str, board: &Board, range: Range<'_>) -> Result<Vec<RuntimeName>, Error> {
    let wanted = match text {
        "auto" => vec![RuntimeName::OnnxRuntime, RuntimeName::Tract],
        "tract" => vec![RuntimeName::Tract],
        "onnxruntime" => vec![RuntimeName::OnnxRuntime],
        _ => return Err(range("runtime", text.to_owned(), "auto, tract or onnxruntime")),
    };
    let runtimes: Vec<_> = wanted.into_iter().filter(|name| board.runtime.allowed.contains(name)).collect();
    if runtimes.is_empty() {
        let allowed: Vec<_> = board.runtime.allowed.iter().map(ToString::to_string).collect();
        let allowed = format!("auto or {} on board {}", allowed.join(" or "), board.id);
        return Err(range("runtime", text.to_owned(), &allowed));
    }
    Ok(runtimes)
}

/// As many inferences at once as keep the processor busy.
fn default_threads(inference_threads: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    (cores / inference_threads).clamp(2, 16)
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
        let text = "board = \"raspberry-pi-4\"\nruntime = \"tract\"\nthreads = 3";
        let flags = Flags { board: Some("jetson-orin-nano".to_owned()), ..Flags::default() };
        let config = load(text, flags).unwrap();
        assert_eq!(config.board.as_str(), "jetson-orin-nano");
        assert_eq!(config.inference_threads, 2);
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
            ("board = \"../x\"", ["agent.toml", "board is ../x", "raspberry-pi-4"]),
            ("disk_reserve_bytes = 9_000_000_000_000", ["agent.toml", "disk_reserve_bytes is", "0 to"]),
            ("day_bytes_max = 1000", ["agent.toml", "day_bytes_max is 1000", "65536 to"]),
            ("update_bytes_max = 0", ["agent.toml", "update_bytes_max is 0", "65536 to"]),
            ("bodies_bytes_max = 1024", ["agent.toml", "bodies_bytes_max is 1024", "16777216 to"]),
            ("inference_threads = 0", ["agent.toml", "inference_threads is 0", "1 to 64"]),
            (
                "board = \"generic-armv7\"\nruntime = \"onnxruntime\"",
                ["agent.toml", "runtime is onnxruntime", "tract on board generic-armv7"],
            ),
            ("api = \"a\\nb\"", ["agent.toml", "api is a b", "loopback"]),
            ("\nthread = 1", ["agent.toml", "line 2", "unknown field"]),
            ("threads = \"two\"", ["agent.toml", "line 1", "invalid type"]),
        ] {
            let message = load(text, Flags::default()).unwrap_err().to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
            assert_eq!(message.lines().count(), 1);
        }
    }

    #[test]
    fn bytes_are_limited_only_where_somebody_says_so() {
        assert_eq!(load("", Flags::default()).unwrap().budget, budget::Limits::default());
        let limited = load("update_bytes_max = 1_000_000\nday_bytes_max = 5_000_000", Flags::default());
        let expected = budget::Limits { update_bytes_max: Some(1_000_000), day_bytes_max: Some(5_000_000) };
        assert_eq!(limited.unwrap().budget, expected);
    }

    #[test]
    fn the_board_says_which_runtimes_may_be_used_and_with_how_many_threads() {
        let config = |text: &str| load(text, Flags::default()).unwrap();
        assert_eq!(config("board = \"generic-armv7\"").runtimes, [RuntimeName::Tract]);
        let both = config("board = \"x86-64\"");
        assert_eq!(both.runtimes, [RuntimeName::OnnxRuntime, RuntimeName::Tract]);
        assert_eq!((both.inference_threads, both.threads >= 2), (1, true));
        assert_eq!(config("board = \"x86-64\"\ninference_threads = 3").inference_threads, 3);
    }

    #[test]
    fn a_board_of_ones_own_is_described_by_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        let text = include_str!("../../firmware-configs/generic-armv7.toml");
        std::fs::write(&path, text.replace("id = \"generic-armv7\"", "id = \"mine\"")).unwrap();
        let flags = |board: Option<&str>| Flags {
            board: board.map(str::to_owned),
            board_file: Some(path.clone()),
            ..Flags::default()
        };
        let config = Config::load(None, flags(None)).unwrap();
        assert_eq!((config.board.as_str(), &config.runtimes[..]), ("mine", &[RuntimeName::Tract][..]));
        assert_eq!(Config::load(None, flags(Some("mine"))).unwrap(), config);
        let message = Config::load(None, flags(Some("x86-64"))).unwrap_err().to_string();
        assert!(message.contains("board is x86-64, allowed is mine"), "{message}");
        std::fs::write(&path, text.replace("threads = 1", "threads = 9")).unwrap();
        let message = Config::load(None, flags(None)).unwrap_err().to_string();
        assert!(message.contains("mine.toml: runtime.threads is 9"), "{message}");
        std::fs::remove_file(&path).unwrap();
        let message = Config::load(None, flags(None)).unwrap_err().to_string();
        assert!(message.contains("mine.toml") && message.contains("--board-file"), "{message}");
    }

    #[test]
    fn a_bad_flag_is_not_blamed_on_the_file() {
        let flags = Flags { api: Some("0.0.0.0:80".to_owned()), ..Flags::default() };
        let message = load("threads = 2", flags).unwrap_err().to_string();
        assert!(message.starts_with("command line: api is 0.0.0.0:80"), "{message}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let message =
            Config::load(Some(Path::new("/nowhere/a.toml")), Flags::default()).unwrap_err().to_string();
        assert!(message.contains("/nowhere/a.toml") && message.contains("--config"), "{message}");
    }
}
