mod documented;
mod policies;
mod previews;
mod properties;
mod replay;

use super::*;
use proptest::prelude::*;
use shared::{
    Digest, RolloutId,
    wire::{Attempt, Outcome, Phase, Refusal, TrialCounts, TrialPolicy, VersionRef, WaitsFor},
};

fn id(number: usize) -> DeviceId {
    format!("d{number:03}").parse().unwrap()
}

fn bundle() -> Digest {
    Digest::of(b"bundle")
}

fn rollout() -> RolloutId {
    RolloutId(uuid(7))
}

fn uuid(number: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(number)
}

fn policy(waves: &[WaveSize]) -> Policy {
    let waves = waves.iter().cloned().map(Wave::from).collect();
    Policy { waves, pause_ms: 100, device_timeout_ms: 1000, ..Policy::default() }
}

/// A rollout with the fleet that it sees.
struct World {
    policy: Policy,
    status: Status,
    members: Vec<Member>,
    fleet: Fleet,
    assigned: BTreeMap<DeviceId, usize>,
    candidates: Vec<Candidate>,
    evidence: Evidence,
    heard_since: Timestamp,
    now: Timestamp,
}

impl World {
    fn new(policy: Policy, devices: usize) -> Self {
        Self::labelled(policy, (0..devices).map(|number| (id(number), Labels::new())))
    }

    fn labelled(policy: Policy, devices: impl IntoIterator<Item = (DeviceId, Labels)>) -> Self {
        let seen = |labels| Observed {
            desired_generation: 3,
            reported_generation: 3,
            labels,
            ..Observed::default()
        };
        let fleet: Fleet = devices.into_iter().map(|(device, labels)| (device, seen(labels))).collect();
        let candidates = fleet
            .iter()
            .map(|(device, seen)| Candidate { device: device.clone(), labels: seen.labels.clone() });
        Self {
            members: divide(&policy.waves, candidates),
            policy,
            status: Status::default(),
            fleet,
            candidates: Vec::new(),
            evidence: Evidence::default(),
            assigned: BTreeMap::new(),
            heard_since: Timestamp(1_000_000),
            now: Timestamp(1_000_000),
        }
    }

    fn input(&self, order: Option<Order>) -> Input<'_> {
        Input {
            rollout: rollout(),
            bundle: bundle(),
            policy: &self.policy,
            status: &self.status,
            members: &self.members,
            fleet: &self.fleet,
            candidates: &self.candidates,
            evidence: &self.evidence,
            order,
            created_at: Timestamp(1_000_000),
            heard_since: self.heard_since,
            now: self.now,
        }
    }

    fn step(&mut self, order: Option<Order>) -> Result<Plan, Rejected> {
        let plan = plan(self.input(order))?;
        self.status = plan.status.clone();
        self.members = plan.members.clone();
        for action in &plan.actions {
            let (Action::Assign { device, generation } | Action::Restore { device, generation }) = action;
            let seen = self.fleet.get_mut(device).unwrap();
            assert_eq!(*generation, seen.desired_generation + 1, "generations rise by one");
            seen.desired_generation = *generation;
            if matches!(action, Action::Assign { .. }) {
                *self.assigned.entry(device.clone()).or_default() += 1;
            }
        }
        Ok(plan)
    }

    fn report(&mut self, number: usize, outcome: Outcome) {
        self.report_of(&id(number), outcome, None);
    }

    fn report_of(&mut self, device: &DeviceId, outcome: Outcome, trial: Option<TrialCounts>) {
        let seen = self.fleet.get_mut(device).unwrap();
        seen.reported_generation = seen.desired_generation;
        let version = VersionRef {
            model: "m".parse().unwrap(),
            version: "v1.0".parse().unwrap(),
            version_id: shared::ModelVersionId(uuid(1)),
            bundle: bundle(),
        };
        let kept = (outcome == Outcome::Committed).then(|| version.clone());
        seen.slot = Some(SlotReport {
            slot: "default".parse().unwrap(),
            active: kept.clone(),
            last_good: kept,
            runtime: None,
            phase: Phase::Idle,
            attempt: Some(Attempt {
                generation: seen.desired_generation,
                rollout: Some(rollout()),
                version,
                outcome,
                at: self.now,
                trial,
            }),
        });
    }

    fn set_online(&mut self, number: usize, online: bool) {
        self.fleet.get_mut(&id(number)).unwrap().online = online;
    }

    /// What whoever looks is told.
    fn explained(&self) -> (Status, Vec<Member>) {
        let explained = explain(self.input(None));
        (explained.status, explained.members)
    }

    /// What a list says.
    fn glanced(&self) -> String {
        let mut counts = MemberCounts::default();
        self.members.iter().for_each(|member| counts.add(member.state, 1));
        glance(&self.status, &self.policy, &counts, self.now)
    }

    fn states(&self) -> Vec<MemberState> {
        self.members.iter().map(|member| member.state).collect()
    }
}

