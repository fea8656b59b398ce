//! Whole updates, as the fleet sees them.

use super::{
    world::{Keys, Running, TestLink, device, start},
    *,
};

#[tokio::test(flavor = "multi_thread")]
async fn installs_what_the_director_signed_and_tells_each_step_once() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let running = start(folder.path(), link, &keys, true);
    let wish = keys.wish(&running.link, 1, 0, GOLDEN);
    running.link.message(&Topic::Desired(device()), wish);
    assert_eq!(running.until_outcome(1).await, Outcome::Committed);
    assert_eq!(running.answers().as_deref(), Some("v1.0"));
    running.until("an empty outbox", |running| running.store.depth().total() == 0).await;
    let kinds: Vec<_> = running.link.events().iter().map(|event| event.kind).collect();
    assert_eq!(
        kinds,
        [
            EventKind::AgentStarted,
            EventKind::TrustUpdated,
            EventKind::DownloadStarted,
            EventKind::BundleStaged,
            EventKind::VersionActivated,
            EventKind::TrialPassed
        ]
    );
    assert_eq!(running.shared.reported(), running.link.reported());
    let link = running.stop().await;
    let sent = link.sent.lock().unwrap();
    let presence = sent.iter().filter(|(topic, _)| matches!(topic, Topic::Presence(_)));
    let presence: Vec<Presence> =
        presence.map(|(_, payload)| wire::decode_json("p", payload).unwrap()).collect();
    assert_eq!(presence, [Presence { online: true }, Presence { online: false }]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_that_the_director_did_not_sign_is_refused_and_said_once() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let running = start(folder.path(), link, &keys, true);
    let forged = Keys::new().wish(&running.link, 1, 0, GOLDEN);
    for _ in 0..3 {
        running.link.message(&Topic::Desired(device()), forged.clone());
    }
    running.link.message(&Topic::Desired(device()), b"{".to_vec());
    let refused = |running: &Running| {
        running.link.events().iter().filter(|event| event.kind == EventKind::DesiredRefused).count()
    };
    running.until("two refusals", |running| refused(running) == 2).await;
    assert_eq!(running.link.reported().unwrap().generation, 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_flipped_byte_is_refused_and_the_version_before_goes_on() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let running = start(folder.path(), link, &keys, true);
    let wish = keys.wish(&running.link, 1, 0, GOLDEN);
    running.link.message(&Topic::Desired(device()), wish);
    running.until_outcome(1).await;
    // The second bundle has another golden file, one byte of which is not what was signed.
    let golden = runtime::Golden::read(GOLDEN).unwrap();
    let other =
        runtime::Golden::new(vec![1, 8, 8], golden.input()[..64].to_vec(), golden.output()[..3].to_vec());
    let other = other.unwrap().write().unwrap();
    let wish = keys.wish(&running.link, 2, 1, &other);
    running.link.cloud.lock().unwrap().blobs.get_mut(&Digest::of(&other)).unwrap()[40] ^= 1;
    running.link.message(&Topic::Desired(device()), wish);
    let outcome = running.until_outcome(2).await;
    assert!(matches!(outcome, Outcome::Refused { reason: Refusal::DigestMismatch, .. }), "{outcome:?}");
    assert_eq!(running.answers().as_deref(), Some("v1.0"));
    let left = std::fs::read_dir(folder.path().join("blobs")).unwrap();
    let names: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|name| !name.ends_with("partial")), "{names:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_golden_outputs_are_refused_before_activation() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let running = start(folder.path(), link, &keys, true);
    let golden = runtime::Golden::read(GOLDEN).unwrap();
    let mut output = golden.output().to_vec();
    output[..3].rotate_left(1);
    let wrong =
        runtime::Golden::new(vec![1, 8, 8], golden.input().to_vec(), output).unwrap().write().unwrap();
    let wish = keys.wish(&running.link, 1, 0, &wrong);
    running.link.message(&Topic::Desired(device()), wish);
    let outcome = running.until_outcome(1).await;
    assert!(matches!(outcome, Outcome::Refused { reason: Refusal::GoldenMismatch, .. }), "{outcome:?}");
    assert_eq!(running.answers(), None);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn serves_the_last_good_version_before_any_network() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let running = start(folder.path(), link, &keys, true);
    let wish = keys.wish(&running.link, 1, 0, GOLDEN);
    running.link.message(&Topic::Desired(device()), wish);
    running.until_outcome(1).await;
    let link = running.stop().await;

    let running = start(folder.path(), link, &keys, false);
    running.until("an answer", |running| running.answers().is_some()).await;
    assert_eq!(running.answers().as_deref(), Some("v1.0"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_refuses_stays_in_the_outbox_and_goes_later() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    link.cloud.lock().unwrap().refuse_batches = true;
    let running = start(folder.path(), link, &keys, true);
    running.until("a try", |running| !running.link.events().is_empty()).await;
    assert_eq!(running.store.depth().event, 1);
    running.link.cloud.lock().unwrap().refuse_batches = false;
    running.until("delivery", |running| running.store.depth().total() == 0).await;
    let ids: BTreeSet<_> = running.link.events().iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), 1, "sent again under the same id");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_messages_change_nothing() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let running = start(folder.path(), link, &keys, true);
    let stranger: DeviceId = "cam-02".parse().unwrap();
    let (digest, index) = (Digest::of(b"x"), u32::MAX);
    for topic in [
        Topic::BlobChunk { device: device(), digest, index },
        Topic::BlobBroadcast { digest, index: 0 },
        Topic::Desired(stranger),
        Topic::Desired(device()),
        Topic::Reported(device()),
    ] {
        running.link.message(&topic, vec![0xff; 70_000]);
        running.link.message(&topic, Vec::new());
    }
    let wish = keys.wish(&running.link, 1, 0, GOLDEN);
    running.link.message(&Topic::Desired(device()), wish);
    assert_eq!(running.until_outcome(1).await, Outcome::Committed);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_writes_down_what_was_counted_since_the_last_window() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let running = start(folder.path(), link, &keys, true);
    let wish = keys.wish(&running.link, 1, 0, GOLDEN);
    running.link.message(&Topic::Desired(device()), wish);
    running.until_outcome(1).await;
    running.until("an empty outbox", |running| running.store.depth().total() == 0).await;
    let (serving, loaded) = running.models.find("default").unwrap();
    serving.record(&loaded, 1, Some(Duration::from_micros(7)), wall());
    let store = running.store.clone();
    running.stop().await;
    assert_eq!(store.depth().telemetry, 1);
}
