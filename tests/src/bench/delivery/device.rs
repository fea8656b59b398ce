//! A simulated device: the agent's own link, update machine, trust and reports, with memory in place of a disk and no model
//! that runs.

use agent_core::{
    budget,
    chunks::ChunkSet,
    update::{Action, Base, Fetched, Input, Machine, Saved, SlotAction, SlotInput},
};
use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use bytes::Bytes;
use edgewright_agent::{
    data::DataDir,
    identity::Identity,
    link::{Link, LinkEvent, mqtt},
    trust::Trust,
    updater::report::Reporter,
};
use shared::{
    BoardId, DeviceId, Digest, Signed, SlotName, Timestamp,
    backoff::Jitter,
    manifest::Manifest,
    topic::{Filter, Topic},
    wire::{self, Desired, Refusal, chunk_count},
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Notify, mpsc};

/// As the agent's.
const LINK_EVENTS_MAX: usize = 256;
const KEEP_ALIVE_MS: u64 = 60_000;

/// What all devices of a bench have in common.
#[derive(Debug)]
pub struct Fleet {
    started: Instant,
    board: BoardId,
    /// Metadata is for everybody: each piece is checked once.
    trust: Trust,
    wave: Mutex<Arc<Wave>>,
    /// Connections that are up.
    pub connected: AtomicUsize,
}

/// What is being brought to them.
#[derive(Debug, Default)]
pub struct Wave {
    /// Files whose bytes are known, so that a chunk is compared and not kept.
    pub files: HashMap<Digest, Arc<Vec<u8>>>,
    /// Chunks in a thousand that a device does not get to see.
    pub loss_permille: u64,
    /// Bytes of chunks that the broker delivered, those that were then lost included.
    pub delivered_bytes: AtomicU64,
    /// Devices that have all files, each with its digest.
    pub whole: AtomicUsize,
    /// Told each time that one has.
    pub changed: Notify,
    /// The first thing that went wrong.
    pub fault: Mutex<Option<String>>,
}

impl Wave {
    fn fail(&self, what: String) {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
        self.changed.notify_one();
    }
}

impl Fleet {
    /// For devices of `board` that were given `root`; what is accepted is kept in the file `trust`.
    pub fn new(board: BoardId, root: &[u8], trust: std::path::PathBuf) -> Result<Self> {
        Ok(Self {
            started: Instant::now(),
            board,
            trust: Trust::open(trust, root).context("the devices' trust")?,
            wave: Mutex::default(),
            connected: AtomicUsize::new(0),
        })
    }

    /// From here on chunks are compared with, lost from and counted for `wave`.
    pub fn set_wave(&self, wave: Arc<Wave>) {
        *self.lock_wave() = wave;
    }

    fn wave(&self) -> Arc<Wave> {
        self.lock_wave().clone()
    }

    fn lock_wave(&self) -> MutexGuard<'_, Arc<Wave>> {
        self.wave.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        let ms = self.started.elapsed().as_millis();
        Timestamp(u64::try_from(ms).unwrap_or(u64::MAX))
    }
}

/// A blob that is being fetched.
#[derive(Debug)]
struct Blob {
    size_bytes: u64,
    chunk_bytes: u32,
    present: ChunkSet,
    /// What it has to be; where that is not known, what came is in `bytes`.
    known: Option<Arc<Vec<u8>>>,
    bytes: Vec<u8>,
}

/// One device.
pub struct Device {
    fleet: Arc<Fleet>,
    id: DeviceId,
    machine: Machine,
    link: mqtt::Mqtt,
    reporter: Reporter,
    blobs: HashMap<Digest, Blob>,
    /// Broadcasts that are subscribed, for as long as they are.
    listening: Vec<Digest>,
    lots: Jitter,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({})", self.id)
    }
}

