//! A fleet on a virtual clock: thousands of the agent's update machines against the planner of rollouts, without a socket
//! and without waiting. What goes wrong, and when, is drawn from a seed; a failure names it, and `FLEET_SEED=N` plays it
//! again.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "fleet_virtual/bundles.rs"]
mod bundles;
#[path = "fleet_virtual/device.rs"]
mod device;

use bundles::{Author, Bundle};
use control_core::rollout::{
    self, Action, Amount, Candidate, Disruption, Evidence, Exponential, Fleet, Gate, Input, Label, Labels,
    Member, MemberState, Observed, Plan, Policy, Rate, Sample, Signal, State, Status, Stored, Then, Wave,
    WaveSize, divide,
};
use device::{Device, Event, Followed, Told};
use edgewright_tests::fleet::character::{Character, Faults};
use shared::{DeviceId, Timestamp, backoff::Jitter, wire::Phase};
use std::collections::{BTreeMap, HashMap};

const START: Timestamp = Timestamp(1_700_000_000_000);
/// From there on the rollout runs: by then everybody has reported.
const BEGIN_MS: u64 = 10_000;
/// What a fleet reports in between is looked at together, and nothing is looked at less often.
const LOOK_MS: u64 = 1_000;
const TICK_MS: u64 = 30_000;
/// No fleet of these tests is on its way for longer.
const END_MS: u64 = 24 * 3_600_000;
const SITES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
/// Devices in so many are the canaries.
const CANARY_IN: usize = 41;
/// Devices in so many lose their power in mid-update.
const CUT_IN: u64 = 10;

/// Says how to play a failure again.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed is {}; FLEET_SEED={} plays it again", self.0, self.0);
        }
    }
}

/// The seeds to play.
fn seeds(usual: &[u64]) -> Vec<u64> {
    match std::env::var("FLEET_SEED") {
        Ok(seed) => vec![seed.parse().expect("FLEET_SEED is a number")],
        Err(_) => usual.to_vec(),
    }
}

/// What a run is about.
struct Scenario {
    devices: usize,
    faults: Faults,
    policy: Policy,
    /// Share of the fresh version's requests that fail after its trial.
    errors: f64,
}

struct World {
    author: Author,
    policy: Policy,
    errors: f64,
    now: Timestamp,
    /// What is to happen, in order.
    queue: BTreeMap<(Timestamp, u64), (usize, Event)>,
    sequence: u64,
    devices: Vec<Device>,
    numbers: HashMap<DeviceId, usize>,
    // The server.
    fleet: Fleet,
    members: Vec<Member>,
    status: Status,
    evidence: Evidence,
    seen: BTreeMap<u32, Sample>,
    assigned: HashMap<DeviceId, u32>,
    /// The planner has been told of something.
    is_told: bool,
    wake_at: Option<Timestamp>,
    plans: usize,
    lots: Jitter,
}

impl World {
    fn new(scenario: Scenario, seed: u64) -> Self {
        let Scenario { devices, faults, policy, errors } = scenario;
        let author = Author::new();
        let mut lots = Jitter::new(seed);
        let devices: Vec<Device> = (0..devices)
            .map(|number| {
                let character = Character::draw(&faults, seed, number as u64);
                let cut = lots.next_u64().is_multiple_of(CUT_IN);
                let cut_after = cut.then(|| u32::try_from(3 + lots.next_u64() % 40).unwrap());
                Device::new(number, character, cut_after, &author, START, seed)
            })
            .collect();
        let labels = |number: usize| -> Labels {
            let ring = if number.is_multiple_of(CANARY_IN) { "canary" } else { "all" };
            [("site", SITES[number % SITES.len()]), ("ring", ring)]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into()
        };
        let observed = |number| Observed {
            online: false,
            desired_generation: 1,
            labels: labels(number),
            ..Observed::default()
        };
        let fleet: Fleet = devices
            .iter()
            .enumerate()
            .map(|(number, device)| (device.id.clone(), observed(number)))
            .collect();
        let candidates = fleet
            .iter()
            .map(|(device, seen)| Candidate { device: device.clone(), labels: seen.labels.clone() });
        policy.validate(&author.trial).unwrap();
        Self {
            members: divide(&policy.waves, candidates),
            numbers: devices.iter().enumerate().map(|(number, device)| (device.id.clone(), number)).collect(),
            evidence: Evidence::Stored(vec![Stored::default(); policy.gates.len()]),
            author,
            policy,
            errors,
            now: START,
            queue: BTreeMap::new(),
            sequence: 0,
            devices,
            fleet,
            status: Status::default(),
            seen: BTreeMap::new(),
            assigned: HashMap::new(),
            is_told: true,
            wake_at: None,
            plans: 0,
            lots,
        }
    }

