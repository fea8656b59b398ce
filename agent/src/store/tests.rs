use super::*;
use shared::{Timestamp, wire::EventKind};
use uuid::Uuid;

fn event(detail: &str) -> Event {
    Event {
        id: Uuid::now_v7(),
        at: Timestamp(1),
        slot: None,
        bundle: None,
        kind: EventKind::AgentStarted,
        detail: detail.to_owned(),
    }
}

fn telemetry() -> shared::wire::Telemetry {
    shared::wire::Telemetry {
        id: Uuid::now_v7(),
        at: Timestamp(1),
        duration_ms: 1,
        slot: "default".parse().unwrap(),
        version_id: shared::ModelVersionId(Uuid::nil()),
        requests: 1,
        failed: 0,
        latency_p50_us: None,
        latency_p99_us: None,
        rss_bytes: None,
    }
}

fn device() -> DeviceId {
    "cam-01".parse().unwrap()
}

fn details(outgoing: &Outgoing) -> Vec<String> {
    let batch = Batch::<Event>::decode(&outgoing.payload, &device()).unwrap();
    batch.records.into_iter().map(|event| event.detail).collect()
}

#[test]
fn records_survive_reopening_in_their_order_and_go_when_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Store::open(&folder.path().join("s"), 1000).unwrap();
    let store = open();
    store.put(&[event("a"), event("b")]).unwrap();
    store.persist(&Saved::default(), &[event("c")]).unwrap();
    drop(store);

    let store = open();
    assert_eq!(store.depth().event, 3);
    let outgoing = store.outgoing::<Event>(&device()).unwrap().unwrap();
    assert_eq!(details(&outgoing), ["a", "b", "c"]);
    store.put(&[event("d")]).unwrap();
    store.delivered(&outgoing).unwrap();
    drop(store);

    let store = open();
    let outgoing = store.outgoing::<Event>(&device()).unwrap().unwrap();
    assert_eq!(details(&outgoing), ["d"]);
    assert!(store.outgoing::<shared::wire::Feedback>(&device()).unwrap().is_none());
}

#[test]
fn a_full_box_drops_the_oldest_telemetry_and_counts_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("s"), 10).unwrap();
    let oldest = telemetry();
    store.put(&[oldest.clone(), telemetry()]).unwrap();
    for index in 0..9 {
        store.put(&[event(&index.to_string())]).unwrap();
    }
    assert_eq!(store.depth(), Depth { telemetry: 1, feedback: 0, event: 9 });
    assert_eq!((store.stored_total(), store.dropped_total()), (11, 1));
    let outgoing = store.outgoing::<shared::wire::Telemetry>(&device()).unwrap().unwrap();
    let batch = Batch::<shared::wire::Telemetry>::decode(&outgoing.payload, &device()).unwrap();
    assert_ne!(batch.records[0].id, oldest.id);
}

#[test]
fn a_damaged_record_does_not_stop_the_box() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("s"), 10).unwrap();
    store.put(&[event("good")]).unwrap();
    store.outbox.insert([b'e'; 17], b"\xff\xff no cbor").unwrap();
    assert_eq!(details(&store.outgoing::<Event>(&device()).unwrap().unwrap()), ["good"]);
    assert!(!store.outbox.contains_key([b'e'; 17]).unwrap());
}

#[test]
fn a_batch_keeps_the_limits_of_the_wire() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("s"), 10_000).unwrap();
    let events: Vec<_> = (0..700).map(|_| event(&"x".repeat(300))).collect();
    store.put(&events).unwrap();
    let mut seen = 0;
    while let Some(outgoing) = store.outgoing::<Event>(&device()).unwrap() {
        seen += details(&outgoing).len();
        store.delivered(&outgoing).unwrap();
    }
    assert_eq!(seen, 700);
    assert_eq!(store.depth().total(), 0);
}

#[test]
fn a_damaged_state_is_an_error_that_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("s"), 10).unwrap();
    store.state.insert(MACHINE_KEY, b"{").unwrap();
    let message = store.saved().unwrap_err().to_string();
    assert!(message.contains("device state") && message.contains("store.sled"), "{message}");
}

#[test]
fn chunks_of_another_size_are_not_taken_for_these() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("s"), 10).unwrap();
    let digest = Digest::of(b"x");
    let mut chunks = ChunkSet::empty(9);
    chunks.insert(3);
    store.set_chunks(digest, 1024, &chunks).unwrap();
    assert_eq!(store.chunks(digest, 1024, 9).unwrap(), Some(chunks));
    assert_eq!(store.chunks(digest, 2048, 9).unwrap(), None);
    assert_eq!(store.chunks(digest, 1024, 900).unwrap(), None);
}