fn refused() -> Outcome {
    Outcome::Refused { reason: Refusal::GoldenMismatch, detail: "0.4 off".to_owned() }
}

use MemberState::{Assigned, Committed, Failed, Pending, Reverted, Skipped};

#[test]
fn waves_are_rounded_up_and_the_last_takes_the_rest() {
    let sizes = |waves: &[WaveSize], devices: usize| {
        let members = divide(&policy(waves).waves, (0..devices).map(id));
        assert_eq!(members.len(), devices);
        (0..waves.len() as u32)
            .map(|wave| members.iter().filter(|m| m.wave == wave).count())
            .collect::<Vec<_>>()
    };
    assert_eq!(sizes(&[WaveSize::Count(1), WaveSize::Percent(100)], 3), [1, 2]);
    assert_eq!(sizes(&[WaveSize::Percent(1), WaveSize::Percent(50), WaveSize::Count(1)], 10), [1, 5, 4]);
    assert_eq!(sizes(&[WaveSize::Percent(33), WaveSize::Percent(33)], 4), [2, 2]);
    assert_eq!(sizes(&[WaveSize::Count(5), WaveSize::Percent(10), WaveSize::Percent(100)], 3), [3, 0, 0]);
}

#[test]
fn goes_through_its_waves_with_a_pause_between() {
    let mut world = World::new(policy(&[WaveSize::Count(1), WaveSize::Percent(100)]), 3);
    world.step(None).unwrap();
    assert_eq!(world.states(), [Assigned, Pending, Pending]);
    world.report(0, Outcome::Committed);
    let plan = world.step(None).unwrap();
    assert_eq!(world.states(), [Committed, Pending, Pending]);
    assert_eq!(plan.wake_at, Some(world.now.plus_ms(100)));
    world.now = world.now.plus_ms(99);
    world.step(None).unwrap();
    assert_eq!(world.states(), [Committed, Pending, Pending]);
    world.now = world.now.plus_ms(1);
    world.step(None).unwrap();
    assert_eq!(world.states(), [Committed, Assigned, Assigned]);
    world.report(1, Outcome::Committed);
    world.report(2, Outcome::Committed);
    world.step(None).unwrap();
    assert_eq!(world.status.state, State::Completed);
}

#[test]
fn a_list_says_what_a_rollout_waits_for_as_far_as_numbers_do() {
    let mut world = World::new(policy(&[WaveSize::Count(1), WaveSize::Percent(100)]), 3);
    world.policy.waves[0].approval = true;
    world.step(None).unwrap();
    assert_eq!(world.glanced(), "wave 1 waits for an approval: `edgewright rollout approve`");
    world.policy.waves[0].approval = false;
    world.step(None).unwrap();
    assert_eq!(world.glanced(), "wave 1: 1 devices under way, 2 not asked yet");
    world.report(0, Outcome::Committed);
    world.policy.waves[1].approval = true;
    world.step(None).unwrap();
    // From here on it is how the reason of the one rollout begins.
    let agrees = |world: &World, said: &str| {
        assert_eq!(world.glanced(), said);
        let reason = world.explained().0.reason;
        assert!(reason.starts_with(said), "{reason}");
    };
    agrees(&world, "pause after wave 1");
    world.now = world.now.plus_ms(100);
    world.step(None).unwrap();
    agrees(&world, "wave 2 waits for an approval: `edgewright rollout approve`");
    world.policy.waves[1].approval = false;
    world.policy.gates = vec![Gate::new(Signal::Ctr, 0.05)];
    agrees(&world, "wave 1 is through and waits for its gates");
    world.status.waived.insert(0);
    agrees(&world, "pause after wave 1");
    world.step(Some(Order::Abort)).unwrap();
    assert_eq!(world.glanced(), world.status.reason);
    assert_eq!(world.status.state, State::Aborted);
}

