use super::*;
use shared::{
    Signed,
    board::RuntimeName,
    profile::{Form, Step, Timing},
    signing::{Keyring, Role, SigningKey, TrustedKey},
};

fn reporter() -> Reporter {
    Reporter {
        device: "cam-01".parse().unwrap(),
        board: "x86-64".parse().unwrap(),
        agent_version: "0.1.0".to_owned(),
    }
}

fn request(device: &str, generation: u64, count: u32) -> Verified<ProfileRequest> {
    let workload = |channels| Workload {
        input: vec![8, 4, 4],
        steps: vec![Step::Conv { channels, kernel: 3, stride: 1, groups: 1, relu: true }],
    };
    let request = ProfileRequest {
        device: device.parse().unwrap(),
        generation,
        issued_at: Timestamp(0),
        duration_ms_max: 60_000,
        workloads: (1..=count).map(workload).collect(),
    };
    let key = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap();
    let ring = Keyring::new([TrustedKey { role: Role::Director, key: key.public().clone() }]);
    let bytes = Signed::sign(&request, &[&key]).unwrap();
    Signed::<ProfileRequest>::parse(&bytes).unwrap().verify(&ring).unwrap()
}

fn took(index: u16) -> Vec<Measured> {
    let result = Timing::Took { median_ns: 5, low_ns: 4, high_ns: 6, runs: 9 };
    vec![Measured { workload: index, runtime: RuntimeName::Tract, form: Form::Int8, result }]
}

/// A device on a clock of its own.
struct World {
    profile: Profile,
    disk: Saved,
    now: Timestamp,
    busy_permille: u32,
    tasks: Vec<u16>,
    sent: Vec<ProfileReport>,
}

impl World {
    fn new() -> Self {
        let profile = Profile::restore(reporter(), Saved::default());
        let disk = Saved::default();
        Self { profile, disk, now: Timestamp(1_000), busy_permille: 0, tasks: Vec::new(), sent: Vec::new() }
    }

    fn next(&mut self) -> Option<Task> {
        self.profile.next(self.busy_permille, Processor::default, self.now, self.now)
    }

    /// One round of the shell, with all that it asks for done at once.
    fn round(&mut self) {
        if let Some(saved) = self.profile.unsaved() {
            self.disk = saved.clone();
            self.profile.persisted();
        }
        if let Some(task) = self.next() {
            assert_eq!(self.disk.generation, task.generation, "measured before it was on disk");
            self.tasks.push(task.index);
            self.now = self.now.plus_ms(100);
            self.profile.measured(task.generation, took(task.index), 100, self.busy_permille, self.now);
        }
        if let Some(report) = self.profile.report(Processor::default, self.now, self.now) {
            assert!(!report.complete || self.disk.report.is_some(), "sent before it was on disk");
            self.sent.push(report);
            self.profile.published();
        }
        self.now = self.now.plus_ms(10);
    }

    fn rounds(&mut self, count: usize) {
        (0..count).for_each(|_| self.round());
    }

    fn restart(&mut self) {
        self.profile = Profile::restore(reporter(), self.disk.clone());
    }
}

#[test]
fn measures_each_workload_once_and_reports_when_all_are_done() {
    let mut world = World::new();
    world.profile.ask(request("cam-01", 1, 5), world.now).unwrap();
    world.rounds(100);
    assert_eq!(world.tasks, [0, 1, 2, 3, 4]);
    let last = world.sent.last().unwrap();
    assert!(last.complete && last.measured.len() == 5 && last.cut_short.is_none());
    assert_eq!(world.disk, Saved { generation: 1, finished: true, report: None });
    // The broker keeps the request and brings it again on each connection.
    let before = world.sent.len();
    world.profile.ask(request("cam-01", 1, 5), world.now).unwrap();
    world.rounds(10);
    assert_eq!((world.tasks.len(), world.sent.len(), world.profile.due(true)), (5, before, None));
}

#[test]
fn says_how_far_it_is_now_and_then() {
    let mut world = World::new();
    world.profile.ask(request("cam-01", 1, 60), world.now).unwrap();
    world.rounds(400);
    let partial: Vec<usize> =
        world.sent.iter().filter(|report| !report.complete).map(|report| report.measured.len()).collect();
    assert!((2..10).contains(&partial.len()) && partial.is_sorted(), "{partial:?}");
    assert_eq!(world.sent.iter().filter(|report| report.complete).count(), 1);
}

