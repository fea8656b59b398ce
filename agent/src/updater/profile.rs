//! Latency profiles: takes the request in, has one workload after another measured, and reports.

use super::{Updater, records};
use crate::{
    blobs,
    clock::wall,
    data,
    link::{Refused, Token},
    profiler::{self, Outcome},
};
use agent_core::profile::{Profile, Reporter, Saved};
use shared::{
    BoardId, DeviceId, Signed, Timestamp,
    profile::ProfileRequest,
    topic::Topic,
    wire::{self, EventKind},
};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Largest file that is read: a report, with room.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Wait before a file that could not be written is written again.
const RETRY_MS: u64 = 2_000;
/// All of a core.
const PERMILLE: u32 = 1000;

/// The profile under way, and what is between it and the world.
#[derive(Debug)]
pub(super) struct Profiling {
    profile: Profile,
    path: PathBuf,
    /// After a failure to write.
    write_not_before: Timestamp,
    token: Option<Token>,
    /// The newest request that no key which is known yet has signed.
    unsigned: Option<Vec<u8>>,
    /// When it was looked at last how long requests have taken in all, and how long that was.
    looked: (Instant, Duration),
}

impl Profiling {
    /// Goes on from the file at `path`.
    pub(super) fn restore(device: DeviceId, board: BoardId, path: PathBuf) -> Self {
        let agent_version = env!("CARGO_PKG_VERSION").to_owned();
        let reporter = Reporter { device, board, agent_version };
        Self {
            profile: Profile::restore(reporter, read(&path)),
            path,
            write_not_before: Timestamp(0),
            token: None,
            unsigned: None,
            looked: (Instant::now(), Duration::ZERO),
        }
    }

    pub(super) fn take_unsigned(&mut self) -> Option<Vec<u8>> {
        self.unsigned.take()
    }

    pub(super) fn disconnected(&mut self) {
        self.token = None;
        self.profile.disconnected();
    }

    /// The broker answered at `now`.
    pub(super) fn published(&mut self, token: Token, result: &Result<(), Refused>, now: Timestamp) {
        if self.token != Some(token) {
            return;
        }
        self.token = None;
        match result {
            Ok(()) => self.profile.published(),
            Err(Refused::Malformed(reason)) => {
                tracing::error!(reason, "the broker takes a profile report for none; it is dropped");
                self.profile.published();
            }
            Err(Refused::Busy(reason)) => {
                tracing::warn!(reason, "the broker refused a profile report; trying again later");
                self.profile.not_sent(now);
            }
        }
    }

    fn try_persist(&mut self, now: Timestamp) {
        let Some(saved) = self.profile.unsaved().filter(|_| self.write_not_before <= now) else { return };
        let written = serde_json::to_vec(saved)
            .map_err(std::io::Error::from)
            .and_then(|bytes| data::write_atomically(&self.path, &bytes, 0o600));
        match written {
            Ok(()) => self.profile.persisted(),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the profile waits: its state cannot be written");
                self.write_not_before = now.plus_ms(RETRY_MS);
            }
        }
    }
}

/// What was written last. What cannot be read is as nothing: then at most something is measured again.
fn read(path: &Path) -> Saved {
    let bytes = match blobs::read_limited(path, FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "the state of the profile cannot be read");
            }
            return Saved::default();
        }
    };
    serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "the state of the profile is damaged");
        Saved::default()
    })
}

impl Updater {
    pub(super) fn handle_profile_ask(&mut self, envelope: &[u8]) {
        if envelope.is_empty() {
            return;
        }
        let verified = Signed::<ProfileRequest>::parse(envelope)
            .and_then(|signed| signed.verify(&self.parts.trust.keyring()));
        if matches!(verified, Err(shared::signing::Error::Untrusted { .. })) {
            self.profiling.unsigned = Some(envelope.to_vec());
        }
        let refused = match verified {
            Ok(request) => {
                self.profiling.unsigned = None;
                let now = self.clock.monotonic();
                self.profiling.profile.ask(request, now).map_err(|refused| refused.to_string())
            }
            Err(error) => Err(crate::chain(&error)),
        };
        if let Err(reason) = refused
            && self.is_first_refusal(envelope)
        {
            tracing::warn!(reason, "a profile request was refused");
            let detail = format!("a profile request was refused: {reason}");
            let event = records::of_the_agent(EventKind::DesiredRefused, detail);
            if let Err(error) = self.parts.store.put(&[event]) {
                tracing::warn!(error = crate::chain(&error), "an event was lost");
            }
        }
    }

    pub(super) fn handle_measured(&mut self, outcome: Outcome) {
        let Outcome { generation, measured, took_ms } = outcome;
        let (now, busy) = (self.clock.monotonic(), self.busy_permille());
        self.profiling.profile.measured(generation, measured, took_ms, busy, now);
    }

    /// Begins the next measurement, and reports, where either is due.
    pub(super) fn settle_profile(&mut self) {
        let now = self.clock.monotonic();
        self.profiling.try_persist(now);
        if self.profiling.profile.is_due(now) {
            let busy = self.busy_permille();
            if let Some(task) = self.profiling.profile.next(busy, profiler::processor, now, wall()) {
                let generation = task.generation;
                if self.parts.profiler.try_send(task).is_err() {
                    self.profiling.profile.measured(generation, Vec::new(), 0, busy, now);
                }
            }
            self.profiling.try_persist(now);
        }
        if !self.parts.shared.connected() {
            return;
        }
        let Some(report) = self.profiling.profile.report(profiler::processor, now, wall()) else { return };
        let topic = Topic::ProfileReport(report.device.clone()).to_string();
        let sent = match wire::encode_json("profile report", &report) {
            Ok(payload) => self.parts.link.publish(topic, payload, true).ok(),
            Err(error) => {
                tracing::error!(error = crate::chain(&error), "the profile report was not sent");
                None
            }
        };
        match sent {
            Some(token) => self.profiling.token = Some(token),
            None => self.profiling.profile.not_sent(now),
        }
    }

    /// When the profile has something to do.
    pub(super) fn profile_due(&self) -> Option<Timestamp> {
        if self.profiling.profile.unsaved().is_some() {
            return Some(self.profiling.write_not_before);
        }
        self.profiling.profile.due(self.parts.shared.connected())
    }

    /// Thousandths of one core that requests took since the last call. A trial counts as all of it: its latencies decide.
    fn busy_permille(&mut self) -> u32 {
        let busy: Duration = self.parts.models.all().iter().map(|serving| serving.meter().busy).sum();
        let (at, before) = std::mem::replace(&mut self.profiling.looked, (Instant::now(), busy));
        if !self.counting.is_empty() {
            return PERMILLE;
        }
        let (passed, took) = (at.elapsed().as_secs_f64(), busy.saturating_sub(before).as_secs_f64());
        (took / passed.max(1e-3) * f64::from(PERMILLE)) as u32
    }
}
