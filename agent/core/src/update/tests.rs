mod budget;
mod deltas;
mod power_cut;
mod properties;
mod world;

use super::*;
use shared::wire::{Outcome, Phase, Refusal, TrialCounts};
use world::{Fault, World};

#[test]
fn a_good_bundle_is_fetched_tested_activated_and_committed() {
    let mut world = World::new();
    world.assign(&[(0, Fault::None)]);
    world.settle();
    let report = world.report();
    assert_eq!(report.active, Some(world.version(0)));
    assert_eq!(report.last_good, report.active);
    assert_eq!(report.phase, Phase::Idle);
    assert_eq!(world.outcome(), Outcome::Committed);
    assert_eq!(
        world.kinds(),
        [
            EventKind::DownloadStarted,
            EventKind::BundleStaged,
            EventKind::VersionActivated,
            EventKind::TrialPassed
        ]
    );
    assert!(world.machine.pinned().contains(&world.version(0).bundle));
}

#[test]
fn what_a_device_had_is_remembered_over_an_emptied_slot_and_a_restart() {
    let mut world = World::new();
    world.assign(&[(1, Fault::None)]);
    world.settle();
    assert_eq!(world.had, None);
    world.assign(&[]);
    world.settle();
    world.restart();
    world.assign(&[(0, Fault::None)]);
    world.settle();
    assert_eq!(world.had, Some(world.version(1)));
    assert_eq!(world.persisted.newest.get(&world.version(1).model), Some(&world.version(1)));
}

#[test]
fn each_fault_of_a_bundle_has_its_name_and_leaves_the_version_before_answering() {
    for (fault, reason) in [
        (Fault::Corrupt, Refusal::DigestMismatch),
        (Fault::BadManifest, Refusal::BadManifest),
        (Fault::WrongVersion, Refusal::WrongVersion),
        (Fault::WrongBoard, Refusal::WrongBoard),
        (Fault::Golden, Refusal::GoldenMismatch),
        (Fault::NotLoadable, Refusal::NotLoadable),
        (Fault::NoChunks, Refusal::Abandoned),
    ] {
        let mut world = World::new();
        world.assign(&[(0, Fault::None)]);
        world.settle();
        world.assign(&[(1, fault)]);
        world.settle();
        match world.outcome() {
            Outcome::Refused { reason: got, detail } => {
                assert_eq!(got, reason);
                assert!(!detail.is_empty());
            }
            other => panic!("{fault:?} gave {other:?}"),
        }
        assert_eq!(world.report().active, Some(world.version(0)), "{fault:?}");
        assert_eq!(world.answering(), Some(world.version(0)), "{fault:?}");
        assert_eq!(world.kinds().last(), Some(&EventKind::BundleRefused));
        assert!(!world.ever_answered(1), "{fault:?}");
    }
}

#[test]
fn a_version_that_fails_its_trial_gives_way_to_the_one_before() {
    let mut world = World::new();
    world.assign(&[(0, Fault::None)]);
    world.settle();
    world.assign(&[(1, Fault::Trial)]);
    world.settle();
    assert!(world.ever_answered(1));
    assert_eq!(world.answering(), Some(world.version(0)));
    assert!(matches!(world.outcome(), Outcome::RolledBack { detail } if detail.contains("failed")));
    let counted = TrialCounts { requests: 100, failed: 100, ..TrialCounts::default() };
    assert_eq!(world.report().attempt.unwrap().trial, Some(counted));
    let kinds = world.kinds();
    assert_eq!(kinds[kinds.len() - 2..], [EventKind::TrialFailed, EventKind::RolledBack]);
}

#[test]
fn the_first_version_that_fails_its_trial_leaves_the_slot_empty() {
    let mut world = World::new();
    world.assign(&[(0, Fault::Trial)]);
    world.settle();
    assert_eq!(world.answering(), None);
    assert_eq!(world.report().active, None);
    assert!(matches!(world.outcome(), Outcome::RolledBack { .. }));
}

#[test]
fn a_failed_bundle_is_tried_again_only_when_a_newer_generation_asks() {
    let mut world = World::new();
    world.assign(&[(0, Fault::Golden)]);
    world.settle();
    let tests = world.tests;
    world.restart();
    world.settle();
    world.resend();
    world.settle();
    assert_eq!(world.tests, tests);
    world.heal(0);
    world.assign(&[(0, Fault::None)]);
    world.settle();
    assert_eq!(world.outcome(), Outcome::Committed);
}

