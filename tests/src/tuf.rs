//! A command-line client over [`trust::client`], as the public TUF conformance suite drives one: metadata and targets
//! over HTTP, accepted metadata as files in a folder.

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use shared::{Timestamp, limits};
use std::{fs, io, path::Path, path::PathBuf, time::Duration, time::SystemTime};
use trust::client::{Accepted, Client, Limits, Listed, Source, SourceError, quoted};

/// Others' metadata may be larger than what a device takes.
const LIMITS: Limits = Limits {
    root_bytes: 512_000,
    timestamp_bytes: 16_384,
    snapshot_bytes: 2_000_000,
    targets_bytes: 5_000_000,
    roots: limits::METADATA_ROOTS_MAX,
    roles: limits::METADATA_ROLES_MAX,
};
/// Largest target that is fetched, in bytes.
const TARGET_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A server that is silent for longer is given up.
const ANSWER_S: u64 = 30;

/// A TUF client.
#[derive(Debug, Parser)]
pub struct Options {
    /// Where accepted metadata is kept.
    #[arg(long)]
    metadata_dir: PathBuf,
    /// Where the repository's metadata is.
    #[arg(long)]
    metadata_url: Option<String>,
    /// A target to download; may be given several times.
    #[arg(long)]
    target_name: Vec<String>,
    /// Where the repository's targets are.
    #[arg(long)]
    target_base_url: Option<String>,
    /// Where targets are put.
    #[arg(long)]
    target_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Believe a root.
    Init { trusted_root: PathBuf },
    /// Fetch what is newer.
    Refresh,
    /// Fetch what is newer, then targets.
    Download,
}

/// Runs one command.
pub fn run(options: &Options) -> Result<()> {
    match &options.command {
        Command::Init { trusted_root } => {
            let root =
                fs::read(trusted_root).with_context(|| format!("reading {}", trusted_root.display()))?;
            Client::new(&root)?;
            write(&options.metadata_dir.join("root.json"), &root)
        }
        Command::Refresh => {
            refreshed(options, &server(options.metadata_url.as_ref(), "--metadata-url")?).map(drop)
        }
        Command::Download => download(options),
    }
}

/// The clock of this machine: here it is the suite's.
fn now() -> Timestamp {
    SystemTime::now().into()
}

fn refreshed(options: &Options, server: &Server) -> Result<Client> {
    let accepted = read_accepted(&options.metadata_dir)?;
    let mut client = Client::restore(&accepted)?.with_limits(LIMITS);
    let refreshed = client.refresh(server, now());
    write_accepted(&options.metadata_dir, client.accepted())?;
    refreshed?;
    Ok(client)
}

fn download(options: &Options) -> Result<()> {
    let metadata = server(options.metadata_url.as_ref(), "--metadata-url")?;
    let targets = server(options.target_base_url.as_ref(), "--target-base-url")?;
    let folder = options.target_dir.as_ref().context("--target-dir is missing")?;
    if options.target_name.is_empty() {
        bail!("--target-name is missing");
    }
    let mut client = refreshed(options, &metadata)?;
    for name in &options.target_name {
        let found = client.find(name, &metadata, now());
        write_accepted(&options.metadata_dir, client.accepted())?;
        let Some(listed) = found? else { bail!("no role lists {name:?}") };
        fetch(&targets, &client, name, &listed, &folder.join(quoted(name)))?;
    }
    Ok(())
}

/// Fetches a target, unless it is there already.
fn fetch(server: &Server, client: &Client, name: &str, listed: &Listed, to: &Path) -> Result<()> {
    if fs::read(to).is_ok_and(|bytes| listed.is(&bytes)) {
        return Ok(());
    }
    if listed.length > TARGET_BYTES_MAX {
        bail!("{name:?} has {} bytes, at most {TARGET_BYTES_MAX} are fetched", listed.length);
    }
    let location = listed.location(name, client.consistent_snapshot()).context("the target has no hash")?;
    let segments: Vec<_> = location.split('/').map(quoted).collect();
    let bytes =
        server.get(&segments.join("/"), listed.length)?.with_context(|| format!("no {location:?}"))?;
    if !listed.is(&bytes) {
        bail!("{name:?} is not what is vouched for");
    }
    write(to, &bytes)
}

struct Server {
    agent: ureq::Agent,
    base: String,
}

fn server(url: Option<&String>, option: &str) -> Result<Server> {
    let url = url.with_context(|| format!("{option} is missing"))?;
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(ANSWER_S)))
        .build();
    Ok(Server { agent: config.into(), base: format!("{}/", url.trim_end_matches('/')) })
}

impl Source for Server {
    fn get(&self, file: &str, max_bytes: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let mut answer = self.agent.get(format!("{}{file}", self.base)).call().map_err(SourceError::new)?;
        match answer.status().as_u16() {
            200 => {}
            403 | 404 => return Ok(None),
            status => return Err(SourceError::new(format!("the server answered {status}"))),
        }
        // One byte more tells a file that is too long from one that just fits.
        match answer.body_mut().with_config().limit(max_bytes.saturating_add(1)).read_to_vec() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(ureq::Error::BodyExceedsLimit(_)) => Err(SourceError::TooLarge),
            Err(error) => Err(SourceError::new(error)),
        }
    }
}

/// `root.json`, `timestamp.json`, … and those of delegated roles, whose names are quoted.
fn read_accepted(folder: &Path) -> Result<Accepted> {
    let root = fs::read(folder.join("root.json")).context("no root.json; run init first")?;
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        let name =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".json"));
        if let Some(role) = name.and_then(unquoted) {
            files.push((role, fs::read(&path).with_context(|| format!("reading {}", path.display()))?));
        }
    }
    Ok(Accepted::from_files(root, files))
}

fn write_accepted(folder: &Path, accepted: &Accepted) -> Result<()> {
    for (role, bytes) in accepted.files() {
        write(&folder.join(format!("{}.json", quoted(role))), bytes)?;
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = (|| -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
        io::Write::write_all(&mut file, bytes)?;
        file.persist(path)?;
        Ok(())
    })();
    written.with_context(|| format!("writing {}", path.display()))
}

/// The text that [`quoted`] made `text` of.
fn unquoted(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_roles_survive_being_names_of_files() {
        for role in ["team", "../a/b", "å %", "?", "#"] {
            assert_eq!(unquoted(&quoted(role)).as_deref(), Some(role));
        }
        assert_eq!(unquoted("a%2"), None);
        assert_eq!(unquoted("%å"), None);
    }
}