impl Device {
    /// Connects the device whose identity is in `data`; to be called within a runtime. The task ends with the connection's.
    pub fn start(fleet: Arc<Fleet>, identity: Identity, data: &DataDir, seed: u64) -> Result<mqtt::Mqtt> {
        let tls = Arc::new(ArcSwap::from_pointee(identity.tls(data)?));
        let id = identity.device.clone();
        let (sender, events) = mpsc::channel(LINK_EVENTS_MAX);
        let settings = mqtt::Settings { identity, tls, keep_alive_ms: KEEP_ALIVE_MS, seed };
        let (link, _task) = mqtt::Mqtt::start(settings, sender);
        let limits = budget::Limits::default();
        let machine =
            Machine::restore(id.clone(), fleet.board.clone(), limits, Saved::default(), seed, fleet.now());
        let reporter = Reporter::new(id.clone(), fleet.board.clone(), "127.0.0.1:0".to_owned());
        let lots = Jitter::new(!seed);
        let (blobs, listening) = (HashMap::new(), Vec::new());
        let device = Self { fleet, id, machine, link: link.clone(), reporter, blobs, listening, lots };
        tokio::spawn(device.run(events));
        Ok(link)
    }

    async fn run(mut self, mut events: mpsc::Receiver<LinkEvent>) {
        let mut up = false;
        loop {
            let now = self.fleet.now();
            let due = [self.machine.poll_timeout(), self.reporter.due().filter(|_| up)];
            let at = due.into_iter().flatten().min().unwrap_or(now.plus_ms(60_000));
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.handle(event, &mut up),
                    None => break,
                },
                () = tokio::time::sleep(Duration::from_millis(at.since_ms(now))) => {}
            }
            // A flood of chunks is worked off before the machine is asked.
            while let Ok(event) = events.try_recv() {
                self.handle(event, &mut up);
            }
            self.machine.handle_timeout(self.fleet.now());
            self.settle(up);
        }
        if up {
            self.fleet.connected.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn handle(&mut self, event: LinkEvent, up: &mut bool) {
        match event {
            LinkEvent::Up { .. } => {
                *up = true;
                self.fleet.connected.fetch_add(1, Ordering::Relaxed);
                self.handle_up();
            }
            LinkEvent::Down { .. } => {
                *up = false;
                self.fleet.connected.fetch_sub(1, Ordering::Relaxed);
                self.reporter.disconnected();
                self.input(Input::Online(false));
            }
            LinkEvent::Published { token, result } => {
                self.reporter.published(token, &result, self.fleet.now());
            }
            LinkEvent::Message { topic, payload, receipt } => {
                match topic.parse() {
                    Ok(Topic::Desired(_)) => self.handle_desired(&payload),
                    Ok(Topic::Trust(file)) => {
                        if let Err(error) = self.fleet.trust.offer(file, &payload) {
                            self.fleet.wave().fail(error.to_string());
                        }
                    }
                    Ok(Topic::BlobChunk { digest, index, .. } | Topic::BlobBroadcast { digest, index }) => {
                        self.handle_chunk(digest, index, &payload);
                    }
                    _ => {}
                }
                self.link.acknowledge(receipt);
            }
        }
    }

    fn handle_up(&mut self) {
        self.link.subscribe(Filter::Trust.to_string());
        self.link.subscribe(Filter::Desired(self.id.clone()).to_string());
        self.link.subscribe(Filter::BlobChunks(self.id.clone()).to_string());
        for digest in &self.listening {
            self.link.subscribe(Filter::BlobBroadcast(*digest).to_string());
        }
        if let Ok(online) = wire::encode_json("presence", &wire::Presence { online: true }) {
            let _ = self.link.publish(Topic::Presence(self.id.clone()).to_string(), online, true);
        }
        self.reporter.connected();
        self.input(Input::Online(true));
    }

    fn handle_desired(&mut self, envelope: &[u8]) {
        if envelope.is_empty() {
            return;
        }
        let keyring = self.fleet.trust.keyring();
        match Signed::<Desired>::parse(envelope).and_then(|signed| signed.verify(&keyring)) {
            Ok(desired) => self.input(Input::Desired(Box::new(desired))),
            Err(error) => self.fleet.wave().fail(format!("{}: a desired state: {error}", self.id)),
        }
    }

    fn handle_chunk(&mut self, digest: Digest, index: u32, payload: &Bytes) {
        let wave = self.fleet.wave();
        let bytes = payload.len() as u64;
        wave.delivered_bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.lots.next_u64() % 1000 < wave.loss_permille {
            return;
        }
        self.input(Input::ChunksReceived { digest, bytes });
        let Some(blob) = self.blobs.get_mut(&digest) else { return };
        match blob.store(index, payload) {
            Ok(()) => self.input(Input::ChunkStored { digest, index }),
            Err(what) => wave.fail(format!("{}: chunk {index} of {}: {what}", self.id, digest.short())),
        }
    }

    fn input(&mut self, input: Input) {
        // What does not fit belongs to an attempt that is over, or is a wish that came again.
        let _ = self.machine.handle(input, self.fleet.now());
    }

    fn settle(&mut self, up: bool) {
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Persist { .. } => self.input(Input::Persisted),
                Action::Slot(slot, action) => self.act(slot, action),
            }
        }
        let now = self.fleet.now();
        self.reporter.update(self.machine.generation(), self.machine.reports(), || None, now);
        if up {
            self.reporter.publish(&self.link, now);
        }
    }

    fn act(&mut self, slot: SlotName, action: SlotAction) {
        let answer = match action {
            SlotAction::Want(want) => {
                if let Ok(payload) = wire::encode_json("want", &want) {
                    let _ = self.link.publish(Topic::BlobWant(self.id.clone()).to_string(), payload, false);
                }
                return;
            }
            SlotAction::OpenBlob { digest, size_bytes, chunk_bytes } => {
                self.listen(digest);
                let known = self.fleet.wave().files.get(&digest).cloned();
                let blob =
                    self.blobs.entry(digest).or_insert_with(|| Blob::new(size_bytes, chunk_bytes, known));
                SlotInput::BlobOpened { digest, fetched: Fetched::Part(blob.present.clone()) }
            }
            SlotAction::VerifyBlob { digest, .. } => {
                self.stop_listening(digest);
                match self.blobs.get(&digest).map(|blob| blob.verify(&digest)) {
                    Some(Ok(())) => SlotInput::BlobVerified { digest },
                    Some(Err(detail)) => SlotInput::BlobCorrupt { digest, detail },
                    None => SlotInput::BlobCorrupt { digest, detail: "it is not there".to_owned() },
                }
            }
            SlotAction::ReadManifest { version, newest } => {
                let bundle = version.bundle;
                match self.read_manifest(&bundle, &version, newest.as_ref()) {
                    Ok(manifest) => SlotInput::ManifestRead { bundle, manifest: Box::new(manifest) },
                    Err(error) => {
                        let detail = format!("{error:#}");
                        self.fleet.wave().fail(format!("{}: {detail}", self.id));
                        SlotInput::ManifestRefused { bundle, reason: Refusal::BadManifest, detail }
                    }
                }
            }
            SlotAction::LookForBase { digest, .. } => {
                SlotInput::BaseLookedFor { digest, base: Base::Missing }
            }
            SlotAction::ApplyDelta { delta, .. } => {
                SlotInput::DeltaRefused { delta: delta.delta, detail: "simulated".to_owned() }
            }
            SlotAction::Reserve { bundle, .. } => SlotInput::Reserved { bundle },
            SlotAction::Test { version, .. } => {
                let wave = self.fleet.wave();
                wave.whole.fetch_add(1, Ordering::AcqRel);
                wave.changed.notify_one();
                self.blobs.clear();
                SlotInput::Tested { bundle: version.bundle, runtime: "simulated".to_owned() }
            }
            SlotAction::Activate { version } => {
                SlotInput::Activated { bundle: version.bundle, runtime: "simulated".to_owned() }
            }
            SlotAction::ConcludeTrial { version } => SlotInput::TrialConcluded {
                bundle: version.bundle,
                statistics: Box::default(),
                golden: Ok(()),
            },
            SlotAction::GiveUpBlob { digest } => {
                self.blobs.remove(&digest);
                self.stop_listening(digest);
                return;
            }
            SlotAction::StopListening | SlotAction::Discard { .. } => {
                let fetching = self.machine.fetching();
                for digest in self.listening.clone() {
                    if !fetching.contains(&digest) {
                        self.stop_listening(digest);
                    }
                }
                return;
            }
            SlotAction::Deactivate | SlotAction::Collect => return,
        };
        self.input(Input::Slot(slot, answer));
    }

    fn read_manifest(
        &self,
        bundle: &Digest,
        version: &wire::VersionRef,
        newest: Option<&wire::VersionRef>,
    ) -> Result<shared::Verified<Manifest>> {
        let trust = &self.fleet.trust;
        trust.allows(version, newest)?;
        let bytes = &self.blobs.get(bundle).context("the manifest is not there")?.bytes;
        Ok(Signed::<Manifest>::parse(bytes)?.verify(&trust.keyring())?)
    }

    fn listen(&mut self, digest: Digest) {
        if !self.listening.contains(&digest) {
            self.listening.push(digest);
            self.link.subscribe(Filter::BlobBroadcast(digest).to_string());
        }
    }

    fn stop_listening(&mut self, digest: Digest) {
        if let Some(at) = self.listening.iter().position(|listening| *listening == digest) {
            self.listening.swap_remove(at);
            self.link.unsubscribe(Filter::BlobBroadcast(digest).to_string());
        }
    }
}

