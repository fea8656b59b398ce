mod delegations;
mod hostile;
mod rotation;
mod world;

use super::*;
use world::{World, day, key, target};

fn client(world: &World) -> Client {
    Client::new(&world.first_root()).unwrap()
}

fn refreshed(world: &World) -> Client {
    let mut client = client(world);
    client.refresh(&world.served, world.now).unwrap();
    client
}

#[test]
fn takes_what_is_signed_and_asks_for_no_more_than_has_changed() {
    let mut world = World::new();
    let mut device = client(&world);
    assert!(device.refresh(&world.served, day(0)).unwrap().targets);
    assert_eq!(device.targets().collect::<Vec<_>>(), [("models/ctr/1", target(b"one"))]);

    world.served.asked.borrow_mut().clear();
    assert!(!device.refresh(&world.served, day(1)).unwrap().any());
    assert_eq!(*world.served.asked.borrow(), ["2.root.json", "timestamp.json"]);

    world.now = day(1);
    world.publish();
    world.served.asked.borrow_mut().clear();
    let changed = device.refresh(&world.served, day(1)).unwrap();
    assert_eq!(changed, Refreshed { timestamp: true, snapshot: true, ..Refreshed::default() });
    assert_eq!(*world.served.asked.borrow(), ["2.root.json", "timestamp.json", "2.snapshot.json"]);
}

#[test]
fn goes_on_after_a_restart_without_fetching_again() {
    let world = World::new();
    let device = refreshed(&world);
    let text = serde_json::to_string(device.accepted()).unwrap();
    let mut device = Client::restore(&serde_json::from_str(&text).unwrap()).unwrap();
    assert_eq!(device.targets().count(), 1);
    world.served.asked.borrow_mut().clear();
    assert!(!device.refresh(&world.served, day(1)).unwrap().any());
    assert_eq!(*world.served.asked.borrow(), ["2.root.json", "timestamp.json"]);
}

#[test]
fn what_has_expired_is_still_a_floor_after_a_restart() {
    let mut world = World::new();
    let old = world.served.files["timestamp.json"].clone();
    world.publish();
    let device = refreshed(&world);
    let mut device = Client::restore(device.accepted()).unwrap();
    world.served.files.insert("timestamp.json".to_owned(), old);
    let error = device.refresh(&world.served, day(1_000)).unwrap_err();
    assert_eq!(error.reason(), "expired", "the root");
    let error = device.refresh(&world.served, day(300)).unwrap_err();
    assert!(matches!(error, Error::Rollback { have: 2, got: 1, .. }), "{error}");
}

#[test]
fn a_refresh_cut_short_loses_no_floor() {
    // An attacker with the online keys holds the new snapshot back, until the device restarts without the old one.
    let mut world = World::new();
    let old = world.document("1.targets.json").meta();
    world.targets.version = 2;
    world.publish();
    let mut device = refreshed(&world);
    world.publish_snapshot(BTreeMap::from([("targets.json".to_owned(), old)]));
    let evil = world.served.files.remove("3.snapshot.json").unwrap();
    assert_eq!(device.refresh(&world.served, day(0)).unwrap_err().reason(), "missing");
    let mut device = Client::restore(device.accepted()).unwrap();
    world.served.files.insert("3.snapshot.json".to_owned(), evil);
    let error = device.refresh(&world.served, day(0)).unwrap_err();
    assert!(matches!(error, Error::Rollback { have: 2, got: 1, .. }), "{error}");
    assert_eq!(device.target("models/ctr/1", &world.served, day(0)).unwrap_err().reason(), "incomplete");
}

#[test]
fn a_target_counts_while_the_whole_chain_is_in_force() {
    let world = World::new();
    let mut device = refreshed(&world);
    let mut at = |days| device.target("models/ctr/1", &world.served, day(days));
    assert_eq!(at(6).unwrap(), Some(target(b"one")));
    assert!(matches!(at(8), Err(Error::Expired { role, .. }) if role == "timestamp"));
    assert!(matches!(at(400), Err(Error::Expired { role, .. }) if role == "root"));
    assert_eq!(client(&world).target("x", &world.served, day(0)).unwrap_err().reason(), "incomplete");
}

#[test]
fn says_what_offline_and_online_keys_signed_about_the_time() {
    let mut world = World::new();
    world.now = day(5);
    world.publish();
    let device = refreshed(&world);
    let time = device.signed_time();
    assert_eq!((time.offline, time.online), (day(0), day(5)));
    assert_eq!(time.latest(), day(5));

    // A stolen online key that signs the far future gets no further than the root.
    world.now = day(300_000);
    world.publish();
    let mut device = client(&world);
    device.refresh(&world.served, day(0)).unwrap();
    assert_eq!(device.signed_time().online, day(365));
}

#[test]
fn the_far_future_that_a_stolen_online_key_signed_goes_with_the_key() {
    let mut world = World::new();
    world.now = day(300);
    world.publish();
    let mut device = client(&world);
    device.refresh(&world.served, day(0)).unwrap();
    let mut time = crate::clock::TrustedTime::restore(crate::clock::Saved::default(), 0);
    time.observe(device.signed_time(), 0);
    assert_eq!(time.now(0), day(300));

    (world.now, world.timestamp_key, world.snapshot_key) = (day(1), key(), key());
    world.root.version = 2;
    world.root.issued_at = day(1);
    world.root.timestamp = world::keys(1, &[&world.timestamp_key]);
    world.root.snapshot = world::keys(1, &[&world.snapshot_key]);
    world.publish_root(&[]);
    world.publish();
    let error = device.refresh(&world.served, time.now(0)).unwrap_err();
    assert_eq!(error.reason(), "expired");
    time.observe(device.signed_time(), 0);
    assert_eq!(time.now(0), day(1));
    device.refresh(&world.served, time.now(0)).unwrap();
}

/// Writes a repository of several roots, delegations and rotations to `folder`, for other readers to try.
pub(crate) fn write_example(folder: &std::path::Path) {
    let mut world = World::new();
    let team = key();
    world.delegate("team", &["team/*"], true, &team);
    world.role("team", &["team/a b", "team/å%2f"], Vec::new(), team);
    world.targets.version = 2;
    world.root.version = 2;
    world.publish_root(&[]);
    world.publish();
    for (name, bytes) in &world.served.files {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

#[test]
fn an_example_for_other_readers_is_a_folder_of_files() {
    let folder = tempfile::tempdir().unwrap();
    write_example(folder.path());
    struct Folder<'a>(&'a std::path::Path);
    impl Source for Folder<'_> {
        fn get(&self, file: &str, _max_bytes: u64) -> Result<Option<Vec<u8>>, SourceError> {
            Ok(std::fs::read(self.0.join(file)).ok())
        }
    }
    let source = Folder(folder.path());
    let mut device = Client::new(&std::fs::read(folder.path().join("1.root.json")).unwrap()).unwrap();
    device.refresh(&source, day(0)).unwrap();
    assert_eq!(device.root_version(), 2);
    assert_eq!(device.target("team/å%2f", &source, day(0)).unwrap(), Some(target(b"team")));
}
