//! A link that ends in this process, a cloud behind it, and an updater with real files between them.

use super::*;

pub(super) const CHUNK: u32 = 1024;
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn device() -> DeviceId {
    "cam-01".parse().unwrap()
}

pub(super) fn slot() -> SlotName {
    "default".parse().unwrap()
}

/// What was published, in order, and what to answer.
#[derive(Default)]
pub(super) struct TestLink {
    pub(super) tokens: AtomicU64,
    pub(super) sent: Mutex<Vec<(Topic, Vec<u8>)>>,
    pub(super) subscribed: Mutex<Vec<String>>,
    pub(super) unsubscribed: Mutex<Vec<String>>,
    pub(super) events: Mutex<Option<mpsc::Sender<LinkEvent>>>,
    pub(super) cloud: Mutex<Cloud>,
}

#[derive(Default)]
pub(super) struct Cloud {
    pub(super) blobs: HashMap<Digest, Vec<u8>>,
    /// Chunks that are still given; none is no end.
    pub(super) chunks_left: Option<u32>,
    /// Batches are refused.
    pub(super) refuse_batches: bool,
}

impl TestLink {
    pub(super) fn deliver(&self, event: LinkEvent) {
        let events = self.events.lock().unwrap();
        if let Some(events) = events.as_ref() {
            events.try_send(event).unwrap();
        }
    }

    pub(super) fn message(&self, topic: &Topic, payload: Vec<u8>) {
        let receipt = Receipt { connection: 1, packet: 1 };
        self.deliver(LinkEvent::Message { topic: topic.to_string(), payload: payload.into(), receipt });
    }

    pub(super) fn answer(&self, want: &Want) {
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

    pub(super) fn reported(&self) -> Option<Reported> {
        let sent = self.sent.lock().unwrap();
        let newest = sent.iter().rev().find(|(topic, _)| matches!(topic, Topic::Reported(_)))?;
        Some(wire::decode_json("report", &newest.1).unwrap())
    }

    pub(super) fn events(&self) -> Vec<Event> {
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

pub(super) struct Keys {
    pub(super) director: SigningKey,
    pub(super) release: SigningKey,
    pub(super) ring: Keyring,
    pub(super) offline: Mutex<testing::Offline>,
}

impl Keys {
    pub(super) fn new() -> Self {
        let (director, release) = (testing::key(), testing::key());
        let trusted = |role, key: &SigningKey| TrustedKey { role, key: key.public().clone() };
        let ring = Keyring::new([trusted(Role::Director, &director), trusted(Role::Release, &release)]);
        let offline = Mutex::new(testing::Offline::new(&ring));
        Self { director, release, ring, offline }
    }

    /// A bundle in the cloud, and the envelope of the wish for it.
    pub(super) fn wish(&self, link: &TestLink, generation: u64, minor: u32, golden: &[u8]) -> Vec<u8> {
        self.wish_with_deltas(link, generation, minor, golden, Vec::new())
    }

    pub(super) fn wish_with_deltas(
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
pub(super) struct Running {
    pub(super) link: Arc<TestLink>,
    pub(super) store: Arc<Store>,
    pub(super) models: Arc<Models>,
    pub(super) shared: Arc<Shared>,
    pub(super) stop: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

/// An updater that is not running, and what would come in.
pub(super) fn build(folder: &Path, link: Arc<TestLink>, keys: &Keys) -> (Updater, Inputs) {
    build_with(folder, link, keys, budget::Limits::default())
}

pub(super) fn build_with(
    folder: &Path,
    link: Arc<TestLink>,
    keys: &Keys,
    budget: budget::Limits,
) -> (Updater, Inputs) {
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
    let (done_sender, done) = mpsc::channel(JOBS_MAX);
    let engine = Arc::new(Engine::open(&[RuntimeName::Tract], None).unwrap());
    let (profiler, measured) = Profiler { engine: engine.clone() }.start().unwrap();
    let installer = Installer {
        blobs: blobs.clone(),
        models: models.clone(),
        engine,
        trust: trust.clone(),
        disk_reserve_bytes: 0,
    }
    .start(move |outcome| drop(done_sender.blocking_send(outcome)))
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
        profiler,
        profile_file: folder.join("profile.json"),
    };
    (Updater::start(parts).unwrap(), Inputs { link: link_events, done, measured })
}

pub(super) fn start(folder: &Path, link: Arc<TestLink>, keys: &Keys, connected: bool) -> Running {
    start_with(folder, link, keys, connected, budget::Limits::default())
}

pub(super) fn start_with(
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
    pub(super) async fn until(&self, what: &str, reached: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !reached(self) {
            assert!(Instant::now() < deadline, "{what} never came; {:?}", self.link.reported());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) async fn until_outcome(&self, generation: u64) -> Outcome {
        self.until("an outcome", |running| running.attempt(generation).is_some()).await;
        self.attempt(generation).unwrap()
    }

    pub(super) fn attempt(&self, generation: u64) -> Option<Outcome> {
        let report = self.link.reported()?;
        let attempt = report.slots.first()?.attempt.clone()?;
        (attempt.generation == generation).then_some(attempt.outcome)
    }

    pub(super) fn answers(&self) -> Option<String> {
        let (_, loaded) = self.models.find("default")?;
        Some(loaded.version.version.to_string())
    }

    pub(super) async fn stop(self) -> Arc<TestLink> {
        self.stop.notify_one();
        self.task.await.unwrap();
        self.link
    }

    /// As kill -9: nothing is said and nothing is flushed.
    pub(super) async fn kill(self) -> Arc<TestLink> {
        self.task.abort();
        let _ = self.task.await;
        self.link
    }
}

/// Hands the installer's outcomes in until one is of this kind, which is given.
pub(super) async fn hand_in_until(
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

pub(super) fn opened(input: &SlotInput) -> bool {
    matches!(input, SlotInput::BlobOpened { .. })
}

pub(super) fn message(topic: &Topic, payload: Vec<u8>) -> LinkEvent {
    let receipt = Receipt { connection: 1, packet: 1 };
    LinkEvent::Message { topic: topic.to_string(), payload: payload.into(), receipt }
}

/// The digest of the bundle that the wish asks for.
pub(super) fn bundle_of(wish: &[u8], keys: &Keys) -> Digest {
    let desired = Signed::<Desired>::parse(wish).unwrap().verify(&keys.ring).unwrap().into_inner();
    desired.assignments[0].bundle
}
