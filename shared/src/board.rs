//! A board: the kind of device that a search aims at and an agent runs on. One TOML file each in
//! `firmware-configs/`, checked when it is loaded.

use crate::{BoardId, latency::BoardLatency, read, wire::one_line};
use serde::{Deserialize, Serialize};

/// A board's description. All limits are upper bounds that a searched model keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Board {
    pub id: BoardId,
    /// For people.
    pub name: String,
    /// The Rust target triple that the agent is built for.
    pub target: String,
    pub cpu: Cpu,
    pub memory: Memory,
    pub limits: ModelLimits,
    pub runtime: RuntimeChoice,
    /// What devices of this kind measured; the control plane adds it, a file has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<BoardLatency>,
}

/// The processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    pub cores: u32,
    pub clock_mhz: u32,
    /// Width of a vector register: 128 for NEON, 256 for AVX2, 512 for AVX-512.
    pub vector_bits: u32,
    /// Has an 8-bit dot product (`asimddp`, VNNI).
    pub int8_dot: bool,
}

/// Memory of the whole board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Memory {
    pub ram_bytes: u64,
    pub flash_bytes: u64,
}

/// What one model may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ModelLimits {
    /// Bytes of the INT8 weights.
    pub weight_bytes_max: u64,
    /// Peak bytes of activations of one sample, as INT8.
    pub activation_bytes_max: u64,
    /// Multiply-accumulates of one sample.
    pub macs_max: u64,
    /// Microseconds of one inference: estimated during the search, measured where the model is made.
    pub latency_us_max: u64,
}

/// What the agent may use to run models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RuntimeChoice {
    /// `tract`, `onnxruntime`, or both; the agent measures and keeps the faster that is right.
    pub allowed: Vec<RuntimeName>,
    /// Threads of one inference.
    pub threads: u32,
}

/// A runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RuntimeName {
    Tract,
    #[serde(rename = "onnxruntime")]
    OnnxRuntime,
}

impl std::fmt::Display for RuntimeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tract => "tract",
            Self::OnnxRuntime => "onnxruntime",
        })
    }
}

/// Why a text is no board.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not TOML, an unknown key, a missing key or a value of the wrong kind.
    #[error("{origin}: {message}")]
    Toml { origin: String, message: String },
    /// A value out of range.
    #[error("{origin}: {key} is {value}, allowed is {allowed}")]
    Range { origin: String, key: &'static str, value: String, allowed: String },
}

/// Largest file that is read as a board.
pub const FILE_BYTES_MAX: usize = 64 * 1024;

impl Board {
    /// Reads a board from TOML text. `origin` names the file in errors.
    pub fn from_toml(text: &str, origin: &str) -> Result<Self, Error> {
        if text.len() > FILE_BYTES_MAX {
            return Err(range(origin, "size in bytes", text.len(), format!("at most {FILE_BYTES_MAX}")));
        }
        let board: Self = toml::from_str(text).map_err(|error| Error::Toml {
            origin: origin.to_owned(),
            message: read::toml_message(text, &error),
        })?;
        board.check(origin)?;
        Ok(board)
    }

