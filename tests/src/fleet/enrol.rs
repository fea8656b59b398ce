//! How devices come to be: each with a key of its own, a one-time token and EST, many beside each other.

use super::{
    Seat,
    api::{Api, DEVICE_TOKENS},
    character::{Character, Faults},
    files,
    tls::Common,
};
use anyhow::{Context, Result, ensure};
use edgewright_agent::{data::DataDir, identity::Identity};
use indicatif::ProgressBar;
use serde_json::{Value, json, value::RawValue};
use shared::{BoardId, backoff::Backoff};
use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// Devices that are enrolled beside each other, where nothing else is asked for.
pub const AT_ONCE: usize = 8;
/// Life of a token: it is used at once.
const TOKEN_S: u64 = 3600;
/// A server that has much to do may refuse, or not answer in time.
const TRIES: u32 = 5;
const RETRY_MS: u64 = 500;
const RETRY_MS_MAX: u64 = 8_000;
const STATE_FILE: &str = "state.json";
const TOKEN_FILE: &str = "enrol.json";
const LOCK_FILE: &str = "fleet.lock";
/// Mode of what its owner alone may read.
const PRIVATE: u32 = 0o600;

/// A label with the values that devices get by turns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub key: String,
    pub values: Vec<String>,
}

impl std::str::FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no label: write KEY=VALUE, or KEY=A,B,C for values by turns");
        let (key, values) = text.split_once('=').ok_or_else(bad)?;
        let values: Vec<String> = values.split(',').map(str::to_owned).collect();
        let good = !key.is_empty() && values.iter().all(|value| !value.is_empty());
        if good { Ok(Self { key: key.to_owned(), values }) } else { Err(bad()) }
    }
}

/// A fleet to be enrolled, or found enrolled.
#[derive(Clone, Debug)]
pub struct Roll {
    pub prefix: String,
    pub devices: usize,
    /// By turns; at least one.
    pub boards: Vec<BoardId>,
    pub labels: Vec<Label>,
    pub faults: Faults,
    pub seed: u64,
    /// Enrolments beside each other.
    pub at_once: usize,
    /// States are kept from run to run.
    pub keeps_state: bool,
}

/// Everybody, and the root of trust that they were given.
#[derive(Debug)]
pub struct Enrolled {
    pub seats: Vec<Seat>,
    pub root: Vec<u8>,
    /// Devices that had no identity yet.
    pub fresh: usize,
    /// Held while the fleet lives: two of the same devices would fight for their connections.
    _lock: File,
}

impl Roll {
    /// The names of all devices.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        (1..=self.devices).map(|number| self.name(number))
    }

    fn name(&self, number: usize) -> String {
        format!("{}-{number}", self.prefix)
    }

    /// Finds the identities in `folder`, and has those made at `api` that are missing.
    pub fn call(&self, api: Option<&Api>, folder: &Path, bar: &ProgressBar) -> Result<Enrolled> {
        ensure!(!self.boards.is_empty(), "a fleet of no board");
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let lock = lock(folder)?;
        let (next, fresh) = (AtomicUsize::new(1), AtomicUsize::new(0));
        let (common, root) = (OnceLock::new(), OnceLock::new());
        let seats = Mutex::new(Vec::with_capacity(self.devices));
        let work = || -> Result<()> {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number > self.devices {
                    return Ok(());
                }
                let name = self.name(number);
                let (seat, is_fresh) = self
                    .seat(api, folder, number, &common, &root)
                    .inspect_err(|_| next.store(self.devices + 1, Ordering::Relaxed))
                    .with_context(|| format!("enrolling {name}"))?;
                fresh.fetch_add(usize::from(is_fresh), Ordering::Relaxed);
                seats.lock().unwrap_or_else(PoisonError::into_inner).push(seat);
                bar.inc(1);
            }
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..self.at_once.max(1)).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| match worker.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
        let mut seats = seats.into_inner().unwrap_or_else(PoisonError::into_inner);
        seats.sort_by_key(|seat| seat.number);
        let root = root.into_inner().context("a fleet of no devices")?;
        Ok(Enrolled { seats, root, fresh: fresh.into_inner(), _lock: lock })
    }

    /// One device, and whether it was enrolled just now.
    fn seat(
        &self,
        api: Option<&Api>,
        folder: &Path,
        number: usize,
        common: &OnceLock<Common>,
        root: &OnceLock<Vec<u8>>,
    ) -> Result<(Seat, bool)> {
        let name = self.name(number);
        // Dropped at the end: its lock is an open file.
        let data = DataDir::open(&folder.join(&name))?;
        let board = &self.boards[(number - 1) % self.boards.len()];
        let stored = Identity::load(&data)?;
        let is_fresh = stored.is_none();
        let mut identity = match stored {
            Some(stored) => stored,
            None => {
                let api = api.with_context(|| {
                    format!("{} holds no identity of {name}; give --context to enrol it", folder.display())
                })?;
                let identity = enrol(api, &data, &name, board)?;
                self.label(api, &name, number)?;
                identity
            }
        };
        root.get_or_init(|| identity.root.get().as_bytes().to_vec());
        let common = match common.get() {
            Some(common) => common,
            None => {
                let made = Common::new(&identity.ca_pem)?;
                common.get_or_init(|| made)
            }
        };
        let tls = if common.serves(&identity) { common.config(&identity)? } else { identity.tls(&data)? };
        // What only an enrolment or a renewal needs is kilobytes a device.
        identity.root = RawValue::NULL.to_owned();
        identity.ca_pem = String::new();
        identity.certificate_pem = String::new();
        let state = self.keeps_state.then(|| data.root().join(STATE_FILE));
        let saved = state.as_deref().map(files::read_state).transpose()?.unwrap_or_default();
        let number = number as u64;
        let character = Character::draw(&self.faults, self.seed, number);
        let seat = Seat { number, identity, tls: tls.into(), board: board.clone(), character, saved, state };
        Ok((seat, is_fresh))
    }

    fn label(&self, api: &Api, name: &str, number: usize) -> Result<()> {
        if self.labels.is_empty() {
            return Ok(());
        }
        let labels: BTreeMap<&str, &str> = self
            .labels
            .iter()
            .filter_map(|label| {
                let value = label.values.get((number - 1) % label.values.len().max(1))?;
                Some((label.key.as_str(), value.as_str()))
            })
            .collect();
        api.put(&format!("/devices/{name}/labels"), &json!(labels)).map(drop)
    }
}

