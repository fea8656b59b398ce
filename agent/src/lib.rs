//! The agent of one device: fetches the models that the fleet assigns to it, proves each before and after it
//! answers, and serves them on the device, with the network or without it.
//!
//! The decisions are `agent-core`'s. What is here are sockets, files, threads and the clock around it.

pub mod api;
pub mod blobs;
pub mod clock;
pub mod config;
pub mod data;
pub mod engine;
pub mod identity;
pub mod installer;
pub mod link;
pub mod models;
pub mod profiler;
pub mod renewal;
pub mod run;
pub mod selftest;
pub mod status;
pub mod store;
#[cfg(test)]
mod testing;
pub mod trust;
pub mod updater;
pub mod write;

/// An error and its causes on one line, for a log or a person.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Resident memory of this process; none where `/proc` does not say.
pub fn rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}
