//! Carries out what the update machine decides: the one task that owns the machine, the link and the journal.

mod outbox;
mod report;

use crate::{
    blobs::Blobs,
    installer::{Done, Job, Work, files_of, now},
    link::{Link, LinkEvent, Receipt},
    models::Models,
    store::{self, Store},
};
use agent_core::{
    update::{Action, Input, Machine, Note, Rejected, Saved, SlotAction},
    window,
};
use bytes::Bytes;
use outbox::Sender;
use report::Reporter;
use shared::{
    BoardId, DeviceId, Digest, Signed, SlotName, Timestamp,
    signing::Keyring,
    topic::{Filter, Topic},
    wire::{self, Desired, Event, EventKind, Telemetry},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

/// How often a running trial is judged.
const TRIAL_TICK: Duration = Duration::from_millis(200);
/// Wait before a state that could not be written is written again.
const PERSIST_RETRY: Duration = Duration::from_secs(2);
/// Messages that are handled together, so that one flush serves their chunks.
const MESSAGES_TOGETHER: usize = 32;

/// What others see of the updater.
#[derive(Debug, Default)]
pub struct Shared {
    connected: AtomicBool,
    reported: Mutex<Option<wire::Reported>>,
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

    fn set_reported(&self, reported: wire::Reported) {
        *self.reported.lock().unwrap_or_else(PoisonError::into_inner) = Some(reported);
    }
}

/// What the updater works with.
pub struct Parts {
    pub device: DeviceId,
    pub board: BoardId,
    pub keyring: Keyring,
    pub api: String,
    pub telemetry_ms: u64,
    /// Of all jitter.
    pub seed: u64,
    pub store: Arc<Store>,
    pub blobs: Arc<Blobs>,
    pub models: Arc<Models>,
    pub shared: Arc<Shared>,
    pub link: Arc<dyn Link>,
    pub installer: std::sync::mpsc::Sender<Job>,
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
    pub done: mpsc::UnboundedReceiver<Done>,
}

/// The task.
#[derive(Debug)]
pub struct Updater {
    parts: Parts,
    machine: Machine,
    clock: Clock,
    sender: Sender,
    reporter: Reporter,
    /// Blobs whose broadcast topic is subscribed.
    listening: BTreeSet<Digest>,
    /// Bundles whose trial counts.
    counting: BTreeMap<SlotName, Digest>,
    /// Refused envelopes that an event was written for.
    refused: BTreeSet<Digest>,
    telemetry_at: Timestamp,
}

/// Most refused envelopes that are remembered.
const REFUSED_MAX: usize = 64;

impl Updater {
    /// Restores the machine and carries out what it asks for first: loading what was active.
    pub fn start(parts: Parts) -> Result<Self, store::Error> {
        let clock = Clock::start();
        let saved = parts.store.saved()?;
        let machine = Machine::restore(parts.device.clone(), saved, parts.seed, clock.now());
        let started =
            note(EventKind::AgentStarted, format!("edgewright-agent {}", env!("CARGO_PKG_VERSION")));
        parts.store.put(&[event(started, clock.now())])?;
        let sender = Sender::new(parts.device.clone(), parts.seed);
        let reporter = Reporter::new(parts.device.clone(), parts.board.clone(), parts.api.clone());
        let telemetry_at = clock.now().plus_ms(parts.telemetry_ms);
        Ok(Self {
            parts,
            machine,
            clock,
            sender,
            reporter,
            listening: BTreeSet::new(),
            counting: BTreeMap::new(),
            refused: BTreeSet::new(),
            telemetry_at,
        })
    }

    /// Works until `stop` is notified, then says goodbye.
    pub async fn run(mut self, mut inputs: Inputs, stop: Arc<Notify>) {
        let mut messages = Vec::with_capacity(MESSAGES_TOGETHER);
        self.settle().await;
        loop {
            let wait = self.wait();
            let parts_shared = self.parts.shared.clone();
            tokio::select! {
                () = stop.notified() => break,
                count = inputs.link.recv_many(&mut messages, MESSAGES_TOGETHER) => {
                    if count == 0 {
                        break;
                    }
                    self.handle_link(std::mem::take(&mut messages));
                }
                done = inputs.done.recv() => match done {
                    Some(done) => self.handle_done(done),
                    None => break,
                },
                () = parts_shared.outbox.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
            self.tick();
            self.settle().await;
        }
        self.say_goodbye(&mut inputs.link).await;
    }

    /// Carries out actions until there is none, and tells what changed.
    async fn settle(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Persist { saved, notes } => self.persist(&saved, notes).await,
                Action::Slot(slot, action) => self.act(slot, action),
            }
        }
        self.count_trials();
        let now = self.clock.now();
        let (machine, blobs) = (&self.machine, &self.parts.blobs);
        let reported =
            self.reporter.update(machine.generation(), machine.reports(), || blobs.free_bytes(), now);
        if let Some(reported) = reported {
            self.parts.shared.set_reported(reported);
        }
        if self.parts.shared.connected() {
            self.reporter.publish(self.parts.link.as_ref(), now);
            self.sender.send(&self.parts.store, self.parts.link.as_ref(), now);
        }
    }

    async fn persist(&mut self, saved: &Saved, notes: Vec<Note>) {
        let events: Vec<_> = notes.into_iter().map(|note| event(note, self.clock.now())).collect();
        for event in &events {
            tracing::info!(
                slot = event.slot.as_ref().map(tracing::field::display),
                "{:?}: {}",
                event.kind,
                event.detail
            );
        }
        // The machine gives nothing more until its state is on disk; the working model goes on meanwhile.
        while let Err(error) = self.parts.store.persist(saved, &events) {
            tracing::error!(%error, "the state could not be written; trying again");
            tokio::time::sleep(PERSIST_RETRY).await;
        }
        self.input(Input::Persisted);
    }

    fn act(&mut self, slot: SlotName, action: SlotAction) {
        match &action {
            SlotAction::Want(want) => {
                if let Ok(payload) = wire::encode_json("want", want) {
                    let topic = Topic::BlobWant(self.parts.device.clone()).to_string();
                    // A want that was not sent is repeated by the machine.
                    let _ = self.parts.link.publish(topic, payload, false);
                }
                return;
            }
            SlotAction::Collect => {
                self.collect(&slot);
                return;
            }
            SlotAction::OpenBlob { digest, .. } => {
                if self.listening.insert(*digest) {
                    self.parts.link.subscribe(Filter::BlobBroadcast(*digest).to_string());
                }
            }
            SlotAction::VerifyBlob { digest, .. } => self.stop_listening(*digest),
            SlotAction::Discard { .. } => self.drop_partials(),
            SlotAction::Activate { .. }
            | SlotAction::Deactivate
            | SlotAction::ReadManifest { .. }
            | SlotAction::Reserve { .. }
            | SlotAction::Test { .. }
            | SlotAction::ConcludeTrial { .. } => {}
        }
        let runtime = self.machine.runtime(&slot);
        if self.parts.installer.send(Job { slot, work: Work::Action(action), runtime }).is_err() {
            tracing::error!("the installer thread is gone; restart the agent");
        }
    }

    /// Removes the parts of blobs that no other slot is fetching.
    fn drop_partials(&mut self) {
        for digest in self.parts.blobs.open_digests() {
            if !self.machine.fetching().contains(&digest) {
                self.parts.blobs.discard(digest);
                self.stop_listening(digest);
            }
        }
    }

    fn stop_listening(&mut self, digest: Digest) {
        if self.listening.remove(&digest) {
            self.parts.link.unsubscribe(Filter::BlobBroadcast(digest).to_string());
        }
    }

    fn collect(&mut self, slot: &SlotName) {
        let pinned = self.machine.pinned();
        let mut keep: BTreeSet<Digest> = pinned.iter().copied().collect();
        for bundle in pinned {
            keep.extend(files_of(&self.parts.blobs, bundle, &self.parts.keyring));
        }
        // What came before a restart is of use to the download that goes on.
        self.parts.blobs.collect(&keep, self.machine.fetching().is_empty());
        if !self.machine.trials().iter().any(|(on_trial, ..)| on_trial == slot) {
            if let Some(serving) = self.parts.models.all().iter().find(|serving| serving.slot == *slot) {
                serving.forget_former();
            }
        }
    }

    /// Tells the installer which trials count, once each.
    fn count_trials(&mut self) {
        let trials = self.machine.trials();
        self.counting.retain(|slot, bundle| trials.iter().any(|(on, is, _)| on == slot && is == bundle));
        for (slot, bundle, fallback) in trials {
            if self.counting.insert(slot.clone(), bundle) != Some(bundle) {
                let work = Work::BeginTrial { bundle, fallback };
                let _ = self.parts.installer.send(Job { slot, work, runtime: None });
            }
        }
    }

    fn handle_done(&mut self, done: Done) {
        if let Some(closed) = done.closed {
            self.store_telemetry(vec![closed]);
        }
        self.input(Input::Slot(done.slot, done.input));
    }

    fn handle_link(&mut self, events: Vec<LinkEvent>) {
        let mut chunks: BTreeMap<Digest, Vec<(u32, Bytes, Receipt)>> = BTreeMap::new();
        for event in events {
            match event {
                LinkEvent::Up { session_present } => self.handle_up(session_present),
                LinkEvent::Down { reason } => {
                    tracing::info!(reason, "disconnected");
                    self.parts.shared.connected.store(false, Ordering::Relaxed);
                    self.sender.disconnected(self.clock.now());
                    self.reporter.disconnected();
                    self.input(Input::Online(false));
                }
                LinkEvent::Published { token, result } => {
                    let now = self.clock.now();
                    self.reporter.published(token, &result);
                    self.sender.published(&self.parts.store, token, result, now);
                }
                LinkEvent::Message { topic, payload, receipt } => match topic.parse() {
                    Ok(Topic::Desired(device)) if device == self.parts.device => {
                        self.handle_desired(&payload);
                        self.parts.link.acknowledge(receipt);
                    }
                    Ok(Topic::BlobChunk { digest, index, .. } | Topic::BlobBroadcast { digest, index }) => {
                        chunks.entry(digest).or_default().push((index, payload, receipt));
                    }
                    _ => self.parts.link.acknowledge(receipt),
                },
            }
        }
        for (digest, chunks) in chunks {
            self.handle_chunks(digest, &chunks);
        }
    }

    fn handle_up(&mut self, session_present: bool) {
        tracing::info!(session_present, "connected to the broker");
        self.parts.shared.connected.store(true, Ordering::Relaxed);
        let device = &self.parts.device;
        let link = &self.parts.link;
        // With a session the subscription is there already; to subscribe again brings the retained wish at once.
        link.subscribe(Filter::Desired(device.clone()).to_string());
        if !session_present {
            link.subscribe(Filter::BlobChunks(device.clone()).to_string());
            for digest in &self.listening {
                link.subscribe(Filter::BlobBroadcast(*digest).to_string());
            }
        }
        if let Ok(online) = wire::encode_json("presence", &wire::Presence { online: true }) {
            let _ = link.publish(Topic::Presence(device.clone()).to_string(), online, true);
        }
        self.reporter.connected();
        self.sender.connected();
        self.input(Input::Online(true));
    }

    fn handle_desired(&mut self, envelope: &[u8]) {
        if envelope.is_empty() {
            return;
        }
        let verified =
            Signed::<Desired>::parse(envelope).and_then(|signed| signed.verify(&self.parts.keyring));
        match verified {
            Ok(desired) => self.input(Input::Desired(Box::new(desired))),
            Err(error) => {
                if self.refused.len() >= REFUSED_MAX || !self.refused.insert(Digest::of(envelope)) {
                    return;
                }
                tracing::warn!(%error, "a desired state was refused");
                let refused = event(note(EventKind::DesiredRefused, error.to_string()), self.clock.now());
                if let Err(error) = self.parts.store.put(&[refused]) {
                    tracing::warn!(%error, "an event was lost");
                }
            }
        }
    }

    /// Puts chunks of one blob on disk, then tells the machine, then the broker.
    fn handle_chunks(&mut self, digest: Digest, chunks: &[(u32, Bytes, Receipt)]) {
        let borrowed: Vec<(u32, &[u8])> =
            chunks.iter().map(|(index, bytes, _)| (*index, bytes.as_ref())).collect();
        let written = match self.parts.blobs.write(digest, &borrowed) {
            // One bad chunk among them: the others count.
            Err(crate::blobs::Error::Chunk { .. }) => {
                let each = borrowed.iter().map(|chunk| self.parts.blobs.write(digest, &[*chunk]));
                Ok(each.filter_map(Result::ok).flatten().collect())
            }
            written => written,
        };
        match written {
            Ok(indices) => {
                for index in indices {
                    self.input(Input::ChunkStored { digest, index });
                }
            }
            // Late chunks of a blob that is complete, or given up.
            Err(crate::blobs::Error::NotOpen { .. }) => {}
            Err(error) => {
                let detail = error.to_string();
                tracing::warn!(detail, "chunks could not be stored");
                self.input(Input::ChunkNotStored { digest, detail });
            }
        }
        for (_, _, receipt) in chunks {
            self.parts.link.acknowledge(*receipt);
        }
    }

    fn tick(&mut self) {
        let now = self.clock.now();
        self.machine.handle_timeout(now);
        for (slot, bundle) in self.counting.clone() {
            let Some(statistics) = self.parts.models.slot(&slot, now).trial(bundle) else { continue };
            let counted =
                agent_core::update::SlotInput::TrialCounted { bundle, statistics: Box::new(statistics) };
            self.input(Input::Slot(slot, counted));
        }
        if self.telemetry_at <= now {
            self.telemetry_at = now.plus_ms(self.parts.telemetry_ms);
            let closed =
                self.parts.models.all().iter().filter_map(|serving| serving.roll_window(now)).collect();
            self.store_telemetry(closed);
        }
    }

    fn store_telemetry(&mut self, closed: Vec<window::Closed>) {
        if closed.is_empty() {
            return;
        }
        let records: Vec<_> = closed.into_iter().map(telemetry).collect();
        if let Err(error) = self.parts.store.put(&records) {
            tracing::warn!(%error, "telemetry was lost");
        }
    }

    fn input(&mut self, input: Input) {
        let now = self.clock.now();
        match self.machine.handle(input, now) {
            Ok(()) => {}
            Err(rejected @ (Rejected::Unfit { .. } | Rejected::NoSlot { .. })) => tracing::debug!(%rejected),
            Err(rejected) => tracing::warn!(%rejected, "a desired state was refused"),
        }
    }

    /// Until something is due at the latest.
    fn wait(&self) -> Duration {
        let now = self.clock.now();
        let machine = self.machine.poll_timeout();
        let connected = self.parts.shared.connected();
        let sender = self.sender.due().filter(|_| connected);
        let reporter = self.reporter.due().filter(|_| connected);
        let due = [machine, Some(self.telemetry_at), sender, reporter];
        let at = due.into_iter().flatten().min().unwrap_or(now.plus_ms(1000));
        let wait = Duration::from_millis(at.since_ms(now));
        if self.counting.is_empty() { wait } else { wait.min(TRIAL_TICK) }
    }

    /// Offline on purpose: says so, and gives the connection a moment to take it.
    async fn say_goodbye(&mut self, events: &mut mpsc::Receiver<LinkEvent>) {
        if let Err(error) = self.parts.store.flush_async().await {
            tracing::warn!(%error, "the last records may be lost");
        }
        if !self.parts.shared.connected() {
            self.parts.link.close();
            return;
        }
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
        self.parts.link.close();
    }
}