    fn put(&mut self, number: usize, followed: Followed) {
        for (after_ms, event) in followed {
            self.sequence += 1;
            self.queue.insert((self.now.plus_ms(after_ms), self.sequence), (number, event));
        }
    }

    /// Plays until the rollout has ended and everybody has come to rest.
    fn play(&mut self) {
        for number in 0..self.devices.len() {
            let followed = self.devices[number].begin(&self.author, START);
            self.put(number, followed);
        }
        let mut next_look = START.plus_ms(BEGIN_MS);
        loop {
            let due = self.queue.first_key_value().map(|((at, _), _)| *at);
            if due.is_none_or(|at| at >= next_look) {
                self.now = next_look;
                self.look();
                if self.is_over() {
                    return;
                }
                next_look = next_look.plus_ms(LOOK_MS);
                assert!(next_look.since_ms(START) < END_MS, "not over after a day: {:?}", self.status);
                continue;
            }
            let Some(((at, _), (number, event))) = self.queue.pop_first() else { continue };
            self.now = at;
            match event {
                Event::Presence(online) => self.hear(number, |seen| seen.online = online),
                Event::Report { generation, slot } => self.hear(number, |seen| {
                    seen.busy = slot.as_ref().is_some_and(|slot| slot.phase != Phase::Idle);
                    (seen.reported_generation, seen.slot) = (generation, slot.map(|slot| *slot));
                }),
                event => {
                    let followed = self.devices[number].handle(event, &self.author, at);
                    self.put(number, followed);
                }
            }
        }
    }

    fn hear(&mut self, number: usize, change: impl FnOnce(&mut Observed)) {
        self.is_told = true;
        if let Some(seen) = self.fleet.get_mut(&self.devices[number].id) {
            change(seen);
        }
    }

    /// The planner looks, where it was told of something or time alone may have changed something.
    fn look(&mut self) {
        let is_due = self.wake_at.is_some_and(|at| at <= self.now);
        let is_tick = self.now.since_ms(START).is_multiple_of(TICK_MS);
        if !(self.is_told || is_due || is_tick) || self.status.state.is_final() {
            return;
        }
        self.is_told = false;
        self.plans += 1;
        self.gather();
        let plan = rollout::plan(Input {
            rollout: self.author.rollout,
            bundle: self.author.fresh.version.bundle,
            policy: &self.policy,
            status: &self.status,
            members: &self.members,
            fleet: &self.fleet,
            candidates: &[],
            evidence: &self.evidence,
            order: None,
            created_at: START,
            heard_since: START,
            now: self.now,
        })
        .expect("no order is given");
        self.check(&plan);
        let Plan { status, members, actions, wake_at, .. } = plan;
        (self.status, self.members, self.wake_at) = (status, members, wake_at);
        for action in actions {
            self.execute(action);
        }
    }

    /// What the fresh version's users see on devices that have it, since the last look.
    fn gather(&mut self) {
        if self.policy.gates.is_empty() {
            return;
        }
        for member in self.members.iter().filter(|member| member.state == MemberState::Committed) {
            let sample = self.seen.entry(member.wave).or_default();
            for _ in 0..5 {
                sample.of += 1;
                let failed = edgewright_tests::fleet::character::unit(&mut self.lots) < self.errors;
                sample.hits += u64::from(failed);
            }
        }
        let stored = Stored { waves: self.seen.clone(), before: Sample::default() };
        self.evidence = Evidence::Stored(vec![stored; self.policy.gates.len()]);
    }