#[test]
fn a_failed_gate_stops_it_and_gives_back_what_was_there() {
    let mut world = World::new(policy(&[WaveSize::Count(3), WaveSize::Percent(100)]), 4);
    world.step(None).unwrap();
    world.report(0, Outcome::Committed);
    world.report(1, refused());
    let plan = world.step(None).unwrap();
    assert_eq!(world.status.state, State::Stopped);
    assert_eq!(world.states(), [Committed, Failed, Reverted, Skipped]);
    let restored: Vec<_> = plan
        .actions
        .iter()
        .map(|action| match action {
            Action::Restore { device, .. } => device.clone(),
            Action::Assign { device, .. } => panic!("{device} got it after the stop"),
        })
        .collect();
    assert_eq!(restored, [id(1), id(2)]);
    assert!(world.members[1].reason.contains("golden_mismatch"), "{}", world.members[1].reason);
    assert!(world.status.reason.contains("1 of 3 devices of wave 1 failed"), "{}", world.status.reason);
}

#[test]
fn failures_within_what_is_allowed_do_not_stop_it() {
    let mut world = World::new(policy(&[WaveSize::Percent(100)]), 4);
    world.policy.failed_permille_max = 250;
    world.step(None).unwrap();
    world.report(0, refused());
    for number in 1..4 {
        world.report(number, Outcome::Committed);
    }
    let plan = world.step(None).unwrap();
    assert_eq!(world.status.state, State::Completed);
    assert_eq!(world.states(), [Failed, Committed, Committed, Committed]);
    assert_eq!(plan.actions, [Action::Restore { device: id(0), generation: 5 }]);
}

#[test]
fn a_device_that_takes_too_long_has_failed() {
    let mut world = World::new(policy(&[WaveSize::Percent(100)]), 1);
    world.step(None).unwrap();
    world.now = world.now.plus_ms(999);
    world.step(None).unwrap();
    assert_eq!(world.states(), [Assigned]);
    world.now = world.now.plus_ms(1);
    world.step(None).unwrap();
    assert_eq!((world.states(), world.status.state), (vec![Failed], State::Stopped));
}

#[test]
fn time_in_which_nobody_listened_is_not_the_devices_time() {
    let mut world = World::new(policy(&[WaveSize::Percent(100)]), 2);
    world.step(None).unwrap();
    // The server is away for an hour in which both devices commit; one is quick to come back.
    world.now = world.now.plus_ms(3_600_000);
    world.heard_since = world.now;
    world.set_online(0, false);
    world.set_online(1, false);
    let plan = world.step(None).unwrap();
    assert_eq!(world.states(), [Assigned, Assigned]);
    let deadline = world.now.plus_ms(RECONNECT_MS + world.policy.device_timeout_ms);
    assert_eq!(plan.wake_at, Some(world.now.plus_ms(RECONNECT_MS)));
    world.set_online(0, true);
    world.report(0, Outcome::Committed);
    world.now = Timestamp(deadline.0 - 1);
    world.step(None).unwrap();
    assert_eq!(world.states(), [Committed, Assigned]);
    world.now = deadline;
    world.step(None).unwrap();
    assert_eq!(world.states(), [Committed, Failed]);
}

#[test]
fn a_wave_waits_for_those_that_a_break_in_listening_put_offline() {
    let mut world = World::new(policy(&[WaveSize::Count(3), WaveSize::Percent(100)]), 4);
    world.policy.failed_permille_max = 400;
    world.set_online(2, false);
    world.step(None).unwrap();
    world.report(0, refused());
    world.set_online(1, false);
    world.now = world.now.plus_ms(10);
    world.heard_since = world.now;
    world.step(None).unwrap();
    world.report(1, Outcome::Committed);
    world.step(None).unwrap();
    assert_eq!((world.status.state, world.status.wave_closed_at), (State::Running, None));
    world.set_online(2, true);
    world.step(None).unwrap();
    world.report(2, Outcome::Committed);
    world.step(None).unwrap();
    assert_eq!(world.status.wave_closed_at, Some(world.now), "1 of 3 failed, which is allowed");
}

#[test]
fn a_clock_that_is_set_back_holds_up_nothing() {
    let mut world = World::new(policy(&[WaveSize::Count(1), WaveSize::Percent(100)]), 2);
    let right = world.now;
    world.now = right.plus_ms(1_000_000_000);
    world.heard_since = world.now;
    world.step(None).unwrap();
    (world.now, world.heard_since) = (right, right);
    let plan = world.step(None).unwrap();
    assert_eq!(plan.wake_at, Some(right.plus_ms(1000)));
    world.report(0, Outcome::Committed);
    world.now = right.plus_ms(2_000_000_000);
    world.step(None).unwrap();
    world.now = right;
    let plan = world.step(None).unwrap();
    assert_eq!(plan.wake_at, Some(right.plus_ms(100)));
}

