//! The model repository: TUF metadata that says which bundles and which online keys the offline keys vouch for.
//!
//! Root and targets are signed by keys that a server need not hold. Snapshot and timestamp are signed online, which
//! keeps the rest fresh. What is accepted here is what a device accepts: every change is first read by the same
//! client that runs on devices.

mod files;
mod keys;

pub use files::{Error as FileError, Folder};
pub use keys::{Error as KeyError, KeyFolder, OfflineRole};

use crate::signer::Online;
use shared::{
    TeamName, Timestamp,
    signing::{Keyring, PublicKey, SigningKey},
};
use std::collections::BTreeMap;
use trust::{
    author::{Document, Keys, Meta, Root, Signer, Snapshot, Target, Targets, TimestampMetadata},
    catalogue::{key_path, key_target},
    client::{self, Accepted, Client},
};

/// Root and targets are good for this long: the offline keys have to come out once a year.
const OFFLINE_DAYS: u64 = 365;
/// A snapshot is good for this long.
const SNAPSHOT_DAYS: u64 = 30;
/// A device that hears nothing newer for this long takes no update any more.
const TIMESTAMP_DAYS: u64 = 7;
/// The timestamp is signed again this long before its time is up, the snapshot at half of it.
const RENEW_BEFORE_DAYS: u64 = 6;
const DAY_MS: u64 = 86_400_000;

/// Why metadata was not made or not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key did not sign.
    #[error("a {role} key did not sign: {reason}")]
    Sign { role: &'static str, reason: String },
    /// It is no metadata of that role.
    #[error("this is no {role} metadata: {reason}")]
    Malformed { role: String, reason: String },
    /// Somebody else was quicker, or it was made from an old state.
    #[error("{role} is version {got}, the next one is {expected}; begin again with what the server has now")]
    Version { role: String, got: u64, expected: u64 },
    /// A device would not take it.
    #[error("devices would refuse this {role}: {source}")]
    Refused {
        role: String,
        #[source]
        source: client::Error,
    },
}

/// Who may sign what, at the first start.
#[derive(Clone, Debug)]
pub struct Ceremony {
    pub root: Keys,
    pub targets: Keys,
    pub snapshot: PublicKey,
    pub timestamp: PublicKey,
}

/// All metadata that is valid now, and the root's whole chain.
#[derive(Clone, Debug)]
pub struct Repository {
    /// From version 1 on.
    roots: Vec<Document>,
    targets: Document,
    delegated: BTreeMap<TeamName, Document>,
    snapshot: Document,
    timestamp: Document,
}

impl Repository {
    /// The first root, and targets that vouch for the keys of `keyring` and for no model yet. Both carry no
    /// signature: [`Repository::found`] takes them when the offline keys have signed.
    pub fn draft(ceremony: &Ceremony, keyring: &Keyring, now: Timestamp) -> (Document, Document) {
        let one = |key: &PublicKey| Keys { threshold: 1, keys: vec![key.clone()] };
        let expires = now.plus_ms(OFFLINE_DAYS * DAY_MS);
        let root = Root {
            version: 1,
            issued_at: now,
            expires,
            root: ceremony.root.clone(),
            targets: ceremony.targets.clone(),
            snapshot: one(&ceremony.snapshot),
            timestamp: one(&ceremony.timestamp),
        };
        let targets = keyring.keys().iter().map(|key| (key_path(key), key_target(key))).collect();
        let targets = Targets { version: 1, issued_at: now, expires, targets, delegations: Vec::new() };
        (Document::of_root(&root), Document::of_targets(&targets))
    }

    /// A repository of a signed first root and signed first targets.
    pub fn found(
        root: Document,
        targets: Document,
        online: &Online<'_>,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let meta = BTreeMap::from([("targets.json".to_owned(), targets.meta())]);
        let snapshot = sign_snapshot(1, meta, online, now)?;
        let timestamp = sign_timestamp(1, &snapshot, online, now)?;
        let repository = Self { roots: vec![root], targets, delegated: BTreeMap::new(), snapshot, timestamp };
        repository.check(None, "root", now)?;
        Ok(repository)
    }

