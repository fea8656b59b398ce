//! Random lives of a device, and what holds in every one.

use super::world::{BUNDLES, Fault, World, other_slot, slot};
use crate::budget::{DAY_MS, Limits};
use proptest::prelude::*;
use shared::wire::{Outcome, Phase};

#[derive(Clone, Debug)]
enum Step {
    Assign {
        other: bool,
        bundle: Option<usize>,
        fault: Fault,
    },
    Resend,
    Act(usize),
    Advance,
    Restart,
    Online(bool),
    DiskFull(bool),
    /// A chunk that nobody here asked for, perhaps while its blob is being opened.
    Broadcast,
    /// The files of a bundle cannot be read.
    Unreadable(usize),
    /// Assignments name deltas from this version on.
    Deltas(Option<usize>),
    /// The clock is set back, and the agent starts again.
    SetBack(u64),
    /// Time passes.
    Wait(u64),
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::None),
        1 => Just(Fault::Corrupt),
        1 => Just(Fault::BadManifest),
        1 => Just(Fault::WrongVersion),
        1 => Just(Fault::WrongBoard),
        1 => Just(Fault::Golden),
        1 => Just(Fault::NotLoadable),
        1 => Just(Fault::NoChunks),
        2 => Just(Fault::Trial),
        1 => Just(Fault::BadDelta),
        1 => Just(Fault::CorruptDelta),
        1 => Just(Fault::NoDelta),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any::<bool>(), prop::option::weighted(0.9, 0..BUNDLES), fault())
            .prop_map(|(other, bundle, fault)| Step::Assign { other, bundle, fault }),
        1 => Just(Step::Resend),
        8 => (1usize..40).prop_map(Step::Act),
        4 => Just(Step::Advance),
        2 => Just(Step::Restart),
        1 => any::<bool>().prop_map(Step::Online),
        1 => any::<bool>().prop_map(Step::DiskFull),
        2 => Just(Step::Broadcast),
        1 => (0..BUNDLES).prop_map(Step::Unreadable),
        2 => prop::option::of(0..BUNDLES).prop_map(Step::Deltas),
        1 => (0..3 * DAY_MS).prop_map(Step::SetBack),
        1 => (0..DAY_MS).prop_map(Step::Wait),
    ]
}

fn take(world: &mut World, step: Step) {
    match step {
        Step::Assign { other, bundle, fault } => {
            let slot = if other { other_slot() } else { slot() };
            world.assign_to(&slot, bundle.map(|bundle| (bundle, fault)));
        }
        Step::Resend => world.resend(),
        Step::Act(count) => world.run_some(count),
        Step::Advance => world.advance(),
        Step::Restart => world.restart(),
        Step::Online(online) => world.set_online(online),
        Step::DiskFull(full) => world.disk_full = full,
        Step::Broadcast => world.broadcast(),
        Step::Unreadable(number) => world.set_unreadable(number),
        Step::Deltas(from) => world.delta_from = from,
        Step::SetBack(ms) => world.set_back(ms),
        Step::Wait(ms) => world.wait(ms),
    }
}

/// What must hold after every step, given the versions that proved themselves.
fn check(world: &World) -> Result<(), TestCaseError> {
    for saved in &world.persisted.slots {
        if let Some(good) = &saved.last_good {
            prop_assert!(
                world.machine.pinned().contains(&good.bundle) || world.machine.saved() != world.persisted,
                "the last good version is not pinned"
            );
        }
        if let Some(attempt) = &saved.attempt {
            prop_assert!(attempt.generation <= world.highest_generation);
        }
        if saved.trial.is_none() && saved.last_good.is_some() {
            prop_assert!(saved.active.is_some(), "a slot with a good version has none active: {saved:?}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]
    #[test]
    fn a_device_keeps_its_invariants_and_comes_to_rest(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in steps {
            take(&mut world, step);
            check(&world)?;
        }
        // With everything well, what is wanted is decided: it runs, or there is an outcome that says why not.
        world.disk_full = false;
        world.mend();
        world.set_online(true);
        world.resend();
        world.settle();
        check(&world)?;
        prop_assert_eq!(world.machine.saved(), world.persisted.clone());
        for report in world.machine.reports() {
            prop_assert_eq!(&report.phase, &Phase::Idle);
            let attempt = report.attempt.as_ref().expect("every wish has an outcome");
            let saved = world.persisted.slots.iter().find(|saved| saved.slot == report.slot).unwrap();
            let target = saved.target.as_ref().unwrap();
            prop_assert_eq!(attempt.generation, target.generation);
            prop_assert_eq!(attempt.version.bundle, target.assignment.bundle);
            match &attempt.outcome {
                Outcome::Committed => {
                    prop_assert_eq!(report.active.as_ref(), Some(&attempt.version));
                    prop_assert_eq!(report.last_good.as_ref(), Some(&attempt.version));
                }
                Outcome::Refused { .. } | Outcome::RolledBack { .. } => {
                    prop_assert!(report.last_good.is_none() || report.active == report.last_good);
                }
            }
            prop_assert_eq!(world.answering_in(&report.slot), report.active.clone());
            prop_assert!(
                report.last_good.is_none() || report.active.is_some(),
                "a version proved itself, and nothing answers"
            );
        }
    }

    /// Whatever happens, and however often the clock is set back: what came is within the budget.
    #[test]
    fn a_device_never_receives_more_than_its_budget(
        steps in prop::collection::vec(step(), 1..60),
        day_kib in 1u64..400,
        update_kib in prop::option::of(1u64..400),
    ) {
        let day_bytes_max = Some(day_kib * 1024);
        let mut world = World::new();
        world.limits = Limits { day_bytes_max, update_bytes_max: update_kib.map(|kib| kib * 1024) };
        world.restart();
        let mut updates: u64 = 0;
        for step in steps {
            match step {
                // They come unasked.
                Step::Broadcast => continue,
                // It may be a new update for both slots.
                Step::Assign { .. } => updates += 2,
                _ => {}
            }
            take(&mut world, step);
            check(&world)?;
            let days = world.passed_ms / DAY_MS + 1;
            prop_assert!(world.received_bytes <= day_kib * 1024 * days, "{} in {days}", world.received_bytes);
            if let Some(update_kib) = update_kib {
                prop_assert!(world.received_bytes <= update_kib * 1024 * updates);
            }
        }
    }
}
