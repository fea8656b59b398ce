//! The updater with real files, a real database and a real model, and a link that ends in this process.

use super::*;
use crate::{
    engine::Engine,
    installer::Installer,
    link::{NotSent, Token},
};
use shared::{
    ModelVersionId,
    board::RuntimeName,
    manifest::{FileEntry, GOLDEN_FILE, Lineage, MODEL_FILE, Manifest, Preprocess, Task, TensorSpec},
    signing::{Role, SigningKey, TrustedKey},
    wire::{Assignment, Batch, Outcome, Presence, Refusal, Reported, TrialPolicy, Want},
};
use std::{collections::HashMap, path::Path, sync::atomic::AtomicU64};

const MODEL: &[u8] = include_bytes!("../../assets/selftest.onnx");
const GOLDEN: &[u8] = include_bytes!("../../assets/selftest.safetensors");
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
        let events = self.events.lock().unwrap().clone();
        events.unwrap().try_send(event).unwrap();
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
        let result = if refused { Err("QuotaExceeded".to_owned()) } else { Ok(()) };
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
    }

    fn unsubscribe(&self, _filter: String) {}
    fn acknowledge(&self, _receipt: Receipt) {}
    fn close(&self) {}
}

struct Keys {
    director: SigningKey,
    release: SigningKey,
}

impl Keys {
    fn new() -> Self {
        let key = || SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap();
        Self { director: key(), release: key() }
    }

    fn ring(&self) -> Keyring {
        let trusted = |role, key: &SigningKey| TrustedKey { role, key: key.public().clone() };
        Keyring::new([trusted(Role::Director, &self.director), trusted(Role::Release, &self.release)])
    }

    /// A bundle in the cloud, and the envelope of the wish for it.
    fn wish(&self, link: &TestLink, generation: u64, minor: u32, golden: &[u8]) -> Vec<u8> {
        let file = |name: &str, bytes: &[u8]| {
            link.cloud.lock().unwrap().blobs.insert(Digest::of(bytes), bytes.to_vec());
            FileEntry { name: name.to_owned(), digest: Digest::of(bytes), size_bytes: bytes.len() as u64 }
        };
        let spec = |name: &str, shape: &[usize]| TensorSpec { name: name.to_owned(), shape: shape.to_vec() };
        let manifest = Manifest {
            format: 1,
            model: "shapes".parse().unwrap(),
            version: format!("v1.{minor}").parse().unwrap(),
            version_id: ModelVersionId(Uuid::from_u128(minor.into())),
            task: Task::ImageClassification,
            board: "x86-64".parse().unwrap(),
            created_at: Timestamp(0),
            input: spec("input", &[1, 8, 8]),
            output: spec("probabilities", &[3]),
            preprocess: Preprocess { scale: 1.0, offset: 0.0 },
            labels: ["a", "b", "c"].map(str::to_owned).to_vec(),
            golden_tolerance: 0.05,
            files: vec![file(MODEL_FILE, MODEL), file(GOLDEN_FILE, golden)],
            lineage: Lineage { dataset: Digest::of(b"d"), job: None, seed: 0, parent: None },
        };
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
        };
        link.cloud.lock().unwrap().blobs.insert(Digest::of(&envelope), envelope);
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

fn start(folder: &Path, link: Arc<TestLink>, keys: &Keys, connected: bool) -> Running {
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
    let shared = Arc::new(Shared::default());
    let (done_sender, done) = mpsc::unbounded_channel();
    let installer = Installer {
        blobs: blobs.clone(),
        models: models.clone(),
        engine: Arc::new(Engine::open(&[RuntimeName::Tract], None).unwrap()),
        keyring: keys.ring(),
        disk_reserve_bytes: 0,
    }
    .start(move |outcome| drop(done_sender.send(outcome)))
    .unwrap();
    let (events, link_events) = mpsc::channel(4096);
    *link.events.lock().unwrap() = Some(events);
    let updater = Updater::start(Parts {
        device: device(),
        board: "x86-64".parse().unwrap(),
        keyring: keys.ring(),
        api: "http://127.0.0.1:1".to_owned(),
        telemetry_ms: 60_000,
        seed: 1,
        store: store.clone(),
        blobs,
        models: models.clone(),
        shared: shared.clone(),
        link: link.clone(),
        installer,
    })
    .unwrap();
    if connected {
        link.deliver(LinkEvent::Up { session_present: false });
    }
    let stop = Arc::new(Notify::new());
    let task = tokio::spawn(updater.run(Inputs { link: link_events, done }, stop.clone()));
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