    fn execute(&mut self, action: Action) {
        let (device, generation, bundle): (DeviceId, u64, &Bundle) = match action {
            Action::Assign { device, generation } => {
                *self.assigned.entry(device.clone()).or_default() += 1;
                (device, generation, &self.author.fresh)
            }
            Action::Restore { device, generation } => (device, generation, &self.author.before),
        };
        let seen = self.fleet.get_mut(&device).expect("a device of the fleet");
        assert_eq!(generation, seen.desired_generation + 1, "generations of {device} rise by one");
        seen.desired_generation = generation;
        let wish = self.author.signed(&self.author.wish(&device, generation, bundle));
        let number = self.numbers[&device];
        let followed = self.devices[number].wish_for(wish);
        self.put(number, followed);
    }

    /// What holds of every plan.
    fn check(&self, plan: &Plan) {
        let asked: Vec<&DeviceId> = plan
            .actions
            .iter()
            .filter_map(|action| match action {
                Action::Assign { device, .. } => Some(device),
                Action::Restore { .. } => None,
            })
            .collect();
        if asked.is_empty() {
            return;
        }
        assert_eq!(plan.status.state, State::Running, "somebody is asked although it is over");
        let members: HashMap<&DeviceId, &Member> =
            plan.members.iter().map(|member| (&member.device, member)).collect();
        for device in &asked {
            let seen = &self.fleet[*device];
            assert!(seen.online && members[*device].wave <= plan.status.wave, "{device} is asked too early");
            assert!(!self.assigned.contains_key(*device), "{device} is asked twice");
        }
        let Some(disruption) = &self.policy.disruption else { return };
        let mut groups: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (device, seen) in &self.fleet {
            let away = !seen.online || seen.busy || seen.reported_generation < seen.desired_generation;
            let assigned = members[device].state == MemberState::Assigned;
            let (size, unavailable) = groups.entry(seen.labels["site"].as_str()).or_default();
            *size += 1;
            *unavailable += u64::from(away || assigned);
        }
        for device in asked {
            let site = self.fleet[device].labels["site"].as_str();
            let (size, unavailable) = groups[site];
            let allowed = match disruption.unavailable_max {
                Amount::Count(count) => u64::from(count),
                Amount::Percent(percent) => (size * u64::from(percent) / 100).max(1),
            };
            assert!(unavailable <= allowed, "{unavailable} of {size} at site {site}, allowed are {allowed}");
        }
    }

    /// The rollout has ended, and every device is at rest at what it shall run.
    fn is_over(&self) -> bool {
        let rests = |(device, seen): (&DeviceId, &Observed)| {
            let device = &self.devices[self.numbers[device]];
            !seen.busy
                && device.machine.generation() == seen.desired_generation
                && device.machine.reports().iter().all(|report| report.phase == Phase::Idle)
        };
        self.status.state.is_final() && self.fleet.iter().all(rests)
    }

    fn member(&self, device: &Device) -> &Member {
        self.members.iter().find(|member| member.device == device.id).expect("everybody is a member")
    }

    /// What holds of every fleet that has come to rest.
    fn check_end(&self) {
        for member in &self.members {
            assert!(member.state.is_final(), "{} is {:?}", member.device, member.state);
        }
        for device in &self.devices {
            let member = self.member(device);
            let keeps = member.state == MemberState::Committed;
            let bundle = if keeps { &self.author.fresh } else { &self.author.before };
            assert_eq!(device.active().as_ref(), Some(&bundle.version), "{}: {member:?}", device.id);
            assert!(device.count(Told::Activated) <= 1, "{} activated it twice", device.id);
            assert!(device.count(Told::Passed) <= 1, "{} committed it twice", device.id);
            let asked = self.assigned.get(&device.id).copied().unwrap_or(0);
            assert!(asked <= 1 && (asked == 1 || device.told.is_empty()), "{} was not asked", device.id);
        }
    }
}

fn waves() -> Vec<Wave> {
    let canary = Label { key: "ring".to_owned(), value: "canary".to_owned() };
    [WaveSize::Label(canary), WaveSize::Percent(20), WaveSize::Percent(100)].map(Wave::from).into()
}