    /// Metadata by the names that TUF gives the files; those that are not in force any more are left out.
    ///
    /// # Errors
    /// One is missing or is no metadata.
    pub fn from_files(files: &BTreeMap<String, Vec<u8>>) -> Result<Self, Error> {
        let read = |name: &str| match files.get(name) {
            Some(bytes) => Document::parse(bytes).map_err(|error| malformed(name, &error)),
            None => Err(malformed(name, &"it is missing")),
        };
        let mut roots = vec![read("1.root.json")?];
        while files.contains_key(&format!("{}.root.json", roots.len() + 1)) {
            roots.push(read(&format!("{}.root.json", roots.len() + 1))?);
        }
        let timestamp = read("timestamp.json")?;
        let newest = timestamp.as_timestamp().map_err(|error| malformed("timestamp", &error))?;
        let snapshot = read(&format!("{}.snapshot.json", newest.snapshot.version))?;
        let mut targets = None;
        let mut delegated = BTreeMap::new();
        for (file, meta) in snapshot.as_snapshot().map_err(|error| malformed("snapshot", &error))?.meta {
            let document = read(&format!("{}.{file}", meta.version))?;
            match file.strip_suffix(".json") {
                Some("targets") => targets = Some(document),
                name => {
                    let name = name.and_then(|name| name.parse().ok());
                    let name = name.ok_or_else(|| malformed("snapshot", &format!("it names {file:?}")))?;
                    delegated.insert(name, document);
                }
            }
        }
        let targets = targets.ok_or_else(|| malformed("snapshot", &"it names no targets"))?;
        Ok(Self { roots, targets, delegated, snapshot, timestamp })
    }

    /// What is in force of the root.
    pub fn root(&self) -> Result<Root, Error> {
        self.newest_root().as_root().map_err(|error| malformed("root", &error))
    }

    /// The root that devices are given when they enrol.
    pub fn first_root(&self) -> &Document {
        self.roots.first().unwrap_or_else(|| unreachable!("a repository has a root"))
    }

    fn newest_root(&self) -> &Document {
        self.roots.last().unwrap_or_else(|| unreachable!("a repository has a root"))
    }

    /// What is in force of the targets.
    pub fn targets(&self) -> Result<Targets, Error> {
        self.targets.as_targets().map_err(|error| malformed("targets", &error))
    }

    /// What a delegated role vouches for; `None` where it has signed nothing yet.
    pub fn delegated(&self, role: &TeamName) -> Result<Option<Targets>, Error> {
        let document = self.delegated.get(role);
        document.map(Document::as_targets).transpose().map_err(|error| malformed(role.as_str(), &error))
    }

    /// What is in force of each role, by its name.
    pub fn documents(&self) -> impl Iterator<Item = (String, &Document)> {
        let top = [
            ("root".to_owned(), self.newest_root()),
            ("targets".to_owned(), &self.targets),
            ("snapshot".to_owned(), &self.snapshot),
            ("timestamp".to_owned(), &self.timestamp),
        ];
        top.into_iter().chain(self.delegated.iter().map(|(name, document)| (name.to_string(), document)))
    }

