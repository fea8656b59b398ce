use super::*;
use crate::store::{
    Asked,
    testing::{self, stores},
};
use control_core::rollup::{Measure, Period, Span};
use shared::{
    DeviceId, ModelVersionId, Timestamp,
    wire::{Batch, Event, EventKind, Feedback, FeedbackKind, Telemetry},
};
use uuid::Uuid;

const NOW: Timestamp = Timestamp(1_790_000_000_000);

fn id(text: &str) -> DeviceId {
    text.parse().unwrap()
}

fn event(number: u128) -> Event {
    Event {
        id: Uuid::from_u128(number),
        at: NOW,
        slot: None,
        bundle: None,
        kind: EventKind::AgentStarted,
        detail: format!("start {number}"),
    }
}

#[tokio::test]
async fn a_record_that_comes_twice_is_kept_once_and_counted() {
    for database in testing::databases().await {
        let (folder, store) = testing::open(&database).await;
        let batch = |numbers: &[u128]| Batch {
            device: id("cam-01"),
            records: numbers.iter().map(|n| event(*n)).collect(),
        };
        assert_eq!(store.ingest_events(&batch(&[1, 2]), NOW).await.unwrap(), 2);
        assert_eq!(store.ingest_events(&batch(&[2, 3]), NOW).await.unwrap(), 1);
        assert_eq!(store.ingest_events(&batch(&[1, 2, 3]), NOW).await.unwrap(), 0);
        let counts = store.ingest_counts().await.unwrap();
        assert_eq!((counts.events, counts.redelivered, counts.duplicate_rows), (3, 4, 0));
        store.close().await;
        let again = testing::open_again(folder.path(), &database).await;
        assert_eq!(again.ingest_counts().await.unwrap(), counts);
        let newest: Vec<Uuid> =
            again.device_events(None, &Page::default()).await.unwrap().iter().map(|e| e.id).collect();
        assert_eq!(newest, [3, 2, 1].map(Uuid::from_u128));
        // A page goes on behind the event that was seen last, whatever came meanwhile.
        let after = Page { limit: 1, after: Some(newest[0].to_string()) };
        let older = again.device_events(Some(&id("cam-01")), &after).await.unwrap();
        assert_eq!(older.iter().map(|e| e.id).collect::<Vec<_>>(), newest[1..]);
    }
}

fn feedback(number: u128, request: &str) -> Feedback {
    Feedback {
        id: Uuid::from_u128(number),
        at: NOW.plus_ms(u64::try_from(number).unwrap()),
        slot: "default".parse().unwrap(),
        version_id: ModelVersionId(Uuid::from_u128(7)),
        request_id: Some(request.to_owned()),
        kind: FeedbackKind::Click,
        value: None,
        label: None,
    }
}

#[tokio::test]
async fn what_is_said_again_under_another_id_is_counted_as_twice() {
    for (_folder, store) in stores().await {
        let batch = |device: &str, records: Vec<Feedback>| Batch { device: id(device), records };
        store.ingest_feedback(&batch("cam-01", vec![feedback(1, "a"), feedback(2, "b")]), NOW).await.unwrap();
        store.ingest_feedback(&batch("cam-02", vec![feedback(3, "a")]), NOW).await.unwrap();
        assert_eq!(store.ingest_counts().await.unwrap().duplicate_rows, 0);
        store.ingest_feedback(&batch("cam-01", vec![feedback(4, "a")]), NOW).await.unwrap();
        let again = Event { id: Uuid::from_u128(9), ..event(8) };
        let events = Batch { device: id("cam-01"), records: vec![event(8), again] };
        store.ingest_events(&events, NOW).await.unwrap();
        let window = |number: u128, slot: &str| Telemetry {
            id: Uuid::from_u128(number),
            at: NOW,
            duration_ms: 1000,
            slot: slot.parse().unwrap(),
            version_id: ModelVersionId(Uuid::from_u128(7)),
            requests: 1,
            failed: 0,
            latency_p50_us: None,
            latency_p99_us: None,
            rss_bytes: None,
        };
        let windows = vec![window(20, "a"), window(21, "b"), window(22, "a")];
        store.ingest_telemetry(&Batch { device: id("cam-01"), records: windows }, NOW).await.unwrap();
        let counts = store.ingest_counts().await.unwrap();
        assert_eq!((counts.feedback, counts.events, counts.telemetry), (4, 2, 3));
        assert_eq!((counts.duplicate_rows, counts.redelivered), (3, 0));
    }
}

