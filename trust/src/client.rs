//! Reading TUF metadata as a device does (specification 1.0.31, section 5): root chain, timestamp, snapshot,
//! targets, then the delegations on the way to one target.
//!
//! Signatures, versions and pins are checked by `sigstore-tuf`; this module fetches, remembers, and keeps floors that
//! outlive a refresh cut short. The time is an argument: see [`crate::clock`].

mod error;
mod listed;
mod source;
mod walk;

pub use error::Error;
pub use listed::Listed;
pub use source::{Limits, Source, SourceError, quoted};

use crate::{
    author::{ISSUED_AT, Target},
    clock::SignedTime,
    provider,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{Digest, Timestamp};
use sigstore_tuf::{
    Metadata, Root, Snapshot, Targets, TrustedMetadataSet,
    metadata::{MetaFile, Role},
};
use std::collections::BTreeMap;

/// The metadata that was accepted so far, byte for byte: what a device keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The newest root alone.
    #[serde(with = "source::base64")]
    root: Vec<u8>,
    #[serde(with = "source::base64_option", default)]
    timestamp: Option<Vec<u8>>,
    #[serde(with = "source::base64_option", default)]
    snapshot: Option<Vec<u8>>,
    #[serde(with = "source::base64_option", default)]
    targets: Option<Vec<u8>>,
    /// By role name, unquoted.
    #[serde(with = "source::base64_map", default)]
    delegated: BTreeMap<String, Vec<u8>>,
}

impl Accepted {
    /// A root that is believed because of where it came from, and what was accepted of each role after it.
    pub fn from_files(root: Vec<u8>, files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let mut accepted = Self { root, ..Self::default() };
        for (role, bytes) in files {
            match role.as_str() {
                "root" => {}
                "timestamp" => accepted.timestamp = Some(bytes),
                "snapshot" => accepted.snapshot = Some(bytes),
                "targets" => accepted.targets = Some(bytes),
                _ => drop(accepted.delegated.insert(role, bytes)),
            }
        }
        accepted
    }

    /// Every role that was accepted and its file: `root`, `timestamp`, `snapshot`, `targets`, then delegated ones.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let root = (!self.root.is_empty()).then_some(("root", self.root.as_slice()));
        let others =
            [("timestamp", &self.timestamp), ("snapshot", &self.snapshot), ("targets", &self.targets)];
        let others =
            others.into_iter().filter_map(|(role, bytes)| bytes.as_deref().map(|bytes| (role, bytes)));
        let delegated = self.delegated.iter().map(|(role, bytes)| (role.as_str(), bytes.as_slice()));
        root.into_iter().chain(others).chain(delegated)
    }
}

/// What a refresh has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refreshed {
    pub root: bool,
    pub timestamp: bool,
    pub snapshot: bool,
    pub targets: bool,
}

impl Refreshed {
    /// Has anything changed?
    pub fn any(&self) -> bool {
        self.root || self.timestamp || self.snapshot || self.targets
    }
}

/// A device's view of a repository.
#[derive(Clone, Debug)]
pub struct Client {
    set: TrustedMetadataSet,
    /// The last snapshot that the root's keys vouch for, whether or not the timestamp still names it. No later one
    /// may go back behind it.
    floor: Option<Metadata<Snapshot>>,
    /// The last targets that were accepted, whether or not the snapshot still names them.
    targets: Option<Metadata<Targets>>,
    accepted: Accepted,
    limits: Limits,
}

impl Client {
    /// A device that knows only a root, from its installation.
    ///
    /// # Errors
    /// The root is not signed by its own keys, or is no root.
    pub fn new(root: &[u8]) -> Result<Self, Error> {
        Self::restore(&Accepted { root: root.to_vec(), ..Accepted::default() })
    }

    /// A device that goes on from what it kept. All of it is verified again, but for expiry; a role that does not
    /// verify any more is dropped and fetched anew.
    ///
    /// # Errors
    /// The root is not signed by its own keys, or is no root.
    pub fn restore(accepted: &Accepted) -> Result<Self, Error> {
        provider::ensure();
        let set = TrustedMetadataSet::from_root(&accepted.root).map_err(|error| Error::of("root", error))?;
        let accepted = accepted.clone();
        let mut client = Self { set, floor: None, targets: None, accepted, limits: Limits::default() };
        client.load();
        Ok(client)
    }

    /// The same with other limits.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// What has been accepted, to be kept.
    pub fn accepted(&self) -> &Accepted {
        &self.accepted
    }

    /// The version of the root that is believed.
    pub fn root_version(&self) -> u64 {
        self.set.root().version
    }