fn policy() -> Policy {
    Policy {
        waves: waves(),
        pause_ms: 5_000,
        failed_permille_max: 250,
        device_timeout_ms: 2 * 3_600_000,
        disruption: Some(Disruption {
            group_by: Some("site".to_owned()),
            unavailable_max: Amount::Percent(25),
        }),
        ..Policy::default()
    }
}

const FAULTS: Faults =
    Faults { offline: 0.1, slow: 0.1, failing_selftest: 0.03, failing_trial: 0.03, bad_clock: 0.0 };

#[test]
fn two_thousand_devices_with_faults_end_each_in_the_state_that_its_character_leads_to() {
    for seed in seeds(&[1]) {
        let _told = Seed(seed);
        let rate =
            Exponential { devices: 20, period_ms: 60_000, factor: 1.8, devices_max: 400, successes: 5 };
        let policy = Policy { rate: Some(Rate::Exponential(rate)), ..policy() };
        let mut world = World::new(Scenario { devices: 2000, faults: FAULTS, policy, errors: 0.0 }, seed);
        world.play();
        world.check_end();
        assert_eq!(world.status.state, State::Completed, "{}", world.status.reason);
        for device in &world.devices {
            let state = world.member(device).state;
            let expected =
                if device.character.is_healthy() { MemberState::Committed } else { MemberState::Failed };
            assert_eq!(state, expected, "{}: {:?}", device.id, world.member(device));
            let refused = device.count(Told::Refused) > 0;
            assert_eq!(refused, device.character.fails_selftest, "{}", device.id);
        }
        assert!(world.plans > 100, "only {} plans were made", world.plans);
    }
}

#[test]
fn a_version_that_fails_everywhere_is_seen_by_no_wave_but_the_first() {
    for seed in seeds(&[2, 3]) {
        let _told = Seed(seed);
        let faults = Faults { failing_trial: 1.0, failing_selftest: 0.0, ..FAULTS };
        let mut world = World::new(Scenario { devices: 600, faults, policy: policy(), errors: 0.0 }, seed);
        world.play();
        world.check_end();
        assert_eq!(world.status.state, State::Stopped, "{}", world.status.reason);
        assert!(!world.assigned.is_empty());
        for member in &world.members {
            assert!(member.wave == 0 || !world.assigned.contains_key(&member.device), "{member:?}");
            assert!(member.wave == 0 || member.state == MemberState::Skipped, "{member:?}");
        }
    }
}

/// A gate on requests that fail, and a version of which so many do.
fn gated(errors: f64, seed: u64) -> World {
    let gate = Gate { then: Then::Stop, wait_ms: 4 * 3_600_000, ..Gate::new(Signal::ErrorRate, 0.05) };
    let policy = Policy { gates: vec![gate], rollback_committed: true, ..policy() };
    let faults = Faults { failing_trial: 0.0, failing_selftest: 0.0, ..FAULTS };
    let mut world = World::new(Scenario { devices: 400, faults, policy, errors }, seed);
    world.play();
    world.check_end();
    world
}

#[test]
fn a_gate_on_errors_stops_a_version_that_passes_every_trial_and_takes_it_back() {
    for seed in seeds(&[4, 5]) {
        let _told = Seed(seed);
        let world = gated(0.2, seed);
        assert_eq!(world.status.state, State::Stopped, "{}", world.status.reason);
        assert!(world.status.reason.contains("error_rate"), "{}", world.status.reason);
        let last = world.members.iter().map(|member| member.wave).max().unwrap();
        for member in &world.members {
            assert!(member.wave < last || !world.assigned.contains_key(&member.device), "{member:?}");
            assert_ne!(member.state, MemberState::Committed);
        }
        assert!(world.devices.iter().any(|device| device.count(Told::Passed) == 1), "nobody had it");
    }
}

#[test]
fn the_same_gate_lets_a_version_through_that_fails_seldom() {
    for seed in seeds(&[6]) {
        let _told = Seed(seed);
        let world = gated(0.01, seed);
        assert_eq!(world.status.state, State::Completed, "{}", world.status.reason);
        assert!(world.members.iter().all(|member| member.state == MemberState::Committed));
    }
}
