use super::super::*;
use super::{
    client, refreshed,
    world::{Files, World, day, key, keys, signed},
};
use crate::author::Document;
use proptest::prelude::*;
use std::sync::LazyLock;

fn refused(device: &mut Client, world: &World, days: u64) -> &'static str {
    let before: Vec<_> = device.targets().map(|(path, is)| (path.to_owned(), is)).collect();
    let reason = device.refresh(&world.served, day(days)).unwrap_err().reason();
    let after: Vec<_> = device.targets().map(|(path, is)| (path.to_owned(), is)).collect();
    assert_eq!(before, after);
    reason
}

#[test]
fn an_older_version_of_any_role_is_refused() {
    // Timestamp.
    let mut world = World::new();
    let old = world.served.files["timestamp.json"].clone();
    world.publish();
    let mut device = refreshed(&world);
    world.served.files.insert("timestamp.json".to_owned(), old);
    assert_eq!(refused(&mut device, &world, 0), "rollback");

    // Snapshot, by a new timestamp.
    let mut world = World::new();
    let old = world.document("1.snapshot.json").meta();
    world.publish();
    let mut device = refreshed(&world);
    world.publish_timestamp(old);
    assert_eq!(refused(&mut device, &world, 0), "rollback");

    // Targets, by a new snapshot.
    let mut world = World::new();
    let old = world.document("1.targets.json").meta();
    world.targets.version = 2;
    world.publish();
    let mut device = refreshed(&world);
    world.publish_snapshot(BTreeMap::from([("targets.json".to_owned(), old)]));
    assert_eq!(refused(&mut device, &world, 0), "rollback");

    // Root.
    let mut world = World::new();
    let first = world.first_root();
    world.served.files.insert("2.root.json".to_owned(), first);
    assert_eq!(refused(&mut client(&world), &world, 0), "rollback");
}

#[test]
fn a_snapshot_that_leaves_targets_out_is_refused() {
    let mut world = World::new();
    let mut device = refreshed(&world);
    world.publish_snapshot(BTreeMap::new());
    assert_eq!(refused(&mut device, &world, 0), "mismatch");
    let mut fresh = client(&world);
    assert_eq!(fresh.refresh(&world.served, day(0)).unwrap_err().reason(), "mismatch");
}

#[test]
fn a_frozen_repository_is_noticed() {
    let world = World::new();
    let mut device = refreshed(&world);
    device.refresh(&world.served, day(6)).unwrap();
    assert_eq!(refused(&mut device, &world, 8), "expired");
}

#[test]
fn each_role_that_has_expired_is_named() {
    let expired = |world: &World, days| match client(world).refresh(&world.served, day(days)) {
        Err(Error::Expired { role, .. }) => role,
        other => panic!("{other:?}"),
    };
    let world = World::new();
    assert_eq!(expired(&world, 366), "root");
    assert_eq!(expired(&world, 8), "timestamp");
    let mut world = World::new();
    let snapshot = world.document("1.snapshot.json").meta();
    world.now = day(31);
    world.publish_timestamp(snapshot);
    assert_eq!(expired(&world, 31), "snapshot");
    world.now = day(101);
    world.publish();
    assert_eq!(expired(&world, 101), "targets");
}

#[test]
fn the_largest_time_expires_everything_and_breaks_nothing() {
    let world = World::new();
    let mut device = refreshed(&world);
    let error = device.refresh(&world.served, Timestamp(u64::MAX)).unwrap_err();
    assert_eq!(error.reason(), "expired");
    device.refresh(&world.served, day(0)).unwrap();
}

#[test]
fn too_few_signatures_are_refused_and_one_key_counts_once() {
    let mut world = World::new();
    let second = key();
    world.root.version = 2;
    world.root.targets = keys(2, &[&world.targets_key, &second]);
    world.publish_root(&[]);
    assert_eq!(client(&world).refresh(&world.served, day(0)).unwrap_err().reason(), "signature");

    // The same signature under the same id twice, and the other key's id with a copy of it.
    let text = String::from_utf8(world.served.files["1.targets.json"].clone()).unwrap();
    let file: serde_json::Value = serde_json::from_str(&text).unwrap();
    let one = file["signatures"][0].clone();
    let mut copy = one.clone();
    copy["keyid"] = crate::author::key_id(second.public()).into();
    for other in [one.clone(), copy] {
        let mut file = file.clone();
        file["signatures"] = serde_json::json!([one, other]);
        let bytes = file.to_string().into_bytes();
        let meta = crate::author::Meta {
            version: 1,
            length: bytes.len() as u64,
            sha256: shared::Digest::of(&bytes),
        };
        world.served.files.insert("1.targets.json".to_owned(), bytes);
        world.publish_snapshot(BTreeMap::from([("targets.json".to_owned(), meta)]));
        assert_eq!(client(&world).refresh(&world.served, day(0)).unwrap_err().reason(), "signature");
    }

    let both = signed(Document::of_targets(&world.targets), &[&world.targets_key, &second]);
    world.served.files.insert("1.targets.json".to_owned(), both.to_bytes());
    world.publish_snapshot(BTreeMap::from([("targets.json".to_owned(), both.meta())]));
    client(&world).refresh(&world.served, day(0)).unwrap();
}

