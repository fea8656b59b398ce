//! A person's servers by name, in a file that only its owner reads: `$XDG_CONFIG_HOME/edgewright/config.toml`.
//!
//! ```toml
//! current = "home"
//!
//! [contexts.home]
//! server = "https://127.0.0.1:8443"
//! ca_pem = "..."
//! token = "..."          # none before `edgewright login`
//! user = "anna"          # with role and expires_at where the token is that of a session
//! role = "operator"
//! expires_at = 1764547200000
//! ```

use super::{Failure, output::plain};
use crate::{app::chain, serve::ContextFile, signer};
use serde::Serialize;
use shared::{
    Timestamp,
    read::{self, toml_message},
};
use std::{
    collections::BTreeMap,
    env, fmt, fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    str::FromStr,
};
use toml::{Table, Value};

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Most contexts.
const CONTEXTS_MAX: usize = 256;
/// Longest name of a context in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Longest address of a server in bytes.
const SERVER_BYTES_MAX: usize = 512;
/// Longest token in bytes.
const TOKEN_BYTES_MAX: usize = 4096;
const ALLOWED: &str = "current, contexts";
const ALLOWED_OF_CONTEXT: &str = "server, ca_pem, token, user, role, expires_at";

/// The name of a context: letters, digits, `-` and `_`, so that no file with a folder or an ending is meant by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ContextName(String);

impl ContextName {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContextName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let good = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        if good && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.len() <= NAME_BYTES_MAX {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "{text:?} is no name of a context: 1 to {NAME_BYTES_MAX} letters, digits, - and _, a letter or digit first"
            ))
        }
    }
}

impl fmt::Display for ContextName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A server, and as whom it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Saved {
    pub(super) server: String,
    pub(super) ca_pem: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<String>,
    /// Whose session the token is, or who was logged in last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<String>,
    /// When the session ends; none where the token is not that of a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<Timestamp>,
}

impl From<ContextFile> for Saved {
    fn from(file: ContextFile) -> Self {
        let ContextFile { server, ca_pem, token } = file;
        Self { server, ca_pem, token: Some(token), user: None, role: None, expires_at: None }
    }
}

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Config {
    /// The context that is used where none is named; one of `contexts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) current: Option<ContextName>,
    pub(super) contexts: BTreeMap<ContextName, Saved>,
}

/// Where the file is, whether or not there is one.
pub(super) fn path() -> Result<PathBuf, Failure> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    let folder = folder.ok_or_else(|| {
        Failure::Usage(
            "there is no place for contexts: set HOME or XDG_CONFIG_HOME, or give --context FILE".to_owned(),
        )
    })?;
    Ok(folder.join("edgewright").join("config.toml"))
}

impl Config {
    /// What the file at `path` holds: nothing where there is none. The error is one line that names file, key, and
    /// what is allowed.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let unreadable =
            |error: &dyn fmt::Display| Failure::Usage(format!("{} cannot be read: {error}", path.display()));
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(unreadable(&error)),
        };
        let mode = file.metadata().map_err(|error| unreadable(&error))?.permissions().mode();
        let bytes = read::at_most(file, FILE_BYTES_MAX).map_err(|error| unreadable(&error))?;
        let text = String::from_utf8(bytes).map_err(|_| unreadable(&"it is not UTF-8"))?;
        let config = Self::parse(&text)
            .map_err(|wrong| Failure::Usage(plain(&format!("{}: {wrong}", path.display()), false)))?;
        if mode & 0o077 != 0 && config.contexts.values().any(|context| context.token.is_some()) {
            eprintln!("warning: others may read {0}: chmod 600 {0}", path.display());
        }
        Ok(config)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let table = text
            .parse::<Table>()
            .map_err(|error| format!("{}; allowed are {ALLOWED}", toml_message(text, &error)))?;
        let (mut current, mut contexts) = (None, BTreeMap::new());
        for (key, value) in &table {
            match (key.as_str(), value) {
                ("current", value) => current = Some(name_of("current", text_of("current", value)?)?),
                ("contexts", Value::Table(table)) => {
                    for (name, value) in table {
                        let at = format!("contexts.{name}");
                        contexts.insert(name_of(&at, name)?, context_of(&at, value)?);
                    }
                }
                ("contexts", other) => return Err(wrong("contexts", other, "tables, as [contexts.NAME]")),
                (key, _) => return Err(format!("{key}: there is no such key; allowed are {ALLOWED}")),
            }
        }
        if contexts.len() > CONTEXTS_MAX {
            return Err(format!("contexts: there are {}, allowed are {CONTEXTS_MAX}", contexts.len()));
        }
        let config = Self { current, contexts };
        match &config.current {
            Some(name) if !config.contexts.contains_key(name) => Err(format!(
                "current: {:?} is none of the contexts; allowed are {}",
                name.as_str(),
                config.names()
            )),
            _ => Ok(config),
        }
    }

    /// Reads the file, lets `change` change it, and writes it whole or not at all. One at a time does so.
    pub(super) fn change<T>(
        path: &Path,
        change: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let failed = |path: &Path, error: &io::Error| {
            Failure::Failed(format!("{} cannot be written: {error}", path.display()))
        };
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| failed(folder, &error))?;
        let lock = path.with_extension("lock");
        let mut held = fs::OpenOptions::new();
        let held = held.write(true).create(true).truncate(false).mode(0o600).open(&lock);
        let held = held.map_err(|error| failed(&lock, &error))?;
        held.lock().map_err(|error| failed(&lock, &error))?;
        let mut config = Self::read(path)?;
        let changed = change(&mut config)?;
        let text = toml::to_string_pretty(&config).map_err(|error| Failure::Failed(error.to_string()))?;
        signer::write(path, text.as_bytes()).map_err(|error| Failure::Failed(chain(&error)))?;
        Ok(changed)
    }

    /// The context `name`; the error names those that there are.
    pub(super) fn get(&self, name: &ContextName) -> Result<&Saved, Failure> {
        self.contexts.get(name).ok_or_else(|| {
            Failure::Usage(format!(
                "there is no context {name}; there are {}; see `edgewright context add --help`",
                self.names()
            ))
        })
    }

    /// The names for a sentence.
    pub(super) fn names(&self) -> String {
        match self.contexts.is_empty() {
            true => "none".to_owned(),
            false => self.contexts.keys().map(ContextName::as_str).collect::<Vec<_>>().join(", "),
        }
    }
}

