use super::*;
use crate::{
    app::testing::{self, CHUNK_BYTES},
    testing as fixtures,
};
use control_core::entity::Version;
use shared::wire::{TrialPolicy, Want};

struct World {
    _folder: tempfile::TempDir,
    app: Arc<App>,
}

fn blob(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn want(digest: Digest, chunk_bytes: u32) -> Want {
    Want { digest, chunk_bytes, ranges: vec![(0, 1)] }
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let app = testing::app(folder.path(), "exit 1").await;
        Self { _folder: folder, app }
    }

    async fn enrol(&self, device: &str) -> DeviceId {
        testing::enrol(&self.app, device, "x86-64").await.device
    }

    /// A version with a bundle and a model file that are named after it.
    async fn version(&self, label: &str) -> Version {
        let files = vec![fixtures::model_file(&format!("model {label}"))];
        let version = fixtures::version(label, &format!("bundle {label}"), files);
        self.app.store.add_version(&version).await.unwrap();
        version
    }

    async fn assign(&self, device: &DeviceId, version: &Version, chunk_bytes: u32) {
        let assignment = version.assignment("default".parse().unwrap(), None, TrialPolicy::default());
        self.app.store.assign(device, &[assignment], chunk_bytes).await;
    }

    async fn granted(&self, device: &DeviceId, want: &Want) -> Option<u64> {
        self.app.granted(device, want, &mut Grants::default()).await.unwrap()
    }
}

#[tokio::test]
async fn a_device_gets_what_it_shall_run_in_its_own_chunk_size_and_nothing_else() {
    let world = World::new().await;
    let (own, other) = (world.enrol("cam-01").await, world.enrol("cam-02").await);
    let (first, second) = (world.version("v1.0").await, world.version("v1.1").await);
    world.assign(&own, &first, 4096).await;
    world.assign(&other, &second, CHUNK_BYTES).await;
    assert_eq!(world.granted(&own, &want(first.bundle, 4096)).await, Some(100));
    assert_eq!(world.granted(&own, &want(blob("model v1.0"), 4096)).await, Some(1000));
    for (what, refused) in [
        ("another size of chunks", want(first.bundle, CHUNK_BYTES)),
        ("another device's bundle", want(second.bundle, 4096)),
        ("another device's model", want(blob("model v1.1"), 4096)),
        ("no blob at all", want(blob("secret"), 4096)),
    ] {
        assert_eq!(world.granted(&own, &refused).await, None, "{what}");
    }
    assert_eq!(world.granted(&"stranger".parse().unwrap(), &want(first.bundle, 4096)).await, None);
    world.app.revoke_device(&own).await.unwrap();
    assert_eq!(world.granted(&own, &want(first.bundle, 4096)).await, None);
}

#[tokio::test]
async fn wants_of_what_a_device_may_not_have_never_reach_the_queue() {
    let world = World::new().await;
    let device = world.enrol("cam-01").await;
    let version = world.version("v1.0").await;
    world.assign(&device, &version, CHUNK_BYTES).await;
    let (mut delivery, mut known) = (Delivery::new(0, CHUNK_BYTES, true), Known::default());
    world.app.inbox.want(&device, want(version.bundle, 4096));
    world.app.inbox.want(&device, want(blob("secret"), CHUNK_BYTES));
    for (device, came) in world.app.inbox.take() {
        world.app.take_wants(&device, came, &mut delivery, &mut known).await;
    }
    assert!(delivery.is_empty());
    let mut known = Known::default();
    world.app.inbox.want(&device, want(version.bundle, CHUNK_BYTES));
    for (device, came) in world.app.inbox.take() {
        world.app.take_wants(&device, came, &mut delivery, &mut known).await;
    }
    assert_eq!(delivery.len(), 1);
}

#[tokio::test]
async fn delivery_ends_when_the_application_stops_although_wants_come_without_end() {
    let world = World::new().await;
    let device = world.enrol("cam-01").await;
    let version = world.version("v1.0").await;
    world.assign(&device, &version, CHUNK_BYTES).await;
    let rogue = {
        let (app, bundle) = (Arc::clone(&world.app), version.bundle);
        tokio::spawn(async move {
            loop {
                app.inbox.want(&device, want(bundle, CHUNK_BYTES));
                tokio::task::yield_now().await;
            }
        })
    };
    let running = tokio::spawn(run(Arc::clone(&world.app)));
    world.app.stop();
    tokio::time::timeout(Duration::from_secs(60), running).await.unwrap().unwrap();
    rogue.abort();
}
