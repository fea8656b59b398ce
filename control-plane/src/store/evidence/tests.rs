use super::*;
use crate::store::{
    deltas::DeviceDeltas,
    rollouts::tests::rollout,
    tests::{NOW, enrol, id, stores, version},
};
use control_core::{
    entity::Version,
    rollout::{MemberState, Plan, Status},
};
use shared::wire::{
    Batch, Event, EventKind, Feedback,
    FeedbackKind::{Click, Correction, Impression},
    Telemetry,
};
use uuid::Uuid;

/// Two devices in waves of one, a version and the one before it.
async fn world(store: &Store) -> (Rollout, Version) {
    enrol(store, "cam-01").await;
    enrol(store, "cam-02").await;
    let (old, new) = (version(store, "v1.0", "a").await, version(store, "v1.1", "b").await);
    let created = rollout(&new, &["cam-01", "cam-02"]);
    store.add_rollout(&created).await.unwrap();
    let waves: Vec<u32> = created.devices.iter().map(|member| member.wave).collect();
    assert_eq!(waves, [0, 1]);
    (created, old)
}

fn window(version: &Version, number: u128, requests: u64, failed: u64, p99_us: Option<u64>) -> Telemetry {
    Telemetry {
        id: Uuid::from_u128(number),
        at: NOW.plus_ms(u64::try_from(number).unwrap()),
        duration_ms: 60_000,
        slot: "default".parse().unwrap(),
        version_id: version.id,
        requests,
        failed,
        latency_p50_us: p99_us,
        latency_p99_us: p99_us,
        rss_bytes: None,
    }
}

fn of(version: &Version) -> Rollout {
    rollout(version, &[])
}

async fn told(store: &Store, device: &str, records: Vec<Telemetry>, at: Timestamp) {
    store.ingest_telemetry(&Batch { device: id(device), records }, at).await.unwrap();
}

fn sample(hits: u64, of: u64) -> Sample {
    Sample { hits, of }
}

#[tokio::test]
async fn windows_count_for_the_wave_of_their_device_and_for_their_version() {
    for (_folder, store) in stores().await {
        let (rollout, old) = world(&store).await;
        let new = store.version(rollout.version_id).await.unwrap().unwrap();
        let mut other_slot = window(&new, 9, 1000, 1000, Some(1));
        other_slot.slot = "other".parse().unwrap();
        let before = Timestamp(NOW.0 - 1);
        told(&store, "cam-01", vec![window(&new, 1, 500, 500, Some(9999))], before).await;
        told(
            &store,
            "cam-01",
            vec![window(&new, 2, 90, 3, Some(2000)), window(&new, 3, 10, 10, None), other_slot],
            NOW,
        )
        .await;
        told(&store, "cam-02", vec![window(&new, 4, 7, 0, Some(2001))], NOW).await;
        told(
            &store,
            "cam-02",
            vec![window(&old, 5, 200, 2, Some(50)), window(&new, 6, u64::MAX, u64::MAX, None)],
            before,
        )
        .await;
        let errors = Gate { max: None, worse_by_max: Some(0.1), ..Gate::new(Signal::ErrorRate, 0.1) };
        let found = store.telemetry_evidence(&rollout, &errors).await.unwrap();
        assert_eq!(found.waves, [(0, sample(13, 100)), (1, sample(0, 7))].into());
        assert_eq!(found.before, sample(2, 200));
        let slow = Gate { p99_us_max: Some(2000), ..Gate::new(Signal::Latency, 0.1) };
        let found = store.telemetry_evidence(&rollout, &slow).await.unwrap();
        assert_eq!(
            found,
            Stored { waves: [(0, sample(0, 1)), (1, sample(1, 1))].into(), before: sample(0, 0) }
        );
        // A device that claims what no device can do is no reason to fail.
        told(&store, "cam-02", vec![window(&new, 7, u64::MAX, u64::MAX, None)], NOW).await;
        let found = store.telemetry_evidence(&rollout, &errors).await.unwrap();
        assert_eq!(found.waves[&1], sample(REQUESTS_MAX, REQUESTS_MAX + 7));
        assert!(store.telemetry_evidence(&of(&old), &errors).await.unwrap().waves.is_empty());
    }
}

