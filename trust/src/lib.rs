//! What a device believes: TUF metadata, written and read, the time that its expiry is measured by, certificates by
//! EST, signatures on models for others' tools, and where a model came from.
//!
//! Pure: files, sockets and clocks are the caller's.

pub mod author;
pub mod catalogue;
pub mod client;
pub mod clock;
pub mod est;
mod in_toto;
pub mod lineage;
pub mod oms;
mod provider;
