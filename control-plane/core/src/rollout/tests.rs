use super::*;
use proptest::prelude::*;
use shared::wire::{Attempt, Refusal, VersionRef};

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
    Policy { waves: waves.to_vec(), pause_ms: 100, device_timeout_ms: 1000, ..Policy::default() }
}

/// A rollout with the fleet that it sees.
struct World {
    policy: Policy,
    status: Status,
    members: Vec<Member>,
    fleet: BTreeMap<DeviceId, Observed>,
    assigned: BTreeMap<DeviceId, usize>,
    now: Timestamp,
}

impl World {
    fn new(policy: Policy, devices: usize) -> Self {
        let ids: Vec<_> = (0..devices).map(id).collect();
        let seen = Observed {
            online: true,
            revoked: false,
            desired_generation: 3,
            reported_generation: 3,
            slot: None,
        };
        Self {
            members: divide(&policy, ids.clone()),
            policy,
            status: Status::default(),
            fleet: ids.into_iter().map(|id| (id, seen.clone())).collect(),
            assigned: BTreeMap::new(),
            now: Timestamp(1_000_000),
        }
    }

    fn step(&mut self, order: Option<Order>) -> Result<Plan, Rejected> {
        let plan = plan(Input {
            rollout: rollout(),
            bundle: bundle(),
            policy: &self.policy,
            status: &self.status,
            members: &self.members,
            fleet: &self.fleet,
            order,
            now: self.now,
        })?;
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
        let seen = self.fleet.get_mut(&id(number)).unwrap();
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
            }),
        });
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
        let members = divide(&policy(waves), (0..devices).map(id).collect());
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
    assert_eq!(world.step(Some(Order::Pause)).unwrap_err().state, State::Paused);
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
        Policy { waves, failed_permille_max: permille, rollback_committed: rollback, ..policy(&[]) }
    })
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
            prop_assert!(!matches!(world.status.state, State::Completed) || !broken);
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
