use super::super::*;
use super::{
    refreshed,
    world::{World, day, delegation, key, target},
};

/// Which role of the world lists `path`, by its content.
fn found(world: &World, path: &str) -> Option<Target> {
    refreshed(world).target(path, &world.served, day(0)).unwrap()
}

#[test]
fn the_first_role_that_matches_is_asked_first() {
    let mut world = World::new();
    let (one, two) = (key(), key());
    world.delegate("one", &["m/*"], false, &one);
    world.delegate("two", &["m/*"], false, &two);
    world.role("one", &["m/a"], Vec::new(), one);
    world.role("two", &["m/a", "m/b", "n/c"], Vec::new(), two);
    world.publish();
    assert_eq!(found(&world, "m/a"), Some(target(b"one")));
    assert_eq!(found(&world, "m/b"), Some(target(b"two")));
    assert_eq!(found(&world, "n/c"), None, "not two's to vouch for");
    assert_eq!(found(&world, "m/a/b"), None, "a star stops at a slash");
}

#[test]
fn nobody_is_asked_after_a_terminating_role() {
    let mut world = World::new();
    let (one, two) = (key(), key());
    world.delegate("one", &["m/*"], true, &one);
    world.delegate("two", &["m/*"], false, &two);
    world.role("one", &["m/a"], Vec::new(), one);
    world.role("two", &["m/b"], Vec::new(), two);
    world.publish();
    assert_eq!(found(&world, "m/b"), None);
}

#[test]
fn roles_that_delegate_in_a_circle_are_asked_once() {
    let mut world = World::new();
    let (one, two) = (key(), key());
    world.delegate("one", &["*"], false, &one);
    let (to_two, to_one) = (delegation("two", &["*"], false, &two), delegation("one", &["*"], false, &one));
    world.role("one", &[], vec![to_two], one);
    world.role("two", &[], vec![to_one], two);
    world.publish();
    world.served.asked.borrow_mut().clear();
    assert_eq!(found(&world, "nowhere"), None);
    let asked = world.served.asked.borrow();
    assert_eq!(asked.iter().filter(|file| file.ends_with("one.json")).count(), 1);
}

#[test]
fn the_search_reads_a_bounded_number_of_roles() {
    let mut world = World::new();

    let many: Vec<_> = (0..40).map(|index| (format!("r{index}"), key())).collect();
    for (name, key) in &many {
        world.delegate(name, &["*"], false, key);
    }
    for (name, key) in many {
        let path = if name == "r39" { vec!["x"] } else { Vec::new() };
        world.role(&name, &path, Vec::new(), key);
    }
    world.publish();
    let mut device = refreshed(&world);
    assert_eq!(device.target("x", &world.served, day(0)).unwrap(), None);
    assert!(device.accepted().files().count() <= 4 + shared::limits::METADATA_ROLES_MAX);
    let limits = Limits { roles: 100, ..Limits::default() };
    let mut device = refreshed(&world).with_limits(limits);
    assert_eq!(device.target("x", &world.served, day(0)).unwrap(), Some(target(b"r39")));
}

#[test]
fn a_delegated_role_is_kept_until_the_snapshot_names_another() {
    let mut world = World::new();
    let one = key();
    world.delegate("one", &["m/*"], true, &one);
    world.role("one", &["m/a"], Vec::new(), one);
    world.publish();
    let mut device = refreshed(&world);
    device.target("m/a", &world.served, day(0)).unwrap().unwrap();
    let mut device = Client::restore(device.accepted()).unwrap();
    world.served.asked.borrow_mut().clear();
    device.target("m/a", &world.served, day(0)).unwrap().unwrap();
    assert!(world.served.asked.borrow().is_empty());

    let (targets, _) = world.delegated.get_mut("one").unwrap();
    targets.version = 2;
    targets.targets.insert("m/b".to_owned(), target(b"new"));
    world.publish();
    device.refresh(&world.served, day(0)).unwrap();
    assert_eq!(device.target("m/b", &world.served, day(0)).unwrap(), Some(target(b"new")));
}

#[test]
fn a_delegated_role_signed_by_another_key_is_refused() {
    let mut world = World::new();
    world.delegate("one", &["m/*"], true, &key());
    world.role("one", &["m/a"], Vec::new(), key());
    world.publish();
    let error = refreshed(&world).target("m/a", &world.served, day(0)).unwrap_err();
    assert!(matches!(&error, Error::Signature { role, .. } if role == "one"), "{error}");
}

#[test]
fn an_expired_delegated_role_is_refused() {
    let mut world = World::new();
    let one = key();
    world.delegate("one", &["m/*"], true, &one);
    world.role("one", &["m/a"], Vec::new(), one);
    world.delegated.get_mut("one").unwrap().0.expires = day(3);
    world.publish();
    let mut device = refreshed(&world);
    device.target("m/a", &world.served, day(2)).unwrap().unwrap();
    let error = device.target("m/a", &world.served, day(4)).unwrap_err();
    assert!(matches!(&error, Error::Expired { role, .. } if role == "one"), "{error}");
}

#[test]
fn names_of_targets_are_taken_as_they_are() {
    let mut world = World::new();
    let names = ["a b", "å/ß", "50%", "a%2Fb", "a..b", "..a/b", "?x#y", "a\\b", "\"q\""];
    for name in names {
        world.targets.targets.insert(name.to_owned(), target(name.as_bytes()));
    }
    world.targets.version = 2;
    world.publish();
    for name in names {
        assert_eq!(found(&world, name), Some(target(name.as_bytes())), "{name:?}");
    }
    for other in ["a/b", "a%20b", "../a/b", "models/ctr/1/..", "%61 b"] {
        assert_eq!(found(&world, other), None, "{other:?}");
    }
}

#[test]
fn names_of_roles_are_quoted_in_the_names_of_files() {
    use crate::client::source::quoted;
    assert_eq!(quoted("../a b/å%"), "..%2Fa%20b%2F%C3%A5%25");
    assert_eq!(quoted("A-z_0.9~"), "A-z_0.9~");
}
