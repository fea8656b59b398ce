use super::*;
use crate::store::tokens::{Issued, TokenRefused};
use control_core::{
    entity::{Device, Rollout, Selector, Token, Version, VersionState},
    rollout::{Action, MemberState, Plan, Policy, State, Status, divide},
};
use shared::{
    DeviceId, Digest, ModelVersionId, RolloutId,
    wire::{Assignment, Batch, Event, EventKind, TrialPolicy},
};
use uuid::Uuid;

const NOW: Timestamp = Timestamp(1_790_000_000_000);

async fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await.unwrap();
    (folder, store)
}

fn id(text: &str) -> DeviceId {
    text.parse().unwrap()
}

async fn add_token(store: &Store, secret: &str, device: Option<&str>) {
    let token = Token {
        id: Uuid::now_v7(),
        device: device.map(id),
        created_at: NOW,
        expires_at: NOW.plus_ms(1000),
        used_at: None,
        used_by: None,
    };
    store.add_token(&token, &Digest::of(secret.as_bytes())).await.unwrap();
}

fn issued(device: &str, serial: &str) -> Issued {
    Issued {
        device: id(device),
        board: "x86-64".parse().unwrap(),
        agent_version: "0.1.0".to_owned(),
        serial: serial.to_owned(),
        expires_at: NOW.plus_ms(10_000),
    }
}