    /// Fetches what is newer. What was accepted before an error stays accepted, and is worth keeping.
    ///
    /// # Errors
    /// `source` failed or lacks a file, or what it gave is refused; [`Error::reason`] says in a word why.
    pub fn refresh(&mut self, source: &dyn Source, now: Timestamp) -> Result<Refreshed, Error> {
        let now = instant(now);
        let mut refreshed = Refreshed::default();
        let chain = self.refresh_root(source, &mut refreshed);
        if refreshed.root {
            self.load();
        }
        chain?;
        self.set.check_root_expired(now).map_err(|error| Error::of("root", error))?;
        refreshed.timestamp = self.refresh_timestamp(source, now)?;
        refreshed.snapshot = self.refresh_snapshot(source, now)?;
        refreshed.targets = self.refresh_targets(source, now)?;
        Ok(refreshed)
    }

    /// What is known of the target at `path`, by the first role on the way that lists it; `None` where no role does.
    ///
    /// # Errors
    /// As [`Client::refresh`], which has to have succeeded; or the target is listed without a SHA-256.
    pub fn target(
        &mut self,
        path: &str,
        source: &dyn Source,
        now: Timestamp,
    ) -> Result<Option<Target>, Error> {
        self.find(path, source, now)?.map(|listed| listed.target(path)).transpose()
    }

    /// The targets of the top level as they were accepted last, in order of their paths. Those without a SHA-256
    /// are left out. That they are still in force is what [`Client::target`] checks.
    pub fn targets(&self) -> impl Iterator<Item = (&str, Target)> {
        let listed = self.targets.iter().flat_map(|targets| &targets.signed().targets);
        listed.filter_map(|(path, target)| {
            let target = Listed::of(target).target(path).ok()?;
            Some((path.as_str(), target))
        })
    }

    /// What the accepted metadata says about the time, for [`crate::clock::TrustedTime::observe`]. Nothing counts
    /// beyond its own expiry.
    pub fn signed_time(&self) -> SignedTime {
        let root = self.set.root();
        let issued = |extra: &BTreeMap<String, Value>, expires: jiff::Timestamp| {
            let issued_at = extra.get(ISSUED_AT).and_then(Value::as_u64).unwrap_or(0);
            Timestamp(issued_at).min(milliseconds(expires))
        };
        let of_root = issued(&root.extra, root.expires);
        let of_targets = self.targets.as_ref().map(|is| issued(&is.signed().extra, is.signed().expires));
        let of_timestamp = self.set.timestamp().map(|is| issued(&is.extra, is.expires));
        let of_snapshot = self.floor.as_ref().map(|is| issued(&is.signed().extra, is.signed().expires));
        let online = of_timestamp.max(of_snapshot).unwrap_or_default();
        SignedTime {
            offline: of_targets.unwrap_or_default().max(of_root),
            online: online.min(milliseconds(root.expires)),
            online_keys: online_keys(root),
        }
    }

    /// Follows the root chain, at most [`Limits::roots`] of it (5.3).
    fn refresh_root(&mut self, source: &dyn Source, refreshed: &mut Refreshed) -> Result<(), Error> {
        for _ in 0..self.limits.roots {
            let next = self.set.root().version.saturating_add(1);
            let Some(bytes) = source::get(source, &format!("{next}.root.json"), self.limits.root_bytes)?
            else {
                return Ok(());
            };
            self.set.update_root(&bytes).map_err(|error| Error::of("root", error))?;
            self.accepted.root = bytes;
            refreshed.root = true;
        }
        Err(Error::RootChain { version: self.set.root().version })
    }

    /// Feeds what is kept to a set that knows the root alone. Expiry does not count: what has expired still says
    /// what must not be gone back behind.
    fn load(&mut self) {
        let kept = &mut self.accepted;
        let long_ago = jiff::Timestamp::MIN;
        kept.timestamp =
            kept.timestamp.take().filter(|bytes| self.set.update_timestamp(bytes, long_ago).is_ok());
        self.floor = vouched(self.set.root(), kept.snapshot.as_deref(), "snapshot");
        self.targets = vouched(self.set.root(), kept.targets.as_deref(), "targets");
        kept.snapshot = kept.snapshot.take().filter(|_| self.floor.is_some());
        kept.targets = kept.targets.take().filter(|_| self.targets.is_some());
        // Refused where the timestamp has gone on and the snapshot has not followed yet.
        let loaded =
            kept.snapshot.as_ref().is_some_and(|bytes| self.set.update_snapshot(bytes, long_ago).is_ok());
        if let Some(bytes) = kept.targets.as_ref().filter(|_| loaded) {
            let _refused = self.set.update_targets(bytes, long_ago);
        }
    }

    /// (5.4)
    fn refresh_timestamp(&mut self, source: &dyn Source, now: jiff::Timestamp) -> Result<bool, Error> {
        let refused = |error| Error::of("timestamp", error);
        let bytes = source::needed(source, "timestamp.json", self.limits.timestamp_bytes)?;
        match self.set.update_timestamp(&bytes, now) {
            Ok(()) => {
                self.accepted.timestamp = Some(bytes);
                Ok(true)
            }
            Err(sigstore_tuf::Error::EqualVersion { .. }) => {
                self.set.check_timestamp_expired(now).map_err(refused)?;
                Ok(false)
            }
            Err(error) => Err(refused(error)),
        }
    }

