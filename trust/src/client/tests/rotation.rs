use super::super::*;
use super::{
    client, refreshed,
    world::{World, day, key, keys, signed},
};
use crate::author::Document;

/// The next root, with another root key; `by_old` and `by_new` say who signs it.
fn rotate(world: &mut World, by_old: bool, by_new: bool) {
    let old = std::mem::replace(&mut world.root_key, key());
    world.root.version += 1;
    world.root.root = keys(1, &[&world.root_key]);
    let signers: Vec<_> = [(by_old, &old), (by_new, &world.root_key)]
        .into_iter()
        .filter_map(|(signs, key)| signs.then_some(key))
        .collect();
    let document = signed(Document::of_root(&world.root), &signers);
    world.served.files.insert(format!("{}.root.json", world.root.version), document.to_bytes());
}

#[test]
fn follows_a_chain_of_roots_each_signed_by_the_one_before() {
    let mut world = World::new();
    for _ in 0..5 {
        rotate(&mut world, true, true);
    }
    let mut device = client(&world);
    assert!(device.refresh(&world.served, day(0)).unwrap().root);
    assert_eq!(device.root_version(), 6);
    assert_eq!(Client::restore(device.accepted()).unwrap().root_version(), 6);
}

#[test]
fn a_root_signed_by_only_the_old_or_only_the_new_keys_is_refused() {
    for (by_old, by_new) in [(true, false), (false, true)] {
        let mut world = World::new();
        rotate(&mut world, true, true);
        rotate(&mut world, by_old, by_new);
        let mut device = client(&world);
        let error = device.refresh(&world.served, day(0)).unwrap_err();
        assert!(matches!(&error, Error::Signature { role, .. } if role == "root"), "{error}");
        assert_eq!(device.root_version(), 2, "what came before stays accepted");
    }
}

#[test]
fn a_chain_longer_than_one_refresh_follows_is_gone_on_with_by_the_next() {
    let mut world = World::new();
    for _ in 0..5 {
        rotate(&mut world, true, true);
    }
    let limits = Limits { roots: 4, ..Limits::default() };
    let mut device = client(&world).with_limits(limits);
    assert!(matches!(device.refresh(&world.served, day(0)), Err(Error::RootChain { version: 5 })));
    device.refresh(&world.served, day(0)).unwrap();
    assert_eq!(device.root_version(), 6);
}

#[test]
fn an_expired_root_on_the_way_is_no_hindrance_and_at_the_end_it_is() {
    let mut world = World::new();
    world.root.version = 2;
    world.root.expires = day(400);
    world.publish_root(&[]);
    let mut device = client(&world);
    world.now = day(380);
    world.targets.expires = day(500);
    world.publish();
    device.refresh(&world.served, day(380)).unwrap();
    let error = device.refresh(&world.served, day(401)).unwrap_err();
    assert!(matches!(&error, Error::Expired { role, .. } if role == "root"), "{error}");
}

#[test]
fn a_root_that_leaves_a_version_out_is_refused() {
    let mut world = World::new();
    world.root.version = 3;
    world.publish_root(&[]);
    let skipped = world.served.files.remove("3.root.json").unwrap();
    world.served.files.insert("2.root.json".to_owned(), skipped);
    let error = client(&world).refresh(&world.served, day(0)).unwrap_err();
    assert_eq!(error.reason(), "mismatch");
}

#[test]
fn new_timestamp_and_snapshot_keys_recover_from_versions_pushed_up_by_stolen_ones() {
    let mut world = World::new();
    (world.timestamp_version, world.snapshot_version) = (1_000_000, 1_000_000);
    world.publish();
    let mut device = refreshed(&world);
    (world.timestamp_version, world.snapshot_version) = (2, 2);
    (world.timestamp_key, world.snapshot_key) = (key(), key());
    world.publish();
    let mut stuck = device.clone();
    assert_eq!(stuck.refresh(&world.served, day(0)).unwrap_err().reason(), "signature");
    world.root.version = 2;
    world.root.timestamp = keys(1, &[&world.timestamp_key]);
    world.root.snapshot = keys(1, &[&world.snapshot_key]);
    world.publish_root(&[]);
    assert!(device.refresh(&world.served, day(0)).unwrap().snapshot);
    assert_eq!(device.targets().count(), 1);
}

#[test]
fn a_new_root_with_the_same_online_keys_keeps_their_floors() {
    let mut world = World::new();
    let old = world.served.files["timestamp.json"].clone();
    world.publish();
    let mut device = refreshed(&world);
    rotate(&mut world, true, true);
    world.served.files.insert("timestamp.json".to_owned(), old);
    let error = device.refresh(&world.served, day(0)).unwrap_err();
    assert!(matches!(error, Error::Rollback { have: 2, got: 1, .. }), "{error}");
    assert_eq!(device.root_version(), 2);
}

#[test]
fn new_targets_keys_make_the_old_targets_worthless() {
    let mut world = World::new();
    let mut device = refreshed(&world);
    world.targets_key = key();
    world.root.version = 2;
    world.root.targets = keys(1, &[&world.targets_key]);
    world.publish_root(&[]);
    let error = device.refresh(&world.served, day(0)).unwrap_err();
    assert_eq!(error.reason(), "signature");
    assert_eq!(device.targets().count(), 0);
    world.targets.version = 2;
    world.publish();
    device.refresh(&world.served, day(0)).unwrap();
    assert_eq!(device.targets().count(), 1);
}
