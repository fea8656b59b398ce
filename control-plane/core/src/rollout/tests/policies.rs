//! What a policy can say, each thing by itself.

use super::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn ringed(rings: &[&str]) -> Vec<(DeviceId, Labels)> {
    let device = |(number, ring): (usize, &&str)| (id(number), labels(&[("ring", ring)]));
    rings.iter().enumerate().map(device).collect()
}

fn read(toml: &str) -> Policy {
    let policy: Policy = toml::from_str(toml).unwrap();
    Policy { pause_ms: 0, device_timeout_ms: 40_000, ..policy }
}

fn commit_all(world: &mut World) {
    for at in 0..world.members.len() {
        if world.members[at].state == Assigned {
            let device = world.members[at].device.clone();
            world.report_of(&device, Outcome::Committed, None);
        }
    }
}

const RINGS: &str = r#"waves = { label = "ring", order = ["canary", "early"], approval = ["early"] }"#;

#[test]
fn a_policy_from_before_reads_and_is_written_as_it_was() {
    let text = r#"{"waves":[{"count":1},{"percent":100}],"pause_ms":10000,"failed_permille_max":0,"device_timeout_ms":900000,"rollback_committed":false,"update_bytes_max":null}"#;
    let policy: Policy = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&policy).unwrap(), text);
    let text = r#"{"state":"running","wave":1,"wave_closed_at":null,"reason":"started"}"#;
    let status: Status = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&status).unwrap(), text, "the store compares it");
    let text = r#"{"device":"d","wave":0,"state":"pending","reason":"r","generation":null,"assigned_at":null,"waited_until":null,"finished_at":null}"#;
    let member: Member = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&member).unwrap(), text);
}

