//! The built-in model as a version of a model named `shapes`, and keys that vouch for it, for tests.

use crate::{engine::Engine, models::Loaded, trust::Trust};
use ::trust::{
    author::{Delegation, Document, Keys, Root, Snapshot, Target, Targets, TimestampMetadata},
    catalogue::{key_path, key_target, model_path},
};
use runtime::Golden;
use shared::{
    Digest, ModelName, ModelVersionId, TeamName, Timestamp, VersionLabel,
    board::RuntimeName,
    manifest::{FileEntry, Lineage, Manifest, Preprocess, Task, TensorSpec},
    signing::{Keyring, SigningKey},
    topic::TrustFile,
    wire::VersionRef,
};
use std::{collections::BTreeMap, path::Path};
use uuid::Uuid;

pub(crate) const MODEL: &[u8] = include_bytes!("../assets/selftest.onnx");
pub(crate) const GOLDEN: &[u8] = include_bytes!("../assets/selftest.safetensors");

/// The manifest of version `v1.MINOR`.
pub(crate) fn manifest(minor: u32, files: Vec<FileEntry>) -> Manifest {
    let spec = |name: &str, shape: &[usize]| TensorSpec { name: name.to_owned(), shape: shape.to_vec() };
    Manifest {
        format: 1,
        model: "shapes".parse().unwrap(),
        version: format!("v1.{minor}").parse().unwrap(),
        version_id: ModelVersionId(Uuid::from_u128(minor.into())),
        task: Task::ImageClassification,
        board: "x86-64".parse().unwrap(),
        created_at: Timestamp(0),
        input: spec("input", &[1, 8, 8]),
        output: spec("probabilities", &[3]),
        preprocess: Preprocess::linear(1.0 / 255.0, 0.0),
        labels: ["low", "mid", "high"].map(str::to_owned).to_vec(),
        heads: Vec::new(),
        alarm: None,
        golden_tolerance: 0.05,
        files,
        lineage: Lineage { dataset: Digest::of(b"d"), job: None, seed: 0, parent: None },
    }
}

/// Version `v1.MINOR`, ready to answer.
pub(crate) fn loaded(minor: u32) -> Loaded {
    let golden = Golden::read(GOLDEN).unwrap();
    let engine = Engine::open(&[RuntimeName::Tract], None).unwrap();
    let chosen = engine.choose(MODEL, &golden, 0.05).0.unwrap();
    let manifest = manifest(minor, Vec::new());
    let version = VersionRef {
        model: manifest.model.clone(),
        version: manifest.version,
        version_id: manifest.version_id,
        bundle: Digest::of(&minor.to_le_bytes()),
    };
    Loaded { version, manifest, runnable: chosen.runnable, golden, measured_us: chosen.measured_us }
}

/// A model repository in miniature: its keys, and what it vouches for.
pub(crate) struct Offline {
    root: SigningKey,
    targets: SigningKey,
    pub(crate) snapshot: SigningKey,
    pub(crate) timestamp: SigningKey,
    first_root: Vec<u8>,
    version: u64,
    paths: BTreeMap<String, Target>,
    /// A team with a key of its own, for the models `TEAM-…`.
    team: Option<(TeamName, SigningKey, BTreeMap<String, Target>)>,
}

/// Everything in the tests is good until then.
const EXPIRES: Timestamp = Timestamp(4_000_000_000_000);

fn delegation((name, key, _): &(TeamName, SigningKey, BTreeMap<String, Target>)) -> Delegation {
    Delegation {
        name: name.clone(),
        keys: Keys { threshold: 1, keys: vec![key.public().clone()] },
        paths: vec![format!("models/{name}-*/*")],
        terminating: false,
    }
}

pub(crate) fn key() -> SigningKey {
    SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap()
}

impl Offline {
    /// Vouches for the keys of `keyring` and for no version.
    pub(crate) fn new(keyring: &Keyring) -> Self {
        let (root, targets, snapshot, timestamp) = (key(), key(), key(), key());
        let one = |key: &SigningKey| Keys { threshold: 1, keys: vec![key.public().clone()] };
        let mut first = Document::of_root(&Root {
            version: 1,
            issued_at: Timestamp(1),
            expires: EXPIRES,
            root: one(&root),
            targets: one(&targets),
            snapshot: one(&snapshot),
            timestamp: one(&timestamp),
        });
        first.sign(&root).unwrap();
        let paths = keyring.keys().iter().map(|key| (key_path(key), key_target(key))).collect();
        Self {
            root,
            targets,
            snapshot,
            timestamp,
            first_root: first.to_bytes(),
            version: 1,
            paths,
            team: None,
        }
    }