#[test]
fn a_wave_of_which_most_are_offline_is_judged_by_those_that_finished() {
    let mut world = World::new(policy(&[WaveSize::Count(100), WaveSize::Percent(100)]), 101);
    world.policy.failed_permille_max = 100;
    (10..100).for_each(|number| world.set_online(number, false));
    world.step(None).unwrap();
    (0..10).for_each(|number| world.report(number, refused()));
    world.step(None).unwrap();
    assert_eq!(world.status.state, State::Stopped);
    let reason = &world.status.reason;
    assert!(reason.contains("10 of the 10 devices of wave 1 that finished failed"), "{reason}");
    assert_eq!(world.states()[100], Skipped);
}

#[test]
fn no_wave_opens_before_the_version_has_proved_itself() {
    let mut world = World::new(policy(&[WaveSize::Count(2), WaveSize::Percent(100)]), 3);
    world.fleet.get_mut(&id(0)).unwrap().revoked = true;
    world.set_online(1, false);
    for _ in 0..3 {
        world.step(None).unwrap();
        world.now = world.now.plus_ms(10_000);
    }
    assert_eq!(world.states(), [Skipped, Pending, Pending]);
    let (status, members) = world.explained();
    assert!(status.reason.contains("wave 1 waits for a device that proves"), "{}", status.reason);
    assert_eq!(members[2].reason, "waits for wave 2");
    world.set_online(1, true);
    world.step(None).unwrap();
    world.report(1, Outcome::Committed);
    world.step(None).unwrap();
    world.now = world.now.plus_ms(100);
    world.step(None).unwrap();
    assert_eq!(world.states(), [Skipped, Committed, Assigned]);
}

#[test]
fn a_rollout_that_nobody_can_prove_stops() {
    let mut world = World::new(policy(&[WaveSize::Count(1), WaveSize::Percent(100)]), 2);
    world.fleet.get_mut(&id(0)).unwrap().revoked = true;
    world.step(None).unwrap();
    assert_eq!((world.states(), world.status.state), (vec![Skipped, Skipped], State::Stopped));
    assert!(world.status.reason.contains("nobody is left in wave 1"), "{}", world.status.reason);
}

#[test]
fn what_changes_with_every_chunk_is_told_and_not_kept() {
    let mut world = World::new(policy(&[WaveSize::Percent(100)]), 1);
    world.step(None).unwrap();
    world.report(0, Outcome::Committed);
    for chunks_done in 1..3 {
        let seen = world.fleet.get_mut(&id(0)).unwrap();
        let slot = seen.slot.as_mut().unwrap();
        slot.attempt = None;
        slot.phase = Phase::Fetching { bundle: bundle(), chunks_done, chunks_total: 7 };
        let (status, members) = (world.status.clone(), world.members.clone());
        let plan = world.step(None).unwrap();
        assert_eq!((plan.status, plan.members), (status, members));
        let (status, members) = world.explained();
        assert_eq!(members[0].reason, format!("fetching, {chunks_done} of 7 chunks"));
        assert_eq!(status.reason, "wave 1: 1 devices under way, 0 offline");
    }
}

#[test]
fn a_trial_longer_than_the_time_of_a_device_is_refused() {
    let trial = |duration_ms| TrialPolicy { duration_ms, ..TrialPolicy::default() };
    let policy = Policy { device_timeout_ms: 900_000, ..Policy::default() };
    policy.validate(&trial(900_000 - policy::INSTALL_MS_MIN)).unwrap();
    let error = policy.validate(&trial(900_000 - policy::INSTALL_MS_MIN + 1)).unwrap_err();
    assert_eq!(error, "policy.device_timeout_ms is 900000, with a trial of 890001 ms at least 900001");
}

#[test]
fn devices_that_are_offline_stay_pending_and_get_it_later() {
    let mut world = World::new(policy(&[WaveSize::Count(2), WaveSize::Percent(100)]), 3);
    world.fleet.get_mut(&id(1)).unwrap().online = false;
    world.step(None).unwrap();
    assert_eq!(world.states(), [Assigned, Pending, Pending]);
    world.report(0, Outcome::Committed);
    world.step(None).unwrap();
    world.now = world.now.plus_ms(100);
    world.step(None).unwrap();
    assert_eq!(world.states(), [Committed, Pending, Assigned]);
    world.report(2, Outcome::Committed);
    world.step(None).unwrap();
    assert_eq!(world.status.state, State::Running);
    world.fleet.get_mut(&id(1)).unwrap().online = true;
    world.step(None).unwrap();
    world.report(1, Outcome::Committed);
    world.step(None).unwrap();
    assert_eq!(world.status.state, State::Completed);
}

