//! What may come, and what waits until it may.

use super::{
    world::{self, Fault, World},
    *,
};
use crate::budget::{DAY_MS, Limits};
use shared::wire::{Outcome, Phase, WaitsFor};

fn limited(limits: Limits) -> World {
    let mut world = World::new();
    world.limits = limits;
    world.restart();
    world
}

fn reason(world: &World) -> Option<String> {
    match world.report().phase {
        Phase::Waiting { reason, waits_for: WaitsFor::Budget, .. } => Some(reason),
        _ => None,
    }
}

fn told(world: &World) -> usize {
    world.kinds().iter().filter(|kind| **kind == EventKind::BudgetSpent).count()
}

#[test]
fn an_update_over_the_days_bytes_takes_as_many_days_as_it_needs() {
    let mut world = limited(Limits { day_bytes_max: Some(100 * 1024), ..Limits::default() });
    world.assign(&[(2, Fault::None)]);
    for day in 1..=3u64 {
        world.run_until(|world| reason(world).is_some());
        world.run_actions();
        assert!(world.received_bytes <= day * 100 * 1024 && world.received_bytes > day * 98 * 1024);
        assert!(reason(&world).unwrap().contains("day's 102400"), "{:?}", reason(&world));
        // The agent starts again in the middle of the day, and that is no other day.
        world.restart();
        world.resend();
        world.run_until(|world| reason(world).is_some());
        assert!(world.received_bytes <= day * 100 * 1024);
        world.advance();
    }
    world.settle();
    assert_eq!(world.outcome(), Outcome::Committed);
    assert_eq!(world.received_bytes, world.bytes(2, false));
    assert_eq!(told(&world), 1);
    assert!(world.passed_ms >= 3 * DAY_MS);
}

#[test]
fn an_update_that_cannot_end_within_its_bytes_does_not_begin() {
    let mut world = limited(Limits::default());
    world.assign(&[(0, Fault::None)]);
    world.settle();
    let before = world.received_bytes;
    world.update_bytes_max = Some(20 * 1024);
    world.assign(&[(2, Fault::None)]);
    world.run_until(|world| reason(world).is_some());
    world.run_actions();
    assert!(reason(&world).unwrap().contains("for this update"), "{:?}", reason(&world));
    assert!(world.received_bytes - before < 4 * 1024, "more than the manifest came");
    assert_eq!(world.answering(), Some(world.version(0)));
    for _ in 0..3 {
        world.advance();
    }
    assert!(reason(&world).is_some());
    assert_eq!(told(&world), 1);
    world.update_bytes_max = Some(400 * 1024);
    world.assign(&[(2, Fault::None)]);
    world.settle();
    assert_eq!(world.outcome(), Outcome::Committed);
}

#[test]
fn the_smaller_of_the_devices_and_the_assignments_limit_holds() {
    for (mine, theirs) in [(1024 * 1024, 20 * 1024), (20 * 1024, 1024 * 1024)] {
        let mut world = limited(Limits { update_bytes_max: Some(mine), ..Limits::default() });
        world.update_bytes_max = Some(theirs);
        world.assign(&[(2, Fault::None)]);
        world.run_until(|world| reason(world).is_some());
        assert!(world.received_bytes <= 20 * 1024);
    }
}

#[test]
fn a_delta_that_fails_brings_no_whole_file_over_the_budget() {
    let mut world = limited(Limits::default());
    world.assign(&[(2, Fault::None)]);
    world.settle();
    let before = world.received_bytes;
    world.delta_from = Some(2);
    world.update_bytes_max = Some(world.bytes(0, true) + 2048);
    world.assign(&[(0, Fault::BadDelta)]);
    world.run_until(|world| reason(world).is_some());
    world.run_actions();
    assert!(world.received_bytes - before <= world.bytes(0, true) + 2048);
    assert!(world.kinds().contains(&EventKind::DeltaRefused));
    assert_eq!(world.answering(), Some(world.version(2)));
}

#[test]
fn a_clock_that_is_set_back_gives_no_fresh_budget() {
    let mut world = limited(Limits { day_bytes_max: Some(100 * 1024), ..Limits::default() });
    world.now = Timestamp(100 * DAY_MS);
    world.assign(&[(2, Fault::None)]);
    world.run_until(|world| reason(world).is_some());
    let before = world.received_bytes;
    for _ in 0..3 {
        world.set_back(5 * DAY_MS);
        world.resend();
        world.run_until(|world| reason(world).is_some());
        world.run_actions();
        assert_eq!(world.received_bytes, before);
    }
    world.settle();
    assert_eq!(world.outcome(), Outcome::Committed);
}

#[test]
fn what_nobody_asked_for_counts() {
    let mut world = limited(Limits { day_bytes_max: Some(100 * 1024), ..Limits::default() });
    let digest = Digest::of(b"somebody else's");
    world.machine.handle(Input::ChunksReceived { digest, bytes: 90 * 1024 }, world.now).unwrap();
    world.assign(&[(2, Fault::None)]);
    world.run_until(|world| reason(world).is_some());
    assert!(world.received_bytes <= 10 * 1024);
}

#[test]
fn two_slots_that_fetch_the_same_blob_share_the_days_budget() {
    let mut world = limited(Limits { day_bytes_max: Some(68 * 1024), ..Limits::default() });
    world.assign_to(&world::other_slot(), Some((2, Fault::None)));
    world.run_some(17);
    world.assign(&[(2, Fault::None)]);
    world.run_until(|world| reason(world).is_some());
    world.run_actions();
    assert!(world.received_bytes <= 68 * 1024, "{}", world.received_bytes);
}