    pub(crate) fn first_root(&self) -> &[u8] {
        &self.first_root
    }

    /// Vouches for a bundle from the next version of the targets on.
    pub(crate) fn vouch(&mut self, model: &ModelName, version: VersionLabel, bundle: Digest) {
        let target = Target { length: 1, sha256: bundle, custom: None };
        self.paths.insert(model_path(model, version), target);
        self.version += 1;
    }

    /// Lets a team vouch for a bundle.
    pub(crate) fn vouch_as_team(
        &mut self,
        team: &str,
        model: &ModelName,
        version: VersionLabel,
        bundle: Digest,
    ) {
        let target = Target { length: 1, sha256: bundle, custom: None };
        let paths = BTreeMap::from([(model_path(model, version), target)]);
        self.team = Some((team.parse().unwrap(), key(), paths));
        self.version += 1;
    }

    pub(crate) fn withdraw(&mut self, model: &ModelName, version: VersionLabel) {
        self.paths.remove(&model_path(model, version));
        self.version += 1;
    }

    /// The metadata that is in force.
    pub(crate) fn pieces(&self) -> Vec<(TrustFile, Vec<u8>)> {
        self.pieces_by(&self.targets)
    }

    /// The same with targets that somebody else signed.
    pub(crate) fn pieces_by(&self, signer: &SigningKey) -> Vec<(TrustFile, Vec<u8>)> {
        let (version, issued_at, expires) = (self.version, Timestamp(self.version), EXPIRES);
        let mut targets = Document::of_targets(&Targets {
            version,
            issued_at,
            expires,
            targets: self.paths.clone(),
            delegations: self.team.iter().map(delegation).collect(),
        });
        targets.sign(signer).unwrap();
        let mut meta = BTreeMap::from([("targets.json".to_owned(), targets.meta())]);
        let team = self.team.as_ref().map(|(name, key, paths)| {
            let (targets, delegations) = (paths.clone(), Vec::new());
            let mut team =
                Document::of_targets(&Targets { version, issued_at, expires, targets, delegations });
            team.sign(key).unwrap();
            meta.insert(format!("{name}.json"), team.meta());
            (TrustFile::Delegated(name.clone()), team.to_bytes())
        });
        let mut snapshot = Document::of_snapshot(&Snapshot { version, issued_at, expires, meta });
        snapshot.sign(&self.snapshot).unwrap();
        let mut timestamp = Document::of_timestamp(&TimestampMetadata {
            version,
            issued_at,
            expires,
            snapshot: snapshot.meta(),
        });
        timestamp.sign(&self.timestamp).unwrap();
        let top = [
            (TrustFile::Root { version: 1 }, self.first_root.clone()),
            (TrustFile::Targets, targets.to_bytes()),
            (TrustFile::Snapshot, snapshot.to_bytes()),
            (TrustFile::Timestamp, timestamp.to_bytes()),
        ];
        top.into_iter().chain(team).collect()
    }

    /// A second root, signed by the first, with other online keys.
    pub(crate) fn replace_online_keys(&mut self) -> (TrustFile, Vec<u8>) {
        (self.snapshot, self.timestamp) = (key(), key());
        let one = |key: &SigningKey| Keys { threshold: 1, keys: vec![key.public().clone()] };
        let mut root = Document::of_root(&Root {
            version: 2,
            issued_at: Timestamp(2),
            expires: EXPIRES,
            root: one(&self.root),
            targets: one(&self.targets),
            snapshot: one(&self.snapshot),
            timestamp: one(&self.timestamp),
        });
        root.sign(&self.root).unwrap();
        (TrustFile::Root { version: 2 }, root.to_bytes())
    }

    /// A device that was given the first root and has heard of all the rest.
    pub(crate) fn trust(&self, path: &Path) -> Trust {
        let trust = Trust::open(path.to_owned(), &self.first_root).unwrap();
        for (file, bytes) in self.pieces() {
            trust.offer(file, &bytes).unwrap();
        }
        trust
    }
}
