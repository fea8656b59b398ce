//! What a device measures for a latency profile, and when: one workload after another, never while requests need the
//! processor, and not for longer than was asked for.
//!
//! What has been accepted is persisted before anything is measured, so that no older request counts after a restart; a
//! finished report is persisted before it leaves, and forgotten when it was taken. A device that is killed while it
//! measures begins again when the request, which is retained, comes again.

use serde::{Deserialize, Serialize};
use shared::{
    BoardId, DeviceId, Timestamp, Verified,
    profile::{Measured, Processor, ProfileReport, ProfileRequest, Workload},
};

/// Least pause between two workloads.
pub const PAUSE_MS: u64 = 20;
/// Wait where requests keep the processor busy.
pub const BUSY_WAIT_MS: u64 = 500;
/// Share of one core, in thousandths, that requests may take for a measurement to begin.
pub const BUSY_PERMILLE_MAX: u32 = 300;
/// Between two reports of one profile.
pub const PROGRESS_MS: u64 = 3_000;

const BUSY: &str = "requests kept the device busy until the time was over";
const LATE: &str = "the time was over";

/// What survives a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Of the newest request that was accepted; zero before the first.
    pub generation: u64,
    /// Nothing is left to measure for it.
    pub finished: bool,
    /// Measured, and not yet taken by the broker.
    pub report: Option<ProfileReport>,
}

/// Why a request is not obeyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the profile request is for {0}, not for this device")]
    OtherDevice(DeviceId),
    #[error("profile request {got} is older than {newest}, which was seen already")]
    Older { got: u64, newest: u64 },
}

/// One workload that shall be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub generation: u64,
    /// Its place in the request.
    pub index: u16,
    pub workload: Workload,
}

/// Who reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reporter {
    pub device: DeviceId,
    pub board: BoardId,
    pub agent_version: String,
}

/// The decisions.
#[derive(Debug)]
pub struct Profile {
    reporter: Reporter,
    saved: Saved,
    /// `saved` is not on disk.
    dirty: bool,
    running: Option<Running>,
    /// A report is on its way to the broker: whether it is the complete one.
    sent: Option<bool>,
    report_not_before: Timestamp,
}

/// A request that is being carried out.
#[derive(Debug)]
struct Running {
    request: ProfileRequest,
    next: usize,
    measuring: bool,
    measured: Vec<Measured>,
    /// Of them the broker was told.
    told: usize,
    not_before: Timestamp,
    ends_at: Timestamp,
    waited_for_requests: bool,
}

impl Profile {
    /// Goes on from what was saved.
    pub fn restore(reporter: Reporter, saved: Saved) -> Self {
        let report_not_before = Timestamp(0);
        Self { reporter, saved, dirty: false, running: None, sent: None, report_not_before }
    }

    /// Takes a request. One that is being carried out, or was, changes nothing.
    ///
    /// # Errors
    /// It is for another device, or older than one that was accepted.
    pub fn ask(&mut self, request: Verified<ProfileRequest>, now: Timestamp) -> Result<(), Refused> {
        let request = request.into_inner();
        if request.device != self.reporter.device {
            return Err(Refused::OtherDevice(request.device));
        }
        let (got, newest) = (request.generation, self.saved.generation);
        if got < newest {
            return Err(Refused::Older { got, newest });
        }
        if got == newest && (self.saved.finished || self.running.is_some()) {
            return Ok(());
        }
        if got > newest {
            self.saved = Saved { generation: got, finished: false, report: None };
            self.dirty = true;
        }
        self.sent = None;
        self.report_not_before = now;
        self.running = Some(Running {
            next: 0,
            measuring: false,
            measured: Vec::new(),
            told: 0,
            not_before: now,
            ends_at: now.plus_ms(request.duration_ms_max),
            waited_for_requests: false,
            request,
        });
        Ok(())
    }

    /// What has to be written before anything else happens.
    pub fn unsaved(&self) -> Option<&Saved> {
        self.dirty.then_some(&self.saved)
    }

    /// It was written.
    pub fn persisted(&mut self) {
        self.dirty = false;
    }

    /// Is a measurement due? The next call of [`Profile::next`] is then worth making.
    pub fn is_due(&self, now: Timestamp) -> bool {
        !self.dirty
            && self.running.as_ref().is_some_and(|running| !running.measuring && running.not_before <= now)
    }

