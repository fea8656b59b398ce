//! What holds of every policy, whatever the fleet does.

use super::*;
use std::collections::BTreeSet;

const HOUR_MS: u64 = 3_600_000;
const PERIOD_MS: u64 = 600_000;
const SITES: [&str; 3] = ["a", "b", "c"];
const RINGS: [&str; 3] = ["canary", "early", "late"];

#[derive(Clone, Debug)]
enum Happening {
    Report(usize, bool),
    Online(usize, bool),
    Busy(usize, bool),
    Relabel(usize, usize, usize),
    Leave(usize),
    NewBoard(usize),
    Revoke(usize),
    Join(usize, usize, usize),
    Evidence(u8),
    Order(u8),
    Wait(u64),
    Back(u64),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let device = || 0usize..14;
    let one = prop_oneof![
        8 => (device(), prop::bool::weighted(0.95)).prop_map(|(device, good)| Happening::Report(device, good)),
        2 => (device(), any::<bool>()).prop_map(|(device, online)| Happening::Online(device, online)),
        1 => (device(), any::<bool>()).prop_map(|(device, busy)| Happening::Busy(device, busy)),
        1 => (device(), 0usize..3, 0usize..3).prop_map(|(device, site, ring)| Happening::Relabel(device, site, ring)),
        1 => device().prop_map(Happening::Leave),
        1 => device().prop_map(Happening::NewBoard),
        1 => device().prop_map(Happening::Revoke),
        1 => (10usize..14, 0usize..3, 0usize..3).prop_map(|(device, site, ring)| Happening::Join(device, site, ring)),
        3 => prop_oneof![6 => Just(0u8), 4 => Just(1u8), 1 => Just(2u8)].prop_map(Happening::Evidence),
        2 => (0u8..5).prop_map(Happening::Order),
        8 => (0u64..2 * HOUR_MS).prop_map(Happening::Wait),
        1 => (0u64..HOUR_MS).prop_map(Happening::Back),
    ];
    prop::collection::vec(one, 0..150)
}

fn policies() -> impl Strategy<Value = Policy> {
    let ring = (0usize..3)
        .prop_map(|ring| WaveSize::Label(Label { key: "ring".to_owned(), value: RINGS[ring].to_owned() }));
    let size =
        prop_oneof![(1u32..5).prop_map(WaveSize::Count), (1u32..=100).prop_map(WaveSize::Percent), ring];
    let wave = (size, prop::bool::weighted(0.2)).prop_map(|(size, approval)| Wave { size, approval });
    let rate = prop_oneof![
        (1u32..4).prop_map(|devices| Rate::Constant(Constant { devices, period_ms: PERIOD_MS })),
        (1u32..3).prop_map(|devices| Rate::Exponential(Exponential {
            devices,
            period_ms: PERIOD_MS,
            factor: 1.7,
            devices_max: 5,
            successes: 2
        })),
    ];
    let window = (0i8..24).prop_map(|hour| {
        let time = |hour: i8| Time::try_from(format!("{:02}:00", hour % 24)).unwrap();
        let days = vec![Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri, Day::Sat, Day::Sun];
        Window { days, from: time(hour), to: time(hour + 6), zone: "UTC".to_owned(), zone_label: None }
    });
    let amount = prop_oneof![(1u32..4).prop_map(Amount::Count), (1u32..60).prop_map(Amount::Percent)];
    let disruption = (any::<bool>(), amount).prop_map(|(grouped, unavailable_max)| Disruption {
        group_by: grouped.then(|| "site".to_owned()),
        unavailable_max,
    });
    let then = prop_oneof![Just(Then::Pause), Just(Then::Stop), Just(Then::Open)];
    let scope = prop_oneof![Just(Scope::Rollout), Just(Scope::Wave)];
    let gate = (then, scope).prop_map(|(then, scope)| Gate {
        then,
        scope,
        wait_ms: HOUR_MS,
        ..Gate::new(Signal::ErrorRate, 0.1)
    });
    (
        prop::collection::vec(wave, 1..5),
        prop::option::of(rate),
        prop::collection::vec(window, 0..2),
        prop::option::of(disruption),
        prop::collection::vec(gate, 0..2),
        any::<bool>(),
        0u16..600,
    )
        .prop_map(|(waves, rate, windows, disruption, gates, follows, failed_permille_max)| Policy {
            waves,
            rate,
            windows,
            disruption,
            gates,
            membership: if follows { Membership::Follow } else { Membership::Fixed },
            failed_permille_max,
            pause_ms: 1000,
            device_timeout_ms: 3 * HOUR_MS,
            ..Policy::default()
        })
}