#[tokio::test]
async fn an_impression_counts_once_and_only_when_it_had_its_time() {
    for (_folder, store) in stores().await {
        let (rollout, old) = world(&store).await;
        let feedback = |number: u128, version_id, request: &str, kind| Feedback {
            id: Uuid::from_u128(number),
            at: NOW,
            slot: "default".parse().unwrap(),
            version_id,
            request_id: Some(request.to_owned()),
            kind,
            value: None,
            label: None,
        };
        let (new, old) = (rollout.version_id, old.id);
        let records = vec![
            feedback(1, new, "a", Impression),
            feedback(2, new, "a", Impression),
            feedback(3, new, "a", Click),
            feedback(4, new, "a", Click),
            feedback(5, new, "b", Impression),
            feedback(6, new, "b", Correction),
            feedback(7, new, "z", Click),
            feedback(8, old, "c", Impression),
            feedback(9, old, "c", Click),
            feedback(10, old, "d", Impression),
        ];
        store.ingest_feedback(&Batch { device: id("cam-01"), records }, NOW).await.unwrap();
        let late = vec![feedback(11, new, "e", Impression)];
        store.ingest_feedback(&Batch { device: id("cam-01"), records: late }, NOW.plus_ms(1)).await.unwrap();
        let ctr =
            Gate { min: None, worse_by_max: Some(0.1), settle_ms: Some(1000), ..Gate::new(Signal::Ctr, 0.1) };
        let settled = NOW.plus_ms(1000);
        let found = store.feedback_evidence(&rollout, &ctr, settled).await.unwrap();
        assert_eq!(found, Stored { waves: [(0, sample(1, 2))].into(), before: sample(1, 2) });
        let found = store.feedback_evidence(&rollout, &ctr, settled.plus_ms(1)).await.unwrap();
        assert_eq!(found.waves[&0], sample(1, 3));
        let drift = Gate { settle_ms: Some(0), ..Gate::new(Signal::Drift, 0.1) };
        let found = store.feedback_evidence(&rollout, &drift, NOW).await.unwrap();
        assert_eq!(found, Stored { waves: [(0, sample(1, 2))].into(), before: sample(0, 0) });
    }
}

#[tokio::test]
async fn starts_count_from_the_commit_of_their_device() {
    for (_folder, store) in stores().await {
        let (rollout, _) = world(&store).await;
        let start = |number: u128| Event {
            id: Uuid::from_u128(number),
            at: NOW,
            slot: None,
            bundle: None,
            kind: EventKind::AgentStarted,
            detail: format!("start {number}"),
        };
        let mut members = rollout.devices.clone();
        members[0].state = MemberState::Committed;
        members[0].finished_at = Some(NOW.plus_ms(10));
        let status = Status { reason: "on its way".to_owned(), ..Status::default() };
        let plan = Plan { status, members, actions: Vec::new(), notes: Vec::new(), wake_at: None };
        let new = store.version(rollout.version_id).await.unwrap().unwrap();
        let assignment = new.assignment(rollout.slot.clone(), None, rollout.trial.clone());
        store.execute(&rollout, &plan, &assignment, &DeviceDeltas::new(), 4096, NOW).await.unwrap();
        for (device, number, at) in
            [("cam-01", 1, 9), ("cam-01", 2, 10), ("cam-01", 3, 50), ("cam-02", 4, 50)]
        {
            let batch = Batch { device: id(device), records: vec![start(number)] };
            store.ingest_events(&batch, NOW.plus_ms(at)).await.unwrap();
        }
        assert_eq!(store.agent_starts(rollout.id).await.unwrap(), [(id("cam-01"), 2)].into());
    }
}