    /// The workload to measure next, if one is due; requests took `busy_permille` of one core since the last call.
    /// Where the time is over or nothing is left, the report is complete.
    pub fn next(
        &mut self,
        busy_permille: u32,
        processor: impl FnOnce() -> Processor,
        now: Timestamp,
        wall: Timestamp,
    ) -> Option<Task> {
        if !self.is_due(now) {
            return None;
        }
        let running = self.running.as_mut()?;
        let left = running.request.workloads.get(running.next);
        if let (Some(workload), true) = (left, now < running.ends_at) {
            if busy_permille > BUSY_PERMILLE_MAX {
                running.waited_for_requests = true;
                running.not_before = now.plus_ms(BUSY_WAIT_MS);
                return None;
            }
            let index = u16::try_from(running.next).unwrap_or(u16::MAX);
            running.measuring = true;
            running.next += 1;
            return Some(Task { generation: running.request.generation, index, workload: workload.clone() });
        }
        let why = if running.waited_for_requests { BUSY } else { LATE };
        let cut_short = left.map(|_| why.to_owned());
        let report = report(&self.reporter, running, processor(), wall, true, cut_short);
        self.running = None;
        self.saved.finished = true;
        self.saved.report = Some(report);
        self.dirty = true;
        self.report_not_before = now;
        None
    }

    /// What came of a task, which took `took_ms`; requests took `busy_permille` of one core meanwhile.
    pub fn measured(
        &mut self,
        generation: u64,
        measured: Vec<Measured>,
        took_ms: u64,
        busy_permille: u32,
        now: Timestamp,
    ) {
        // A newer request may have come while it was measured.
        let current = self.running.as_mut().filter(|running| running.request.generation == generation);
        let Some(running) = current else { return };
        running.measuring = false;
        running.measured.extend(measured);
        // Beside requests it takes half of the time at most.
        let pause_ms = if busy_permille == 0 { PAUSE_MS } else { took_ms.max(PAUSE_MS) };
        running.not_before = now.plus_ms(pause_ms);
    }

    /// A report to publish, if one is due: the complete one, or what there is so far. It is on its way until
    /// [`Profile::published`], [`Profile::not_sent`] or [`Profile::disconnected`].
    pub fn report(
        &mut self,
        processor: impl FnOnce() -> Processor,
        now: Timestamp,
        wall: Timestamp,
    ) -> Option<ProfileReport> {
        if self.dirty || self.sent.is_some() || now < self.report_not_before {
            return None;
        }
        if let Some(report) = &self.saved.report {
            self.sent = Some(true);
            return Some(report.clone());
        }
        let running = self.running.as_mut().filter(|running| running.measured.len() > running.told)?;
        running.told = running.measured.len();
        self.sent = Some(false);
        self.report_not_before = now.plus_ms(PROGRESS_MS);
        Some(report(&self.reporter, running, processor(), wall, false, None))
    }

    /// The broker took the report over, or will never take it.
    pub fn published(&mut self) {
        if self.sent.take() == Some(true) {
            self.saved.report = None;
            self.dirty = true;
        }
    }

    /// The report did not go out, or was refused for a reason that may pass.
    pub fn not_sent(&mut self, now: Timestamp) {
        self.sent = None;
        self.report_not_before = now.plus_ms(PROGRESS_MS);
    }

    /// The link is down: what was on its way is sent again on the next connection.
    pub fn disconnected(&mut self) {
        self.sent = None;
        self.report_not_before = Timestamp(0);
    }

    /// When something is due; none while nothing is, or while what is due waits for an answer, or a report for the link.
    pub fn due(&self, connected: bool) -> Option<Timestamp> {
        let idle = self.running.as_ref().filter(|running| !running.measuring && !self.dirty);
        let waits = connected && self.sent.is_none() && !self.dirty;
        let report = self.saved.report.as_ref().filter(|_| waits);
        let times = [idle.map(|running| running.not_before), report.map(|_| self.report_not_before)];
        times.into_iter().flatten().min()
    }
}

fn report(
    reporter: &Reporter,
    running: &Running,
    processor: Processor,
    wall: Timestamp,
    complete: bool,
    cut_short: Option<String>,
) -> ProfileReport {
    ProfileReport {
        device: reporter.device.clone(),
        board: reporter.board.clone(),
        agent_version: reporter.agent_version.clone(),
        generation: running.request.generation,
        at: wall,
        complete,
        cut_short,
        processor,
        measured: running.measured.clone(),
    }
}

#[cfg(test)]
mod tests;
