//! The two versions of a model, and who signs for them.

use shared::{
    DeviceId, Digest, ModelVersionId, RolloutId, Signed, SlotName, Timestamp, Verified,
    manifest::{FileEntry, GOLDEN_FILE, Lineage, MODEL_FILE, Manifest, Preprocess, Task, TensorSpec},
    signing::{Keyring, Role, SigningKey, TrustedKey},
    wire::{Assignment, Desired, TrialPolicy, VersionRef},
};
use uuid::Uuid;

pub const CHUNK_BYTES: u32 = 16 * 1024;
const MODEL_BYTES: u64 = 100_000;
const ENVELOPE_BYTES: u64 = 2_100;
pub const BOARD: &str = "x86-64";

/// A version with its manifest.
pub struct Bundle {
    pub version: VersionRef,
    pub manifest: Verified<Manifest>,
}

/// What is signed, and by whom.
pub struct Author {
    director: SigningKey,
    ring: Keyring,
    pub before: Bundle,
    pub fresh: Bundle,
    pub rollout: RolloutId,
    pub trial: TrialPolicy,
}

pub fn slot() -> SlotName {
    "default".parse().unwrap()
}

impl Author {
    pub fn new() -> Self {
        let key = || SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap();
        let (director, release) = (key(), key());
        let ring = Keyring::new([
            TrustedKey { role: Role::Director, key: director.public().clone() },
            TrustedKey { role: Role::Release, key: release.public().clone() },
        ]);
        let bundle = |number| bundle(number, &release, &ring);
        Self {
            before: bundle(0),
            fresh: bundle(1),
            rollout: RolloutId(Uuid::from_u128(77)),
            trial: TrialPolicy { duration_ms: 20_000, ..TrialPolicy::default() },
            director,
            ring,
        }
    }

    pub fn bundle(&self, digest: Digest) -> &Bundle {
        if self.fresh.version.bundle == digest { &self.fresh } else { &self.before }
    }

    pub fn assignment(&self, bundle: &Bundle) -> Assignment {
        let VersionRef { model, version, version_id, bundle } = bundle.version.clone();
        Assignment {
            slot: slot(),
            model,
            version,
            version_id,
            bundle,
            bundle_bytes: ENVELOPE_BYTES,
            rollout: Some(self.rollout),
            trial: self.trial.clone(),
            deltas: Vec::new(),
            update_bytes_max: None,
        }
    }

    pub fn wish(&self, device: &DeviceId, generation: u64, bundle: &Bundle) -> Desired {
        Desired {
            device: device.clone(),
            generation,
            issued_at: Timestamp(0),
            chunk_bytes: CHUNK_BYTES,
            assignments: vec![self.assignment(bundle)],
        }
    }

    /// As a device gets it.
    pub fn signed(&self, desired: &Desired) -> Verified<Desired> {
        let envelope = Signed::sign(desired, &[&self.director]).unwrap();
        Signed::parse(&envelope).unwrap().verify(&self.ring).unwrap()
    }
}

fn bundle(number: u64, release: &SigningKey, ring: &Keyring) -> Bundle {
    let digest = |what: &str| Digest::of(format!("{what}-{number}").as_bytes());
    let spec = |name: &str, shape: &[usize]| TensorSpec { name: name.to_owned(), shape: shape.to_vec() };
    let file = |name: &str, size_bytes| FileEntry { name: name.to_owned(), digest: digest(name), size_bytes };
    let manifest = Manifest {
        format: 1,
        model: "mnist".parse().unwrap(),
        version: format!("v1.{number}").parse().unwrap(),
        version_id: ModelVersionId(Uuid::from_u128(u128::from(number) + 1)),
        task: Task::ImageClassification,
        board: BOARD.parse().unwrap(),
        created_at: Timestamp(0),
        input: spec("input", &[1, 2, 2]),
        output: spec("probabilities", &[2]),
        preprocess: Preprocess::linear(1.0, 0.0),
        labels: vec!["a".to_owned(), "b".to_owned()],
        heads: Vec::new(),
        alarm: None,
        golden_tolerance: 0.1,
        files: vec![file(MODEL_FILE, MODEL_BYTES), file(GOLDEN_FILE, 3000)],
        lineage: Lineage { dataset: Digest::of(b"d"), job: None, seed: 0, parent: None },
    };
    let version = VersionRef {
        model: manifest.model.clone(),
        version: manifest.version,
        version_id: manifest.version_id,
        bundle: digest("envelope"),
    };
    let envelope = Signed::sign(&manifest, &[release]).unwrap();
    Bundle { version, manifest: Signed::parse(&envelope).unwrap().verify(ring).unwrap() }
}
