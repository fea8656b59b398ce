//! The device's decisions: which bundle to fetch, when to switch to it, when to go back, what to count and when
//! to try again. Data in, data out: no async, no files, no network, no clock and no randomness of its own.
//!
//! The shell around it (`edgewright-agent`) feeds [`update::Machine`] with inputs and the time, carries out the
//! actions it asks for, and tells it how they went.

pub mod budget;
pub mod chunks;
pub mod latency;
pub mod outbox;
pub mod profile;
pub mod renewal;
pub mod trial;
pub mod update;
pub mod window;