#[tokio::test]
async fn of_a_device_that_tells_too_much_the_oldest_goes_and_others_keep_theirs() {
    for (_folder, store) in stores().await {
        let other = Batch { device: id("cam-02"), records: vec![event(1)] };
        store.ingest_events(&other, NOW).await.unwrap();
        let most = u128::from(EVENTS_PER_DEVICE_MAX) * 6 / 5;
        let numbers: Vec<u128> = (2..2 + most).collect();
        for part in numbers.chunks(500) {
            let records = part.iter().map(|number| event(*number)).collect();
            store.ingest_events(&Batch { device: id("cam-01"), records }, NOW).await.unwrap();
        }
        let row = sqlx::query("SELECT count(*) AS n FROM events WHERE device = 'cam-01'");
        let row = row.fetch_one(&store.readers).await.unwrap();
        let kept = Reader::new("events", &row).number("n").unwrap();
        assert!(kept >= EVENTS_PER_DEVICE_MAX && kept * 10 <= EVENTS_PER_DEVICE_MAX * 11, "{kept}");
        let newest = &store.device_events(Some(&id("cam-01")), &Page::default()).await.unwrap()[0];
        assert_eq!(newest.id, Uuid::from_u128(1 + most));
        assert_eq!(store.device_events(Some(&id("cam-02")), &Page::default()).await.unwrap().len(), 1);
        assert_eq!(u128::from(store.ingest_counts().await.unwrap().events), most + 1);
    }
}

#[tokio::test]
async fn events_are_listed_as_they_came_whatever_ids_a_device_gives_them() {
    for (_folder, store) in stores().await {
        for number in [5, 9, 1] {
            let batch = Batch { device: id("cam-01"), records: vec![event(number)] };
            store.ingest_events(&batch, NOW).await.unwrap();
        }
        let listed = store.device_events(None, &Page::default()).await.unwrap();
        let ids: Vec<u128> = listed.iter().map(|event| event.id.as_u128()).collect();
        assert_eq!(ids, [1, 9, 5]);
    }
}

#[tokio::test]
async fn a_flood_of_one_kind_of_refusal_leaves_the_others_on_record() {
    for (_folder, store) in stores().await {
        let event = |kind: &str, number: u64| SecurityEvent {
            number: 0,
            at: NOW,
            subject: format!("d{number}"),
            kind: kind.to_owned(),
            detail: String::new(),
            count: 2,
        };
        store.add_security_events(&[event("foreign_topic", 0)]).await.unwrap();
        let flood: Vec<SecurityEvent> =
            (0..SECURITY_EVENTS_PER_KIND_MAX + 50).map(|number| event("enrolment_refused", number)).collect();
        store.add_security_events(&flood).await.unwrap();
        let mut kept = Vec::new();
        for _ in 0..3 {
            let after = kept.last().map(|event: &SecurityEvent| event.number.to_string());
            let page = store.security_events(&Page { limit: 500, after }).await.unwrap();
            kept.extend(page.into_iter().take(500));
        }
        assert_eq!(kept.len() as u64, SECURITY_EVENTS_PER_KIND_MAX + 1);
        assert_eq!(kept.last().unwrap().kind, "foreign_topic");
        assert_eq!(kept[0].subject, format!("d{}", flood.len() - 1));
        assert_eq!(store.ingest_counts().await.unwrap().refused, 2 * (flood.len() as u64 + 1));
    }
}

fn window(number: u128, requests: u64) -> Telemetry {
    Telemetry {
        id: Uuid::from_u128(number),
        at: NOW.plus_ms(u64::try_from(number).unwrap() * 1000),
        duration_ms: 1000,
        slot: "default".parse().unwrap(),
        version_id: ModelVersionId(Uuid::from_u128(7)),
        requests,
        failed: 1,
        latency_p50_us: Some(100),
        latency_p99_us: Some(900),
        rss_bytes: None,
    }
}

fn said(device: &str, records: Vec<Telemetry>) -> Message {
    let device = id(device);
    let batch = Batch { device: device.clone(), records };
    Message::telemetry(&device, batch.encode().unwrap().into()).unwrap()
}