    /// All metadata by the names that TUF gives the files.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let former = self.roots.iter().rev().skip(1).map(|root| ("root".to_owned(), root));
        let all = former.chain(self.documents()).map(|(role, document)| {
            let file = match role.as_str() {
                "timestamp" => "timestamp.json".to_owned(),
                role => format!("{}.{role}.json", document.version()),
            };
            (file, document.to_bytes())
        });
        all.collect()
    }

    /// Takes signed metadata of an offline role, the next version of it, and signs what follows from it.
    pub fn accept(
        &self,
        role: &OfflineRole,
        document: Document,
        online: &Online<'_>,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let name = role.to_string();
        let before = match role {
            OfflineRole::Root => Some(self.newest_root().version()),
            OfflineRole::Targets => Some(self.targets.version()),
            OfflineRole::Delegated(name) => self.delegated.get(name).map(Document::version),
        };
        let expected = before.unwrap_or(0) + 1;
        if document.version() != expected {
            return Err(Error::Version { role: name, got: document.version(), expected });
        }
        let mut next = self.clone();
        match role {
            OfflineRole::Root => {
                document.as_root().map_err(|error| malformed("root", &error))?;
                next.roots.push(document);
            }
            OfflineRole::Targets => {
                let targets = document.as_targets().map_err(|error| malformed("targets", &error))?;
                // A team that is delegated to no more leaves nothing behind.
                next.delegated.retain(|name, _| targets.delegations.iter().any(|has| has.name == *name));
                next.targets = document;
            }
            OfflineRole::Delegated(name) => {
                document.as_targets().map_err(|error| malformed(name.as_str(), &error))?;
                next.delegated.insert(name.clone(), document);
            }
        }
        next.sign_again(online, now, true)?;
        next.check(Some(self), &name, now)?;
        if let OfflineRole::Delegated(delegated) = role {
            next.check_delegated(delegated, now)?;
        }
        Ok(next)
    }

    /// Takes the next root, and with it the next targets where their keys have changed.
    pub fn accept_rotation(
        &self,
        root: Document,
        targets: Option<Document>,
        online: &Online<'_>,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let mut next = self.clone();
        next.roots.push(root);
        if let Some(targets) = targets {
            next.targets = targets;
        }
        next.sign_again(online, now, true)?;
        next.check(Some(self), "root", now)?;
        Ok(next)
    }

    /// The same with what is signed online signed again, where its time is nearly up or the keys have changed.
    pub fn renewed(&self, online: &Online<'_>, now: Timestamp) -> Result<Option<Self>, Error> {
        let mut next = self.clone();
        if !next.sign_again(online, now, false)? {
            return Ok(None);
        }
        next.check(Some(self), "timestamp", now)?;
        Ok(Some(next))
    }

    fn sign_again(&mut self, online: &Online<'_>, now: Timestamp, changed: bool) -> Result<bool, Error> {
        let root = self.root()?;
        let soon = |document: &Document, before_ms| document.expires().0 < now.0.saturating_add(before_ms);
        let other_keys = |document: &Document, keys: &Keys| document.valid_signatures(keys) < keys.threshold;
        let due = changed
            || soon(&self.snapshot, SNAPSHOT_DAYS * DAY_MS / 2)
            || other_keys(&self.snapshot, &root.snapshot);
        if due {
            let mut meta = BTreeMap::from([("targets.json".to_owned(), self.targets.meta())]);
            meta.extend(self.delegated.iter().map(|(name, is)| (format!("{name}.json"), is.meta())));
            self.snapshot = sign_snapshot(self.snapshot.version() + 1, meta, online, now)?;
        }
        let due = due
            || soon(&self.timestamp, RENEW_BEFORE_DAYS * DAY_MS)
            || other_keys(&self.timestamp, &root.timestamp);
        if due {
            self.timestamp = sign_timestamp(self.timestamp.version() + 1, &self.snapshot, online, now)?;
        }
        Ok(due)
    }

    /// Would a device that has `before` take this?
    fn check(&self, before: Option<&Self>, role: &str, now: Timestamp) -> Result<(), Error> {
        let refused = |source| Error::Refused { role: role.to_owned(), source };
        let Some(before) = before else { return self.refreshed(role, now).map(drop) };
        // What has expired since still says what must not be gone back behind.
        let mut client = Client::restore(&before.accepted()).map_err(refused)?;
        client.refresh(&Held(self.files()), now).map(drop).map_err(refused)
    }

    /// What a device has that heard of all this.
    fn accepted(&self) -> Accepted {
        let files = self.documents().map(|(role, document)| (role, document.to_bytes()));
        Accepted::from_files(self.newest_root().to_bytes(), files)
    }

    /// A delegated role is read only when something of it is asked for: asks for all of it.
    fn check_delegated(&self, role: &TeamName, now: Timestamp) -> Result<(), Error> {
        let refused = |source| Error::Refused { role: role.to_string(), source };
        let (mut client, source) = self.refreshed(role.as_str(), now)?;
        let targets = self.delegated(role)?.map(|targets| targets.targets).unwrap_or_default();
        for (path, target) in targets {
            let found = client.target(&path, &source, now).map_err(refused)?;
            if found.is_none_or(|found| found.sha256 != target.sha256) {
                return Err(Error::Malformed {
                    role: role.to_string(),
                    reason: format!(
                        "{path} is not {role}'s to sign; see its paths with `edgewright trust status`"
                    ),
                });
            }
        }
        Ok(())
    }

    /// A device that has just enrolled and heard all this, and what it heard it from. `role` is what an error is
    /// about.
    fn refreshed(&self, role: &str, now: Timestamp) -> Result<(Client, Held), Error> {
        let refused = |source| Error::Refused { role: role.to_owned(), source };
        let source = Held(self.files());
        let mut client = Client::new(&self.first_root().to_bytes()).map_err(refused)?;
        client.refresh(&source, now).map_err(refused)?;
        Ok((client, source))
    }

    /// What the targets and the delegated roles say of `path`, as a device would find it.
    pub fn find(&self, path: &str, now: Timestamp) -> Result<Option<Target>, Error> {
        let (mut client, source) = self.refreshed("targets", now)?;
        let refused = |source| Error::Refused { role: "targets".to_owned(), source };
        client.target(path, &source, now).map_err(refused)
    }

    /// The next root, with another year. It carries no signature yet.
    pub fn next_root(&self, now: Timestamp) -> Result<Root, Error> {
        let mut root = self.root()?;
        root.version += 1;
        root.issued_at = now;
        root.expires = now.plus_ms(OFFLINE_DAYS * DAY_MS);
        Ok(root)
    }

    /// The next targets: with `add`, without `remove`. They carry no signature yet.
    pub fn next_targets(
        &self,
        role: &OfflineRole,
        add: BTreeMap<String, Target>,
        remove: &[String],
        now: Timestamp,
    ) -> Result<Targets, Error> {
        let mut targets = match role {
            OfflineRole::Delegated(name) => self.delegated(name)?.unwrap_or_else(|| Targets {
                version: 0,
                issued_at: now,
                expires: now,
                targets: BTreeMap::new(),
                delegations: Vec::new(),
            }),
            OfflineRole::Root | OfflineRole::Targets => self.targets()?,
        };
        targets.version += 1;
        targets.issued_at = now;
        targets.expires = now.plus_ms(OFFLINE_DAYS * DAY_MS);
        targets.targets.retain(|path, _| !remove.contains(path));
        targets.targets.extend(add);
        Ok(targets)
    }
}

