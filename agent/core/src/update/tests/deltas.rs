//! Files that come as the difference to what is there.

use super::{
    world::{Fault, World},
    *,
};
use shared::wire::Outcome;

/// The first version runs; the second is assigned, with a delta from the first.
fn assigned(fault: Fault) -> World {
    let mut world = World::new();
    world.assign(&[(0, Fault::None)]);
    world.settle();
    world.received_bytes = 0;
    world.delta_from = Some(0);
    world.assign(&[(1, fault)]);
    world
}

#[test]
fn a_file_comes_as_a_delta_where_its_base_is_there() {
    let mut world = assigned(Fault::None);
    world.settle();
    assert_eq!(world.outcome(), Outcome::Committed);
    assert_eq!(world.received_bytes, world.bytes(1, true));
    assert_eq!(world.partials(), 0);
    assert!(!world.kinds().contains(&EventKind::DeltaRefused));
}

#[test]
fn a_delta_that_fails_is_told_and_the_file_comes_whole() {
    for (fault, why) in [
        (Fault::BadDelta, "another file"),
        (Fault::CorruptDelta, "other bytes"),
        (Fault::NoDelta, "no chunk came"),
    ] {
        let mut world = assigned(fault);
        world.settle();
        assert_eq!(world.outcome(), Outcome::Committed, "{fault:?}");
        let told: Vec<_> = world.events.iter().filter(|note| note.kind == EventKind::DeltaRefused).collect();
        assert_eq!(told.len(), 1, "{fault:?}");
        assert!(told[0].detail.contains(why), "{}", told[0].detail);
        assert_eq!(world.partials(), 0, "{fault:?}");
    }
}

#[test]
fn a_delta_from_a_file_that_is_not_there_is_not_fetched() {
    let mut world = assigned(Fault::None);
    world.lose_model(0);
    world.settle();
    assert_eq!(world.outcome(), Outcome::Committed);
    assert_eq!(world.received_bytes, world.bytes(1, false));
    assert!(world.kinds().contains(&EventKind::DeltaRefused));
}

/// Each action in turn is the last before the power goes.
#[test]
fn a_power_cut_at_any_point_of_a_delta_costs_no_byte_twice_that_was_on_disk() {
    for fault in [Fault::None, Fault::BadDelta] {
        let mut at = 0;
        loop {
            let mut world = assigned(fault);
            let before = world.actions;
            world.cut_at = Some(before + at);
            world.settle();
            assert_eq!(world.outcome(), Outcome::Committed, "cut after {at} actions");
            assert_eq!(world.answering(), Some(world.version(1)), "cut after {at} actions");
            if fault == Fault::None {
                assert_eq!(world.received_bytes, world.bytes(1, true), "cut after {at} actions");
            }
            if world.cut_at.is_some() {
                break;
            }
            at += 1;
        }
        assert!(at > 10, "only {at} actions");
    }
}
