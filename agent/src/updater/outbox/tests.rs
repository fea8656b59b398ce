use super::*;
use crate::link::{NotSent, Receipt};
use shared::wire::{Batch, EventKind};
use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

/// Keeps what is published.
#[derive(Default)]
struct Wire {
    tokens: AtomicU64,
    sent: Mutex<Vec<(Token, Vec<u8>)>>,
}

impl Link for Wire {
    fn publish(&self, _topic: String, payload: Vec<u8>, _retain: bool) -> Result<Token, NotSent> {
        let token = Token(self.tokens.fetch_add(1, Ordering::Relaxed));
        self.sent.lock().unwrap().push((token, payload));
        Ok(token)
    }
    fn subscribe(&self, _filter: String) {}
    fn unsubscribe(&self, _filter: String) {}
    fn acknowledge(&self, _receipt: Receipt) {}
    fn close(&self) {}
}

fn device() -> DeviceId {
    "cam-01".parse().unwrap()
}

fn event(detail: &str) -> Event {
    let (id, kind) = (uuid::Uuid::now_v7(), EventKind::AgentStarted);
    Event { id, at: Timestamp(1), slot: None, bundle: None, kind, detail: detail.to_owned() }
}

#[test]
fn a_record_that_the_server_does_not_understand_is_dropped_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("s"), 1000).unwrap();
    let details = ["0", "1", "2", "3", "4", "bad", "6", "7", "8", "bad"];
    store.put(&details.map(event)).unwrap();
    let (wire, mut sender) = (Wire::default(), Sender::new(device(), 1));
    let (mut now, mut delivered, mut refusals) = (Timestamp(0), Vec::new(), 0);
    while store.depth().total() > 0 {
        assert!(refusals < 20, "never gets through");
        sender.send(&store, &wire, now);
        let Some((token, payload)) = wire.sent.lock().unwrap().pop() else {
            now = sender.due().unwrap();
            continue;
        };
        let batch = Batch::<Event>::decode(&payload, &device()).unwrap();
        let details = batch.records.into_iter().map(|event| event.detail);
        let details: Vec<_> = details.collect();
        let result = if details.iter().any(|detail| detail == "bad") {
            refusals += 1;
            Err(Refused::Malformed("PayloadFormatInvalid".to_owned()))
        } else {
            delivered.extend(details);
            Ok(())
        };
        sender.published(&store, token, result, now);
    }
    assert_eq!(delivered, ["0", "1", "2", "3", "4", "6", "7", "8"]);
    assert_eq!(store.dropped_total(), 2);
}

#[test]
fn a_broker_that_is_busy_loses_no_record() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("s"), 1000).unwrap();
    store.put(&[event("only")]).unwrap();
    let (wire, mut sender) = (Wire::default(), Sender::new(device(), 1));
    let mut now = Timestamp(0);
    for _ in 0..30 {
        sender.send(&store, &wire, now);
        let (token, _) = wire.sent.lock().unwrap().pop().unwrap();
        sender.published(&store, token, Err(Refused::Busy("QuotaExceeded".to_owned())), now);
        now = sender.due().unwrap();
    }
    assert_eq!((store.depth().event, store.dropped_total()), (1, 0));
}