/// Files in memory as a client reads them.
struct Held(BTreeMap<String, Vec<u8>>);

impl client::Source for Held {
    fn get(&self, file: &str, max_bytes: u64) -> Result<Option<Vec<u8>>, client::SourceError> {
        Ok(self.0.get(file).filter(|bytes| bytes.len() as u64 <= max_bytes).cloned())
    }
}

fn sign_snapshot(
    version: u64,
    meta: BTreeMap<String, Meta>,
    online: &Online<'_>,
    now: Timestamp,
) -> Result<Document, Error> {
    let expires = now.plus_ms(SNAPSHOT_DAYS * DAY_MS);
    let mut document = Document::of_snapshot(&Snapshot { version, issued_at: now, expires, meta });
    sign(&mut document, online.snapshot, "snapshot")?;
    Ok(document)
}

fn sign_timestamp(
    version: u64,
    snapshot: &Document,
    online: &Online<'_>,
    now: Timestamp,
) -> Result<Document, Error> {
    let expires = now.plus_ms(TIMESTAMP_DAYS * DAY_MS);
    let timestamp = TimestampMetadata { version, issued_at: now, expires, snapshot: snapshot.meta() };
    let mut document = Document::of_timestamp(&timestamp);
    sign(&mut document, online.timestamp, "timestamp")?;
    Ok(document)
}

/// Adds a signature of each of `keys` to `document`.
pub fn sign_all(document: &mut Document, keys: &[SigningKey], role: &'static str) -> Result<(), Error> {
    keys.iter().try_for_each(|key| sign(document, key, role))
}

fn sign(document: &mut Document, signer: &dyn Signer, role: &'static str) -> Result<(), Error> {
    document.sign(signer).map_err(|error| Error::Sign { role, reason: error.to_string() })
}

fn malformed(role: &str, error: &dyn std::fmt::Display) -> Error {
    Error::Malformed { role: role.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests;