#[test]
fn a_role_signed_by_the_keys_of_another_is_refused() {
    for role in ["timestamp", "snapshot", "targets"] {
        let mut world = World::new();
        let other = key();
        match role {
            "timestamp" => world.timestamp_key = other,
            "snapshot" => world.snapshot_key = other,
            _ => world.targets_key = other,
        }
        world.targets.version = 2;
        world.publish();
        let error = client(&world).refresh(&world.served, day(0)).unwrap_err();
        assert!(matches!(&error, Error::Signature { role: of, .. } if of == role), "{error}");
    }
}

#[test]
fn files_of_different_states_do_not_mix() {
    let mut world = World::new();
    let (snapshot, targets) =
        (world.served.files["1.snapshot.json"].clone(), world.served.files["1.targets.json"].clone());
    world.targets.version = 2;
    world.publish();
    let mut device = client(&world);
    let good = world.served.files.insert("2.targets.json".to_owned(), targets).unwrap();
    let error = device.refresh(&world.served, day(0)).unwrap_err();
    assert!(matches!(&error, Error::Mismatch { role, .. } if role == "targets"), "{error}");
    world.served.files.insert("2.targets.json".to_owned(), good);
    world.served.files.insert("2.snapshot.json".to_owned(), snapshot);
    let error = client(&world).refresh(&world.served, day(0)).unwrap_err();
    assert!(matches!(&error, Error::Mismatch { role, .. } if role == "snapshot"), "{error}");
}

#[test]
fn endless_data_is_not_taken() {
    struct Endless<'a>(&'a World, &'a str);
    impl Source for Endless<'_> {
        fn get(&self, file: &str, max_bytes: u64) -> Result<Option<Vec<u8>>, SourceError> {
            assert!(max_bytes <= shared::limits::METADATA_BYTES_MAX);
            if file.ends_with(self.1) {
                return Ok(Some(vec![b' '; usize::try_from(max_bytes).unwrap() + 1]));
            }
            self.0.served.get(file, max_bytes)
        }
    }
    let world = World::new();
    for file in ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"] {
        let error = client(&world).refresh(&Endless(&world, file), day(0)).unwrap_err();
        assert!(matches!(&error, Error::TooLarge { file: of, .. } if of == file), "{error}");
    }
}

#[test]
fn a_source_that_fails_is_told_from_one_that_lacks_a_file() {
    struct Broken;
    impl Source for Broken {
        fn get(&self, _file: &str, _max_bytes: u64) -> Result<Option<Vec<u8>>, SourceError> {
            Err(SourceError::new("no network"))
        }
    }
    let world = World::new();
    assert_eq!(client(&world).refresh(&Broken, day(0)).unwrap_err().reason(), "source");
    assert_eq!(client(&world).refresh(&Files::default(), day(0)).unwrap_err().reason(), "missing");
}

#[test]
fn a_damaged_root_is_no_beginning_and_damage_to_the_rest_is_fetched_again() {
    assert!(Client::new(b"").is_err());
    assert!(Client::new(b"{}").is_err());
    let world = World::new();
    let device = refreshed(&world);
    let damaged = device.accepted().files().map(|(role, bytes)| {
        (role.to_owned(), if role == "root" { bytes.to_vec() } else { bytes[..bytes.len() / 2].to_vec() })
    });
    let accepted = Accepted::from_files(world.first_root(), damaged.collect::<Vec<_>>());
    let mut device = Client::restore(&accepted).unwrap();
    assert_eq!(device.accepted().files().count(), 1);
    assert!(device.refresh(&world.served, day(0)).unwrap().targets);
}

static WORLD: LazyLock<BTreeMap<String, Vec<u8>>> = LazyLock::new(|| {
    let mut world = World::new();
    let team = key();
    world.delegate("team", &["team/*"], true, &team);
    world.role("team", &["team/a"], Vec::new(), team);
    (world.root.version, world.targets.version) = (2, 2);
    world.publish_root(&[]);
    world.publish();
    world.served.files
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_damage_to_any_file_changes_what_is_believed(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        damage in prop_oneof![(0u8..8).prop_map(Some), Just(None)],
    ) {
        let mut source = Files { files: WORLD.clone(), ..Files::default() };
        let first = source.files["1.root.json"].clone();
        let mut intact = Client::new(&first).unwrap();
        intact.refresh(&source, day(0)).unwrap();
        let expected = intact.target("team/a", &source, day(0)).unwrap();
        let names: Vec<_> = source.files.keys().cloned().collect();
        let file = source.files.get_mut(&names[which.index(names.len())]).unwrap();
        let at = at.index(file.len());
        match damage {
            Some(bit) => file[at] ^= 1 << bit,
            None => file.truncate(at),
        }
        let mut device = Client::new(&first).unwrap();
        if device.refresh(&source, day(0)).is_ok() && let Ok(found) = device.target("team/a", &source, day(0)) {
            prop_assert_eq!(found, expected);
            prop_assert!(device.targets().eq(intact.targets()));
            prop_assert_eq!(device.signed_time(), intact.signed_time());
        }
    }

    #[test]
    fn no_bytes_at_all_break_the_reader(bytes: Vec<u8>, kept: Vec<u8>) {
        let mut source = Files { files: WORLD.clone(), ..Files::default() };
        let first = source.files["1.root.json"].clone();
        prop_assert!(Client::new(&bytes).is_err());
        source.files.insert("timestamp.json".to_owned(), bytes);
        let kept = Accepted::from_files(first, [("timestamp".to_owned(), kept)]);
        let mut device = Client::restore(&kept).unwrap();
        prop_assert!(device.refresh(&source, day(0)).is_err());
    }
}
