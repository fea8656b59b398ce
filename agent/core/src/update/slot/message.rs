//! What a slot asks of the shell, and what it hears back.

use crate::{chunks::ChunkSet, trial::Statistics};
use shared::{
    Digest, Verified,
    manifest::{FileEntry, Manifest},
    wire::{DeltaRef, Refusal, VersionRef, Want},
};

/// How much of a blob is on the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// All of it, with the promised digest.
    Whole,
    /// These chunks.
    Part(ChunkSet),
}

/// What there is to make a file from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The file itself, with its digest.
    Whole,
    /// The file that the delta starts from.
    There,
    /// Neither.
    Missing,
}

/// The answer to a [`SlotAction`].
#[derive(Debug)]
pub enum SlotInput {
    Activated {
        bundle: Digest,
        runtime: String,
    },
    /// The files of the version are damaged, or no runtime takes it.
    NotActivated {
        bundle: Digest,
        detail: String,
    },
    /// `fetched` is what is on disk when this is handed in: chunks that came since the blob was opened count.
    BlobOpened {
        digest: Digest,
        fetched: Fetched,
    },
    /// The blob is complete and has its digest.
    BlobVerified {
        digest: Digest,
    },
    /// The blob has another digest; its bytes are gone.
    BlobCorrupt {
        digest: Digest,
        detail: String,
    },
    /// What is there of the file `digest`.
    BaseLookedFor {
        digest: Digest,
        base: Base,
    },
    /// The file that the delta gives is whole and has its digest; the delta is gone.
    DeltaApplied {
        delta: Digest,
    },
    /// The delta does not give its file; it is gone.
    DeltaRefused {
        delta: Digest,
        detail: String,
    },
    ManifestRead {
        bundle: Digest,
        manifest: Box<Verified<Manifest>>,
    },
    /// Not signed by a key that counts, not vouched for, or older than what the device had.
    ManifestRefused {
        bundle: Digest,
        reason: Refusal,
        detail: String,
    },
    Reserved {
        bundle: Digest,
    },
    /// The disk is full or failed, for the bundle or for the blob of it that is in work (`bundle` is the digest of
    /// either): the attempt waits and is made again.
    StorageFailed {
        bundle: Digest,
        detail: String,
    },
    Tested {
        bundle: Digest,
        runtime: String,
    },
    TestRefused {
        bundle: Digest,
        reason: Refusal,
        detail: String,
    },
    /// What was counted so far in the trial.
    TrialCounted {
        bundle: Digest,
        statistics: Box<Statistics>,
    },
    /// What was counted in all, and what the golden inputs gave where they were run.
    TrialConcluded {
        bundle: Digest,
        statistics: Box<Statistics>,
        golden: Result<(), String>,
    },
}

impl SlotInput {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Activated { .. } => "Activated",
            Self::NotActivated { .. } => "NotActivated",
            Self::BlobOpened { .. } => "BlobOpened",
            Self::BlobVerified { .. } => "BlobVerified",
            Self::BlobCorrupt { .. } => "BlobCorrupt",
            Self::BaseLookedFor { .. } => "BaseLookedFor",
            Self::DeltaApplied { .. } => "DeltaApplied",
            Self::DeltaRefused { .. } => "DeltaRefused",
            Self::ManifestRead { .. } => "ManifestRead",
            Self::ManifestRefused { .. } => "ManifestRefused",
            Self::Reserved { .. } => "Reserved",
            Self::StorageFailed { .. } => "StorageFailed",
            Self::Tested { .. } => "Tested",
            Self::TestRefused { .. } => "TestRefused",
            Self::TrialCounted { .. } => "TrialCounted",
            Self::TrialConcluded { .. } => "TrialConcluded",
        }
    }
}

/// What the shell shall do for a slot.
#[derive(Clone, Debug, PartialEq)]
pub enum SlotAction {
    /// Let this version answer requests. Answer: `Activated` or `NotActivated`.
    Activate { version: VersionRef },
    /// Let no version answer requests.
    Deactivate,
    /// Look how much of a blob is there and listen for its chunks. Answer: `BlobOpened` or
    /// `StorageFailed`.
    OpenBlob { digest: Digest, size_bytes: u64, chunk_bytes: u32 },
    /// Ask for chunks.
    Want(Want),
    /// Check a blob whose chunks have all come. Answer: `BlobVerified`, `BlobCorrupt` or
    /// `StorageFailed`.
    VerifyBlob { digest: Digest, size_bytes: u64 },
    /// Look whether the file `digest` is there, or else the one that the delta to it starts from. Answer:
    /// `BaseLookedFor` or `StorageFailed`.
    LookForBase { digest: Digest, size_bytes: u64, from: Digest },
    /// Make a file of `size_bytes` from a delta that has come, check its digest, and remove the delta. Answer:
    /// `DeltaApplied`, `DeltaRefused` or `StorageFailed`, each with the digest of the delta.
    ApplyDelta { delta: DeltaRef, size_bytes: u64 },
    /// Drop the part of a blob and listen for its chunks no longer.
    GiveUpBlob { digest: Digest },
    /// Listen for no chunks of blobs that are not being fetched; their parts stay.
    StopListening,
    /// Ask whether `version` may be installed on a device that had `newest` of this model, and verify the manifest's
    /// signature. Answer: `ManifestRead`, `ManifestRefused` or
    /// `StorageFailed`.
    ReadManifest { version: VersionRef, newest: Option<VersionRef> },
    /// See that the files fit on the disk. Answer: `Reserved` or `StorageFailed`.
    Reserve { bundle: Digest, files: Vec<FileEntry> },
    /// Run the golden inputs on each runtime and keep the fastest that is right, warm. Answer: `Tested`,
    /// `TestRefused` or `StorageFailed`.
    Test { version: VersionRef, manifest: Box<Manifest> },
    /// The trial's time is over. Answer: `TrialConcluded`.
    ConcludeTrial { version: VersionRef },
    /// The attempt at this bundle is over: drop what was loaded for it and the parts of its files.
    Discard { bundle: Digest },
    /// Drop every file, whole or in part, that no pinned bundle needs, and the version before from memory.
    Collect,
}
