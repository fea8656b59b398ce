//! The built-in model as a version of a model named `shapes`, for tests.

use crate::{engine::Engine, models::Loaded};
use runtime::Golden;
use shared::{
    Digest, ModelVersionId, Timestamp,
    board::RuntimeName,
    manifest::{FileEntry, Lineage, Manifest, Preprocess, Task, TensorSpec},
    wire::VersionRef,
};
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
        preprocess: Preprocess { scale: 1.0 / 255.0, offset: 0.0 },
        labels: ["low", "mid", "high"].map(str::to_owned).to_vec(),
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
