//! A repository in memory, whose every rule can be broken.

use crate::{
    author::{Delegation, Document, Keys, Meta, Root, Snapshot, Target, Targets, TimestampMetadata},
    client::{Source, SourceError},
};
use shared::{Digest, Timestamp, signing::SigningKey};
use std::{cell::RefCell, collections::BTreeMap};

pub const DAY_MS: u64 = 86_400_000;
/// The day on which everything begins.
pub const START: Timestamp = Timestamp(20_000 * DAY_MS);

pub fn day(days: u64) -> Timestamp {
    START.plus_ms(days * DAY_MS)
}

pub fn key() -> SigningKey {
    SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap()
}

pub fn keys(threshold: u32, keys: &[&SigningKey]) -> Keys {
    Keys { threshold, keys: keys.iter().map(|key| key.public().clone()).collect() }
}

pub fn target(content: &[u8]) -> Target {
    Target { length: content.len() as u64, sha256: Digest::of(content), custom: None }
}

pub fn signed(mut document: Document, keys: &[&SigningKey]) -> Document {
    for key in keys {
        document.sign(*key).unwrap();
    }
    document
}

/// Files by name, and which were asked for.
#[derive(Default)]
pub struct Files {
    pub files: BTreeMap<String, Vec<u8>>,
    pub asked: RefCell<Vec<String>>,
}

impl Source for Files {
    fn get(&self, file: &str, _max_bytes: u64) -> Result<Option<Vec<u8>>, SourceError> {
        self.asked.borrow_mut().push(file.to_owned());
        Ok(self.files.get(file).cloned())
    }
}

/// Two offline root keys of which one signs, one targets key, one key each for snapshot and timestamp.
pub struct World {
    pub root_key: SigningKey,
    pub targets_key: SigningKey,
    pub snapshot_key: SigningKey,
    pub timestamp_key: SigningKey,
    pub root: Root,
    pub targets: Targets,
    pub delegated: BTreeMap<String, (Targets, Vec<SigningKey>)>,
    pub snapshot_version: u64,
    pub timestamp_version: u64,
    pub now: Timestamp,
    pub served: Files,
}

impl World {
    /// Version 1 of everything, published.
    pub fn new() -> Self {
        let (root_key, targets_key, snapshot_key, timestamp_key) = (key(), key(), key(), key());
        let root = Root {
            version: 1,
            issued_at: START,
            expires: day(365),
            root: keys(1, &[&root_key]),
            targets: keys(1, &[&targets_key]),
            snapshot: keys(1, &[&snapshot_key]),
            timestamp: keys(1, &[&timestamp_key]),
        };
        let targets = Targets {
            version: 1,
            issued_at: START,
            expires: day(100),
            targets: BTreeMap::from([("models/ctr/1".to_owned(), target(b"one"))]),
            delegations: Vec::new(),
        };
        let mut world = Self {
            root_key,
            targets_key,
            snapshot_key,
            timestamp_key,
            root,
            targets,
            delegated: BTreeMap::new(),
            snapshot_version: 0,
            timestamp_version: 0,
            now: START,
            served: Files::default(),
        };
        world.publish_root(&[]);
        world.publish();
        world
    }

    pub fn first_root(&self) -> Vec<u8> {
        self.served.files["1.root.json"].clone()
    }

    /// Signs the root with its key, and with `others`.
    pub fn publish_root(&mut self, others: &[&SigningKey]) {
        let mut document = signed(Document::of_root(&self.root), &[&self.root_key]);
        for other in others {
            document.sign(*other).unwrap();
        }
        self.served.files.insert(format!("{}.root.json", self.root.version), document.to_bytes());
    }

    /// Signs all but the root, with the next versions of snapshot and timestamp.
    pub fn publish(&mut self) {
        let targets = signed(Document::of_targets(&self.targets), &[&self.targets_key]);
        let mut meta = BTreeMap::from([("targets.json".to_owned(), targets.meta())]);
        self.served.files.insert(format!("{}.targets.json", self.targets.version), targets.to_bytes());
        for (name, (delegated, keys)) in &self.delegated {
            let document = signed(Document::of_targets(delegated), &keys.iter().collect::<Vec<_>>());
            meta.insert(format!("{name}.json"), document.meta());
            self.served.files.insert(format!("{}.{name}.json", delegated.version), document.to_bytes());
        }
        self.publish_snapshot(meta);
    }

    pub fn publish_snapshot(&mut self, meta: BTreeMap<String, Meta>) {
        self.snapshot_version += 1;
        let snapshot = Snapshot {
            version: self.snapshot_version,
            issued_at: self.now,
            expires: self.now.plus_ms(30 * DAY_MS),
            meta,
        };
        let document = signed(Document::of_snapshot(&snapshot), &[&self.snapshot_key]);
        let name = format!("{}.snapshot.json", self.snapshot_version);
        self.served.files.insert(name, document.to_bytes());
        self.publish_timestamp(document.meta());
    }

    pub fn publish_timestamp(&mut self, snapshot: Meta) {
        self.timestamp_version += 1;
        let timestamp = TimestampMetadata {
            version: self.timestamp_version,
            issued_at: self.now,
            expires: self.now.plus_ms(7 * DAY_MS),
            snapshot,
        };
        let document = signed(Document::of_timestamp(&timestamp), &[&self.timestamp_key]);
        self.served.files.insert("timestamp.json".to_owned(), document.to_bytes());
    }

    /// A file as it is served.
    pub fn document(&self, file: &str) -> Document {
        Document::parse(&self.served.files[file]).unwrap()
    }

    pub fn delegate(&mut self, to: &str, paths: &[&str], terminating: bool, key: &SigningKey) {
        self.targets.delegations.push(delegation(to, paths, terminating, key));
    }

    /// What a delegated role lists, and to whom it delegates.
    pub fn role(&mut self, name: &str, paths: &[&str], delegations: Vec<Delegation>, key: SigningKey) {
        let targets = Targets {
            version: 1,
            issued_at: self.now,
            expires: day(100),
            targets: paths.iter().map(|path| ((*path).to_owned(), target(name.as_bytes()))).collect(),
            delegations,
        };
        self.delegated.insert(name.to_owned(), (targets, vec![key]));
    }
}

pub fn delegation(to: &str, paths: &[&str], terminating: bool, key: &SigningKey) -> Delegation {
    Delegation {
        name: to.parse().unwrap(),
        keys: keys(1, &[key]),
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        terminating,
    }
}
