//! `pins.toml`: what set-up brings.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// When an entry is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Need {
    /// Without it the forge does not build.
    Build,
    /// Without it tests and demo do not run.
    Run,
    /// Some commands do less without it.
    Optional,
    /// Only `cargo xtask cross` needs it.
    Cross,
    /// Only `cargo xtask bench quantise` needs it.
    Models,
}

/// One folder of the cache.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// The folder, relative to the cache.
    pub(crate) name: String,
    /// For people.
    pub(crate) what: String,
    pub(crate) need: Need,
    /// What it takes on disk while it is unpacked; no part of the stamp.
    #[serde(skip_serializing)]
    pub(crate) unpacked_mb: u64,
    /// Which unpacked files to keep, as a glob; all where it is not given.
    #[serde(default)]
    pub(crate) keep: Option<String>,
    /// How many folders above a kept file are kept with it.
    #[serde(default)]
    pub(crate) depth: usize,
    pub(crate) file: Vec<File>,
}

/// One download.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct File {
    #[serde(flatten)]
    pub(crate) source: Source,
    pub(crate) sha256: String,
    /// Size of the download, for the progress bar; no part of the stamp.
    #[serde(skip_serializing)]
    pub(crate) bytes: u64,
    /// pip's platform tag, for wheels of one platform.
    #[serde(default)]
    pub(crate) platform: Option<String>,
}

/// By which client it comes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    Pip(String),
    /// A source archive, where there is no wheel.
    Sdist(String),
    Npm(String),
    Apt(String),
}

/// The table.
pub(crate) fn entries() -> Result<Vec<Entry>> {
    #[derive(Deserialize)]
    struct Pins {
        entry: Vec<Entry>,
    }
    let pins: Pins = toml::from_str(include_str!("../pins.toml")).context("reading xtask/pins.toml")?;
    Ok(pins.entry)
}

impl Entry {
    /// What the stamp says when the folder holds exactly this entry.
    pub(crate) fn stamp(&self) -> Result<String> {
        Ok(serde_json::to_string(self)?)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_pin_is_a_sha256_and_every_name_is_inside_the_cache() {
        let entries = super::entries().unwrap();
        assert!(entries.len() >= 6);
        for entry in entries {
            assert!(!entry.name.starts_with('/') && !entry.name.contains(".."), "{}", entry.name);
            for file in entry.file {
                assert!(file.sha256.len() == 64 && file.sha256.bytes().all(|b| b.is_ascii_hexdigit()));
            }
        }
    }
}
