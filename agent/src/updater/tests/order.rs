//! What comes in an order that nobody wished for, and what cannot be written or read for a time.

use super::{
    world::{
        CHUNK, Keys, PATIENCE, Running, TestLink, build, bundle_of, device, hand_in_until, message, opened,
        slot, start,
    },
    *,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_comes_before_its_blob_is_known_to_be_open_counts() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let wish = keys.wish(&link, 1, 0, GOLDEN);
    let digest = bundle_of(&wish, &keys);
    let envelope = link.cloud.lock().unwrap().blobs[&digest].clone();
    let (mut updater, mut inputs) = build(folder.path(), link.clone(), &keys);
    updater.handle_link(vec![LinkEvent::Up { session_present: false }]);
    updater.handle_link(vec![message(&Topic::Desired(device()), wish)]);
    updater.settle();
    let done = hand_in_until(&mut updater, &mut inputs, opened).await;
    // Another device asked for the first chunk, and it comes before the answer is handed in.
    let chunk = envelope[..envelope.len().min(CHUNK as usize)].to_vec();
    updater.handle_link(vec![message(&Topic::BlobBroadcast { digest, index: 0 }, chunk.clone())]);
    updater.handle_done(done);
    updater.settle();
    let wanted: Vec<u32> = {
        let sent = link.sent.lock().unwrap();
        let wants = sent.iter().filter(|(topic, _)| matches!(topic, Topic::BlobWant(_)));
        wants
            .flat_map(|(_, payload)| {
                wire::decode_json::<Want>("want", payload).unwrap().indices().collect::<Vec<_>>()
            })
            .collect()
    };
    let total = wire::chunk_count(envelope.len() as u64, CHUNK);
    assert_eq!(wanted, (1..total).collect::<Vec<_>>(), "asked for although it is there");
    // The same chunk once more is told once more, whatever the machine believed.
    assert_eq!(updater.parts.blobs.write(digest, &[(0, &chunk)]).unwrap(), [0]);
    let Some(Fetched::Part(present)) = updater.parts.blobs.fetched(digest) else { panic!("not open") };
    assert_eq!(present.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_opened_after_its_attempt_ended_is_closed_again() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let wish = keys.wish(&link, 1, 0, GOLDEN);
    let digest = bundle_of(&wish, &keys);
    let (mut updater, mut inputs) = build(folder.path(), link.clone(), &keys);
    updater.handle_link(vec![LinkEvent::Up { session_present: false }]);
    updater.handle_link(vec![message(&Topic::Desired(device()), wish)]);
    updater.settle();
    let done = hand_in_until(&mut updater, &mut inputs, opened).await;
    let other = keys.wish(&link, 2, 1, GOLDEN);
    updater.handle_link(vec![message(&Topic::Desired(device()), other)]);
    // The answer comes before the machine's Discard is carried out, and after its attempt is gone.
    updater.handle_done(done);
    assert!(!updater.parts.blobs.is_open(digest));
    let filter = Filter::BlobBroadcast(digest).to_string();
    assert!(link.unsubscribed.lock().unwrap().contains(&filter));
    assert!(!folder.path().join("blobs").join(format!("{digest}.partial")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_were_given_up_for_space_are_fetched_again() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    link.cloud.lock().unwrap().chunks_left = Some(0);
    let wish = keys.wish(&link, 1, 0, GOLDEN);
    let digest = bundle_of(&wish, &keys);
    let (mut updater, mut inputs) = build(folder.path(), link.clone(), &keys);
    updater.handle_link(vec![LinkEvent::Up { session_present: false }]);
    updater.handle_link(vec![message(&Topic::Desired(device()), wish)]);
    updater.settle();
    let done = hand_in_until(&mut updater, &mut inputs, opened).await;
    // Once before the machine knows that the blob is open, and once after.
    updater.give_up_parts("no space left");
    updater.handle_done(done);
    let phase = |updater: &Updater| updater.machine.reports()[0].phase.clone();
    assert!(matches!(phase(&updater), wire::Phase::Waiting { .. }), "{:?}", phase(&updater));
    updater.machine.handle_timeout(updater.clock.monotonic().plus_ms(60_000));
    updater.settle();
    let done = hand_in_until(&mut updater, &mut inputs, opened).await;
    updater.handle_done(done);
    updater.settle();
    assert!(matches!(phase(&updater), wire::Phase::Fetching { .. }));
    updater.give_up_parts("no space left");
    let wire::Phase::Waiting { reason, bundle, .. } = phase(&updater) else {
        panic!("{:?}", phase(&updater))
    };
    assert_eq!((reason.as_str(), bundle), ("no space left", digest));
    assert!(!updater.parts.blobs.is_open(digest));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_no_state_holds_back_the_machine_and_nothing_else() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let running = start(folder.path(), link, &keys, true);
    running.until("a report", |running| running.link.reported().is_some()).await;
    // The state file can be replaced by none while a folder that is not empty has its name.
    let state = folder.path().join("s.state.json");
    let _ = std::fs::remove_file(&state);
    std::fs::create_dir_all(state.join("in the way")).unwrap();
    let wish = keys.wish(&running.link, 1, 0, GOLDEN);
    running.link.message(&Topic::Desired(device()), wish);
    // A message behind it is handled, and its event goes out.
    running.link.message(&Topic::Desired(device()), b"{".to_vec());
    running
        .until("the refusal", |running| {
            running.link.events().iter().any(|event| event.kind == EventKind::DesiredRefused)
        })
        .await;
    let asked = |running: &Running| {
        let sent = running.link.sent.lock().unwrap();
        sent.iter().any(|(topic, _)| matches!(topic, Topic::BlobWant(_)))
    };
    assert!(!asked(&running), "asks for chunks of what is not on disk");
    std::fs::remove_dir_all(&state).unwrap();
    assert_eq!(running.until_outcome(1).await, Outcome::Committed);

    // And a stop is heard.
    std::fs::remove_file(&state).unwrap();
    std::fs::create_dir_all(state.join("in the way")).unwrap();
    let wish = keys.wish(&running.link, 2, 1, GOLDEN);
    running.link.message(&Topic::Desired(device()), wish);
    tokio::time::timeout(PATIENCE, running.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_was_opened_while_offline_is_listened_for_in_a_session_that_does_not_know_it() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let wish = keys.wish(&link, 1, 0, GOLDEN);
    let digest = bundle_of(&wish, &keys);
    let (mut updater, mut inputs) = build(folder.path(), link.clone(), &keys);
    updater.handle_link(vec![message(&Topic::Desired(device()), wish)]);
    updater.settle();
    let done = hand_in_until(&mut updater, &mut inputs, opened).await;
    updater.handle_done(done);
    link.subscribed.lock().unwrap().clear();
    updater.handle_link(vec![LinkEvent::Up { session_present: true }]);
    assert!(link.subscribed.lock().unwrap().contains(&Filter::BlobBroadcast(digest).to_string()));
    // What the session knows and nobody needs any more is taken back.
    let stale = Digest::of(b"of an earlier run");
    let late = Topic::BlobBroadcast { digest: stale, index: 0 };
    updater.handle_link(vec![message(&late, vec![0; 8]), message(&late, vec![0; 8])]);
    assert_eq!(*link.unsubscribed.lock().unwrap(), [Filter::BlobBroadcast(stale).to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_cleared_away_while_a_pinned_manifest_cannot_be_read() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let running = start(folder.path(), link, &keys, true);
    let wish = keys.wish(&running.link, 1, 0, GOLDEN);
    let digest = bundle_of(&wish, &keys);
    running.link.message(&Topic::Desired(device()), wish);
    running.until_outcome(1).await;
    let link = running.stop().await;

    let (mut updater, _inputs) = build(folder.path(), link, &keys);
    let blobs = folder.path().join("blobs");
    let count = || std::fs::read_dir(&blobs).unwrap().count();
    assert_eq!(count(), 3);
    let envelope = std::fs::read(blobs.join(digest.to_string())).unwrap();
    std::fs::write(blobs.join(digest.to_string()), b"rot").unwrap();
    std::fs::write(blobs.join(Digest::of(b"left over").to_string()), b"left over").unwrap();
    updater.collect();
    assert_eq!(count(), 4, "the files of the last good version are gone");
    std::fs::write(blobs.join(digest.to_string()), envelope).unwrap();
    updater.collect();
    assert_eq!(count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_installer_has_no_room_the_machine_is_held_back_and_nothing_is_lost() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let (mut updater, _inputs) = build(folder.path(), link.clone(), &keys);
    let (installer, mut jobs) = mpsc::channel(1);
    updater.parts.installer = installer;
    updater.handle_link(vec![LinkEvent::Up { session_present: false }]);
    let bundles: Vec<Digest> = (0..3u32)
        .map(|minor| {
            let wish = keys.wish(&link, u64::from(minor) + 1, minor, GOLDEN);
            let bundle = bundle_of(&wish, &keys);
            updater.handle_link(vec![message(&Topic::Desired(device()), wish)]);
            updater.settle();
            assert!(!updater.has_room());
            bundle
        })
        .collect();
    // The first wish was begun; the other two came while the installer was at it.
    let mut opened = Vec::new();
    while let Ok(job) = jobs.try_recv() {
        if let Work::Action(SlotAction::OpenBlob { digest, .. }) = job.work {
            opened.push(digest);
        }
        updater.handle_done(Done { slot: slot(), input: None, closed: Vec::new() });
        updater.settle();
    }
    assert_eq!(opened, [bundles[0], bundles[2]], "what was wanted last is what is fetched");
    assert!(updater.has_room());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_installer_has_no_room_the_link_waits_and_a_stop_is_heard() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let wish = keys.wish(&link, 1, 0, GOLDEN);
    let (mut updater, mut inputs) = build(folder.path(), link.clone(), &keys);
    let (installer, mut jobs) = mpsc::channel(1);
    updater.parts.installer = installer;
    let (done_sender, done) = mpsc::channel(1);
    inputs.done = done;
    link.deliver(LinkEvent::Up { session_present: false });
    link.message(&Topic::Desired(device()), wish);
    let shared = updater.parts.shared.clone();
    let generation = || shared.reported().map_or(0, |reported| reported.generation);
    let stop = Arc::new(Notify::new());
    let task = tokio::spawn(updater.run(inputs, stop.clone()));
    let until = async |wanted: u64| {
        let deadline = Instant::now() + PATIENCE;
        while generation() != wanted {
            assert!(Instant::now() < deadline, "generation {wanted} never came");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    until(1).await;
    link.message(&Topic::Desired(device()), keys.wish(&link, 2, 1, GOLDEN));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(generation(), 1, "it is read before there is room for what follows from it");
    let job = jobs.recv().await.unwrap();
    done_sender.send(Done { slot: job.slot, input: None, closed: Vec::new() }).await.unwrap();
    until(2).await;
    stop.notify_one();
    tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();
}