#[test]
fn refuses_an_older_generation_and_another_content_under_the_same() {
    let mut world = World::new();
    world.assign(&[(0, Fault::None)]);
    world.settle();
    world.assign(&[(1, Fault::None)]);
    world.settle();
    let older = world.desired(1, &[0]);
    let refused = world.machine.handle(Input::Desired(Box::new(older)), world.now).unwrap_err();
    assert_eq!(refused, Rejected::Older { got: 1, accepted: 2 });
    let other = world.desired(2, &[0]);
    let refused = world.machine.handle(Input::Desired(Box::new(other)), world.now).unwrap_err();
    assert_eq!(refused, Rejected::Differs { generation: 2 });
    world.settle();
    assert_eq!(world.answering(), Some(world.version(1)));
    assert_eq!(world.kinds().iter().filter(|kind| **kind == EventKind::DesiredRefused).count(), 2);
}

#[test]
fn the_same_generation_again_changes_nothing() {
    let mut world = World::new();
    world.assign(&[(0, Fault::None)]);
    world.settle();
    let (events, saved) = (world.events.len(), world.machine.saved());
    world.resend();
    world.settle();
    assert_eq!((world.events.len(), world.machine.saved()), (events, saved));
}

#[test]
fn a_wish_for_another_device_is_refused() {
    let mut world = World::new();
    let desired = world.desired_for("stranger", 1, [(world::slot(), 0)]);
    let refused = world.machine.handle(Input::Desired(Box::new(desired)), world.now).unwrap_err();
    assert!(matches!(refused, Rejected::OtherDevice { .. }));
    assert_eq!(world.machine.generation(), 0);
}

#[test]
fn persists_before_anything_leaves_the_device() {
    let mut world = World::new();
    world.assign(&[(0, Fault::None)]);
    assert!(matches!(world.machine.poll_action(), Some(Action::Persist { .. })));
    assert_eq!(world.machine.poll_action(), None, "waits for the acknowledgement");
    world.machine.handle(Input::Persisted, world.now).unwrap();
    assert!(matches!(world.machine.poll_action(), Some(Action::Slot(_, SlotAction::OpenBlob { .. }))));
}

#[test]
fn a_new_wish_in_mid_download_ends_the_old_attempt_once() {
    let mut world = World::new();
    world.assign(&[(0, Fault::None)]);
    world.run_until(
        |world| matches!(world.report().phase, Phase::Fetching { chunks_done, .. } if chunks_done > 1),
    );
    world.assign(&[(1, Fault::None)]);
    assert!(
        matches!(world.outcome(), Outcome::Refused { reason: Refusal::Abandoned, detail } if detail.contains("generation 2"))
    );
    world.settle();
    assert_eq!(world.answering(), Some(world.version(1)));
    assert!(!world.ever_answered(0));
}

#[test]
fn the_wish_for_the_version_before_in_mid_trial_brings_it_back_at_once() {
    let mut world = World::new();
    world.assign(&[(0, Fault::None)]);
    world.settle();
    world.assign(&[(1, Fault::None)]);
    world.run_until(|world| matches!(world.report().phase, Phase::Trial { .. }));
    world.assign(&[(0, Fault::None)]);
    world.run_actions();
    assert_eq!(world.answering(), Some(world.version(0)));
    world.settle();
    assert_eq!(world.report().last_good, Some(world.version(0)));
    assert_eq!(world.outcome(), Outcome::Committed);
}

#[test]
fn a_slot_that_is_not_listed_is_emptied() {
    let mut world = World::new();
    world.assign(&[(0, Fault::None)]);
    world.settle();
    world.assign(&[]);
    world.settle();
    assert_eq!(world.answering(), None);
    assert!(world.machine.reports().is_empty());
    assert!(world.machine.pinned().is_empty());
    assert!(world.persisted.slots.is_empty());
    assert_eq!(world.kinds().last(), Some(&EventKind::SlotEmptied));
}

#[test]
fn a_full_disk_waits_keeps_the_working_model_and_goes_on_when_there_is_room() {
    let mut world = World::new();
    world.assign(&[(0, Fault::None)]);
    world.settle();
    world.disk_full = true;
    world.assign(&[(1, Fault::None)]);
    world.run_until(|world| matches!(world.report().phase, Phase::Waiting { .. }));
    world.run_actions();
    assert_eq!(world.answering(), Some(world.version(0)));
    assert_eq!(world.kinds().last(), Some(&EventKind::DiskFull));
    assert_eq!(world.partials(), 0, "the parts of the failed attempt are gone");
    for _ in 0..5 {
        world.advance();
    }
    assert_eq!(world.kinds().iter().filter(|kind| **kind == EventKind::DiskFull).count(), 1, "said once");
    world.disk_full = false;
    world.settle();
    assert_eq!(world.answering(), Some(world.version(1)));
}

