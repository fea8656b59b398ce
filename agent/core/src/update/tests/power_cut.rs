//! A device's whole life, with the power cut after each single action of it.

use super::world::{Fault, World, other_slot, slot};
use super::*;
use shared::wire::Outcome;

/// What is asked for, one wish after another. Numbers rise within a slot: a lower one is an older version.
fn wishes() -> [(SlotName, Option<usize>, Fault); 8] {
    [
        // The first version of an empty slot, and one that takes its place.
        (slot(), Some(0), Fault::None),
        (slot(), Some(1), Fault::None),
        // Activated, fails its trial, and is rolled back.
        (slot(), Some(2), Fault::Trial),
        // A second slot, while the first keeps what it has.
        (other_slot(), Some(0), Fault::None),
        // Refused before it answers anybody.
        (slot(), Some(3), Fault::Golden),
        // What failed is mended and asked for again.
        (slot(), Some(2), Fault::None),
        (other_slot(), Some(1), Fault::None),
        (other_slot(), None, Fault::None),
    ]
}

/// Lives through all wishes. The power goes after action `cut_at`, counted over the whole life; the device then
/// starts where there is no network, and finds one again after it has come to rest.
fn live(cut_at: Option<usize>) -> World {
    let mut world = World::new();
    world.cut_at = cut_at;
    world.dark_after_cut = true;
    for (slot, bundle, fault) in wishes() {
        world.assign_to(&slot, bundle.map(|bundle| (bundle, fault)));
        world.settle();
        if !world.online {
            answers_without_a_network(
                &world,
                &format!("cut at {cut_at:?}, {slot} wants {bundle:?} {fault:?}"),
            );
            world.set_online(true);
            world.resend();
            world.settle();
        }
        assert!(!world.ever_answered(3), "cut at {cut_at:?}: a refused bundle answered");
    }
    world
}

/// A slot whose version proved itself answers with it, or with the one that is on its way to prove itself.
fn answers_without_a_network(world: &World, case: &str) {
    for saved in &world.persisted.slots {
        let answering = world.answering_in(&saved.slot);
        assert_eq!(answering, saved.active, "{case}");
        if saved.last_good.is_some() {
            assert!(answering.is_some(), "{case}: a version proved itself, and nothing answers");
        }
        if saved.trial.is_none() {
            assert_eq!(answering, saved.last_good, "{case}");
        }
    }
}

fn ends(world: &World, slot: &SlotName) -> Option<(Option<VersionRef>, Option<VersionRef>, &'static str)> {
    let report = world.machine.reports().into_iter().find(|report| report.slot == *slot)?;
    let outcome = match report.attempt.map(|attempt| attempt.outcome) {
        None => "none",
        Some(Outcome::Committed) => "committed",
        Some(Outcome::Refused { .. }) => "refused",
        Some(Outcome::RolledBack { .. }) => "rolled back",
    };
    Some((world.answering_in(slot), report.last_good, outcome))
}

#[test]
fn after_a_power_cut_anywhere_in_its_life_a_device_answers_offline_and_comes_to_the_same_end() {
    let whole = live(None);
    assert_eq!(whole.answering(), Some(whole.version(2)));
    assert_eq!(whole.answering_in(&other_slot()), None);
    assert!(whole.actions > 100, "{} actions", whole.actions);
    for cut_at in 0..whole.actions {
        let world = live(Some(cut_at));
        assert_eq!(world.cut_at, None, "the power went");
        for slot in [slot(), other_slot()] {
            assert_eq!(ends(&world, &slot), ends(&whole, &slot), "{slot}, cut at {cut_at}");
        }
    }
}

#[test]
fn nothing_older_than_what_was_committed_is_activated_whenever_the_power_goes() {
    let steps = live(None).actions;
    for cut_at in (0..steps).map(Some).chain([None]) {
        let world = live(cut_at);
        assert!(world.activations.len() >= 6);
        for activation in &world.activations {
            let world::Activation { slot, number, committed } = activation;
            assert!(
                committed.is_none_or(|committed| *number >= committed),
                "cut at {cut_at:?}: {slot} activates {number} after {committed:?} was committed"
            );
        }
    }
}

#[test]
fn a_generation_that_was_accepted_stays_refused_to_older_ones_whenever_the_power_goes() {
    let steps = live(None).actions;
    for cut_at in 0..steps {
        let mut world = live(Some(cut_at));
        let accepted = world.machine.generation();
        assert_eq!(accepted, wishes().len() as u64, "cut at {cut_at}");
        let older = world.desired(accepted - 1, &[0]);
        let refused = world.machine.handle(Input::Desired(Box::new(older)), world.now).unwrap_err();
        assert_eq!(refused, Rejected::Older { got: accepted - 1, accepted });
    }
}