#[test]
fn rings_are_waves_of_a_label_in_their_order() {
    let world = World::labelled(read(RINGS), ringed(&["early", "canary", "late", "early"]));
    let waves: Vec<_> = world.members.iter().map(|member| (member.device.as_str(), member.wave)).collect();
    assert_eq!(waves, [("d001", 0), ("d000", 1), ("d003", 1)], "nobody asked for ring=late");
    assert!(!world.policy.waves[0].approval && world.policy.waves[1].approval);
    for (bad, says) in [
        (r#"waves = { label = "ring", order = ["a"], approval = ["b"] }"#, "names \"b\""),
        (r#"waves = { label = "ring" }"#, "order"),
        ("waves = [{ count = 1, percent = 3 }]", "a wave has one of"),
        ("waves = 3", "a list of waves, or rings"),
        ("wave = []", "unknown field `wave`"),
    ] {
        let error = toml::from_str::<Policy>(bad).unwrap_err().to_string();
        assert!(error.contains(says), "{bad}: {error}");
    }
}

#[test]
fn waves_of_labels_and_sizes_share_the_devices() {
    let policy =
        read(r#"waves = [{ label = { key = "ring", value = "canary" } }, { percent = 50 }, { count = 1 }]"#);
    let world = World::labelled(policy, ringed(&["x", "canary", "x", "x"]));
    let waves: Vec<_> = world.members.iter().map(|member| (member.device.as_str(), member.wave)).collect();
    assert_eq!(waves, [("d001", 0), ("d000", 1), ("d002", 1), ("d003", 2)]);
}

#[test]
fn a_wave_that_needs_it_waits_for_an_approval() {
    let mut world = World::labelled(read(RINGS), ringed(&["canary", "early"]));
    world.step(None).unwrap();
    commit_all(&mut world);
    world.step(None).unwrap();
    assert_eq!(world.states(), [Committed, Pending]);
    assert_eq!(world.explained().0.reason, "wave 2 waits for an approval: `edgewright rollout approve`");
    let refused =
        |world: &mut World, wave| world.step(Some(Order::Approve { wave })).unwrap_err().to_string();
    assert_eq!(refused(&mut world, Some(0)), "wave 1 needs no approval");
    assert_eq!(refused(&mut world, Some(7)), "wave 8 needs no approval");
    world.step(Some(Order::Approve { wave: None })).unwrap();
    assert_eq!(world.states(), [Committed, Assigned]);
    assert_eq!(refused(&mut world, Some(1)), "wave 2 was approved already");
    assert_eq!(refused(&mut world, None), "no wave waits for an approval");
}

#[test]
fn the_first_wave_waits_for_its_approval_too() {
    let mut world = World::new(read("waves = [{ percent = 100, approval = true }]"), 1);
    world.step(None).unwrap();
    assert_eq!(world.states(), [Pending]);
    let why = why(world.input(None), &id(0)).unwrap();
    assert_eq!(why.waits_for, ["waits for wave 1 to be approved: `edgewright rollout approve`"]);
    world.step(Some(Order::Approve { wave: Some(0) })).unwrap();
    assert_eq!(world.states(), [Assigned]);
}

#[test]
fn at_most_so_many_are_asked_in_a_time() {
    let mut world = World::new(
        read("waves = [{ percent = 100 }]\nrate = { constant = { devices = 2, period_ms = 1000 } }"),
        5,
    );
    let start = world.now;
    let plan = world.step(None).unwrap();
    assert_eq!(world.states(), [Assigned, Assigned, Pending, Pending, Pending]);
    assert_eq!(plan.wake_at, Some(start.plus_ms(1000)));
    assert_eq!(world.explained().1[2].reason, "waits for its turn: 2 devices in 1 s");
    assert_eq!(world.explained().0.reason, "wave 1: 2 devices under way, 0 offline, 3 wait for their turn");
    world.now = start.plus_ms(999);
    assert!(world.step(None).unwrap().actions.is_empty());
    world.now = start.plus_ms(1000);
    assert_eq!(world.step(None).unwrap().actions.len(), 2);
}

#[test]
fn the_rate_grows_with_those_that_committed() {
    let rate = "rate = { exponential = { devices = 1, period_ms = 1000, factor = 2.0, devices_max = 4, successes = 1 } }";
    let mut world = World::new(read(&format!("waves = [{{ percent = 100 }}]\n{rate}")), 10);
    let mut asked = Vec::new();
    for _ in 0..5 {
        asked.push(world.step(None).unwrap().actions.len());
        commit_all(&mut world);
        world.now = world.now.plus_ms(1000);
    }
    // One committed: two; three: four, the most; the rest.
    assert_eq!(asked, [1, 2, 4, 3, 0]);
}

#[test]
fn nobody_is_asked_outside_of_the_windows() {
    let policy = r#"
        waves = [{ percent = 100 }]
        windows = [{ from = "01:00", to = "02:00", zone_label = "tz" }]
    "#;
    let devices = [(id(0), Labels::new()), (id(1), labels(&[("tz", "Asia/Tokyo")]))];
    let mut world = World::labelled(read(policy), devices);
    world.policy.failed_permille_max = 1000;
    // 1970-01-01 16:00 UTC is 01:00 of the next day in Tokyo.
    world.now = Timestamp(15 * 3_600_000);
    let plan = world.step(None).unwrap();
    assert!(plan.actions.is_empty());
    assert_eq!(plan.wake_at, Some(Timestamp(16 * 3_600_000)));
    let reason = &world.explained().1[1].reason;
    assert_eq!(reason, "waits for its window, which opens at 1970-01-01 16:00:00 UTC");
    world.now = Timestamp(16 * 3_600_000);
    world.step(None).unwrap();
    assert_eq!(world.states(), [Pending, Assigned]);
    world.now = Timestamp(25 * 3_600_000);
    world.step(None).unwrap();
    assert_eq!(world.states(), [Assigned, Failed], "the other had its time meanwhile");
}

#[test]
fn a_group_has_no_more_unavailable_than_its_budget() {
    let policy = r#"
        waves = [{ percent = 100 }]
        disruption = { group_by = "site", unavailable_max = { count = 1 } }
    "#;
    let site = |number, site| (id(number), labels(&[("site", site)]));
    let mut world = World::labelled(read(policy), [site(0, "a"), site(1, "a"), site(2, "b"), site(3, "b")]);
    world.set_online(3, false);
    world.step(None).unwrap();
    assert_eq!(world.states(), [Assigned, Pending, Pending, Pending]);
    let reason = &world.explained().1[2].reason;
    assert_eq!(reason, "waits for the disruption budget: of site=b 1 are unavailable (d003), allowed are 1");
    world.report(0, Outcome::Committed);
    world.set_online(3, true);
    world.step(None).unwrap();
    assert_eq!(world.states(), [Committed, Assigned, Assigned, Pending]);
    // One that is busy with something else counts, and is itself free to be asked.
    let mut world = World::labelled(world.policy.clone(), [site(0, "a"), site(1, "a")]);
    world.fleet.get_mut(&id(1)).unwrap().busy = true;
    world.step(None).unwrap();
    assert_eq!(world.states(), [Pending, Assigned]);
}

#[test]
fn devices_that_are_no_members_count_in_their_group() {
    let policy = read("waves = [{ percent = 100 }]\ndisruption = { unavailable_max = { percent = 34 } }");
    let mut world = World::new(policy, 2);
    let stranger = Observed { online: false, fits: false, selected: false, ..Observed::default() };
    world.fleet.insert(id(7), stranger);
    world.step(None).unwrap();
    assert_eq!(world.states(), [Pending, Pending], "a third of three is one, and one is offline");
}

fn errors(hits: u64, of: u64) -> Evidence {
    let waves = (0..8).map(|wave| (wave, Sample { hits, of })).collect();
    Evidence::Stored(vec![Stored { waves, before: Sample::default() }])
}

const GATED: &str = r#"
    waves = [{ count = 1 }, { percent = 100 }]
    gates = [{ signal = "error_rate", max = 0.05, wait_ms = 5000 }]
"#;

#[test]
fn no_wave_opens_and_no_rollout_ends_before_its_gates_are_open() {
    let mut world = World::new(read(GATED), 2);
    world.step(None).unwrap();
    world.report(0, Outcome::Committed);
    let plan = world.step(None).unwrap();
    assert_eq!((world.states(), plan.wake_at), (vec![Committed, Pending], Some(world.now.plus_ms(5000))));
    let reason = world.explained().0.reason;
    assert!(reason.starts_with("wave 1 is through and waits for its gates: error_rate: 0 of 0"), "{reason}");
    world.evidence = errors(0, 1000);
    world.step(None).unwrap();
    assert_eq!(world.states(), [Committed, Assigned]);
    world.report(1, Outcome::Committed);
    world.evidence = errors(0, 0);
    world.step(None).unwrap();
    assert_eq!(world.status.state, State::Running);
    world.evidence = errors(0, 1000);
    world.step(None).unwrap();
    assert_eq!(world.status.state, State::Completed);
}

#[test]
fn a_gate_stops_at_once_also_while_its_wave_is_under_way_or_paused() {
    for order in [None, Some(Order::Pause)] {
        let mut world = World::new(read(GATED), 2);
        world.policy.rollback_committed = true;
        world.step(None).unwrap();
        world.step(order).unwrap();
        world.evidence = errors(300, 1000);
        world.step(None).unwrap();
        assert_eq!((world.status.state, world.states()), (State::Stopped, vec![Reverted, Skipped]));
        let reason = &world.status.reason;
        assert!(reason.starts_with("stopped by the gate behind wave 1: error_rate: 300 of 1000"), "{reason}");
    }
}

#[test]
fn a_gate_that_does_not_decide_in_its_time_does_what_the_policy_says() {
    for (then, state, states) in [
        ("pause", State::Paused, [Committed, Pending]),
        ("stop", State::Stopped, [Committed, Skipped]),
        ("open", State::Running, [Committed, Assigned]),
    ] {
        let policy = GATED.replace("wait_ms = 5000", &format!("wait_ms = 5000, then = {then:?}"));
        let mut world = World::new(read(&policy), 2);
        world.step(None).unwrap();
        world.report(0, Outcome::Committed);
        world.step(None).unwrap();
        world.now = world.now.plus_ms(4999);
        world.step(None).unwrap();
        assert_eq!(world.status.state, State::Running);
        world.now = world.now.plus_ms(1);
        world.step(None).unwrap();
        assert_eq!((world.status.state, world.states()), (state, states.to_vec()), "{then}");
        if state == State::Paused {
            assert!(world.status.reason.contains("has not opened"), "{}", world.status.reason);
            world.step(Some(Order::Resume)).unwrap();
            assert_eq!(world.status.state, State::Running, "it has its time once more");
            world.step(Some(Order::Waive { wave: None })).unwrap();
            assert_eq!(world.states(), [Committed, Assigned]);
        }
    }
}

#[test]
fn the_agreement_of_trials_and_the_commits_of_devices_are_evidence() {
    let policy = r#"
        waves = [{ count = 1 }, { percent = 100 }]
        gates = [{ signal = "agreement", min = 0.8 }, { signal = "install_success", min = 0.5, from_wave = 2 }]
    "#;
    let trial = |agreed| Some(TrialCounts { requests: 400, failed: 0, compared: 400, agreed });
    let mut world = World::new(read(policy), 30);
    world.step(None).unwrap();
    world.report_of(&id(0), Outcome::Committed, trial(390));
    world.step(None).unwrap();
    assert_eq!(world.states()[1], Assigned, "{}", world.explained().0.reason);
    (1..29).for_each(|number| world.report_of(&id(number), Outcome::Committed, trial(395)));
    world.step(None).unwrap();
    world.report_of(&id(29), Outcome::Committed, None);
    world.step(None).unwrap();
    assert_eq!(world.status.state, State::Completed);
    let mut world = World::new(read(policy), 30);
    world.step(None).unwrap();
    world.report_of(&id(0), Outcome::Committed, trial(200));
    world.step(None).unwrap();
    assert_eq!(world.status.state, State::Stopped);
}

#[test]
fn devices_are_looked_at_some_time_after_they_committed() {
    let policy = r#"
        waves = [{ count = 2 }, { percent = 100 }]
        gates = [{ signal = "health", min = 0.1, after_ms = 500, restarts_max = 2 }]
    "#;
    let mut world = World::new(read(policy), 60);
    world.policy.waves = vec![WaveSize::Count(40).into(), WaveSize::Percent(100).into()];
    world.members = divide(&world.policy.waves, (0..60).map(id));
    world.step(None).unwrap();
    commit_all(&mut world);
    let plan = world.step(None).unwrap();
    assert_eq!(plan.wake_at, Some(world.now.plus_ms(500)));
    world.set_online(0, false);
    world.fleet.get_mut(&id(1)).unwrap().starts = 3;
    world.now = world.now.plus_ms(500);
    let plan = world.step(None).unwrap();
    let well = |world: &World| world.members.iter().filter(|member| member.healthy == Some(true)).count();
    assert_eq!(well(&world), 38);
    assert_eq!(plan.notes[0], "d000 is not well: it is offline");
    assert_eq!(plan.notes[1], "d001 is not well: its agent has started 3 times since it committed");
    assert_eq!(world.status.wave, 1);
    world.set_online(0, true);
    world.step(None).unwrap();
    assert_eq!(well(&world), 38, "nobody is looked at twice");
}

#[test]
fn the_fleet_is_followed_where_the_policy_says_so() {
    let policy = |membership: &str| {
        read(&format!("{}\nmembership = {membership:?}", RINGS.replace(r#", approval = ["early"]"#, "")))
    };
    let mut world = World::labelled(policy("follow"), ringed(&["canary", "early", "early", "canary"]));
    world.set_online(3, false);
    world.step(None).unwrap();
    let relabel = |world: &mut World, number, ring| {
        world.fleet.get_mut(&id(number)).unwrap().labels = labels(&[("ring", ring)]);
    };
    relabel(&mut world, 0, "early");
    relabel(&mut world, 1, "canary");
    relabel(&mut world, 2, "none");
    world.fleet.get_mut(&id(3)).unwrap().selected = false;
    world.candidates = vec![
        Candidate { device: id(8), labels: labels(&[("ring", "early")]) },
        Candidate { device: id(9), labels: labels(&[("ring", "late")]) },
        Candidate { device: id(0), labels: labels(&[("ring", "early")]) },
    ];
    world.fleet.insert(id(8), Observed::default());
    let plan = world.step(None).unwrap();
    let now: Vec<_> = world.members.iter().map(|m| (m.device.as_str(), m.wave, m.state)).collect();
    assert_eq!(
        now,
        [
            ("d000", 0, Assigned),
            ("d003", 0, Skipped),
            ("d001", 0, Assigned),
            ("d002", 1, Skipped),
            ("d008", 1, Pending)
        ],
        "{:?}",
        plan.notes
    );
    let mut fixed = World::labelled(policy("fixed"), ringed(&["canary", "early"]));
    relabel(&mut fixed, 1, "canary");
    fixed.fleet.get_mut(&id(1)).unwrap().selected = false;
    fixed.step(None).unwrap();
    assert_eq!(fixed.states(), [Assigned, Pending]);
    // Whoever comes with another board in its place is not asked, whatever the membership.
    fixed.fleet.get_mut(&id(1)).unwrap().fits = false;
    fixed.step(None).unwrap();
    assert_eq!(fixed.states(), [Assigned, Skipped]);
}

#[test]
fn a_clock_that_jumps_loses_nothing_and_asks_nobody_twice() {
    let mut world = World::new(read(GATED), 2);
    let right = world.now;
    world.step(None).unwrap();
    world.report(0, Outcome::Committed);
    (world.now, world.heard_since) = (right.plus_ms(1_000_000_000), right.plus_ms(1_000_000_000));
    world.step(None).unwrap();
    assert_eq!(world.status.wave_closed_at, Some(world.now));
    (world.now, world.heard_since) = (right, right);
    let plan = world.step(None).unwrap();
    assert_eq!(plan.wake_at, Some(right.plus_ms(5000)), "the gate has its time from here");
    world.evidence = errors(0, 1000);
    world.step(None).unwrap();
    assert_eq!(world.assigned.values().copied().collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn every_field_out_of_range_is_named() {
    let trial = TrialPolicy::default();
    for (toml, says) in [
        ("waves = [{ label = { key = '', value = 'x' } }]", "policy.waves[0].label has \"\""),
        (
            "waves = [{ label = { key = 'a', value = 'x' } }, { label = { key = 'a', value = 'x' } }]",
            "a=x twice",
        ),
        ("rate = { constant = { devices = 0, period_ms = 1000 } }", "devices = 0"),
        ("rate = { constant = { devices = 1, period_ms = 999 } }", "period_ms = 999, allowed are 1000 to"),
        (
            "rate = { exponential = { devices = 2, period_ms = 1000, factor = 1.0, devices_max = 4, successes = 1 } }",
            "factor = 1, allowed are over 1",
        ),
        (
            "rate = { exponential = { devices = 2, period_ms = 1000, factor = nan, devices_max = 4, successes = 1 } }",
            "factor = NaN",
        ),
        (
            "rate = { exponential = { devices = 2, period_ms = 1000, factor = 2.0, devices_max = 1, successes = 1 } }",
            "devices_max = 1, at least its devices, 2",
        ),
        (
            "rate = { exponential = { devices = 2, period_ms = 1000, factor = 2.0, devices_max = 4, successes = 0 } }",
            "successes = 0",
        ),
        (
            "windows = [{ from = '01:00', to = '02:00', zone = 'Mars/Base' }]",
            "policy.windows[0].zone \"Mars/Base\" is not known",
        ),
        ("windows = [{ from = '01:00', to = '02:00', days = [] }]", "policy.windows[0].days is empty"),
        ("windows = [{ from = '24:00', to = '02:00' }]", "policy.windows[0].from is 24:00"),
        ("disruption = { unavailable_max = { count = 0 } }", "unavailable_max is 0"),
        ("disruption = { unavailable_max = { percent = 101 } }", "unavailable_max is 101 %"),
        ("disruption = { group_by = '', unavailable_max = { count = 1 } }", "group_by is empty"),
    ] {
        let policy: Policy = toml::from_str(toml).unwrap();
        let error = policy.validate(&trial).unwrap_err();
        assert!(error.starts_with("policy.") && error.contains(says), "{toml}: {error}");
    }
    assert!(toml::from_str::<Policy>("windows = [{ from = '1:00', to = '02:00' }]").is_err());
}
