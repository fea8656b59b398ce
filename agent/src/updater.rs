//! Carries out what the update machine decides: the one task that owns the machine, the link and the journal.

mod actions;
mod inbox;
mod outbox;
mod persist;
mod profile;
mod records;
pub mod report;

use crate::{
    blobs::Blobs,
    clock::{Clock, wall},
    installer::{Done, Job},
    link::{Link, LinkEvent},
    models::Models,
    profiler::Outcome,
    renewal::CertificateStatus,
    store::{self, Store},
    trust::Trust,
};
use agent_core::{
    budget,
    profile::Task,
    update::{Action, Input, Machine, Rejected, SlotInput},
};
use outbox::Sender;
use persist::Unsaved;
use profile::Profiling;
pub(crate) use records::of_the_agent;
use report::Reporter;
use shared::{
    BoardId, DeviceId, Digest, SlotName, Timestamp,
    topic::Topic,
    wire::{self, EventKind},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};
use tokio::sync::{Notify, mpsc};

/// How often a running trial is judged.
const TRIAL_TICK: Duration = Duration::from_millis(200);
/// How often the time that metadata ages by is written down.
const TRUST_KEEP_MS: u64 = 3_600_000;
/// Messages that are handled together, so that one flush serves their chunks.
const MESSAGES_TOGETHER: usize = 32;

/// What others see of the updater.
#[derive(Debug, Default)]
pub struct Shared {
    connected: AtomicBool,
    reported: Mutex<Option<wire::Reported>>,
    certificate: Mutex<Option<CertificateStatus>>,
    /// Wakes the updater when there are new records in the outbox.
    pub outbox: Notify,
}

impl Shared {
    /// Is there a connection to the broker?
    pub fn connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// What was reported last.
    pub fn reported(&self) -> Option<wire::Reported> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How the device's certificate stands.
    pub fn certificate(&self) -> Option<CertificateStatus> {
        self.certificate.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_certificate(&self, status: CertificateStatus) {
        *self.certificate.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
    }

    fn set_reported(&self, reported: wire::Reported) {
        *self.reported.lock().unwrap_or_else(PoisonError::into_inner) = Some(reported);
    }
}

/// What the updater works with.
pub struct Parts {
    pub device: DeviceId,
    pub board: BoardId,
    pub trust: Arc<Trust>,
    pub api: String,
    pub telemetry_ms: u64,
    /// What may be received.
    pub budget: budget::Limits,
    /// Of all jitter.
    pub seed: u64,
    pub store: Arc<Store>,
    pub blobs: Arc<Blobs>,
    pub models: Arc<Models>,
    pub shared: Arc<Shared>,
    pub link: Arc<dyn Link>,
    pub installer: mpsc::Sender<Job>,
    pub profiler: mpsc::Sender<Task>,
    /// Which profile request was accepted.
    pub profile_file: PathBuf,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parts({})", self.device)
    }
}

/// What comes in.
#[derive(Debug)]
pub struct Inputs {
    pub link: mpsc::Receiver<LinkEvent>,
    pub done: mpsc::Receiver<Done>,
    pub measured: mpsc::Receiver<Outcome>,
}

/// The task.
#[derive(Debug)]
pub struct Updater {
    parts: Parts,
    machine: Machine,
    clock: Clock,
    /// A state that is not on disk yet.
    unsaved: Option<Unsaved>,
    /// Blobs have become whole that perhaps nobody needs.
    collect_due: bool,
    sender: Sender,
    reporter: Reporter,
    profiling: Profiling,
    /// Blobs whose broadcast topic is subscribed.
    listening: BTreeSet<Digest>,
    /// Bundles whose trial counts.
    counting: BTreeMap<SlotName, Digest>,
    /// Refused envelopes and metadata that an event was written for.
    refused: BTreeSet<Digest>,
    /// The newest wish that no key which is known yet has signed: the metadata that names the key may follow.
    unsigned: Option<Vec<u8>>,
    trust_kept_at: Timestamp,
    telemetry_at: Timestamp,
}

/// Most refused envelopes that are remembered.
const REFUSED_MAX: usize = 64;

