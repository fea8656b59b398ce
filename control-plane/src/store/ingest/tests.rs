use super::*;
use crate::store::testing::{self, stores};
use shared::{
    ModelVersionId,
    wire::{EventKind, FeedbackKind},
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