#[test]
fn a_paused_rollout_asks_nobody_and_an_aborted_one_gives_back() {
    let mut world = World::new(policy(&[WaveSize::Count(1), WaveSize::Percent(100)]), 2);
    world.step(None).unwrap();
    world.step(Some(Order::Pause)).unwrap();
    world.report(0, Outcome::Committed);
    world.now = world.now.plus_ms(10_000);
    world.step(None).unwrap();
    world.now = world.now.plus_ms(10_000);
    world.step(None).unwrap();
    assert_eq!(world.states(), [Committed, Pending]);
    let again = world.step(Some(Order::Pause)).unwrap_err();
    assert_eq!(again, Rejected::State { state: State::Paused, order: Order::Pause });
    world.step(Some(Order::Resume)).unwrap();
    world.now = world.now.plus_ms(100);
    world.step(None).unwrap();
    assert_eq!(world.states(), [Committed, Assigned]);
    let plan = world.step(Some(Order::Abort)).unwrap();
    assert_eq!(world.states(), [Committed, Reverted]);
    assert_eq!(plan.actions, [Action::Restore { device: id(1), generation: 5 }]);
    assert!(world.step(Some(Order::Resume)).is_err());
}

#[test]
fn an_attempt_of_an_older_generation_says_nothing() {
    let mut world = World::new(policy(&[WaveSize::Percent(100)]), 1);
    world.report(0, refused());
    world.step(None).unwrap();
    assert_eq!(world.states(), [Assigned]);
    world.step(None).unwrap();
    assert_eq!(world.states(), [Assigned]);
}

#[test]
fn a_device_that_runs_it_already_counts_at_once() {
    let mut world = World::new(policy(&[WaveSize::Percent(100)]), 1);
    world.report(0, Outcome::Committed);
    world.step(None).unwrap();
    assert_eq!(world.states(), [Assigned]);
    let seen = world.fleet.get_mut(&id(0)).unwrap();
    seen.reported_generation = seen.desired_generation;
    world.step(None).unwrap();
    assert_eq!(world.status.state, State::Completed);
}

#[derive(Clone, Debug)]
enum Happening {
    Report(usize, u8),
    Online(usize, bool),
    Revoke(usize),
    Order(Order),
    Wait(u64),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        6 => (0usize..12, 0u8..4).prop_map(|(device, outcome)| Happening::Report(device, outcome)),
        2 => (0usize..12, any::<bool>()).prop_map(|(device, online)| Happening::Online(device, online)),
        1 => (0usize..12).prop_map(Happening::Revoke),
        1 => prop_oneof![Just(Order::Pause), Just(Order::Resume), Just(Order::Abort)].prop_map(Happening::Order),
        4 => (0u64..400).prop_map(Happening::Wait),
    ];
    prop::collection::vec(one, 0..120)
}

fn policies() -> impl Strategy<Value = Policy> {
    let wave = prop_oneof![(1u32..6).prop_map(WaveSize::Count), (1u32..=100).prop_map(WaveSize::Percent)];
    (prop::collection::vec(wave, 1..4), 0u16..600, any::<bool>()).prop_map(|(waves, permille, rollback)| {
        let waves = waves.into_iter().map(Wave::from).collect();
        Policy { waves, failed_permille_max: permille, rollback_committed: rollback, ..policy(&[]) }
    })
}