impl Updater {
    /// Restores the machine and carries out what it asks for first: loading what was active.
    pub fn start(parts: Parts) -> Result<Self, store::Error> {
        let clock = Clock::start();
        let saved = parts.store.saved()?;
        let machine = Machine::restore(
            parts.device.clone(),
            parts.board.clone(),
            parts.budget,
            saved,
            parts.seed,
            clock.monotonic(),
        );
        let started = records::of_the_agent(
            EventKind::AgentStarted,
            format!("edgewright-agent {}", env!("CARGO_PKG_VERSION")),
        );
        if let Err(error) = parts.store.put(&[started]) {
            tracing::warn!(error = crate::chain(&error), "an event was lost");
        }
        let sender = Sender::new(parts.device.clone(), parts.seed);
        let reporter = Reporter::new(parts.device.clone(), parts.board.clone(), parts.api.clone());
        let profiling =
            Profiling::restore(parts.device.clone(), parts.board.clone(), parts.profile_file.clone());
        let clock_now = clock.monotonic();
        let telemetry_at = clock_now.plus_ms(parts.telemetry_ms);
        Ok(Self {
            parts,
            machine,
            clock,
            unsaved: None,
            collect_due: false,
            sender,
            reporter,
            profiling,
            listening: BTreeSet::new(),
            counting: BTreeMap::new(),
            refused: BTreeSet::new(),
            unsigned: None,
            trust_kept_at: clock_now,
            telemetry_at,
        })
    }

