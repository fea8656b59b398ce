//! What tests of several modules begin from.

use control_core::entity::{Version, VersionState};
use shared::{
    Digest, ModelVersionId, Timestamp,
    manifest::{FileEntry, MODEL_FILE},
};
use uuid::Uuid;

/// Version `label` of the model `m` for `x86-64`, whose bundle has the digest of `bundle` and holds `files`.
pub(crate) fn version(label: &str, bundle: &str, files: Vec<FileEntry>) -> Version {
    Version {
        id: ModelVersionId(Uuid::now_v7()),
        name: format!("m@{label}"),
        model: "m".parse().unwrap(),
        version: label.parse().unwrap(),
        board: "x86-64".parse().unwrap(),
        dataset: None,
        state: VersionState::Draft,
        bundle: Digest::of(bundle.as_bytes()),
        bundle_bytes: 100,
        size_bytes: files.iter().map(|file| file.size_bytes).sum(),
        job: None,
        parent: None,
        check_skipped: false,
        report: None,
        files,
        created_at: Timestamp(1_790_000_000_000),
    }
}

/// A model file of a thousand bytes with the digest of `content`.
pub(crate) fn model_file(content: &str) -> FileEntry {
    FileEntry { name: MODEL_FILE.to_owned(), digest: Digest::of(content.as_bytes()), size_bytes: 1000 }
}