/// By a one-time token, as any device.
fn enrol(api: &Api, data: &DataDir, name: &str, board: &BoardId) -> Result<Identity> {
    let created = api.post(DEVICE_TOKENS, &json!({ "device": name, "ttl_s": TOKEN_S }))?;
    let text = |key: &str| created[key].as_str();
    let enrolment = json!({
        "server": text("server").unwrap_or(api.server()),
        "ca_pem": text("ca_pem").unwrap_or(api.ca_pem()),
        "token": text("secret").context("a token without a secret")?,
        "device": name,
    });
    let path = data.root().join(TOKEN_FILE);
    write_private(&path, &enrolment)?;
    let mut backoff = Backoff::new(RETRY_MS, RETRY_MS_MAX, 0);
    let identity = loop {
        match Identity::load_or_enrol(data, Some(&path), board) {
            Ok(identity) => break identity,
            // The same token with the same key opens again.
            Err(_) if backoff.tries() + 1 < TRIES => {
                thread::sleep(Duration::from_millis(backoff.next_ms()));
            }
            Err(error) => return Err(error.into()),
        }
    };
    std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    Ok(identity)
}

fn write_private(path: &Path, value: &Value) -> Result<()> {
    let writing = || format!("writing {}", path.display());
    let mut options = File::options();
    options.create(true).truncate(true).write(true).mode(PRIVATE);
    let mut file = options.open(path).with_context(writing)?;
    file.write_all(value.to_string().as_bytes()).with_context(writing)
}

fn lock(folder: &Path) -> Result<File> {
    let path: PathBuf = folder.join(LOCK_FILE);
    let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
    ensure!(file.try_lock().is_ok(), "another simulated fleet uses {}", folder.display());
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roll(boards: &[&str]) -> Roll {
        Roll {
            prefix: "sim".to_owned(),
            devices: 3,
            boards: boards.iter().map(|board| board.parse().unwrap()).collect(),
            labels: Vec::new(),
            faults: Faults::default(),
            seed: 1,
            at_once: 2,
            keeps_state: true,
        }
    }

    #[test]
    fn labels_are_read_with_values_by_turns() {
        let label: Label = "site=a,b".parse().unwrap();
        assert_eq!((label.key.as_str(), label.values.len()), ("site", 2));
        for bad in ["site", "=a", "site=", "site=a,,b"] {
            assert!(bad.parse::<Label>().unwrap_err().contains("KEY=VALUE"), "{bad}");
        }
    }

    #[test]
    fn without_identities_and_without_a_server_the_first_that_lacks_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = roll(&["x86-64"]).call(None, folder.path(), &ProgressBar::hidden()).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("enrolling sim-") && text.contains("--context"), "{text}");
        assert_eq!(roll(&["x86-64"]).names().collect::<Vec<_>>(), ["sim-1", "sim-2", "sim-3"]);
    }

    #[test]
    fn two_fleets_do_not_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        assert!(lock(folder.path()).unwrap_err().to_string().contains("another simulated fleet"));
        drop(held);
        lock(folder.path()).unwrap();
    }
}
