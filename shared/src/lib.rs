//! The contract between the control plane, the forge and the agents.
//!
//! Ids, topics, wire types, manifest, signing, boards and job files: what more than one part must read the
//! same way. No async, no network, no clock: bytes and time come in from the caller.

pub mod backoff;
pub mod board;
mod causes;
pub mod digest;
pub mod id;
pub mod job;
pub mod latency;
pub mod limits;
pub mod manifest;
pub mod profile;
pub mod read;
pub mod schema;
pub mod signing;
pub mod space;
pub mod text;
pub mod time;
pub mod topic;
pub mod wire;

pub use causes::causes;
pub use digest::Digest;
pub use id::{
    BoardId, DatasetId, DeviceId, JobId, ModelName, ModelVersionId, RolloutId, SlotName, TeamName, UserName,
    VersionLabel,
};
pub use signing::{Signed, Verified};
pub use time::Timestamp;
