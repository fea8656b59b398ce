//! Random lives of a device, and what holds in every one.

use super::world::{BUNDLES, Fault, World};
use proptest::prelude::*;
use shared::wire::{Outcome, Phase};

#[derive(Clone, Debug)]
enum Step {
    Assign(Option<usize>, Fault),
    Resend,
    Act(usize),
    Advance,
    Restart,
    Online(bool),
    DiskFull(bool),
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::None),
        1 => Just(Fault::Corrupt),
        1 => Just(Fault::BadManifest),
        1 => Just(Fault::WrongVersion),
        1 => Just(Fault::Golden),
        1 => Just(Fault::NotLoadable),
        1 => Just(Fault::NoChunks),
        2 => Just(Fault::Trial),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (prop::option::weighted(0.9, 0..BUNDLES), fault()).prop_map(|(bundle, fault)| Step::Assign(bundle, fault)),
        1 => Just(Step::Resend),
        8 => (1usize..40).prop_map(Step::Act),
        4 => Just(Step::Advance),
        2 => Just(Step::Restart),
        1 => any::<bool>().prop_map(Step::Online),
        1 => any::<bool>().prop_map(Step::DiskFull),
    ]
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
            match step {
                Step::Assign(bundle, fault) => {
                    let wish: Vec<_> = bundle.into_iter().map(|bundle| (bundle, fault)).collect();
                    world.assign(&wish);
                }
                Step::Resend => world.resend(),
                Step::Act(count) => world.run_some(count),
                Step::Advance => world.advance(),
                Step::Restart => world.restart(),
                Step::Online(online) => world.set_online(online),
                Step::DiskFull(full) => world.disk_full = full,
            }
            check(&world)?;
        }
        // With everything well, what is wanted is decided: it runs, or there is an outcome that says why not.
        world.disk_full = false;
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
            prop_assert_eq!(world.answering(), report.active);
        }
    }
}