#[test]
fn refuses_an_older_generation_also_after_a_restart_and_what_is_for_others() {
    let mut world = World::new();
    world.profile.ask(request("cam-01", 7, 2), world.now).unwrap();
    world.round();
    world.restart();
    let refused = world.profile.ask(request("cam-01", 6, 2), world.now).unwrap_err();
    assert_eq!(refused, Refused::Older { got: 6, newest: 7 });
    assert!(matches!(world.profile.ask(request("cam-02", 8, 2), world.now), Err(Refused::OtherDevice(_))));
    assert!(world.profile.unsaved().is_none() && world.next().is_none());
}

#[test]
fn waits_while_requests_need_the_processor_and_ends_when_the_time_is_over() {
    let mut world = World::new();
    world.profile.ask(request("cam-01", 1, 3), world.now).unwrap();
    world.rounds(1);
    world.busy_permille = BUSY_PERMILLE_MAX + 1;
    world.rounds(200);
    assert_eq!(world.tasks, [0]);
    assert!(world.profile.due(true).unwrap() > world.now);
    world.busy_permille = 0;
    world.rounds(60);
    assert!(world.tasks.len() > 1, "it goes on when there is room");

    let mut world = World::new();
    world.profile.ask(request("cam-01", 1, 3), world.now).unwrap();
    world.busy_permille = 900;
    world.rounds(10);
    world.now = world.now.plus_ms(60_000);
    world.rounds(3);
    let last = world.sent.last().unwrap();
    assert!(last.complete && last.measured.is_empty());
    assert!(last.cut_short.as_ref().unwrap().contains("requests kept the device busy"));
}

#[test]
fn beside_requests_it_takes_half_of_the_time_at_most() {
    let mut world = World::new();
    world.profile.ask(request("cam-01", 1, 2), world.now).unwrap();
    world.profile.persisted();
    let task = world.next().unwrap();
    world.profile.measured(task.generation, took(0), 400, 5, world.now);
    assert_eq!(world.profile.due(true), Some(world.now.plus_ms(400)));
}

#[test]
fn a_power_cut_at_any_point_ends_in_a_complete_report() {
    for cut in 0..40 {
        let mut world = World::new();
        world.profile.ask(request("cam-01", 1, 4), world.now).unwrap();
        world.rounds(cut);
        world.restart();
        // On each connection the request comes again.
        world.profile.ask(request("cam-01", 1, 4), world.now).unwrap();
        world.rounds(100);
        let complete: Vec<_> = world.sent.iter().filter(|report| report.complete).collect();
        // Cut after it was taken and before that was on disk, it comes again, the same.
        assert!((1..=2).contains(&complete.len()), "cut after {cut} rounds");
        assert!(complete.iter().all(|report| **report == *complete[0] && report.measured.len() == 4));
        assert_eq!(world.disk, Saved { generation: 1, finished: true, report: None });
    }
}

#[test]
fn a_report_that_is_not_taken_is_sent_again() {
    let mut world = World::new();
    world.profile.ask(request("cam-01", 1, 1), world.now).unwrap();
    world.profile.persisted();
    let task = world.next().unwrap();
    world.profile.measured(task.generation, took(0), 1, 0, world.now);
    world.now = world.now.plus_ms(PAUSE_MS);
    assert!(world.next().is_none());
    world.profile.persisted();
    let report = |world: &mut World| world.profile.report(Processor::default, world.now, world.now);
    assert!(report(&mut world).unwrap().complete);
    assert!(report(&mut world).is_none(), "it is on its way");
    world.profile.disconnected();
    assert!(report(&mut world).unwrap().complete);
    world.profile.not_sent(world.now);
    assert!(report(&mut world).is_none());
    world.now = world.now.plus_ms(PROGRESS_MS);
    assert!(report(&mut world).unwrap().complete);
}

#[test]
fn a_newer_request_takes_the_place_of_one_that_is_being_carried_out() {
    let mut world = World::new();
    world.profile.ask(request("cam-01", 1, 9), world.now).unwrap();
    world.profile.persisted();
    let old = world.next().unwrap();
    world.profile.ask(request("cam-01", 2, 1), world.now).unwrap();
    world.profile.measured(old.generation, took(old.index), 1, 0, world.now);
    world.rounds(20);
    let last = world.sent.last().unwrap();
    assert_eq!((last.generation, last.complete, last.measured.len()), (2, true, 1));
}
