//! How files come: as deltas, within a budget, and over a restart.

use super::{
    world::{CHUNK, Keys, Running, TestLink, device, start, start_with},
    *,
};

/// A file that runs as well as `golden`: the same tensors, and some spaces after the header's text.
fn spaced(golden: &[u8], spaces: usize) -> Vec<u8> {
    let length = u64::from_le_bytes(golden[..8].try_into().unwrap());
    let end = 8 + usize::try_from(length).unwrap();
    let header = [&golden[8..end], &vec![b' '; spaces][..]].concat();
    [&(header.len() as u64).to_le_bytes()[..], &header, &golden[end..]].concat()
}

fn put_delta(link: &TestLink, old: &[u8], new: &[u8], spoil: bool) -> DeltaRef {
    let mut bytes = delta::make(old, new, &[]).unwrap();
    if spoil {
        let last = bytes.len() - 1;
        bytes[last] ^= 0xff;
    }
    let delta = DeltaRef {
        from: Digest::of(old),
        to: Digest::of(new),
        delta: Digest::of(&bytes),
        bytes: bytes.len() as u64,
    };
    link.cloud.lock().unwrap().blobs.insert(delta.delta, bytes);
    delta
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_made_from_a_delta_and_comes_whole_where_that_fails() {
    for spoil in [false, true] {
        let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
        let running = start(folder.path(), link, &keys, true);
        running.link.message(&Topic::Desired(device()), keys.wish(&running.link, 1, 0, GOLDEN));
        assert_eq!(running.until_outcome(1).await, Outcome::Committed);
        let golden = spaced(GOLDEN, 8);
        let delta = put_delta(&running.link, GOLDEN, &golden, spoil);
        let wish = keys.wish_with_deltas(&running.link, 2, 1, &golden, vec![delta]);
        running.link.message(&Topic::Desired(device()), wish);
        assert_eq!(running.until_outcome(2).await, Outcome::Committed);
        running.until("an empty outbox", |running| running.store.depth().total() == 0).await;
        let wanted: Vec<Digest> = {
            let sent = running.link.sent.lock().unwrap();
            let wants = sent.iter().filter(|(topic, _)| matches!(topic, Topic::BlobWant(_)));
            wants.map(|(_, bytes)| wire::decode_json::<Want>("want", bytes).unwrap().digest).collect()
        };
        assert!(wanted.contains(&delta.delta));
        assert_eq!(wanted.contains(&delta.to), spoil, "the whole file comes only where the delta fails");
        let refused = running.link.events().iter().any(|event| event.kind == EventKind::DeltaRefused);
        assert_eq!(refused, spoil);
        let blobs = folder.path().join("blobs");
        assert!(blobs.join(delta.to.to_string()).exists());
        running
            .until("the delta to be gone", |_| {
                !blobs.join(delta.delta.to_string()).exists()
                    && !blobs.join(format!("{}.partial", delta.delta)).exists()
            })
            .await;
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_that_came_before_a_kill_is_applied_after_it_and_not_fetched_again() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let running = start(folder.path(), link, &keys, true);
    running.link.message(&Topic::Desired(device()), keys.wish(&running.link, 1, 0, GOLDEN));
    assert_eq!(running.until_outcome(1).await, Outcome::Committed);
    let link = running.kill().await;
    let golden = spaced(GOLDEN, 8);
    let delta = put_delta(&link, GOLDEN, &golden, false);
    let bytes = link.cloud.lock().unwrap().blobs[&delta.delta].clone();
    std::fs::write(folder.path().join("blobs").join(delta.delta.to_string()), bytes).unwrap();
    let running = start(folder.path(), link, &keys, true);
    let wish = keys.wish_with_deltas(&running.link, 2, 1, &golden, vec![delta]);
    let before = running.link.sent.lock().unwrap().len();
    running.link.message(&Topic::Desired(device()), wish);
    assert_eq!(running.until_outcome(2).await, Outcome::Committed);
    let sent = running.link.sent.lock().unwrap();
    let wants = sent[before..].iter().filter(|(topic, _)| matches!(topic, Topic::BlobWant(_)));
    let wants = wants.map(|(_, bytes)| wire::decode_json::<Want>("want", bytes).unwrap().digest);
    assert!(wants.into_iter().all(|digest| digest != delta.delta && digest != delta.to));
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_days_budget_the_slot_waits_and_listens_no_more() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let wish = keys.wish(&link, 1, 0, GOLDEN);
    // The manifest comes, and the model does not.
    let files = [Digest::of(MODEL), Digest::of(GOLDEN)];
    let envelope_bytes = {
        let cloud = link.cloud.lock().unwrap();
        let envelope = cloud.blobs.iter().find(|(digest, _)| !files.contains(digest));
        envelope.unwrap().1.len() as u64
    };
    let limits = budget::Limits { day_bytes_max: Some(envelope_bytes + 100), ..budget::Limits::default() };
    let wants = |link: &TestLink| {
        let sent = link.sent.lock().unwrap();
        sent.iter().filter(|(topic, _)| matches!(topic, Topic::BlobWant(_))).count()
    };
    let waits_since = |running: &Running, since: usize| {
        let sent = running.link.sent.lock().unwrap();
        let mut reports = sent[since..].iter().filter(|(topic, _)| matches!(topic, Topic::Reported(_)));
        let newest = reports.next_back().map(|(_, bytes)| wire::decode_json::<Reported>("r", bytes).unwrap());
        let phase = newest.and_then(|reported| Some(reported.slots.first()?.phase.clone()));
        matches!(phase, Some(wire::Phase::Waiting { waits_for: wire::WaitsFor::Budget, .. }))
    };
    let running = start_with(folder.path(), link, &keys, true, limits);
    running.link.message(&Topic::Desired(device()), wish);
    running.until("waiting for the budget", |running| waits_since(running, 0)).await;
    let asked = wants(&running.link);
    let (subscribed, unsubscribed) =
        (running.link.subscribed.lock().unwrap().len(), running.link.unsubscribed.lock().unwrap().len());
    // Trust metadata, the wish, what to measure and the chunks of this device are listened to, and no blob.
    assert_eq!(subscribed - unsubscribed, 4);
    let link = running.kill().await;
    let since = link.sent.lock().unwrap().len();
    let running = start_with(folder.path(), link, &keys, true, limits);
    running.until("waiting for the budget again", |running| waits_since(running, since)).await;
    assert_eq!(wants(&running.link), asked, "a restart is no other day");
    let link = running.kill().await;
    let running = start(folder.path(), link, &keys, true);
    assert_eq!(running.until_outcome(1).await, Outcome::Committed);
    running.until("an empty outbox", |running| running.store.depth().total() == 0).await;
    let mut told = running.link.events();
    told.retain(|event| event.kind == EventKind::BudgetSpent);
    told.dedup_by_key(|event| event.id);
    assert_eq!(told.len(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_mid_download_it_goes_on_from_the_chunks_on_disk() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let running = start(folder.path(), link, &keys, true);
    let wish = keys.wish(&running.link, 1, 0, GOLDEN);
    // The envelope, the model's one chunk, and one of the golden file's.
    let envelope_chunks =
        running.link.cloud.lock().unwrap().blobs.values().map(Vec::len).max().unwrap() as u32;
    running.link.cloud.lock().unwrap().chunks_left = Some(envelope_chunks.div_ceil(CHUNK) + 2);
    running.link.message(&Topic::Desired(device()), wish.clone());
    running
        .until("the last chunk", |running| {
            running.link.cloud.lock().unwrap().chunks_left == Some(0)
                && matches!(running.shared.reported().and_then(|report| report.slots.first().map(|slot| slot.phase.clone())),
                    Some(wire::Phase::Fetching { chunks_done, .. }) if chunks_done >= 4)
        })
        .await;
    let link = running.kill().await;
    link.cloud.lock().unwrap().chunks_left = None;
    link.sent.lock().unwrap().clear();

    let running = start(folder.path(), link, &keys, true);
    assert_eq!(running.until_outcome(1).await, Outcome::Committed);
    running.until("the events", |running| running.store.depth().total() == 0).await;
    let events = running.link.events();
    let resumed = events.iter().find(|event| event.kind == EventKind::DownloadResumed).unwrap();
    assert_eq!(resumed.detail, "golden.safetensors from chunk 1 of 2");
    let wanted: usize = {
        let sent = running.link.sent.lock().unwrap();
        let wants = sent.iter().filter(|(topic, _)| matches!(topic, Topic::BlobWant(_)));
        wants.map(|(_, payload)| wire::decode_json::<Want>("want", payload).unwrap().indices().count()).sum()
    };
    assert_eq!(wanted, 1, "only what is missing is asked for");
    running.stop().await;
}
