//! The bundles that a device may be asked to run, the deltas between them, and the keys that sign for them.

use shared::{
    Digest, ModelVersionId, Timestamp,
    manifest::{FileEntry, GOLDEN_FILE, Lineage, MODEL_FILE, Manifest, Preprocess, Task, TensorSpec},
    signing::{Keyring, Role, SigningKey, TrustedKey},
    wire::{DeltaRef, VersionRef},
};
use std::sync::OnceLock;
use uuid::Uuid;

pub(in super::super) const BUNDLES: usize = 4;

pub(super) struct Bundle {
    pub(super) version: VersionRef,
    pub(super) manifest: Manifest,
    pub(super) other: Manifest,
    pub(super) other_board: Manifest,
    pub(super) envelope_bytes: u64,
}

impl Bundle {
    pub(super) fn blobs(&self) -> impl Iterator<Item = Digest> + '_ {
        self.manifest.files.iter().map(|file| file.digest).chain([self.version.bundle])
    }

    pub(super) fn model(&self) -> &FileEntry {
        &self.manifest.files[0]
    }
}

/// Deltas to the models of all bundles from those of all others are of this size.
pub(super) const DELTA_BYTES: u64 = 2 * 1024 + 5;

pub(super) fn delta(from: usize, to: usize) -> DeltaRef {
    let model = |number: usize| keys().bundles[number].model().digest;
    DeltaRef {
        from: model(from),
        to: model(to),
        delta: Digest::of(format!("delta {from} {to}").as_bytes()),
        bytes: DELTA_BYTES,
    }
}

/// The bundle to whose model a delta leads.
pub(super) fn led_to(blob: Digest) -> Option<usize> {
    let pairs = (0..BUNDLES).flat_map(|to| (0..BUNDLES).map(move |from| (from, to)));
    pairs.filter(|(from, to)| from != to).find(|&(from, to)| delta(from, to).delta == blob).map(|(_, to)| to)
}

pub(super) struct Keys {
    pub(super) director: SigningKey,
    pub(super) release: SigningKey,
    pub(super) ring: Keyring,
    pub(super) bundles: Vec<Bundle>,
}

pub(super) fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let key = || SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap();
        let (director, release) = (key(), key());
        let ring = Keyring::new([
            TrustedKey { role: Role::Director, key: director.public().clone() },
            TrustedKey { role: Role::Release, key: release.public().clone() },
        ]);
        Keys { director, release, ring, bundles: (0..BUNDLES).map(bundle).collect() }
    })
}

fn bundle(number: usize) -> Bundle {
    let name = |what: &str| format!("{what}-{number}");
    let spec = |name: &str, shape: &[usize]| TensorSpec { name: name.to_owned(), shape: shape.to_vec() };
    let file = |file: &str, size_bytes: u64| FileEntry {
        name: file.to_owned(),
        digest: Digest::of(name(file).as_bytes()),
        size_bytes,
    };
    // The third is larger than one window.
    let model_bytes = if number == 2 { 300 * 1024 + 7 } else { 9 * 1024 + 100 };
    let manifest = Manifest {
        format: 1,
        model: "mnist".parse().unwrap(),
        version: format!("v1.{number}").parse().unwrap(),
        version_id: ModelVersionId(Uuid::from_u128(number as u128 + 1)),
        task: Task::ImageClassification,
        board: "x86-64".parse().unwrap(),
        created_at: Timestamp(0),
        input: spec("input", &[1, 2, 2]),
        output: spec("probabilities", &[2]),
        preprocess: Preprocess::linear(1.0, 0.0),
        labels: vec!["a".to_owned(), "b".to_owned()],
        heads: Vec::new(),
        alarm: None,
        golden_tolerance: 0.1,
        files: vec![file(MODEL_FILE, model_bytes), file(GOLDEN_FILE, 3000)],
        lineage: Lineage { dataset: Digest::of(b"d"), job: None, seed: 0, parent: None },
    };
    let other = Manifest { version: "v9.9".parse().unwrap(), ..manifest.clone() };
    let other_board = Manifest { board: "jetson".parse().unwrap(), ..manifest.clone() };
    let version = VersionRef {
        model: manifest.model.clone(),
        version: manifest.version,
        version_id: manifest.version_id,
        bundle: Digest::of(name("envelope").as_bytes()),
    };
    Bundle { version, manifest, other, other_board, envelope_bytes: 2100 }
}