#[test]
fn a_device_that_waits_for_its_budget_loses_no_time_by_it_and_has_its_time_afterwards() {
    let mut world = World::new(policy(&[WaveSize::Percent(100)]), 1);
    world.step(None).unwrap();
    let device = id(0);
    let report = |world: &mut World, phase: Phase| {
        let seen = world.fleet.get_mut(&device).unwrap();
        seen.reported_generation = seen.desired_generation;
        seen.slot = Some(shared::wire::SlotReport {
            slot: "default".parse().unwrap(),
            active: None,
            last_good: None,
            runtime: None,
            phase,
            attempt: None,
        });
    };
    let waiting = |waits_for| Phase::Waiting {
        bundle: bundle(),
        until: Timestamp(0),
        reason: "r".to_owned(),
        waits_for,
    };
    report(&mut world, waiting(WaitsFor::Budget));
    for _ in 0..30 {
        world.now = world.now.plus_ms(300);
        let plan = world.step(None).unwrap();
        assert_eq!(world.members[0].state, MemberState::Assigned, "{}", world.members[0].reason);
        assert!(plan.notes.is_empty());
    }
    report(&mut world, Phase::Fetching { bundle: bundle(), chunks_done: 1, chunks_total: 9 });
    world.now = world.now.plus_ms(740);
    world.step(None).unwrap();
    assert_eq!(world.members[0].state, MemberState::Assigned);
    world.now = world.now.plus_ms(300);
    world.step(None).unwrap();
    assert_eq!(world.members[0].state, MemberState::Failed);
    // Waiting for anything else costs time.
    let mut world = World::new(policy(&[WaveSize::Percent(100)]), 1);
    world.step(None).unwrap();
    report(&mut world, waiting(WaitsFor::Storage));
    world.now = world.now.plus_ms(1000);
    world.step(None).unwrap();
    assert_eq!(world.members[0].state, MemberState::Failed);
}

proptest! {
    #[test]
    fn never_goes_past_a_failed_gate_asks_nobody_twice_and_ends_everybody_in_one_state(
        policy in policies(),
        devices in 1usize..12,
        happenings in happenings(),
    ) {
        let mut world = World::new(policy, devices);
        for happening in happenings {
            match happening {
                Happening::Report(device, outcome) if device < devices => {
                    world.report(device, if outcome == 0 { refused() } else { Outcome::Committed });
                }
                Happening::Online(device, online) if device < devices => {
                    world.fleet.get_mut(&id(device)).unwrap().online = online;
                }
                Happening::Revoke(device) if device < devices => {
                    world.fleet.get_mut(&id(device)).unwrap().revoked = true;
                }
                Happening::Wait(ms) => world.now = world.now.plus_ms(ms),
                Happening::Order(order) => {
                    let _ = world.step(Some(order));
                }
                Happening::Report(..) | Happening::Online(..) | Happening::Revoke(_) => {}
            }
            let was_final = world.status.state.is_final();
            let wave_before = world.status.wave;
            let plan = world.step(None).unwrap();
            if was_final {
                prop_assert!(plan.actions.is_empty());
            }
            prop_assert!(world.assigned.values().all(|&count| count == 1));
            let broken = (0..=world.status.wave).any(|wave| {
                let members: Vec<_> = world.members.iter().filter(|m| m.wave == wave).collect();
                let failed = members.iter().filter(|m| m.state == Failed).count();
                failed * 1000 > usize::from(world.policy.failed_permille_max) * members.len()
            });
            if broken {
                prop_assert!(world.status.state.is_final());
                let asked = plan.actions.iter().any(|action| matches!(action, Action::Assign { .. }));
                prop_assert!(!asked);
            }
            let completed = world.status.state == State::Completed;
            prop_assert!(!completed || !broken);
            let proved_to = if completed { u32::MAX } else { world.status.wave };
            if completed || world.status.wave > wave_before {
                prop_assert!(world.members.iter().any(|m| m.state == Committed && m.wave < proved_to));
                for wave in wave_before..proved_to.min(12) {
                    let count = |state| {
                        world.members.iter().filter(|m| m.wave == wave && m.state == state).count()
                    };
                    let (failed, committed) = (count(Failed), count(Committed));
                    let allowed = usize::from(world.policy.failed_permille_max) * (failed + committed);
                    prop_assert!(failed * 1000 <= allowed, "wave {wave}: {failed} failed, {committed} committed");
                    let open = count(Pending) + count(Assigned);
                    prop_assert!(committed > 0 || open == 0, "wave {wave} is passed unproved");
                }
            }
            let (status, members) = world.explained();
            prop_assert_eq!((status.state, status.wave), (world.status.state, world.status.wave));
            prop_assert!(members.iter().zip(&world.members).all(|(a, b)| a.state == b.state));
        }
        // Everybody comes online and commits: the rollout ends, and each device in one final state.
        let _ = world.step(Some(Order::Resume));
        for _ in 0..40 {
            for device in 0..devices {
                let seen = world.fleet.get_mut(&id(device)).unwrap();
                seen.online = true;
                if world.members.iter().any(|m| m.device == id(device) && m.state == Assigned) {
                    world.report(device, Outcome::Committed);
                }
            }
            world.now = world.now.plus_ms(100);
            world.step(None).unwrap();
        }
        prop_assert!(world.status.state.is_final());
        prop_assert!(world.members.iter().all(|member| member.state.is_final()));
    }
}