    fn check(&self, origin: &str) -> Result<(), Error> {
        let within = |key, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(range(origin, key, value, format!("{low} to {high}")))
            }
        };
        if self.name.is_empty() || self.name.len() > 120 {
            return Err(range(
                origin,
                "name",
                format!("{} bytes long", self.name.len()),
                "1 to 120 bytes".to_owned(),
            ));
        }
        let target_ok = self.target.split('-').count() >= 3
            && self.target.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !target_ok {
            let allowed = "a Rust target triple such as aarch64-unknown-linux-gnu".to_owned();
            return Err(range(origin, "target", &self.target, allowed));
        }
        within("cpu.cores", self.cpu.cores.into(), 1, 1024)?;
        within("cpu.clock_mhz", self.cpu.clock_mhz.into(), 1, 10_000)?;
        if ![32, 64, 128, 256, 512, 1024, 2048].contains(&self.cpu.vector_bits) {
            let allowed = "32, 64, 128, 256, 512, 1024 or 2048".to_owned();
            return Err(range(origin, "cpu.vector_bits", self.cpu.vector_bits, allowed));
        }
        within("memory.ram_bytes", self.memory.ram_bytes, 1 << 16, 1 << 44)?;
        within("memory.flash_bytes", self.memory.flash_bytes, 1 << 16, 1 << 50)?;
        within("limits.weight_bytes_max", self.limits.weight_bytes_max, 1024, self.memory.flash_bytes)?;
        within("limits.activation_bytes_max", self.limits.activation_bytes_max, 1024, self.memory.ram_bytes)?;
        within("limits.macs_max", self.limits.macs_max, 1000, 1 << 50)?;
        within("limits.latency_us_max", self.limits.latency_us_max, 1, 60_000_000)?;
        within("runtime.threads", self.runtime.threads.into(), 1, self.cpu.cores.into())?;
        let mut allowed = self.runtime.allowed.clone();
        allowed.sort_unstable();
        allowed.dedup();
        if allowed.is_empty() || allowed.len() != self.runtime.allowed.len() {
            let value = format!("{:?}", self.runtime.allowed);
            return Err(range(
                origin,
                "runtime.allowed",
                value,
                "\"tract\", \"onnxruntime\" or both, once each".to_owned(),
            ));
        }
        Ok(())
    }
}

fn range(origin: &str, key: &'static str, value: impl ToString, allowed: String) -> Error {
    Error::Range { origin: origin.to_owned(), key, value: one_line(&value.to_string()), allowed }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
id = "pi"
name = "A board"
target = "aarch64-unknown-linux-gnu"
[cpu]
cores = 4
clock_mhz = 1500
vector_bits = 128
int8_dot = false
[memory]
ram_bytes = 1073741824
flash_bytes = 8589934592
[limits]
weight_bytes_max = 4194304
activation_bytes_max = 8388608
macs_max = 100000000
latency_us_max = 20000
[runtime]
allowed = ["onnxruntime", "tract"]
threads = 1
"#;

    #[test]
    fn reads_a_board() {
        let board = Board::from_toml(GOOD, "pi.toml").unwrap();
        assert_eq!(board.runtime.allowed, [RuntimeName::OnnxRuntime, RuntimeName::Tract]);
    }

    #[test]
    fn an_error_is_one_short_line_whatever_the_file_holds() {
        let long = format!("target = \"a\\u001b[2J\\nb{}\"", "x".repeat(10_000));
        for text in [GOOD.replace("target = \"aarch64-unknown-linux-gnu\"", &long), "\"a\rb\" = 1".to_owned()]
        {
            let message = Board::from_toml(&text, "pi.toml").unwrap_err().to_string();
            assert!(!message.contains(char::is_control) && message.len() < 1000, "{message:?}");
        }
    }

    #[test]
    fn an_error_names_file_key_value_and_what_is_allowed() {
        let message = |from: &str, to: &str| {
            Board::from_toml(&GOOD.replace(from, to), "pi.toml").unwrap_err().to_string()
        };
        assert_eq!(message("cores = 4", "cores = 0"), "pi.toml: cpu.cores is 0, allowed is 1 to 1024");
        assert!(message("vector_bits = 128", "vector_bits = 100").contains("cpu.vector_bits is 100"));
        assert!(message("cores = 4", "cors = 4").starts_with("pi.toml: line "));
        assert!(message("threads = 1", "threads = 5").contains("runtime.threads is 5, allowed is 1 to 4"));
        assert!(message("id = \"pi\"", "id = \"../x\"").contains("board id"));
        assert!(message("[\"onnxruntime\", \"tract\"]", "[]").contains("runtime.allowed"));
        assert!(
            message("weight_bytes_max = 4194304", "weight_bytes_max = 99999999999999")
                .contains("limits.weight_bytes_max")
        );
    }
}
