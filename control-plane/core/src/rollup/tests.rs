use super::*;
use proptest::prelude::*;
use uuid::Uuid;

const NOW: Timestamp = Timestamp(1_790_000_000_000);

fn telemetry(at: Timestamp, requests: u64, latency: u64) -> Telemetry {
    Telemetry {
        id: Uuid::from_u128(1),
        at,
        duration_ms: 10_000,
        slot: "default".parse().unwrap(),
        version_id: ModelVersionId(Uuid::from_u128(7)),
        requests,
        failed: requests / 10,
        latency_p50_us: Some(latency / 2),
        latency_p99_us: Some(latency),
        rss_bytes: None,
    }
}

fn dwell(at: Timestamp, value: f64) -> Feedback {
    Feedback {
        id: Uuid::from_u128(2),
        at,
        slot: "default".parse().unwrap(),
        version_id: ModelVersionId(Uuid::from_u128(7)),
        request_id: None,
        kind: FeedbackKind::Dwell,
        value: Some(value),
        label: None,
    }
}

#[derive(Clone, Debug)]
enum Said {
    Telemetry(&'static str, Telemetry),
    Feedback(&'static str, Feedback),
}

fn said() -> impl Strategy<Value = Said> {
    let device = prop::sample::select(vec!["cam-01", "cam-02"]);
    let at = (0u64..3 * 86_400_000).prop_map(|back| Timestamp(NOW.0 - back));
    prop_oneof![
        (device.clone(), at.clone(), 0u64..1000, 0u64..1_000_000).prop_map(
            |(device, at, requests, latency)| Said::Telemetry(device, telemetry(at, requests, latency))
        ),
        (device, at, -1e6f64..1e6).prop_map(|(device, at, value)| Said::Feedback(device, dwell(at, value))),
    ]
}

fn increments<'a>(said: impl IntoIterator<Item = &'a Said>) -> BTreeMap<Key, Stats> {
    let mut rollups = Rollups::default();
    for said in said {
        let (Said::Telemetry(device, _) | Said::Feedback(device, _)) = said;
        let device = device.parse().unwrap();
        let source = Source { device: &device, received: NOW };
        match said {
            Said::Telemetry(_, record) => rollups.telemetry(source, record),
            Said::Feedback(_, record) => rollups.feedback(source, record),
        }
    }
    rollups.increments()
}

fn merged(parts: impl IntoIterator<Item = BTreeMap<Key, Stats>>) -> BTreeMap<Key, Stats> {
    let mut all: BTreeMap<Key, Stats> = BTreeMap::new();
    for (key, stats) in parts.into_iter().flatten() {
        all.entry(key).or_default().merge(&stats);
    }
    all
}

#[test]
fn a_record_is_counted_for_its_device_and_for_the_fleet_in_every_period() {
    let found = increments(&[Said::Telemetry("cam-01", telemetry(NOW, 20, 500))]);
    assert_eq!(found.len(), 6);
    for (key, stats) in &found {
        assert_eq!(key.at, key.period.start(NOW));
        assert_eq!(stats.get(Measure::REQUESTS).unwrap().sum(), 20.0);
        assert_eq!(stats.get(Measure::FAILED).unwrap().sum(), 2.0);
        assert!(stats.get(Measure::RSS).is_none());
    }
}

#[test]
fn an_event_is_counted_without_a_version() {
    let mut rollups = Rollups::default();
    let device = "cam-01".parse().unwrap();
    let event = Event {
        id: Uuid::from_u128(3),
        at: Timestamp(5),
        slot: None,
        bundle: None,
        kind: shared::wire::EventKind::RolledBack,
        detail: String::new(),
    };
    rollups.event(Source { device: &device, received: NOW }, &event);
    let found = rollups.increments();
    let day = found.iter().find(|(key, _)| key.period == Period::Day && key.device.is_none()).unwrap();
    assert_eq!(day.0.at, Period::Day.start(NOW), "the device's clock is that of 1970");
    let measure = Measure::named("events_rolled_back").unwrap();
    assert_eq!(day.1.get(measure).unwrap().sum(), 1.0);
}

proptest! {
    #[test]
    fn in_any_order_and_in_any_parts_the_roll_ups_are_the_same(
        said in prop::collection::vec(said(), 0..60),
        cuts in prop::collection::vec(0usize..60, 0..4),
        seed in any::<u64>(),
    ) {
        let whole = increments(&said);
        let mut order: Vec<usize> = (0..said.len()).collect();
        order.sort_by_key(|at| (*at as u64 + 1).wrapping_mul(seed | 1));
        let mut bounds: Vec<usize> = cuts.into_iter().map(|cut| cut.min(order.len())).collect();
        bounds.extend([0, order.len()]);
        bounds.sort_unstable();
        let parts = bounds.windows(2).map(|pair| increments(order[pair[0]..pair[1]].iter().map(|at| &said[*at])));
        prop_assert_eq!(merged(parts), whole);
    }

    #[test]
    fn the_minutes_of_an_hour_give_the_hour_and_its_hours_the_day_and_the_devices_the_fleet(
        said in prop::collection::vec(said(), 0..60),
    ) {
        let found = increments(&said);
        let of = |period: Period| found.iter().filter(move |(key, _)| key.period == period);
        for (shorter, longer) in [(Period::Minute, Period::Hour), (Period::Hour, Period::Day)] {
            let up = of(shorter).map(|(key, stats)| {
                BTreeMap::from([(Key { period: longer, at: longer.start(key.at), ..key.clone() }, stats.clone())])
            });
            let there: BTreeMap<Key, Stats> = of(longer).map(|(key, stats)| (key.clone(), stats.clone())).collect();
            prop_assert_eq!(merged(up), there);
        }
        let devices = found.iter().filter(|(key, _)| key.device.is_some()).map(|(key, stats)| {
            BTreeMap::from([(Key { device: None, ..key.clone() }, stats.clone())])
        });
        let fleet: BTreeMap<Key, Stats> =
            found.iter().filter(|(key, _)| key.device.is_none()).map(|(k, s)| (k.clone(), s.clone())).collect();
        prop_assert_eq!(merged(devices), fleet);
    }
}