    /// (5.5)
    fn refresh_snapshot(&mut self, source: &dyn Source, now: jiff::Timestamp) -> Result<bool, Error> {
        let pin = self.set.timestamp().and_then(sigstore_tuf::Timestamp::snapshot_meta).cloned();
        let pin = pin.ok_or_else(|| Error::unpinned("timestamp", "snapshot.json"))?;
        if let Some(set) =
            self.accepted.snapshot.as_deref().and_then(|kept| self.with_snapshot(kept, now).ok())
        {
            self.set = set;
            return Ok(false);
        }
        let bytes = self.fetch(source, "snapshot", &pin, self.limits.snapshot_bytes)?;
        let set = self.with_snapshot(&bytes, now)?;
        self.floor = vouched(set.root(), Some(&bytes), "snapshot");
        self.set = set;
        self.accepted.snapshot = Some(bytes);
        let pins = &self.set.snapshot().map(|snapshot| &snapshot.meta);
        self.accepted
            .delegated
            .retain(|role, _| pins.is_some_and(|pins| pins.contains_key(&format!("{role}.json"))));
        Ok(true)
    }

    /// The set with another snapshot. `TrustedMetadataSet` compares it with the one that it holds; the floor is one
    /// that it may have lost when a refresh was cut short.
    fn with_snapshot(&self, bytes: &[u8], now: jiff::Timestamp) -> Result<TrustedMetadataSet, Error> {
        let mut set = self.set.clone();
        set.update_snapshot(bytes, now).map_err(|error| Error::of("snapshot", error))?;
        let pins = set.snapshot().map(|snapshot| &snapshot.meta);
        for (file, floor) in self.floor.iter().flat_map(|floor| &floor.signed().meta) {
            let got = pins.and_then(|pins| pins.get(file)).map_or(0, |pin| pin.version);
            if got < floor.version {
                return Err(Error::Rollback { role: file.clone(), have: floor.version, got });
            }
        }
        Ok(set)
    }

    /// (5.6)
    fn refresh_targets(&mut self, source: &dyn Source, now: jiff::Timestamp) -> Result<bool, Error> {
        self.set.check_snapshot_expired(now).map_err(|error| Error::of("snapshot", error))?;
        let kept = self.accepted.targets.as_deref();
        if kept.is_some_and(|kept| self.set.update_targets(kept, now).is_ok()) {
            return Ok(false);
        }
        let pin = self.pin("targets.json").ok_or_else(|| Error::unpinned("snapshot", "targets.json"))?;
        let bytes = self.fetch(source, "targets", &pin, self.limits.targets_bytes)?;
        self.set.update_targets(&bytes, now).map_err(|error| Error::of("targets", error))?;
        self.targets = vouched(self.set.root(), Some(&bytes), "targets");
        self.accepted.targets = Some(bytes);
        Ok(true)
    }

    fn pin(&self, file: &str) -> Option<MetaFile> {
        self.set.snapshot().and_then(|snapshot| snapshot.meta.get(file)).cloned()
    }

    /// Fetches the file of a role that `pin` names, and no more bytes than it names.
    fn fetch(
        &self,
        source: &dyn Source,
        role: &str,
        pin: &MetaFile,
        bytes_max: u64,
    ) -> Result<Vec<u8>, Error> {
        let quoted = source::quoted(role);
        let file = if self.set.root().consistent_snapshot {
            format!("{}.{quoted}.json", pin.version)
        } else {
            format!("{quoted}.json")
        };
        source::needed(source, &file, pin.length.map_or(bytes_max, |length| length.min(bytes_max)))
    }
}

/// `bytes` as metadata that the root's keys vouch for.
fn vouched<T: Role>(root: &Root, bytes: Option<&[u8]>, role: &str) -> Option<Metadata<T>> {
    let metadata = Metadata::<T>::from_slice(bytes?).ok()?;
    metadata.verify_threshold(&root.keys, root.role(role)?, role).ok()?;
    Some(metadata)
}

/// Stands for the keys of timestamp and snapshot: another digest, other keys.
fn online_keys(root: &Root) -> Digest {
    let mut names: Vec<&String> = ["timestamp", "snapshot"]
        .iter()
        .filter_map(|role| root.role(role))
        .flat_map(|role| &role.keyids)
        .collect();
    names.sort();
    names.dedup();
    let keys = names.into_iter().filter_map(|name| root.keys.get(name));
    let text: Vec<&str> = keys.map(|key| key.keyval.public.as_str()).collect();
    Digest::of(text.join("\n").as_bytes())
}

/// A time beyond what can be written is the last that can.
fn instant(time: Timestamp) -> jiff::Timestamp {
    let ms = i64::try_from(time.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX)
}

fn milliseconds(time: jiff::Timestamp) -> Timestamp {
    Timestamp(u64::try_from(time.as_millisecond()).unwrap_or(0))
}

#[cfg(test)]
mod tests;