/// Requests by the roll-ups of a period: of a device, or of the fleet.
async fn requests(store: &Store, period: Period, device: Option<&str>) -> f64 {
    let from = Period::Day.start(NOW);
    let span = Span { period, from, to: from.plus_ms(2 * Period::Day.ms()), step_ms: period.ms() };
    let asked = Asked { devices: device.map(|device| vec![id(device)]), ..Asked::default() };
    let found = store.rollups(&span, &asked).await.unwrap();
    found
        .iter()
        .filter_map(|found| found.stats.get(Measure::REQUESTS))
        .map(control_core::rollup::Stat::sum)
        .sum()
}

const CAME: Came = Came { received: NOW, steady: NOW };

#[tokio::test]
async fn what_was_acknowledged_before_a_kill_is_in_records_and_roll_ups_once() {
    for database in testing::databases().await {
        let (folder, store) = testing::open(&database).await;
        let inputs = vec![
            Input::Records(said("cam-01", vec![window(1, 10), window(2, 20)])),
            Input::Records(said("cam-02", vec![window(3, 5)])),
        ];
        assert!(store.take_in(&inputs, CAME).await.unwrap().is_some());
        // The lease of a server that is dead has ended.
        sqlx::query("UPDATE leader SET expires_at = 0").execute(&store.writer).await.unwrap();
        store.close().await;
        let store = testing::open_again(folder.path(), &database).await;
        store.take_lead("a test", false, std::time::Duration::from_secs(60)).await.unwrap();
        assert_eq!(store.waiting_records().await.unwrap(), 3);
        // One of them was not acknowledged as far as its device knows, and comes again.
        let again = vec![said("cam-01", vec![window(2, 20), window(4, 1)])];
        assert_eq!(store.ingest(again, NOW).await.unwrap(), 4);
        assert_eq!(store.ingest(vec![said("cam-01", vec![window(4, 1)])], NOW).await.unwrap(), 0);
        let counts = store.ingest_counts().await.unwrap();
        assert_eq!((counts.telemetry, counts.redelivered, counts.duplicate_rows), (4, 2, 0));
        for period in Period::ALL {
            assert_eq!(requests(&store, period, None).await, 36.0, "{period:?}");
            assert_eq!(requests(&store, period, Some("cam-01")).await, 31.0, "{period:?}");
            assert_eq!(requests(&store, period, Some("cam-03")).await, 0.0, "{period:?}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_taken_apart_stays_and_holds_nothing_up() {
    for (_folder, store) in stores().await {
        for number in [1, 2] {
            let inputs = vec![Input::Records(said("cam-01", vec![window(number, 1)]))];
            store.take_in(&inputs, CAME).await.unwrap();
        }
        let damage = "UPDATE intake SET messages = $1 WHERE number = (SELECT min(number) FROM intake)";
        sqlx::query(damage).bind(vec![9u8]).execute(&store.writer).await.unwrap();
        assert_eq!(store.fold_all(&Recent::default()).await.unwrap(), 1);
        let row = sqlx::query("SELECT count(*) AS n FROM intake WHERE broken = 1");
        let row = row.fetch_one(&store.readers).await.unwrap();
        assert_eq!(Reader::new("intake", &row).number("n").unwrap(), 1);
        assert_eq!(store.waiting_records().await.unwrap(), 0);
    }
}

#[tokio::test]
async fn of_a_flood_the_roll_ups_count_every_window_and_each_comes_once() {
    let (_folder, store) = testing::open(&crate::store::Database::Folder).await;
    let devices = 60u128;
    let flood = || {
        (0..devices)
            .map(|device| {
                let windows = (0..400).map(|at| window(device * 1000 + at % 100, 1)).collect::<Vec<_>>();
                let windows = windows.into_iter().enumerate().map(|(at, mut window)| {
                    window.id = Uuid::from_u128(1 << 100 | device << 32 | at as u128);
                    window
                });
                said(&format!("cam-{device:02}"), windows.collect())
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(store.ingest(flood(), NOW).await.unwrap(), 24_000);
    assert_eq!(store.ingest(flood(), NOW).await.unwrap(), 0);
    assert_eq!(requests(&store, Period::Hour, None).await, 24_000.0);
    let row = sqlx::query("SELECT count(*) AS n FROM telemetry").fetch_one(&store.readers).await.unwrap();
    let rows = Reader::new("telemetry", &row).number("n").unwrap();
    assert!(rows < 24_000 / 10, "{rows} rows");
}

#[tokio::test]
async fn what_is_beyond_its_time_goes_and_the_rest_stays() {
    for (_folder, store) in stores().await {
        let day = Period::Day.ms();
        store.ingest(vec![said("cam-01", vec![window(1, 1)])], NOW).await.unwrap();
        let mut later = window(2, 4);
        later.at = NOW.plus_ms(day);
        store.ingest(vec![said("cam-01", vec![later])], NOW.plus_ms(day)).await.unwrap();
        let before = NOW.plus_ms(day / 2);
        while store.retire_records(before).await.unwrap() {}
        while store.retire_rollups(Period::Minute, before).await.unwrap() {}
        assert_eq!(requests(&store, Period::Minute, None).await, 4.0);
        assert_eq!(requests(&store, Period::Hour, None).await, 5.0);
        for table in ["telemetry", "telemetry_ids"] {
            let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) AS n FROM {table}"));
            let row = sqlx::query(sql).fetch_one(&store.readers).await.unwrap();
            assert_eq!(Reader::new("n", &row).number("n").unwrap(), 1, "{table}");
        }
        let kept = sqlx::query("SELECT kept FROM kept_records").fetch_one(&store.readers).await.unwrap();
        assert_eq!(Reader::new("kept_records", &kept).number("kept").unwrap(), 1);
    }
}

#[tokio::test]
async fn text_with_a_zero_in_it_is_kept_on_either_database() {
    for (_folder, store) in stores().await {
        let event = Event { detail: "a\0b".to_owned(), ..event(1) };
        let batch = Batch { device: id("cam-01"), records: vec![event] };
        assert_eq!(store.ingest_events(&batch, NOW).await.unwrap(), 1);
        let kept = &store.device_events(None, &Page::default()).await.unwrap()[0];
        assert_eq!(kept.detail, "a\u{fffd}b");
        let said = Feedback { label: Some("\0".to_owned()), ..feedback(2, "r\0") };
        let valued = Feedback { value: Some(1.5), ..feedback(3, "r") };
        let none = Feedback { value: Some(f64::NAN), ..feedback(5, "t") };
        // A number that is missing, and one that is there, by one statement in either order.
        let records = vec![said, valued, feedback(4, "s"), none];
        assert_eq!(store.ingest_feedback(&Batch { device: id("cam-01"), records }, NOW).await.unwrap(), 4);
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_for_a_while_neither_moves_roll_ups_nor_retires_anything() {
    for (_folder, store) in stores().await {
        for (number, received) in [(1, NOW), (2, Timestamp(5)), (3, NOW.plus_ms(u64::from(u32::MAX) * 100))] {
            let came = Came { received, steady: NOW.plus_ms(60_000) };
            let inputs = [Input::Records(said("cam-01", vec![window(number, 10)]))];
            store.take_in(&inputs, came).await.unwrap();
        }
        assert_eq!(store.fold_all(&Recent::default()).await.unwrap(), 3);
        let before = Timestamp(NOW.0 - Period::Day.ms());
        while store.retire_records(before).await.unwrap() {}
        for period in Period::ALL {
            while store.retire_rollups(period, before).await.unwrap() {}
            assert_eq!(requests(&store, period, Some("cam-01")).await, 30.0);
        }
        let row = sqlx::query("SELECT count(*) AS n FROM telemetry").fetch_one(&store.readers).await.unwrap();
        assert_eq!(Reader::new("telemetry", &row).number("n").unwrap(), 3);
    }
}

#[tokio::test]
async fn records_of_two_kinds_may_have_one_id() {
    for (_folder, store) in stores().await {
        let device = id("cam-01");
        let batch = Batch { device: device.clone(), records: vec![event(1)] };
        let message = Message::events(&device, batch.encode().unwrap().into()).unwrap();
        assert_eq!(
            store.ingest(vec![message.clone(), said("cam-01", vec![window(1, 1)])], NOW).await.unwrap(),
            2
        );
        assert_eq!(
            store.ingest(vec![message, said("cam-01", vec![window(1, 1), window(2, 1)])], NOW).await.unwrap(),
            1
        );
    }
}
