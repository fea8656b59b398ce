//! The updater with real files, a real database and a real model, and a link that ends in this process.

use super::*;
use crate::{
    engine::Engine,
    installer::Installer,
    link::{NotSent, Receipt, Refused, Token},
    testing::{self, GOLDEN, MODEL},
};
use agent_core::update::Fetched;
use shared::{
    Signed,
    board::RuntimeName,
    manifest::{FileEntry, GOLDEN_FILE, MODEL_FILE},
    signing::{Keyring, Role, SigningKey, TrustedKey},
    topic::Filter,
    wire::{
        Assignment, Batch, DeltaRef, Desired, Event, Outcome, Presence, Refusal, Reported, TrialPolicy, Want,
    },
};
use std::{collections::HashMap, path::Path, sync::atomic::AtomicU64, time::Instant};

const CHUNK: u32 = 1024;
const PATIENCE: Duration = Duration::from_secs(20);

fn device() -> DeviceId {
    "cam-01".parse().unwrap()
}

fn slot() -> SlotName {
    "default".parse().unwrap()
}

/// What was published, in order, and what to answer.
#[derive(Default)]
struct TestLink {
    tokens: AtomicU64,
    sent: Mutex<Vec<(Topic, Vec<u8>)>>,
    subscribed: Mutex<Vec<String>>,
    unsubscribed: Mutex<Vec<String>>,
    events: Mutex<Option<mpsc::Sender<LinkEvent>>>,
    cloud: Mutex<Cloud>,
}

#[derive(Default)]
struct Cloud {
    blobs: HashMap<Digest, Vec<u8>>,
    /// Chunks that are still given; none is no end.
    chunks_left: Option<u32>,
    /// Batches are refused.
    refuse_batches: bool,
}

impl TestLink {
    fn deliver(&self, event: LinkEvent) {
        let events = self.events.lock().unwrap();
        if let Some(events) = events.as_ref() {
            events.try_send(event).unwrap();
        }
    }

    fn message(&self, topic: &Topic, payload: Vec<u8>) {
        let receipt = Receipt { connection: 1, packet: 1 };
        self.deliver(LinkEvent::Message { topic: topic.to_string(), payload: payload.into(), receipt });
    }

    fn answer(&self, want: &Want) {
        let mut chunks = Vec::new();
        let mut cloud = self.cloud.lock().unwrap();
        for index in want.indices() {
            if cloud.chunks_left == Some(0) {
                break;
            }
            cloud.chunks_left = cloud.chunks_left.map(|left| left - 1);
            let blob = &cloud.blobs[&want.digest];
            let start = (index * CHUNK) as usize;
            chunks.push((index, blob[start..blob.len().min(start + CHUNK as usize)].to_vec()));
        }
        drop(cloud);
        for (index, bytes) in chunks {
            self.message(&Topic::BlobChunk { device: device(), digest: want.digest, index }, bytes);
        }
    }

    fn reported(&self) -> Option<Reported> {
        let sent = self.sent.lock().unwrap();
        let newest = sent.iter().rev().find(|(topic, _)| matches!(topic, Topic::Reported(_)))?;
        Some(wire::decode_json("report", &newest.1).unwrap())
    }

    fn events(&self) -> Vec<Event> {
        let sent = self.sent.lock().unwrap();
        let batches = sent.iter().filter(|(topic, _)| matches!(topic, Topic::Event(_)));
        batches.flat_map(|(_, payload)| Batch::<Event>::decode(payload, &device()).unwrap().records).collect()
    }
}

impl Link for TestLink {
    fn publish(&self, topic: String, payload: Vec<u8>, _retain: bool) -> Result<Token, NotSent> {
        let topic: Topic = topic.parse().unwrap();
        assert!(topic.device_may_publish(&device()), "{topic} is not the device's own");
        let token = Token(self.tokens.fetch_add(1, Ordering::Relaxed) + 1);
        self.sent.lock().unwrap().push((topic.clone(), payload.clone()));
        let batch = matches!(topic, Topic::Event(_) | Topic::Feedback(_) | Topic::Telemetry(_));
        let refused = batch && self.cloud.lock().unwrap().refuse_batches;
        let result = if refused { Err(Refused::Busy("QuotaExceeded".to_owned())) } else { Ok(()) };
        self.deliver(LinkEvent::Published { token, result });
        if let Topic::BlobWant(_) = topic {
            let want: Want = wire::decode_json("want", &payload).unwrap();
            want.validate().unwrap();
            self.answer(&want);
        }
        Ok(token)
    }