/// A server's address: `https://HOST[:PORT]` and nothing behind it.
pub(super) fn server_of(text: &str) -> Result<String, String> {
    let trimmed = text.trim_end_matches('/');
    let host = trimmed.strip_prefix("https://").unwrap_or_default();
    let good = !host.is_empty()
        && text.len() <= SERVER_BYTES_MAX
        && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']'));
    if good { Ok(trimmed.to_owned()) } else { Err(format!("{text:?} is no address as https://HOST:PORT")) }
}

/// A token as it goes into a header: printable ASCII without blanks.
pub(super) fn token_of(text: &str) -> Result<String, String> {
    let token = text.trim();
    if (1..=TOKEN_BYTES_MAX).contains(&token.len()) && token.chars().all(|c| c.is_ascii_graphic()) {
        Ok(token.to_owned())
    } else {
        Err(format!("a token is 1 to {TOKEN_BYTES_MAX} printable characters without blanks"))
    }
}

fn context_of(at: &str, value: &Value) -> Result<Saved, String> {
    let Value::Table(table) = value else { return Err(wrong(at, value, "a table")) };
    if let Some(key) = table.keys().find(|key| !ALLOWED_OF_CONTEXT.split(", ").any(|known| known == *key)) {
        return Err(format!("{at}.{key}: there is no such key; allowed are {ALLOWED_OF_CONTEXT}"));
    }
    let text = |key: &str| table.get(key).map(|value| text_of(&format!("{at}.{key}"), value)).transpose();
    let needed = |key: &str| text(key)?.ok_or_else(|| format!("{at}.{key} is missing"));
    let expires_at = match table.get("expires_at") {
        None => None,
        Some(Value::Integer(ms)) if *ms >= 0 => Some(Timestamp(ms.unsigned_abs())),
        Some(other) => {
            return Err(wrong(&format!("{at}.expires_at"), other, "milliseconds since 1970, 0 or more"));
        }
    };
    let token = text("token")?.map(token_of).transpose().map_err(|wrong| format!("{at}.token: {wrong}"))?;
    Ok(Saved {
        server: server_of(needed("server")?).map_err(|wrong| format!("{at}.server: {wrong}"))?,
        ca_pem: needed("ca_pem")?.to_owned(),
        token,
        user: text("user")?.map(str::to_owned),
        role: text("role")?.map(str::to_owned),
        expires_at,
    })
}

fn name_of(at: &str, text: &str) -> Result<ContextName, String> {
    text.parse::<ContextName>().map_err(|wrong| format!("{at}: {wrong}"))
}

fn text_of<'a>(at: &str, value: &'a Value) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| wrong(at, value, "a text"))
}

/// What is wrong with the kind of a value; the value itself may be a secret.
fn wrong(at: &str, value: &Value, allowed: &str) -> String {
    format!("{at} is of type {}; allowed is {allowed}", value.type_str())
}

#[cfg(test)]
mod tests;
