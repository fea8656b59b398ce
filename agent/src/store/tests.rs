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
    let outbox = store.database().as_ref().unwrap().outbox.clone();
    outbox.insert([b'e'; 17], b"\xff\xff no cbor").unwrap();
    assert_eq!(details(&store.outgoing::<Event>(&device()).unwrap().unwrap()), ["good"]);
    assert!(!outbox.contains_key([b'e'; 17]).unwrap());
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

fn damage_state(store: &Store) {
    let state = store.database().as_ref().unwrap().state.clone();
    state.insert(database::MACHINE_KEY, b"{").unwrap();
}

/// A state that is not the default one.
fn saved() -> Saved {
    let slot = agent_core::update::SlotSaved::empty("default".parse().unwrap());
    Saved { slots: vec![slot], ..Saved::default() }
}

#[test]
fn a_damaged_state_is_an_error_that_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("s"), 10).unwrap();
    damage_state(&store);
    let message = store.saved().unwrap_err().to_string();
    assert!(message.contains("device state") && message.contains("store.sled"), "{message}");
}

#[test]
fn a_state_that_is_damaged_in_the_database_comes_from_the_state_file() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Store::open(&folder.path().join("s"), 10).unwrap();
    let store = open();
    store.persist(&saved(), &[]).unwrap();
    damage_state(&store);
    assert_eq!(store.saved().unwrap(), saved());
    store.flush().unwrap();
    drop(store);
    let store = open();
    std::fs::remove_file(folder.path().join("s.state.json")).unwrap();
    assert_eq!(store.saved().unwrap(), saved(), "opening did not repair the database");
}

#[test]
fn without_its_database_a_store_knows_the_state_and_hands_it_over_when_it_opens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sled");
    let away = folder.path().join("away");
    let store = Store::open(&path, 10).unwrap();
    store.persist(&saved(), &[event("before")]).unwrap();
    drop(store);
    std::fs::rename(&path, &away).unwrap();
    std::fs::write(&path, "in the way").unwrap();

    let store = Store::open(&path, 10).unwrap();
    assert_eq!(store.saved().unwrap(), saved());
    assert!(store.trouble().unwrap().contains("store.sled"), "{:?}", store.trouble());
    assert!(matches!(store.put(&[event("lost")]), Err(Error::Closed { .. })));
    let meanwhile = event("meanwhile");
    store.persist(&Saved::default(), std::slice::from_ref(&meanwhile)).unwrap();
    drop(store);

    // Another start without it: nothing is forgotten.
    let store = Store::open(&path, 10).unwrap();
    assert_eq!(store.saved().unwrap(), Saved::default());
    std::fs::remove_file(&path).unwrap();
    std::fs::rename(&away, &path).unwrap();
    store.persist(&saved(), &[event("after")]).unwrap();
    assert_eq!(store.trouble(), None);
    let outgoing = store.outgoing::<Event>(&device()).unwrap().unwrap();
    assert_eq!(details(&outgoing), ["before", "meanwhile", "after"]);
    assert_eq!(store.depth().event, 3);
    drop(store);
    assert_eq!(Store::open(&path, 10).unwrap().saved().unwrap(), saved());
}

#[test]
fn without_a_database_and_a_state_file_there_is_no_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sled");
    std::fs::write(&path, "in the way").unwrap();
    let message = Store::open(&path, 10).unwrap_err().to_string();
    assert!(message.contains("store.sled") && message.contains("move the folder away"), "{message}");
}

#[test]
fn a_database_that_missed_the_last_state_gets_it_from_the_state_file() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Store::open(&folder.path().join("s"), 10).unwrap();
    let store = open();
    store.persist(&Saved::default(), &[event("a")]).unwrap();
    // The power goes between the two writes.
    let entry = Entry { sequence: 2, saved: saved(), events: vec![event("b")] };
    store.journal.write(&entry).unwrap();
    drop(store);
    let store = open();
    assert_eq!(store.saved().unwrap(), saved());
    assert_eq!(details(&store.outgoing::<Event>(&device()).unwrap().unwrap()), ["a", "b"]);
    store.persist(&Saved::default(), &[]).unwrap();
    drop(store);
    assert_eq!(open().saved().unwrap(), Saved::default());
}

#[test]
fn a_snapshot_that_was_half_written_does_not_keep_the_database_from_opening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sled");
    let open = || Store::open(&path, 10).unwrap();
    let store = open();
    store.persist(&saved(), &[event("a")]).unwrap();
    drop(store);
    for bytes in [&b""[..], b"half of a snapshot"] {
        std::fs::write(path.join("snap.7FFFFFFFFFFFFFFF.generating"), bytes).unwrap();
        let store = open();
        assert_eq!(store.trouble(), None);
        assert_eq!(details(&store.outgoing::<Event>(&device()).unwrap().unwrap()), ["a"]);
    }
}

#[test]
fn a_persist_that_is_repeated_writes_its_events_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("s"), 10).unwrap();
    let events = [event("a"), event("b")];
    store.persist(&saved(), &events).unwrap();
    store.persist(&saved(), &events).unwrap();
    assert_eq!(store.depth().event, 2);
}

#[test]
fn a_persist_with_many_events_keeps_the_box_within_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("s"), 10).unwrap();
    for _ in 0..8 {
        store.put(&[telemetry()]).unwrap();
    }
    let events: Vec<_> = (0..6).map(|_| event("x")).collect();
    store.persist(&saved(), &events).unwrap();
    assert_eq!(store.depth(), Depth { telemetry: 4, feedback: 0, event: 6 });
    assert_eq!(store.dropped_total(), 4);
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

#[test]
fn who_asks_how_much_waits_is_answered_while_the_disk_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("s"), 1000).unwrap();
    store.put(&[event("a")]).unwrap();
    std::thread::scope(|scope| {
        let (begun, has_begun) = std::sync::mpsc::channel();
        let (end, may_end) = std::sync::mpsc::channel();
        let writing = scope.spawn(|| {
            let (begun, may_end) = (begun, may_end);
            store.change(|depth| {
                depth.event += 1;
                begun.send(()).unwrap();
                may_end.recv().unwrap();
                Ok(())
            })
        });
        has_begun.recv().unwrap();
        assert_eq!((store.depth().event, store.trouble()), (1, None));
        end.send(()).unwrap();
        writing.join().unwrap().unwrap();
    });
    assert_eq!(store.depth().event, 2);
}
