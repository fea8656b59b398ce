//! Where a slot stands.

use crate::chunks::ChunkSet;
use shared::{
    Digest, Timestamp,
    manifest::Manifest,
    wire::{DeltaRef, VersionRef},
};

#[derive(Debug)]
pub(super) enum State {
    Idle,
    /// Waits for `version` to be loaded.
    Loading {
        version: VersionRef,
    },
    Fetching {
        manifest: Option<Box<Manifest>>,
        step: Step,
    },
    Testing,
    Activating,
    Trial {
        ends_at: Timestamp,
        concluding: bool,
    },
    Waiting {
        until: Timestamp,
        reason: String,
        wait: Wait,
    },
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    Storage,
    /// To receive more of this blob, whose part stays on disk.
    Budget {
        blob: Digest,
    },
}

impl State {
    /// An attempt at the target is under way.
    pub(super) fn is_attempt(&self) -> bool {
        match self {
            Self::Idle | Self::Loading { .. } => false,
            Self::Fetching { .. }
            | Self::Testing
            | Self::Activating
            | Self::Trial { .. }
            | Self::Waiting { .. } => true,
        }
    }

    /// For errors.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::Loading { .. } => "Loading",
            Self::Fetching { .. } => "Fetching",
            Self::Testing => "Testing",
            Self::Activating => "Activating",
            Self::Trial { .. } => "Trial",
            Self::Waiting { .. } => "Waiting",
        }
    }
}

/// Whether `active`, which does not answer, is loaded again. Beside [`State`]: an attempt at another version may be
/// under way meanwhile, and may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reload {
    /// It answers, or the state waits for it.
    No,
    /// Another try is due at this time.
    At(Timestamp),
    /// The answer of a try is due.
    Asked,
}

#[derive(Debug)]
pub(super) enum Step {
    Opening(Blob),
    Receiving(Receive),
    Verifying(Blob),
    ReadingManifest,
    Reserving,
    /// Whether the file at this place can be made from what is here.
    Choosing {
        at: usize,
        delta: DeltaRef,
    },
    /// The blob is a delta that has come.
    Applying(Blob),
}

/// The blob in work: the envelope (`file` is none), a file of the manifest, or the delta that gives that file.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    pub(super) digest: Digest,
    pub(super) size_bytes: u64,
    pub(super) file: Option<usize>,
    pub(super) delta: Option<DeltaRef>,
}

#[derive(Debug)]
pub(super) struct Receive {
    pub(super) blob: Blob,
    pub(super) present: ChunkSet,
    pub(super) asked: ChunkSet,
    pub(super) again_at: Timestamp,
    /// Of chunks that were asked for and have not come. Beside `asked`: a chunk that came for another slot is no longer
    /// missing, and comes here all the same.
    pub(super) under_way_bytes: u64,
    /// More may be asked for.
    pub(super) hungry: bool,
}