    /// Works until `stop` is notified, then says goodbye.
    pub async fn run(mut self, mut inputs: Inputs, stop: Arc<Notify>) {
        let mut messages = Vec::with_capacity(MESSAGES_TOGETHER);
        self.settle();
        loop {
            let wait = self.wait();
            let parts_shared = self.parts.shared.clone();
            let has_room = self.has_room();
            tokio::select! {
                () = stop.notified() => break,
                count = inputs.link.recv_many(&mut messages, MESSAGES_TOGETHER), if has_room => {
                    if count == 0 {
                        break;
                    }
                    self.handle_link(std::mem::take(&mut messages));
                }
                done = inputs.done.recv() => match done {
                    Some(done) => self.handle_done(done),
                    None => break,
                },
                Some(outcome) = inputs.measured.recv() => self.handle_measured(outcome),
                () = parts_shared.outbox.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
            self.tick();
            self.settle();
        }
        self.say_goodbye(&mut inputs.link).await;
    }

    /// Carries out actions until there is none, and tells what changed.
    fn settle(&mut self) {
        self.try_persist();
        while self.unsaved.is_none() && self.has_room() {
            match self.machine.poll_action() {
                Some(Action::Persist { saved, notes }) => self.persist(saved, notes),
                Some(Action::Slot(slot, action)) => self.act(slot, action),
                None => break,
            }
        }
        // What the machine pins is what is on disk as pinned only while nothing waits to be written.
        if self.unsaved.is_none() && std::mem::take(&mut self.collect_due) {
            self.collect();
        }
        self.count_trials();
        let (machine, blobs) = (&self.machine, &self.parts.blobs);
        let reported =
            self.reporter.update(machine.generation(), machine.reports(), || blobs.free_bytes(), wall());
        if let Some(reported) = reported {
            self.parts.shared.set_reported(reported);
        }
        self.settle_profile();
        if self.parts.shared.connected() {
            let now = self.clock.monotonic();
            self.reporter.publish(self.parts.link.as_ref(), now);
            self.sender.send(&self.parts.store, self.parts.link.as_ref(), now);
        }
    }

    /// Is there room for a job? Where there is none the next outcome brings some.
    fn has_room(&self) -> bool {
        self.parts.installer.capacity() > 0
    }

    fn handle_done(&mut self, done: Done) {
        self.store_telemetry(done.closed);
        let Some(input) = done.input else { return };
        match input {
            SlotInput::BlobOpened { digest, .. } => {
                // Chunks may have come since the installer looked, and the parts may have been given up.
                let input = match self.parts.blobs.fetched(digest) {
                    Some(fetched) => SlotInput::BlobOpened { digest, fetched },
                    None => SlotInput::StorageFailed {
                        bundle: digest,
                        detail: "its part was removed to make room".to_owned(),
                    },
                };
                if !self.input(Input::Slot(done.slot, input)) && !self.machine.fetching().contains(&digest) {
                    // The attempt ended while the blob was being opened.
                    self.parts.blobs.discard(digest);
                    self.stop_listening(digest);
                }
            }
            SlotInput::BlobVerified { .. } | SlotInput::DeltaApplied { .. } => {
                if !self.input(Input::Slot(done.slot, input)) {
                    self.collect_due = true;
                }
            }
            input => {
                self.input(Input::Slot(done.slot, input));
            }
        }
    }

    fn tick(&mut self) {
        let now = self.clock.monotonic();
        self.machine.set_wall_ahead_ms(self.clock.wall_ahead_ms());
        self.machine.handle_timeout(now);
        for (slot, bundle) in self.counting.clone() {
            let Some(statistics) = self.parts.models.slot(&slot, wall()).trial(bundle) else { continue };
            let counted = SlotInput::TrialCounted { bundle, statistics: Box::new(statistics) };
            self.input(Input::Slot(slot, counted));
        }
        if let Some(overdue) = self.parts.trust.overdue() {
            self.heard_of_trust(overdue, b"overdue");
        }
        if now.since_ms(self.trust_kept_at) >= TRUST_KEEP_MS {
            self.trust_kept_at = now;
            self.parts.trust.keep_time();
        }
        if self.telemetry_at <= now {
            self.telemetry_at = now.plus_ms(self.parts.telemetry_ms);
            self.close_windows();
        }
    }

    /// Tells the machine; `false` where it does not fit.
    fn input(&mut self, input: Input) -> bool {
        match self.machine.handle(input, self.clock.monotonic()) {
            Ok(()) => return true,
            Err(rejected @ (Rejected::Unfit { .. } | Rejected::NoSlot { .. })) => tracing::debug!(%rejected),
            Err(rejected) => tracing::warn!(%rejected, "a desired state was refused"),
        }
        false
    }

    /// Until something is due at the latest.
    fn wait(&self) -> Duration {
        let now = self.clock.monotonic();
        let machine = self.machine.poll_timeout();
        let unsaved = self.unsaved.as_ref().map(Unsaved::due);
        let connected = self.parts.shared.connected();
        let sender = self.sender.due().filter(|_| connected);
        let reporter = self.reporter.due().filter(|_| connected);
        let due = [machine, unsaved, Some(self.telemetry_at), sender, reporter, self.profile_due()];
        let at = due.into_iter().flatten().min().unwrap_or(now.plus_ms(1000));
        let wait = Duration::from_millis(at.since_ms(now));
        if self.counting.is_empty() { wait } else { wait.min(TRIAL_TICK) }
    }

    /// Offline on purpose: says so, and gives the connection a moment to take it.
    async fn say_goodbye(&mut self, events: &mut mpsc::Receiver<LinkEvent>) {
        self.close_windows();
        if let Err(error) = self.parts.store.flush_async().await {
            tracing::warn!(error = crate::chain(&error), "the last records may be lost");
        }
        if self.parts.shared.connected() {
            let topic = Topic::Presence(self.parts.device.clone()).to_string();
            let offline = wire::encode_json("presence", &wire::Presence { online: false });
            let sent = offline.ok().and_then(|offline| self.parts.link.publish(topic, offline, true).ok());
            let taken = async {
                while let (Some(sent), Some(event)) = (sent, events.recv().await) {
                    if matches!(event, LinkEvent::Published { token, .. } if token == sent) {
                        break;
                    }
                }
            };
            let _ = tokio::time::timeout(GOODBYE, taken).await;
        }
        self.parts.link.close();
        let closed = async { while events.recv().await.is_some() {} };
        if tokio::time::timeout(GOODBYE, closed).await.is_err() {
            tracing::debug!("the connection did not end in time");
        }
    }
}

/// Longest wait for the broker to hear that the device goes, and for the connection to end.
const GOODBYE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