#[test]
fn an_interrupted_download_goes_on_from_the_chunks_on_disk() {
    let mut world = World::new();
    world.assign(&[(0, Fault::None)]);
    world.run_until(
        |world| matches!(world.report().phase, Phase::Fetching { chunks_done, .. } if chunks_done >= 5),
    );
    let delivered = world.delivered;
    world.restart();
    world.settle();
    assert_eq!(world.outcome(), Outcome::Committed);
    let resumed = world.events.iter().find(|note| note.kind == EventKind::DownloadResumed).unwrap();
    assert!(resumed.detail.contains("from chunk"), "{}", resumed.detail);
    assert!(world.delivered < delivered + world.chunks(0), "nothing is fetched twice");
}

#[test]
fn offline_time_does_not_count_as_tries() {
    let mut world = World::new();
    world.set_online(false);
    world.assign(&[(0, Fault::None)]);
    for _ in 0..100 {
        world.run_actions();
        world.now = world.now.plus_ms(600_000);
        world.machine.handle_timeout(world.now);
    }
    assert!(matches!(world.report().phase, Phase::Fetching { .. }));
    world.set_online(true);
    world.settle();
    assert_eq!(world.outcome(), Outcome::Committed);
}

#[test]
fn two_restarts_in_a_trial_are_accepted_and_three_are_not() {
    for (restarts, committed) in [(2, true), (3, false)] {
        let mut world = World::new();
        world.assign(&[(0, Fault::None)]);
        world.settle();
        world.assign(&[(1, Fault::None)]);
        world.run_until(|world| matches!(world.report().phase, Phase::Trial { .. }));
        for _ in 0..restarts {
            world.restart();
            world.run_actions();
        }
        world.settle();
        assert_eq!(world.outcome() == Outcome::Committed, committed, "{restarts} restarts");
        assert_eq!(world.answering(), Some(world.version(usize::from(committed))));
    }
}

#[test]
fn a_bundle_that_ends_the_process_while_it_is_tested_is_given_up() {
    let mut world = World::new();
    world.assign(&[(0, Fault::None)]);
    world.settle();
    world.assign(&[(1, Fault::None)]);
    for _ in 0..=slot::TEST_RESTARTS_MAX {
        world.run_until(|world| matches!(world.report().phase, Phase::Testing { .. }));
        world.restart();
        world.run_actions_until_test();
    }
    world.restart();
    world.settle();
    assert!(matches!(world.outcome(), Outcome::Refused { reason: Refusal::NotLoadable, .. }));
    assert_eq!(world.answering(), Some(world.version(0)));
}

#[test]
fn damaged_files_of_the_version_in_use_are_fetched_again() {
    let mut world = World::new();
    world.assign(&[(0, Fault::None)]);
    world.settle();
    world.rot(0);
    world.restart();
    world.settle();
    assert_eq!(world.answering(), Some(world.version(0)));
    assert_eq!(world.report().last_good, Some(world.version(0)));
}

#[test]
fn a_trial_without_a_request_asks_the_golden_inputs() {
    for (golden, committed) in [(true, true), (false, false)] {
        let mut world = World::new();
        world.assign(&[(0, Fault::None)]);
        world.settle();
        world.silent = true;
        world.golden_holds = golden;
        world.assign(&[(1, Fault::None)]);
        world.settle();
        assert_eq!(world.outcome() == Outcome::Committed, committed);
    }
}

#[test]
fn an_answer_that_nobody_waits_for_is_rejected_and_changes_nothing() {
    let mut world = World::new();
    world.assign(&[(0, Fault::None)]);
    world.settle();
    let before = world.machine.saved();
    let input = SlotInput::Tested { bundle: Digest::of(b"stale"), runtime: "tract".to_owned() };
    let rejected = world.machine.handle(Input::Slot(world::slot(), input), world.now).unwrap_err();
    assert_eq!(rejected, Rejected::Unfit { state: "Idle", input: "Tested" });
    assert_eq!(world.machine.saved(), before);
}

#[test]
fn wants_keep_the_limits_of_the_wire_and_the_window() {
    let mut world = World::new();
    world.assign(&[(2, Fault::None)]);
    world.settle();
    assert!(world.wants.len() > 3);
    for want in &world.wants {
        want.validate().unwrap();
        assert!(want.indices().count() <= slot::WINDOW_CHUNKS as usize);
    }
}

#[test]
fn a_chunk_that_comes_while_its_blob_is_opened_counts() {
    let mut world = World::new();
    world.assign(&[(0, Fault::None)]);
    while world.partials() == 0 {
        world.run_some(1);
    }
    // The blob is open, and the machine has not heard of it.
    world.broadcast();
    world.settle();
    assert_eq!(world.outcome(), Outcome::Committed);
    assert_eq!(world.delivered, world.chunks(0) - 1, "it is not asked for");
}