impl Blob {
    fn new(size_bytes: u64, chunk_bytes: u32, known: Option<Arc<Vec<u8>>>) -> Self {
        let present = ChunkSet::empty(chunk_count(size_bytes, chunk_bytes));
        let bytes = match &known {
            Some(_) => Vec::new(),
            None => vec![0; usize::try_from(size_bytes).unwrap_or(0)],
        };
        Self { size_bytes, chunk_bytes, present, known, bytes }
    }

    fn store(&mut self, index: u32, payload: &[u8]) -> Result<(), String> {
        let start = u64::from(index) * u64::from(self.chunk_bytes);
        let end = (start + u64::from(self.chunk_bytes)).min(self.size_bytes);
        if start >= end || payload.len() as u64 != end - start {
            return Err(format!("it has {} bytes", payload.len()));
        }
        let (start, end) = (usize::try_from(start).unwrap_or(0), usize::try_from(end).unwrap_or(0));
        match &self.known {
            Some(known) if known.get(start..end) != Some(payload) => {
                return Err("its bytes differ".to_owned());
            }
            Some(_) => {}
            None => self.bytes[start..end].copy_from_slice(payload),
        }
        self.present.insert(index);
        Ok(())
    }

    /// What is known was compared chunk by chunk.
    fn verify(&self, digest: &Digest) -> Result<(), String> {
        if !self.present.is_full() {
            return Err("chunks are missing".to_owned());
        }
        if self.known.is_none() && Digest::of(&self.bytes) != *digest {
            return Err("its digest differs".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_compared_with_what_is_known_and_hashed_where_nothing_is() {
        let bytes: Vec<u8> = (0..2500u32).map(|value| value as u8).collect();
        let digest = Digest::of(&bytes);
        for known in [None, Some(Arc::new(bytes.clone()))] {
            let is_known = known.is_some();
            let mut blob = Blob::new(2500, 1024, known);
            assert!(blob.store(3, &bytes[..10]).is_err());
            assert!(blob.store(2, &bytes[..1024]).is_err(), "the last chunk is shorter");
            for index in [2, 0] {
                let start = index as usize * 1024;
                blob.store(index, &bytes[start..(start + 1024).min(2500)]).unwrap();
            }
            assert!(blob.verify(&digest).is_err());
            assert_eq!(blob.store(1, &[7; 1024]).is_err(), is_known);
            assert!(blob.verify(&digest).is_err());
            blob.store(1, &bytes[1024..2048]).unwrap();
            blob.verify(&digest).unwrap();
        }
    }
}
