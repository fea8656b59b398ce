use super::*;
use crate::{
    app::{
        delivery,
        testing::{self, CHUNK_BYTES, wait_for},
    },
    broker::Ingest,
    testing as fixtures,
};
use control_core::{
    entity::Rollout,
    rollout::{MemberState, Policy, WaveSize},
};
use shared::{
    DeviceId,
    manifest::GOLDEN_FILE,
    topic::Topic,
    wire::{self, Assignment, Desired, Phase, Presence, Reported, SlotReport, VersionRef, WaitsFor, Want},
};

struct World {
    _folder: tempfile::TempDir,
    app: Arc<App>,
}

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let app = testing::app(folder.path(), "exit 1").await;
        Self { _folder: folder, app }
    }

    async fn enrol(&self, device: &str) -> DeviceId {
        let device = testing::enrol(&self.app, device, "x86-64").await.device;
        let online = wire::encode_json("presence", &Presence { online: true }).unwrap();
        self.app.receive(&device, &Topic::Presence(device.clone()), online.into()).await.unwrap();
        device
    }

    async fn version(&self, label: &str, model: &[u8], golden: &[u8]) -> Version {
        let file = |name: &str, bytes: &[u8]| {
            let (digest, size_bytes) = self.app.store.blobs.put(bytes).unwrap();
            FileEntry { name: name.to_owned(), digest, size_bytes }
        };
        let files = vec![file(MODEL_FILE, model), file(GOLDEN_FILE, golden)];
        let version = fixtures::version(label, label, files);
        self.app.store.add_version(&version).await.unwrap();
        version
    }

    async fn report(&self, device: &DeviceId, active: Option<&Version>, phase: Phase) {
        let told = self.app.device(device).await.unwrap();
        let slot = SlotReport {
            slot: "default".parse().unwrap(),
            active: active.map(|version| VersionRef {
                model: version.model.clone(),
                version: version.version,
                version_id: version.id,
                bundle: version.bundle,
            }),
            last_good: None,
            runtime: None,
            phase,
            attempt: None,
        };
        let reported = Reported {
            device: device.clone(),
            board: told.board,
            agent_version: told.agent_version,
            at: now(),
            generation: told.generation,
            slots: vec![slot],
            disk_free_bytes: None,
            api: None,
        };
        let payload = wire::encode_json("report", &reported).unwrap();
        self.app.receive(device, &Topic::Reported(device.clone()), payload.into()).await.unwrap();
    }

    async fn roll_out(&self, version: &Version, update_bytes_max: Option<u64>) -> Rollout {
        let policy =
            Policy { waves: vec![WaveSize::Percent(100).into()], update_bytes_max, ..Policy::default() };
        self.app.create_rollout(testing::rollout_of(version, policy)).await.unwrap()
    }

    /// What the device is told, once it is told anything.
    async fn told(&self, device: &DeviceId) -> Assignment {
        let planner = tokio::spawn(Arc::clone(&self.app).run_planner());
        let told =
            wait_for(async || self.app.device(device).await.unwrap().assignments.into_iter().next()).await;
        planner.abort();
        told
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_have_the_older_file_are_told_of_one_delta_and_may_fetch_it() {
    let world = World::new().await;
    let (first, second, fresh) =
        (world.enrol("cam-01").await, world.enrol("cam-02").await, world.enrol("cam-03").await);
    let weights = noise(1, 60_000);
    let mut tuned = weights.clone();
    tuned[30_000] ^= 1;
    let old = world.version("v1.0", &weights, &noise(2, 5000)).await;
    let new = world.version("v1.1", &tuned, &noise(8, 5000)).await;
    for device in [&first, &second] {
        world.report(device, Some(&old), Phase::Idle).await;
    }
    let rollout = world.roll_out(&new, Some(50_000)).await;
    let told = world.told(&first).await;
    assert_eq!(told.update_bytes_max, Some(50_000));
    let [delta] = told.deltas[..] else { panic!("{:?}", told.deltas) };
    assert_eq!((delta.from, delta.to), (old.files[0].digest, new.files[0].digest));
    assert!(delta.bytes < 1000, "{delta:?}");
    assert_eq!(world.told(&second).await.deltas, [delta]);
    assert_eq!(world.told(&fresh).await.deltas, []);
    let blob = world.app.store.blobs.read(&delta.delta).unwrap();
    let limits = delta::Limits { old_bytes_max: 60_000, new_bytes_max: 60_000 };
    assert_eq!(delta::apply(&weights, &blob, limits).unwrap(), tuned);
    // The golden files share nothing: that was found out once.
    let golden = world.app.store.delta(old.files[1].digest, new.files[1].digest).await.unwrap();
    assert_eq!(golden, Some(Made::NotWorthIt));
    let want = Want { digest: delta.delta, chunk_bytes: CHUNK_BYTES, ranges: vec![(0, 1)] };
    assert_eq!(delivery::granted_size(&world.app, &first, &want).await, Some(delta.bytes));
    assert_eq!(delivery::granted_size(&world.app, &fresh, &want).await, None);
    let open = world.app.store.open_blobs().await.unwrap();
    assert!(open.contains(&(rollout.id, delta.delta)));
    // The desired state with a delta in it is signed, and read again.
    let device = world.app.device(&first).await.unwrap();
    let desired = Desired {
        device: first,
        generation: device.generation,
        issued_at: device.desired_at,
        chunk_bytes: device.chunk_bytes,
        assignments: device.assignments,
    };
    let envelope = world.app.signer().sign_desired(&desired).unwrap();
    let signed = shared::Signed::<Desired>::parse(&envelope).unwrap();
    assert_eq!(signed.verify(&world.app.signer().keyring()).unwrap().assignments[0].deltas, [delta]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_that_cannot_be_made_holds_nobody_back() {
    let world = World::new().await;
    let device = world.enrol("cam-01").await;
    let old = world.version("v1.0", &noise(1, 60_000), b"g").await;
    let new = world.version("v1.1", &noise(1, 60_001), b"h").await;
    std::fs::remove_file(world.app.store.blobs.path(&old.files[0].digest)).unwrap();
    world.report(&device, Some(&old), Phase::Idle).await;
    world.roll_out(&new, None).await;
    assert_eq!(world.told(&device).await.deltas, []);
    assert_eq!(world.app.store.delta(old.files[0].digest, new.files[0].digest).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_waits_for_its_budget_is_shown_with_the_reason() {
    let world = World::new().await;
    let device = world.enrol("cam-01").await;
    let version = world.version("v1.0", &noise(1, 60_000), b"g").await;
    let rollout = world.roll_out(&version, Some(1000)).await;
    world.told(&device).await;
    let phase = Phase::Waiting {
        bundle: version.bundle,
        until: now(),
        reason: "budget: 60000 bytes are missing".to_owned(),
        waits_for: WaitsFor::Budget,
    };
    world.report(&device, None, phase).await;
    let shown = world.app.rollout(rollout.id).await.unwrap();
    assert_eq!(shown.devices[0].state, MemberState::Assigned);
    assert!(shown.devices[0].reason.contains("60000 bytes are missing"), "{}", shown.devices[0].reason);
}