#[test]
fn a_last_good_version_that_did_not_load_is_loaded_again_whatever_became_of_the_next() {
    for fault in [Fault::Golden, Fault::Corrupt, Fault::NoChunks] {
        let mut world = World::new();
        world.assign(&[(0, Fault::None)]);
        world.settle();
        world.assign(&[(1, fault)]);
        world.run_some(1);
        world.set_unreadable(0);
        world.restart();
        world.run_until(|world| matches!(world.report().phase, Phase::Fetching { .. }));
        assert_eq!(world.answering(), None);
        world.run_until(|world| world.report().attempt.is_some_and(|attempt| attempt.generation == 2));
        world.mend();
        world.settle();
        assert_eq!(world.answering(), Some(world.version(0)), "after {fault:?}");
        assert!(matches!(world.outcome(), Outcome::Refused { .. }));
    }
}

#[test]
fn a_version_that_failed_its_trial_does_not_answer_for_one_that_does_not_load() {
    let mut world = World::new();
    world.assign(&[(0, Fault::None)]);
    world.settle();
    world.assign(&[(1, Fault::Trial)]);
    world.run_until(|world| matches!(world.report().phase, Phase::Trial { .. }));
    // After a restart the version before is not in memory any more.
    world.set_unreadable(0);
    world.restart();
    world.run_until(|world| matches!(world.report().phase, Phase::Trial { .. }));
    world.run_until(|world| !matches!(world.report().phase, Phase::Trial { .. }));
    world.run_actions();
    assert_eq!((world.answering(), world.report().active), (None, None));
    world.mend();
    world.settle();
    assert_eq!(world.answering(), Some(world.version(0)));
}

#[test]
fn what_one_slot_has_fetched_outlives_the_collection_of_another_after_a_restart() {
    let mut world = World::new();
    world.assign(&[(0, Fault::None)]);
    world.assign_to(&world::other_slot(), Some((1, Fault::None)));
    world.settle();
    let before = world.delivered;
    world.assign_to(&world::other_slot(), Some((2, Fault::None)));
    world.run_until(|world| world.delivered - before > world.chunks(2) / 2);
    world.restart();
    world.settle();
    assert_eq!(world.delivered - before, world.chunks(2), "nothing is fetched twice");
}

#[test]
fn an_activation_is_told_even_when_the_power_went_before_it_was_written() {
    let mut world = World::new();
    world.assign(&[(0, Fault::None)]);
    let answers = |world: &World| world.answering().is_some();
    world.run_until(answers);
    world.restart();
    world.settle();
    let told = world.kinds().iter().filter(|kind| **kind == EventKind::VersionActivated).count();
    assert_eq!(told, 1);
}

/// STYLE: replay each scenario, stop after every action, restore, require convergence.
#[test]
fn a_power_cut_after_any_action_leads_to_the_same_end() {
    for (fault, disturbed) in [
        (Fault::None, false),
        (Fault::None, true),
        (Fault::Corrupt, false),
        (Fault::BadManifest, false),
        (Fault::WrongVersion, false),
        (Fault::Golden, true),
        (Fault::NotLoadable, false),
        (Fault::Trial, false),
        (Fault::Trial, true),
    ] {
        let play = |cut_at: Option<usize>| {
            let mut world = World::new();
            world.assign(&[(0, Fault::None)]);
            world.settle();
            world.cut_at = cut_at.map(|at| world.actions + at);
            world.assign(&[(1, fault)]);
            if disturbed {
                // Another slot is filled at the same time, the link goes, and chunks come that nobody asked for.
                world.assign_to(&world::other_slot(), Some((3, Fault::None)));
                while world.partials() == 0 {
                    world.run_some(1);
                }
                world.broadcast();
                world.run_some(4);
                world.set_online(false);
                world.run_actions();
                world.broadcast();
                world.set_online(true);
            }
            world.settle();
            world
        };
        let whole = play(None);
        let steps = whole.actions;
        assert!(steps > 10);
        for cut in 0..steps {
            let mut world = play(Some(cut));
            // The retained wish comes again with the next connection.
            world.resend();
            world.settle();
            let case = format!("{fault:?}, disturbed: {disturbed}, cut at {cut}");
            assert_eq!(world.answering(), whole.answering(), "{case}");
            assert_eq!(world.report().last_good, whole.report().last_good, "{case}");
            let kind = |outcome: Outcome| match outcome {
                Outcome::Committed => "committed",
                Outcome::Refused { .. } => "refused",
                Outcome::RolledBack { .. } => "rolled back",
            };
            assert_eq!(kind(world.outcome()), kind(whole.outcome()), "{case}");
            assert_eq!(
                world.answering_in(&world::other_slot()),
                whole.answering_in(&world::other_slot()),
                "{case}"
            );
        }
    }
}