fn labels(site: usize, ring: usize) -> Labels {
    [("site", SITES[site]), ("ring", RINGS[ring])]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// Nothing seen, all good, or half of it bad.
fn evidence(kind: u8) -> Evidence {
    let sample = match kind {
        0 => Sample::default(),
        1 => Sample { hits: 0, of: 1000 },
        _ => Sample { hits: 500, of: 1000 },
    };
    let waves = (0..8).map(|wave| (wave, sample)).collect();
    Evidence::Stored(vec![Stored { waves, before: Sample::default() }])
}

fn apply(world: &mut World, happening: Happening) {
    let mut seen = |device: usize, change: &dyn Fn(&mut Observed)| {
        if let Some(seen) = world.fleet.get_mut(&id(device)) {
            change(seen);
        }
    };
    match happening {
        Happening::Report(device, good) => {
            if world.members.iter().any(|m| m.device == id(device) && m.state == Assigned) {
                world.report(device, if good { Outcome::Committed } else { refused() });
            }
        }
        Happening::Online(device, online) => seen(device, &|seen| seen.online = online && !seen.revoked),
        Happening::Busy(device, busy) => seen(device, &|seen| seen.busy = busy),
        Happening::Relabel(device, site, ring) => seen(device, &|seen| seen.labels = labels(site, ring)),
        Happening::Leave(device) => seen(device, &|seen| seen.selected = false),
        Happening::NewBoard(device) => seen(device, &|seen| seen.fits = false),
        Happening::Revoke(device) => seen(device, &|seen| (seen.revoked, seen.online) = (true, false)),
        Happening::Join(device, site, ring) => {
            let labels = labels(site, ring);
            if world.policy.membership == Membership::Follow && !world.fleet.contains_key(&id(device)) {
                world.candidates.push(Candidate { device: id(device), labels: labels.clone() });
                world.fleet.insert(id(device), Observed { labels, ..Observed::default() });
            }
        }
        Happening::Evidence(kind) => world.evidence = evidence(kind),
        Happening::Wait(ms) => {
            world.now = world.now.plus_ms(ms);
        }
        Happening::Back(ms) => {
            world.now = Timestamp(world.now.0.saturating_sub(ms));
            world.heard_since = world.now;
        }
        Happening::Order(_) => {}
    }
}

/// Devices of each group of which the budget speaks, and those of them that are unavailable.
fn groups(world: &World) -> BTreeMap<Option<String>, (u64, u64)> {
    let by = world.policy.disruption.as_ref().and_then(|disruption| disruption.group_by.clone());
    let mut groups: BTreeMap<Option<String>, (u64, u64)> = BTreeMap::new();
    for (device, seen) in world.fleet.iter().filter(|(_, seen)| !seen.revoked) {
        let (size, unavailable) =
            groups.entry(by.as_ref().and_then(|by| seen.labels.get(by)).cloned()).or_default();
        let assigned = world.members.iter().any(|m| m.device == *device && m.state == Assigned);
        *size += 1;
        let away = !seen.online || seen.busy || seen.reported_generation < seen.desired_generation;
        *unavailable += u64::from(assigned || away);
    }
    groups
}

fn check(world: &World, before: &Status, plan: &Plan, asked_at: &mut Vec<u64>) -> Result<(), TestCaseError> {
    let Policy { rate, windows, disruption, gates, .. } = &world.policy;
    let asked: BTreeSet<&DeviceId> = plan
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::Assign { device, .. } => Some(device),
            Action::Restore { .. } => None,
        })
        .collect();
    prop_assert!(world.assigned.values().all(|&count| count == 1), "nobody is asked twice");
    let members: BTreeSet<_> = world.members.iter().map(|member| &member.device).collect();
    prop_assert_eq!(members.len(), world.members.len(), "nobody is a member twice");
    for device in &asked {
        let member = world.members.iter().find(|member| member.device == **device).unwrap();
        let needs_approval = world.policy.waves[member.wave as usize].approval;
        prop_assert!(!needs_approval || world.status.approved.contains(&member.wave));
        prop_assert!(member.wave <= world.status.wave);
        let seen = &world.fleet[*device];
        prop_assert!(seen.online && !seen.revoked && seen.fits);
        if world.policy.membership == Membership::Follow {
            prop_assert!(seen.selected);
        }
        if let Some(window) = windows.first() {
            let from: u64 = window.from.to_string()[..2].parse().unwrap();
            prop_assert!((world.now.0 / HOUR_MS % 24 + 24 - from) % 24 < 6, "outside of the window");
        }
    }
    if let Some(disruption) = disruption {
        let groups = groups(world);
        for device in &asked {
            let seen = &world.fleet[*device];
            let name = disruption.group_by.as_ref().and_then(|by| seen.labels.get(by)).cloned();
            let (size, unavailable) = groups[&name];
            let allowed = match disruption.unavailable_max {
                Amount::Count(count) => u64::from(count),
                Amount::Percent(percent) => (size * u64::from(percent) / 100).max(1),
            };
            // Who was unavailable already may be asked without one more being so.
            prop_assert!(
                unavailable <= allowed || seen.busy,
                "{unavailable} of {size}, allowed are {allowed}"
            );
        }
    }
    if let Some(rate) = rate {
        asked_at.extend(asked.iter().map(|_| world.now.0));
        let most = match rate {
            Rate::Constant(rate) => u64::from(rate.devices),
            Rate::Exponential(rate) => u64::from(rate.devices_max),
        };
        let recent = asked_at.iter().filter(|at| world.now.0.saturating_sub(**at) < PERIOD_MS).count() as u64;
        prop_assert!(asked.is_empty() || recent <= most, "{recent} in a period, allowed are {most}");
    }
    if !gates.is_empty() && !before.state.is_final() {
        let Evidence::Stored(stored) = &world.evidence else { unreachable!() };
        let seen = stored.first().and_then(|stored| stored.waves.get(&0)).copied().unwrap_or_default();
        if seen.hits > 0 {
            prop_assert!(world.status.state.is_final() && asked.is_empty(), "it goes past a failed gate");
            prop_assert!(world.status.state != State::Completed);
        }
        let moved = world.status.wave > before.wave || world.status.state == State::Completed;
        if seen.of == 0 && moved && gates[0].then != Then::Open {
            let waived = (before.wave..=world.status.wave).any(|wave| world.status.waived.contains(&wave));
            let empty = |wave| world.members.iter().all(|m| m.wave != wave || m.state == Skipped);
            prop_assert!(waived || empty(before.wave), "a wave opened without evidence");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn keeps_its_budget_gates_windows_rate_and_approvals(
        policy in policies(),
        devices in prop::collection::vec((0usize..3, 0usize..3), 1..10),
        happenings in happenings(),
    ) {
        let devices = devices.iter().enumerate().map(|(number, (site, ring))| (id(number), labels(*site, *ring)));
        let mut world = World::labelled(policy, devices);
        world.now = Timestamp(1_700_000_000_000);
        world.heard_since = world.now;
        world.evidence = evidence(0);
        let mut asked_at = Vec::new();
        for happening in happenings {
            let order = match &happening {
                Happening::Order(0) => Some(Order::Pause),
                Happening::Order(1) => Some(Order::Resume),
                Happening::Order(2) => Some(Order::Approve { wave: None }),
                Happening::Order(3) => Some(Order::Waive { wave: None }),
                _ => None,
            };
            if let Happening::Back(ms) = &happening {
                // What was asked is taken as asked at the earlier time.
                let now = world.now.0.saturating_sub(*ms);
                asked_at.iter_mut().for_each(|at: &mut u64| *at = (*at).min(now));
            }
            apply(&mut world, happening);
            for order in [order, None] {
                let before = world.status.clone();
                match world.step(order) {
                    Ok(plan) => check(&world, &before, &plan, &mut asked_at)?,
                    Err(_) => prop_assert!(order.is_some(), "only an order is refused"),
                }
            }
        }
        // However it stands, it can be ended, and then every device is in one final state.
        let _ = world.step(Some(Order::Abort));
        prop_assert!(world.status.state.is_final());
        prop_assert!(world.members.iter().all(|member| member.state.is_final()));
        prop_assert!(world.step(None).unwrap().actions.is_empty());
    }

    #[test]
    fn ends_by_itself_where_everybody_is_well(
        policy in policies(),
        devices in prop::collection::vec((0usize..3, 0usize..3), 1..10),
    ) {
        let devices = devices.iter().enumerate().map(|(number, (site, ring))| (id(number), labels(*site, *ring)));
        let mut world = World::labelled(policy, devices);
        prop_assume!(!world.members.is_empty());
        world.evidence = evidence(1);
        world.now = Timestamp(1_700_000_000_000);
        world.heard_since = world.now;
        world.status.approved = (0..8).collect();
        for _ in 0..2000 {
            let plan = world.step(None).unwrap();
            for action in &plan.actions {
                let (Action::Assign { device, .. } | Action::Restore { device, .. }) = action;
                let device = device.clone();
                world.report_of(&device, Outcome::Committed, None);
            }
            if world.status.state.is_final() {
                break;
            }
            world.now = plan.wake_at.filter(|_| plan.actions.is_empty()).unwrap_or(world.now.plus_ms(1));
        }
        let why = &world.status.reason;
        prop_assert!(world.status.state == State::Completed, "{:?}: {why}", world.status.state);
    }
}