/// Longest wait for the broker to hear that the device goes.
const GOODBYE: Duration = Duration::from_secs(2);

/// The wall clock at the start, moved on by the monotonic clock: a step of the wall clock ends no wait early.
#[derive(Debug)]
struct Clock {
    wall: Timestamp,
    start: Instant,
}

impl Clock {
    fn start() -> Self {
        Self { wall: now(), start: Instant::now() }
    }

    fn now(&self) -> Timestamp {
        self.wall.plus_ms(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

fn note(kind: EventKind, detail: String) -> Note {
    Note { slot: None, bundle: None, kind, detail }
}

fn event(note: Note, at: Timestamp) -> Event {
    let Note { slot, bundle, kind, detail } = note;
    Event { id: Uuid::now_v7(), at, slot, bundle, kind, detail: wire::cut(&detail) }
}

fn telemetry(closed: window::Closed) -> Telemetry {
    Telemetry {
        id: Uuid::now_v7(),
        at: closed.started_at,
        duration_ms: closed.duration_ms,
        slot: closed.slot,
        version_id: closed.version_id,
        requests: closed.requests,
        failed: closed.failed,
        latency_p50_us: closed.latency_p50_us,
        latency_p99_us: closed.latency_p99_us,
        rss_bytes: crate::rss_bytes(),
    }
}

#[cfg(test)]
mod tests;