    fn subscribe(&self, filter: String) {
        assert!(shared::topic::device_may_subscribe(&device(), &filter), "{filter}");
        self.subscribed.lock().unwrap().push(filter);
    }

    fn unsubscribe(&self, filter: String) {
        self.unsubscribed.lock().unwrap().push(filter);
    }

    fn acknowledge(&self, _receipt: Receipt) {}

    fn close(&self) {
        *self.events.lock().unwrap() = None;
    }
}

struct Keys {
    director: SigningKey,
    release: SigningKey,
    ring: Keyring,
    offline: Mutex<testing::Offline>,
}

impl Keys {
    fn new() -> Self {
        let (director, release) = (testing::key(), testing::key());
        let trusted = |role, key: &SigningKey| TrustedKey { role, key: key.public().clone() };
        let ring = Keyring::new([trusted(Role::Director, &director), trusted(Role::Release, &release)]);
        let offline = Mutex::new(testing::Offline::new(&ring));
        Self { director, release, ring, offline }
    }

    /// A bundle in the cloud, and the envelope of the wish for it.
    fn wish(&self, link: &TestLink, generation: u64, minor: u32, golden: &[u8]) -> Vec<u8> {
        self.wish_with_deltas(link, generation, minor, golden, Vec::new())
    }

    fn wish_with_deltas(
        &self,
        link: &TestLink,
        generation: u64,
        minor: u32,
        golden: &[u8],
        deltas: Vec<DeltaRef>,
    ) -> Vec<u8> {
        let file = |name: &str, bytes: &[u8]| {
            link.cloud.lock().unwrap().blobs.insert(Digest::of(bytes), bytes.to_vec());
            FileEntry { name: name.to_owned(), digest: Digest::of(bytes), size_bytes: bytes.len() as u64 }
        };
        let manifest = testing::manifest(minor, vec![file(MODEL_FILE, MODEL), file(GOLDEN_FILE, golden)]);
        let envelope = Signed::sign(&manifest, &[&self.release]).unwrap();
        let assignment = Assignment {
            slot: slot(),
            model: manifest.model,
            version: manifest.version,
            version_id: manifest.version_id,
            bundle: Digest::of(&envelope),
            bundle_bytes: envelope.len() as u64,
            rollout: None,
            trial: TrialPolicy { duration_ms: 50, ..TrialPolicy::default() },
            deltas,
            update_bytes_max: None,
        };
        let bundle = assignment.bundle;
        link.cloud.lock().unwrap().blobs.insert(bundle, envelope);
        let mut offline = self.offline.lock().unwrap();
        offline.vouch(&assignment.model, assignment.version, bundle);
        for (file, bytes) in offline.pieces() {
            link.message(&Topic::Trust(file), bytes);
        }
        let desired = Desired {
            device: device(),
            generation,
            issued_at: Timestamp(0),
            chunk_bytes: CHUNK,
            assignments: vec![assignment],
        };
        Signed::sign(&desired, &[&self.director]).unwrap()
    }
}

/// A running updater.
struct Running {
    link: Arc<TestLink>,
    store: Arc<Store>,
    models: Arc<Models>,
    shared: Arc<Shared>,
    stop: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

/// An updater that is not running, and what would come in.
fn build(folder: &Path, link: Arc<TestLink>, keys: &Keys) -> (Updater, Inputs) {
    build_with(folder, link, keys, budget::Limits::default())
}

fn build_with(folder: &Path, link: Arc<TestLink>, keys: &Keys, budget: budget::Limits) -> (Updater, Inputs) {
    let path = folder.join("s");
    // The thread of an updater that was stopped may hold the database for a moment.
    let store = (0..200)
        .find_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            Store::open(&path, 1000).ok()
        })
        .unwrap();
    let store = Arc::new(store);
    let blob_folder = folder.join("blobs");
    std::fs::create_dir_all(&blob_folder).unwrap();
    let blobs = Arc::new(Blobs::new(blob_folder, store.clone()));
    let models = Arc::new(Models::default());
    let trust = Arc::new(keys.offline.lock().unwrap().trust(&folder.join("trust.json")));
    let (done_sender, done) = mpsc::unbounded_channel();
    let installer = Installer {
        blobs: blobs.clone(),
        models: models.clone(),
        engine: Arc::new(Engine::open(&[RuntimeName::Tract], None).unwrap()),
        trust: trust.clone(),
        disk_reserve_bytes: 0,
    }
    .start(move |outcome| drop(done_sender.send(outcome)))
    .unwrap();
    let (events, link_events) = mpsc::channel(4096);
    *link.events.lock().unwrap() = Some(events);
    let parts = Parts {
        device: device(),
        board: "x86-64".parse().unwrap(),
        trust,
        api: "http://127.0.0.1:1".to_owned(),
        telemetry_ms: 60_000,
        budget,
        seed: 1,
        store,
        blobs,
        models,
        shared: Arc::new(Shared::default()),
        link,
        installer,
    };
    (Updater::start(parts).unwrap(), Inputs { link: link_events, done })
}

