use super::super::{App, testing};
use crate::broker::Ingest;
use futures::future::join_all;
use shared::{
    DeviceId, ModelVersionId,
    topic::Topic,
    wire::{Batch, Telemetry},
};
use std::sync::Arc;
use uuid::Uuid;

fn window(number: u128) -> Telemetry {
    Telemetry {
        id: Uuid::from_u128(number),
        // A slot has one window that begins at a time.
        at: super::now().plus_ms(number as u64),
        duration_ms: 1000,
        slot: "default".parse().unwrap(),
        version_id: ModelVersionId(Uuid::from_u128(7)),
        requests: 3,
        failed: 0,
        latency_p50_us: None,
        latency_p99_us: None,
        rss_bytes: None,
    }
}

async fn tell(app: &App, device: &str, numbers: impl Iterator<Item = u128>) {
    let device: DeviceId = device.parse().unwrap();
    let batch = Batch { device: device.clone(), records: numbers.map(window).collect() };
    let payload = batch.encode().unwrap().into();
    app.receive(&device, &Topic::Telemetry(device.clone()), payload).await.unwrap();
}

#[tokio::test]
async fn messages_that_come_together_are_committed_together_and_each_is_kept_once() {
    let folder = tempfile::tempdir().unwrap();
    let app: Arc<App> = testing::app(folder.path(), "exit 1").await;
    let devices: Vec<String> = (0..400).map(|number| format!("cam-{number:03}")).collect();
    for _ in 0..2 {
        let messages = devices
            .iter()
            .enumerate()
            .map(|(at, device)| tell(&app, device, (0..3).map(move |number| (at * 10) as u128 + number)));
        join_all(messages).await;
    }
    let counts = app.status().await.unwrap().ingest;
    assert_eq!((counts.telemetry, counts.redelivered, counts.duplicate_rows), (1200, 1200, 0));
    let commits = app.numbers.intake.commits();
    assert!(commits < 400, "{commits} commits for 800 messages");
    assert_eq!(app.numbers.intake.waiting(), 0);
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let app = testing::app(folder.path(), "exit 1").await;
    for number in 0..20 {
        tell(&app, "cam-01", number..number + 1).await;
    }
    // Nothing is closed or taken apart in an orderly way.
    let again = testing::app(folder.path(), "exit 1").await;
    again.numbers.intake.start().await.unwrap();
    let stored = testing::wait_for(|| async {
        let stored = again.status().await.unwrap().ingest.telemetry;
        (stored == 20).then_some(stored)
    });
    assert_eq!(stored.await, 20);
}

#[tokio::test]
async fn what_does_not_reach_the_store_is_not_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let app = testing::app(folder.path(), "exit 1").await;
    app.store.close().await;
    let device: DeviceId = "cam-01".parse().unwrap();
    let batch = Batch { device: device.clone(), records: vec![window(1)] };
    let payload = batch.encode().unwrap().into();
    let refused = app.receive(&device, &Topic::Telemetry(device.clone()), payload).await.unwrap_err();
    assert_eq!(refused, crate::broker::Refused::Unavailable);
}