async fn enrol(store: &Store, device: &str) {
    let secret = format!("secret of {device}");
    add_token(store, &secret, None).await;
    let serial = format!("5e{device}");
    store.enrol(&Digest::of(secret.as_bytes()), &issued(device, &serial), NOW).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_token_enrols_one_device_once() {
    let (_folder, store) = store().await;
    add_token(&store, "a", None).await;
    let hash = Digest::of(b"a");
    assert!(store.usable_token(&hash, NOW).await.unwrap().is_ok());
    assert_eq!(store.enrol(&hash, &issued("cam-01", "aa"), NOW).await.unwrap(), Ok(()));
    assert_eq!(store.usable_token(&hash, NOW).await.unwrap().unwrap_err(), TokenRefused::Used);
    assert_eq!(store.enrol(&hash, &issued("cam-02", "bb"), NOW).await.unwrap(), Err(TokenRefused::Used));
    assert!(store.device(&id("cam-02")).await.unwrap().is_none());
    assert_eq!(store.tokens(Page::default()).await.unwrap()[0].used_by, Some(id("cam-01")));
}

#[tokio::test]
async fn of_two_that_use_a_token_at_once_one_wins() {
    let (_folder, store) = store().await;
    add_token(&store, "a", None).await;
    let hash = Digest::of(b"a");
    let (one, two) = (issued("cam-01", "aa"), issued("cam-02", "bb"));
    let (first, second) = tokio::join!(store.enrol(&hash, &one, NOW), store.enrol(&hash, &two, NOW));
    assert_eq!([first.unwrap(), second.unwrap()].iter().filter(|result| result.is_ok()).count(), 1);
    assert_eq!(store.devices(Page::default()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn expired_and_unknown_tokens_are_refused() {
    let (_folder, store) = store().await;
    add_token(&store, "a", None).await;
    let late = NOW.plus_ms(1000);
    assert_eq!(
        store.usable_token(&Digest::of(b"a"), late).await.unwrap().unwrap_err(),
        TokenRefused::Expired
    );
    assert!(store.enrol(&Digest::of(b"a"), &issued("cam-01", "aa"), late).await.unwrap().is_err());
    assert_eq!(store.usable_token(&Digest::of(b"b"), NOW).await.unwrap().unwrap_err(), TokenRefused::Unknown);
}

#[tokio::test]
async fn only_issued_certificates_of_the_device_itself_are_good_until_revoked() {
    let (_folder, store) = store().await;
    enrol(&store, "cam-01").await;
    enrol(&store, "cam-02").await;
    assert!(store.certificate_is_good(&id("cam-01"), "5ecam-01").await.unwrap());
    assert!(!store.certificate_is_good(&id("cam-02"), "5ecam-01").await.unwrap());
    assert!(!store.certificate_is_good(&id("cam-01"), "77").await.unwrap());
    store.revoke_device(&id("cam-01"), NOW).await.unwrap();
    assert!(!store.certificate_is_good(&id("cam-01"), "5ecam-01").await.unwrap());
    add_token(&store, "again", Some("cam-01")).await;
    let again = store.enrol(&Digest::of(b"again"), &issued("cam-01", "cc"), NOW).await.unwrap();
    assert_eq!(again, Err(TokenRefused::Revoked));
    assert!(
        store.usable_token(&Digest::of(b"again"), NOW).await.unwrap().is_ok(),
        "a refusal uses nothing up"
    );
}

fn event(number: u128) -> Event {
    Event {
        id: Uuid::from_u128(number),
        at: NOW,
        slot: None,
        bundle: None,
        kind: EventKind::AgentStarted,
        detail: "up".to_owned(),
    }
}

#[tokio::test]
async fn a_record_that_comes_twice_is_kept_once_and_counted() {
    let (folder, store) = store().await;
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
    let again = Store::open(folder.path()).await.unwrap();
    assert_eq!(again.ingest_counts().await.unwrap(), counts);
    let newest: Vec<Uuid> =
        again.device_events(None, Page::default()).await.unwrap().iter().map(|e| e.id).collect();
    assert_eq!(newest, [3, 2, 1].map(Uuid::from_u128));
}

#[tokio::test]
async fn pages_go_through_a_list_without_gap_or_overlap() {
    let (_folder, store) = store().await;
    for number in 0..7 {
        enrol(&store, &format!("d{number}")).await;
    }
    let mut seen = Vec::new();
    for offset in [0, 3, 6] {
        let page = store.devices(Page { limit: 3, offset }).await.unwrap();
        seen.extend(page.into_iter().take(3).map(|device| device.id.to_string()));
    }
    assert_eq!(seen, ["d0", "d1", "d2", "d3", "d4", "d5", "d6"]);
}

async fn version(store: &Store, label: &str, content: &str) -> Version {
    let version = Version {
        id: ModelVersionId(Uuid::now_v7()),
        name: format!("m@{label}"),
        model: "m".parse().unwrap(),
        version: label.parse().unwrap(),
        board: "x86-64".parse().unwrap(),
        dataset: None,
        state: VersionState::Draft,
        bundle: Digest::of(content.as_bytes()),
        bundle_bytes: 100,
        size_bytes: 1000,
        job: None,
        parent: None,
        check_skipped: false,
        report: None,
        files: vec![shared::manifest::FileEntry {
            name: "model.onnx".to_owned(),
            digest: Digest::of(label.as_bytes()),
            size_bytes: 1000,
        }],
        created_at: NOW,
    };
    store.add_version(&version).await.unwrap();
    version
}

#[tokio::test]
async fn bundles_and_their_files_are_published_and_nothing_else() {
    let (_folder, store) = store().await;
    let version = version(&store, "v1.0", "bundle").await;
    assert!(store.is_published(&version.bundle).await.unwrap());
    assert!(store.is_published(&Digest::of(b"v1.0")).await.unwrap());
    assert!(!store.is_published(&Digest::of(b"secret")).await.unwrap());
    assert!(matches!(store.add_version(&version).await, Err(Error::Conflict(_))));
}

#[tokio::test]
async fn one_version_of_a_model_is_live() {
    let (_folder, store) = store().await;
    let (first, second) = (version(&store, "v1.0", "a").await, version(&store, "v1.1", "b").await);
    store.set_version_state(first.id, VersionState::Live).await.unwrap();
    store.set_version_state(second.id, VersionState::Live).await.unwrap();
    let state = |v: Option<Version>| v.unwrap().state;
    assert_eq!(state(store.version(first.id).await.unwrap()), VersionState::Retired);
    assert_eq!(state(store.version(second.id).await.unwrap()), VersionState::Live);
}

fn rollout(version: &Version, devices: &[&str]) -> Rollout {
    let policy = Policy::default();
    Rollout {
        id: RolloutId(Uuid::now_v7()),
        version: version.name.clone(),
        version_id: version.id,
        model: version.model.clone(),
        slot: "default".parse().unwrap(),
        bundle: version.bundle,
        selector: Selector::default(),
        devices: divide(&policy, devices.iter().map(|device| id(device)).collect()),
        policy,
        trial: TrialPolicy::default(),
        status: Status::default(),
        history: Vec::new(),
        bytes_published: 0,
        created_at: NOW,
        finished_at: None,
    }
}

fn assignment(rollout: &Rollout, version: &Version) -> Assignment {
    Assignment {
        slot: rollout.slot.clone(),
        model: version.model.clone(),
        version: version.version,
        version_id: version.id,
        bundle: version.bundle,
        bundle_bytes: version.bundle_bytes,
        rollout: Some(rollout.id),
        trial: rollout.trial.clone(),
    }
}

fn plan(rollout: &Rollout, state: State, action: Action) -> Plan {
    let mut members = rollout.devices.clone();
    members[0].state = if state == State::Running { MemberState::Assigned } else { MemberState::Failed };
    Plan {
        status: Status { state, reason: format!("{state:?}"), ..rollout.status.clone() },
        members,
        actions: vec![action],
        notes: vec!["a note".to_owned()],
        wake_at: None,
    }
}

#[tokio::test]
async fn a_stopped_rollout_gives_back_what_was_in_the_slot() {
    let (_folder, store) = store().await;
    enrol(&store, "cam-01").await;
    let mut before: Option<Device> = None;
    for (label, content, end) in [("v1.0", "a", State::Completed), ("v1.1", "b", State::Stopped)] {
        let version = version(&store, label, content).await;
        let created = rollout(&version, &["cam-01"]);
        store.add_rollout(&created).await.unwrap();
        let read = store.rollout(created.id).await.unwrap().unwrap();
        let assignment = assignment(&read, &version);
        let generation = before.as_ref().map_or(0, |device| device.generation) + 1;
        let assign = plan(&read, State::Running, Action::Assign { device: id("cam-01"), generation });
        let changed = store.execute(&read, &assign, &assignment, 4096, NOW).await.unwrap();
        assert_eq!((changed[0].generation, changed[0].chunk_bytes), (generation, 4096));
        assert_eq!(changed[0].assignments, std::slice::from_ref(&assignment));
        assert!(matches!(
            store.execute(&read, &assign, &assignment, 4096, NOW).await,
            Err(Error::Conflict(_))
        ));
        let read = store.rollout(created.id).await.unwrap().unwrap();
        let mut finish =
            plan(&read, end, Action::Restore { device: id("cam-01"), generation: generation + 1 });
        if end == State::Completed {
            finish.actions.clear();
        }
        store.execute(&read, &finish, &assignment, 4096, NOW).await.unwrap();
        let device = store.device(&id("cam-01")).await.unwrap().unwrap();
        if let Some(before) = &before {
            assert_eq!(device.assignments, before.assignments);
            assert_eq!(device.generation, generation + 1);
        }
        before = Some(device);
    }
    assert!(store.open_rollouts().await.unwrap().is_empty());
    assert_eq!(store.rollouts(Page::default()).await.unwrap()[0].history.len(), 3);
}

#[tokio::test]
async fn two_open_rollouts_for_one_slot_of_a_device_are_a_conflict() {
    let (_folder, store) = store().await;
    enrol(&store, "cam-01").await;
    enrol(&store, "cam-02").await;
    let version = version(&store, "v1.0", "a").await;
    store.add_rollout(&rollout(&version, &["cam-01"])).await.unwrap();
    let other = store.add_rollout(&rollout(&version, &["cam-01", "cam-02"])).await;
    assert!(matches!(other, Err(Error::Conflict(_))));
    store.add_rollout(&rollout(&version, &["cam-02"])).await.unwrap();
    assert_eq!(store.open_rollouts().await.unwrap().len(), 2);
}

#[tokio::test]
async fn counts_of_published_bytes_add_up() {
    let (_folder, store) = store().await;
    enrol(&store, "cam-01").await;
    let version = version(&store, "v1.0", "a").await;
    let rollout = rollout(&version, &["cam-01"]);
    store.add_rollout(&rollout).await.unwrap();
    store.add_bytes_published(&[(rollout.id, 100)]).await.unwrap();
    store.add_bytes_published(&[(rollout.id, 23)]).await.unwrap();
    assert_eq!(store.rollout(rollout.id).await.unwrap().unwrap().bytes_published, 123);
}

#[tokio::test]
async fn what_the_store_does_not_understand_is_named() {
    let (_folder, store) = store().await;
    enrol(&store, "cam-01").await;
    sqlx::query("UPDATE devices SET labels = 'no'").execute(&store.writer).await.unwrap();
    let error = store.device(&id("cam-01")).await.unwrap_err().to_string();
    assert!(error.starts_with("devices.labels holds what is no labels"), "{error}");
}