fn start(folder: &Path, link: Arc<TestLink>, keys: &Keys, connected: bool) -> Running {
    start_with(folder, link, keys, connected, budget::Limits::default())
}

fn start_with(
    folder: &Path,
    link: Arc<TestLink>,
    keys: &Keys,
    connected: bool,
    budget: budget::Limits,
) -> Running {
    let (updater, inputs) = build_with(folder, link.clone(), keys, budget);
    let Parts { store, models, shared, .. } = &updater.parts;
    let (store, models, shared) = (store.clone(), models.clone(), shared.clone());
    if connected {
        link.deliver(LinkEvent::Up { session_present: false });
    }
    let stop = Arc::new(Notify::new());
    let task = tokio::spawn(updater.run(inputs, stop.clone()));
    Running { link, store, models, shared, stop, task }
}

impl Running {
    async fn until(&self, what: &str, reached: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !reached(self) {
            assert!(Instant::now() < deadline, "{what} never came; {:?}", self.link.reported());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until_outcome(&self, generation: u64) -> Outcome {
        self.until("an outcome", |running| running.attempt(generation).is_some()).await;
        self.attempt(generation).unwrap()
    }

    fn attempt(&self, generation: u64) -> Option<Outcome> {
        let report = self.link.reported()?;
        let attempt = report.slots.first()?.attempt.clone()?;
        (attempt.generation == generation).then_some(attempt.outcome)
    }

    fn answers(&self) -> Option<String> {
        let (_, loaded) = self.models.find("default")?;
        Some(loaded.version.version.to_string())
    }

    async fn stop(self) -> Arc<TestLink> {
        self.stop.notify_one();
        self.task.await.unwrap();
        self.link
    }

    /// As kill -9: nothing is said and nothing is flushed.
    async fn kill(self) -> Arc<TestLink> {
        self.task.abort();
        let _ = self.task.await;
        self.link
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn installs_what_the_director_signed_and_tells_each_step_once() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let running = start(folder.path(), link, &keys, true);
    let wish = keys.wish(&running.link, 1, 0, GOLDEN);
    running.link.message(&Topic::Desired(device()), wish);
    assert_eq!(running.until_outcome(1).await, Outcome::Committed);
    assert_eq!(running.answers().as_deref(), Some("v1.0"));
    running.until("an empty outbox", |running| running.store.depth().total() == 0).await;
    let kinds: Vec<_> = running.link.events().iter().map(|event| event.kind).collect();
    assert_eq!(
        kinds,
        [
            EventKind::AgentStarted,
            EventKind::TrustUpdated,
            EventKind::DownloadStarted,
            EventKind::BundleStaged,
            EventKind::VersionActivated,
            EventKind::TrialPassed
        ]
    );
    assert_eq!(running.shared.reported(), running.link.reported());
    let link = running.stop().await;
    let sent = link.sent.lock().unwrap();
    let presence = sent.iter().filter(|(topic, _)| matches!(topic, Topic::Presence(_)));
    let presence: Vec<Presence> =
        presence.map(|(_, payload)| wire::decode_json("p", payload).unwrap()).collect();
    assert_eq!(presence, [Presence { online: true }, Presence { online: false }]);
}

/// A file that runs as well as `golden`: the same tensors, and some spaces after the header's text.
fn spaced(golden: &[u8], spaces: usize) -> Vec<u8> {
    let length = u64::from_le_bytes(golden[..8].try_into().unwrap());
    let end = 8 + usize::try_from(length).unwrap();
    let header = [&golden[8..end], &vec![b' '; spaces][..]].concat();
    [&(header.len() as u64).to_le_bytes()[..], &header, &golden[end..]].concat()
}

fn put_delta(link: &TestLink, old: &[u8], new: &[u8], spoil: bool) -> DeltaRef {
    let mut bytes = delta::make(old, new, &[]).unwrap();
    if spoil {
        let last = bytes.len() - 1;
        bytes[last] ^= 0xff;
    }
    let delta = DeltaRef {
        from: Digest::of(old),
        to: Digest::of(new),
        delta: Digest::of(&bytes),
        bytes: bytes.len() as u64,
    };
    link.cloud.lock().unwrap().blobs.insert(delta.delta, bytes);
    delta
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_made_from_a_delta_and_comes_whole_where_that_fails() {
    for spoil in [false, true] {
        let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
        let running = start(folder.path(), link, &keys, true);
        running.link.message(&Topic::Desired(device()), keys.wish(&running.link, 1, 0, GOLDEN));
        assert_eq!(running.until_outcome(1).await, Outcome::Committed);
        let golden = spaced(GOLDEN, 8);
        let delta = put_delta(&running.link, GOLDEN, &golden, spoil);
        let wish = keys.wish_with_deltas(&running.link, 2, 1, &golden, vec![delta]);
        running.link.message(&Topic::Desired(device()), wish);
        assert_eq!(running.until_outcome(2).await, Outcome::Committed);
        running.until("an empty outbox", |running| running.store.depth().total() == 0).await;
        let wanted: Vec<Digest> = {
            let sent = running.link.sent.lock().unwrap();
            let wants = sent.iter().filter(|(topic, _)| matches!(topic, Topic::BlobWant(_)));
            wants.map(|(_, bytes)| wire::decode_json::<Want>("want", bytes).unwrap().digest).collect()
        };
        assert!(wanted.contains(&delta.delta));
        assert_eq!(wanted.contains(&delta.to), spoil, "the whole file comes only where the delta fails");
        let refused = running.link.events().iter().any(|event| event.kind == EventKind::DeltaRefused);
        assert_eq!(refused, spoil);
        let blobs = folder.path().join("blobs");
        assert!(blobs.join(delta.to.to_string()).exists());
        running
            .until("the delta to be gone", |_| {
                !blobs.join(delta.delta.to_string()).exists()
                    && !blobs.join(format!("{}.partial", delta.delta)).exists()
            })
            .await;
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_that_came_before_a_kill_is_applied_after_it_and_not_fetched_again() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let running = start(folder.path(), link, &keys, true);
    running.link.message(&Topic::Desired(device()), keys.wish(&running.link, 1, 0, GOLDEN));
    assert_eq!(running.until_outcome(1).await, Outcome::Committed);
    let link = running.kill().await;
    let golden = spaced(GOLDEN, 8);
    let delta = put_delta(&link, GOLDEN, &golden, false);
    let bytes = link.cloud.lock().unwrap().blobs[&delta.delta].clone();
    std::fs::write(folder.path().join("blobs").join(delta.delta.to_string()), bytes).unwrap();
    let running = start(folder.path(), link, &keys, true);
    let wish = keys.wish_with_deltas(&running.link, 2, 1, &golden, vec![delta]);
    let before = running.link.sent.lock().unwrap().len();
    running.link.message(&Topic::Desired(device()), wish);
    assert_eq!(running.until_outcome(2).await, Outcome::Committed);
    let sent = running.link.sent.lock().unwrap();
    let wants = sent[before..].iter().filter(|(topic, _)| matches!(topic, Topic::BlobWant(_)));
    let wants = wants.map(|(_, bytes)| wire::decode_json::<Want>("want", bytes).unwrap().digest);
    assert!(wants.into_iter().all(|digest| digest != delta.delta && digest != delta.to));
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_days_budget_the_slot_waits_and_listens_no_more() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let wish = keys.wish(&link, 1, 0, GOLDEN);
    // The manifest comes, and the model does not.
    let files = [Digest::of(MODEL), Digest::of(GOLDEN)];
    let envelope_bytes = {
        let cloud = link.cloud.lock().unwrap();
        let envelope = cloud.blobs.iter().find(|(digest, _)| !files.contains(digest));
        envelope.unwrap().1.len() as u64
    };
    let limits = budget::Limits { day_bytes_max: Some(envelope_bytes + 100), ..budget::Limits::default() };
    let wants = |link: &TestLink| {
        let sent = link.sent.lock().unwrap();
        sent.iter().filter(|(topic, _)| matches!(topic, Topic::BlobWant(_))).count()
    };
    let waits_since = |running: &Running, since: usize| {
        let sent = running.link.sent.lock().unwrap();
        let mut reports = sent[since..].iter().filter(|(topic, _)| matches!(topic, Topic::Reported(_)));
        let newest = reports.next_back().map(|(_, bytes)| wire::decode_json::<Reported>("r", bytes).unwrap());
        let phase = newest.and_then(|reported| Some(reported.slots.first()?.phase.clone()));
        matches!(phase, Some(wire::Phase::Waiting { waits_for: wire::WaitsFor::Budget, .. }))
    };
    let running = start_with(folder.path(), link, &keys, true, limits);
    running.link.message(&Topic::Desired(device()), wish);
    running.until("waiting for the budget", |running| waits_since(running, 0)).await;
    let asked = wants(&running.link);
    let (subscribed, unsubscribed) =
        (running.link.subscribed.lock().unwrap().len(), running.link.unsubscribed.lock().unwrap().len());
    // Trust metadata, the wish and the chunks of this device are listened to, and no blob.
    assert_eq!(subscribed - unsubscribed, 3);
    let link = running.kill().await;
    let since = link.sent.lock().unwrap().len();
    let running = start_with(folder.path(), link, &keys, true, limits);
    running.until("waiting for the budget again", |running| waits_since(running, since)).await;
    assert_eq!(wants(&running.link), asked, "a restart is no other day");
    let link = running.kill().await;
    let running = start(folder.path(), link, &keys, true);
    assert_eq!(running.until_outcome(1).await, Outcome::Committed);
    running.until("an empty outbox", |running| running.store.depth().total() == 0).await;
    let mut told = running.link.events();
    told.retain(|event| event.kind == EventKind::BudgetSpent);
    told.dedup_by_key(|event| event.id);
    assert_eq!(told.len(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_that_the_director_did_not_sign_is_refused_and_said_once() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let running = start(folder.path(), link, &keys, true);
    let forged = Keys::new().wish(&running.link, 1, 0, GOLDEN);
    for _ in 0..3 {
        running.link.message(&Topic::Desired(device()), forged.clone());
    }
    running.link.message(&Topic::Desired(device()), b"{".to_vec());
    let refused = |running: &Running| {
        running.link.events().iter().filter(|event| event.kind == EventKind::DesiredRefused).count()
    };
    running.until("two refusals", |running| refused(running) == 2).await;
    assert_eq!(running.link.reported().unwrap().generation, 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_flipped_byte_is_refused_and_the_version_before_goes_on() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let running = start(folder.path(), link, &keys, true);
    let wish = keys.wish(&running.link, 1, 0, GOLDEN);
    running.link.message(&Topic::Desired(device()), wish);
    running.until_outcome(1).await;
    // The second bundle has another golden file, one byte of which is not what was signed.
    let golden = runtime::Golden::read(GOLDEN).unwrap();
    let other =
        runtime::Golden::new(vec![1, 8, 8], golden.input()[..64].to_vec(), golden.output()[..3].to_vec());
    let other = other.unwrap().write().unwrap();
    let wish = keys.wish(&running.link, 2, 1, &other);
    running.link.cloud.lock().unwrap().blobs.get_mut(&Digest::of(&other)).unwrap()[40] ^= 1;
    running.link.message(&Topic::Desired(device()), wish);
    let outcome = running.until_outcome(2).await;
    assert!(matches!(outcome, Outcome::Refused { reason: Refusal::DigestMismatch, .. }), "{outcome:?}");
    assert_eq!(running.answers().as_deref(), Some("v1.0"));
    let left = std::fs::read_dir(folder.path().join("blobs")).unwrap();
    let names: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|name| !name.ends_with("partial")), "{names:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_golden_outputs_are_refused_before_activation() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let running = start(folder.path(), link, &keys, true);
    let golden = runtime::Golden::read(GOLDEN).unwrap();
    let mut output = golden.output().to_vec();
    output[..3].rotate_left(1);
    let wrong =
        runtime::Golden::new(vec![1, 8, 8], golden.input().to_vec(), output).unwrap().write().unwrap();
    let wish = keys.wish(&running.link, 1, 0, &wrong);
    running.link.message(&Topic::Desired(device()), wish);
    let outcome = running.until_outcome(1).await;
    assert!(matches!(outcome, Outcome::Refused { reason: Refusal::GoldenMismatch, .. }), "{outcome:?}");
    assert_eq!(running.answers(), None);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_mid_download_it_goes_on_from_the_chunks_on_disk() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let running = start(folder.path(), link, &keys, true);
    let wish = keys.wish(&running.link, 1, 0, GOLDEN);
    // The envelope, the model's one chunk, and one of the golden file's.
    let envelope_chunks =
        running.link.cloud.lock().unwrap().blobs.values().map(Vec::len).max().unwrap() as u32;
    running.link.cloud.lock().unwrap().chunks_left = Some(envelope_chunks.div_ceil(CHUNK) + 2);
    running.link.message(&Topic::Desired(device()), wish.clone());
    running
        .until("the last chunk", |running| {
            running.link.cloud.lock().unwrap().chunks_left == Some(0)
                && matches!(running.shared.reported().and_then(|report| report.slots.first().map(|slot| slot.phase.clone())),
                    Some(wire::Phase::Fetching { chunks_done, .. }) if chunks_done >= 4)
        })
        .await;
    let link = running.kill().await;
    link.cloud.lock().unwrap().chunks_left = None;
    link.sent.lock().unwrap().clear();

    let running = start(folder.path(), link, &keys, true);
    assert_eq!(running.until_outcome(1).await, Outcome::Committed);
    running.until("the events", |running| running.store.depth().total() == 0).await;
    let events = running.link.events();
    let resumed = events.iter().find(|event| event.kind == EventKind::DownloadResumed).unwrap();
    assert_eq!(resumed.detail, "golden.safetensors from chunk 1 of 2");
    let wanted: usize = {
        let sent = running.link.sent.lock().unwrap();
        let wants = sent.iter().filter(|(topic, _)| matches!(topic, Topic::BlobWant(_)));
        wants.map(|(_, payload)| wire::decode_json::<Want>("want", payload).unwrap().indices().count()).sum()
    };
    assert_eq!(wanted, 1, "only what is missing is asked for");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn serves_the_last_good_version_before_any_network() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let running = start(folder.path(), link, &keys, true);
    let wish = keys.wish(&running.link, 1, 0, GOLDEN);
    running.link.message(&Topic::Desired(device()), wish);
    running.until_outcome(1).await;
    let link = running.stop().await;

    let running = start(folder.path(), link, &keys, false);
    running.until("an answer", |running| running.answers().is_some()).await;
    assert_eq!(running.answers().as_deref(), Some("v1.0"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_refuses_stays_in_the_outbox_and_goes_later() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    link.cloud.lock().unwrap().refuse_batches = true;
    let running = start(folder.path(), link, &keys, true);
    running.until("a try", |running| !running.link.events().is_empty()).await;
    assert_eq!(running.store.depth().event, 1);
    running.link.cloud.lock().unwrap().refuse_batches = false;
    running.until("delivery", |running| running.store.depth().total() == 0).await;
    let ids: BTreeSet<_> = running.link.events().iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), 1, "sent again under the same id");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_messages_change_nothing() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let running = start(folder.path(), link, &keys, true);
    let stranger: DeviceId = "cam-02".parse().unwrap();
    let (digest, index) = (Digest::of(b"x"), u32::MAX);
    for topic in [
        Topic::BlobChunk { device: device(), digest, index },
        Topic::BlobBroadcast { digest, index: 0 },
        Topic::Desired(stranger),
        Topic::Desired(device()),
        Topic::Reported(device()),
    ] {
        running.link.message(&topic, vec![0xff; 70_000]);
        running.link.message(&topic, Vec::new());
    }
    let wish = keys.wish(&running.link, 1, 0, GOLDEN);
    running.link.message(&Topic::Desired(device()), wish);
    assert_eq!(running.until_outcome(1).await, Outcome::Committed);
    running.stop().await;
}

/// Hands the installer's outcomes in until one is of this kind, which is given.
async fn hand_in_until(
    updater: &mut Updater,
    inputs: &mut Inputs,
    wanted: impl Fn(&SlotInput) -> bool,
) -> Done {
    let work = async {
        loop {
            let done = inputs.done.recv().await.unwrap();
            if done.input.as_ref().is_some_and(&wanted) {
                return done;
            }
            updater.handle_done(done);
            updater.settle();
        }
    };
    tokio::time::timeout(PATIENCE, work).await.unwrap()
}

fn opened(input: &SlotInput) -> bool {
    matches!(input, SlotInput::BlobOpened { .. })
}

fn message(topic: &Topic, payload: Vec<u8>) -> LinkEvent {
    let receipt = Receipt { connection: 1, packet: 1 };
    LinkEvent::Message { topic: topic.to_string(), payload: payload.into(), receipt }
}

/// The digest of the bundle that the wish asks for.
fn bundle_of(wish: &[u8], keys: &Keys) -> Digest {
    let desired = Signed::<Desired>::parse(wish).unwrap().verify(&keys.ring).unwrap().into_inner();
    desired.assignments[0].bundle
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_comes_before_its_blob_is_known_to_be_open_counts() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let wish = keys.wish(&link, 1, 0, GOLDEN);
    let digest = bundle_of(&wish, &keys);
    let envelope = link.cloud.lock().unwrap().blobs[&digest].clone();
    let (mut updater, mut inputs) = build(folder.path(), link.clone(), &keys);
    updater.handle_link(vec![LinkEvent::Up { session_present: false }]);
    updater.handle_link(vec![message(&Topic::Desired(device()), wish)]);
    updater.settle();
    let done = hand_in_until(&mut updater, &mut inputs, opened).await;
    // Another device asked for the first chunk, and it comes before the answer is handed in.
    let chunk = envelope[..envelope.len().min(CHUNK as usize)].to_vec();
    updater.handle_link(vec![message(&Topic::BlobBroadcast { digest, index: 0 }, chunk.clone())]);
    updater.handle_done(done);
    updater.settle();
    let wanted: Vec<u32> = {
        let sent = link.sent.lock().unwrap();
        let wants = sent.iter().filter(|(topic, _)| matches!(topic, Topic::BlobWant(_)));
        wants
            .flat_map(|(_, payload)| {
                wire::decode_json::<Want>("want", payload).unwrap().indices().collect::<Vec<_>>()
            })
            .collect()
    };
    let total = wire::chunk_count(envelope.len() as u64, CHUNK);
    assert_eq!(wanted, (1..total).collect::<Vec<_>>(), "asked for although it is there");
    // The same chunk once more is told once more, whatever the machine believed.
    assert_eq!(updater.parts.blobs.write(digest, &[(0, &chunk)]).unwrap(), [0]);
    let Some(Fetched::Part(present)) = updater.parts.blobs.fetched(digest) else { panic!("not open") };
    assert_eq!(present.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_opened_after_its_attempt_ended_is_closed_again() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let wish = keys.wish(&link, 1, 0, GOLDEN);
    let digest = bundle_of(&wish, &keys);
    let (mut updater, mut inputs) = build(folder.path(), link.clone(), &keys);
    updater.handle_link(vec![LinkEvent::Up { session_present: false }]);
    updater.handle_link(vec![message(&Topic::Desired(device()), wish)]);
    updater.settle();
    let done = hand_in_until(&mut updater, &mut inputs, opened).await;
    let other = keys.wish(&link, 2, 1, GOLDEN);
    updater.handle_link(vec![message(&Topic::Desired(device()), other)]);
    // The answer comes before the machine's Discard is carried out, and after its attempt is gone.
    updater.handle_done(done);
    assert!(!updater.parts.blobs.is_open(digest));
    let filter = Filter::BlobBroadcast(digest).to_string();
    assert!(link.unsubscribed.lock().unwrap().contains(&filter));
    assert!(!folder.path().join("blobs").join(format!("{digest}.partial")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_were_given_up_for_space_are_fetched_again() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    link.cloud.lock().unwrap().chunks_left = Some(0);
    let wish = keys.wish(&link, 1, 0, GOLDEN);
    let digest = bundle_of(&wish, &keys);
    let (mut updater, mut inputs) = build(folder.path(), link.clone(), &keys);
    updater.handle_link(vec![LinkEvent::Up { session_present: false }]);
    updater.handle_link(vec![message(&Topic::Desired(device()), wish)]);
    updater.settle();
    let done = hand_in_until(&mut updater, &mut inputs, opened).await;
    // Once before the machine knows that the blob is open, and once after.
    updater.give_up_parts("no space left");
    updater.handle_done(done);
    let phase = |updater: &Updater| updater.machine.reports()[0].phase.clone();
    assert!(matches!(phase(&updater), wire::Phase::Waiting { .. }), "{:?}", phase(&updater));
    updater.machine.handle_timeout(updater.clock.monotonic().plus_ms(60_000));
    updater.settle();
    let done = hand_in_until(&mut updater, &mut inputs, opened).await;
    updater.handle_done(done);
    updater.settle();
    assert!(matches!(phase(&updater), wire::Phase::Fetching { .. }));
    updater.give_up_parts("no space left");
    let wire::Phase::Waiting { reason, bundle, .. } = phase(&updater) else {
        panic!("{:?}", phase(&updater))
    };
    assert_eq!((reason.as_str(), bundle), ("no space left", digest));
    assert!(!updater.parts.blobs.is_open(digest));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_no_state_holds_back_the_machine_and_nothing_else() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let running = start(folder.path(), link, &keys, true);
    running.until("a report", |running| running.link.reported().is_some()).await;
    // The state file can be replaced by none while a folder that is not empty has its name.
    let state = folder.path().join("s.state.json");
    let _ = std::fs::remove_file(&state);
    std::fs::create_dir_all(state.join("in the way")).unwrap();
    let wish = keys.wish(&running.link, 1, 0, GOLDEN);
    running.link.message(&Topic::Desired(device()), wish);
    // A message behind it is handled, and its event goes out.
    running.link.message(&Topic::Desired(device()), b"{".to_vec());
    running
        .until("the refusal", |running| {
            running.link.events().iter().any(|event| event.kind == EventKind::DesiredRefused)
        })
        .await;
    let asked = |running: &Running| {
        let sent = running.link.sent.lock().unwrap();
        sent.iter().any(|(topic, _)| matches!(topic, Topic::BlobWant(_)))
    };
    assert!(!asked(&running), "asks for chunks of what is not on disk");
    std::fs::remove_dir_all(&state).unwrap();
    assert_eq!(running.until_outcome(1).await, Outcome::Committed);

    // And a stop is heard.
    std::fs::remove_file(&state).unwrap();
    std::fs::create_dir_all(state.join("in the way")).unwrap();
    let wish = keys.wish(&running.link, 2, 1, GOLDEN);
    running.link.message(&Topic::Desired(device()), wish);
    tokio::time::timeout(PATIENCE, running.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_was_opened_while_offline_is_listened_for_in_a_session_that_does_not_know_it() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let wish = keys.wish(&link, 1, 0, GOLDEN);
    let digest = bundle_of(&wish, &keys);
    let (mut updater, mut inputs) = build(folder.path(), link.clone(), &keys);
    updater.handle_link(vec![message(&Topic::Desired(device()), wish)]);
    updater.settle();
    let done = hand_in_until(&mut updater, &mut inputs, opened).await;
    updater.handle_done(done);
    link.subscribed.lock().unwrap().clear();
    updater.handle_link(vec![LinkEvent::Up { session_present: true }]);
    assert!(link.subscribed.lock().unwrap().contains(&Filter::BlobBroadcast(digest).to_string()));
    // What the session knows and nobody needs any more is taken back.
    let stale = Digest::of(b"of an earlier run");
    let late = Topic::BlobBroadcast { digest: stale, index: 0 };
    updater.handle_link(vec![message(&late, vec![0; 8]), message(&late, vec![0; 8])]);
    assert_eq!(*link.unsubscribed.lock().unwrap(), [Filter::BlobBroadcast(stale).to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_cleared_away_while_a_pinned_manifest_cannot_be_read() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let running = start(folder.path(), link, &keys, true);
    let wish = keys.wish(&running.link, 1, 0, GOLDEN);
    let digest = bundle_of(&wish, &keys);
    running.link.message(&Topic::Desired(device()), wish);
    running.until_outcome(1).await;
    let link = running.stop().await;

    let (mut updater, _inputs) = build(folder.path(), link, &keys);
    let blobs = folder.path().join("blobs");
    let count = || std::fs::read_dir(&blobs).unwrap().count();
    assert_eq!(count(), 3);
    let envelope = std::fs::read(blobs.join(digest.to_string())).unwrap();
    std::fs::write(blobs.join(digest.to_string()), b"rot").unwrap();
    std::fs::write(blobs.join(Digest::of(b"left over").to_string()), b"left over").unwrap();
    updater.collect();
    assert_eq!(count(), 4, "the files of the last good version are gone");
    std::fs::write(blobs.join(digest.to_string()), envelope).unwrap();
    updater.collect();
    assert_eq!(count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_writes_down_what_was_counted_since_the_last_window() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let running = start(folder.path(), link, &keys, true);
    let wish = keys.wish(&running.link, 1, 0, GOLDEN);
    running.link.message(&Topic::Desired(device()), wish);
    running.until_outcome(1).await;
    running.until("an empty outbox", |running| running.store.depth().total() == 0).await;
    let (serving, loaded) = running.models.find("default").unwrap();
    serving.record(&loaded, 1, Some(Duration::from_micros(7)), wall());
    let store = running.store.clone();
    running.stop().await;
    assert_eq!(store.depth().telemetry, 1);
}
