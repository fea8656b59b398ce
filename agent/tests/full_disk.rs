#![allow(clippy::unwrap_used)]
//! A disk that is really full: a tmpfs of a few MiB in a mount namespace of its own.

use agent_core::update::{Saved, SlotSaved};
use edgewright_agent::store::{Error, Store};
use shared::{
    ModelVersionId, Timestamp,
    wire::{Event, EventKind, Feedback, FeedbackKind},
};
use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Set in the process that has the small disk.
const DISK: &str = "EDGEWRIGHT_TEST_DISK";

/// The small disk; `None` in the process that starts the one that has it, after that has passed.
fn small_disk(test: &str, size: &str) -> Option<PathBuf> {
    if let Some(disk) = std::env::var_os(DISK) {
        return Some(disk.into());
    }
    let folder = tempfile::tempdir().unwrap();
    let script =
        "mount -t tmpfs -o size=$SIZE tmpfs $EDGEWRIGHT_TEST_DISK || exit 77; exec \"$0\" --exact \"$1\"";
    let root = rustix::process::geteuid().is_root();
    let ran = Command::new("unshare")
        .args(if root { &["-m"][..] } else { &["-r", "-m"][..] })
        .args(["sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(DISK, folder.path())
        .env("SIZE", size)
        .status();
    match ran.map(|status| status.code()) {
        Ok(Some(0)) => {}
        // Containers may forbid it.
        Ok(Some(1 | 77)) if !root => println!("skipped: no mount namespace for this user"),
        other => panic!("{test} on a small disk: {other:?}"),
    }
    None
}

/// Writes until nothing more fits.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for block in [vec![7u8; 64 * 1024], vec![7; 512]] {
        while file.write_all(&block).is_ok() {}
    }
}

fn feedback() -> Feedback {
    Feedback {
        id: Uuid::now_v7(),
        at: Timestamp(1),
        slot: "default".parse().unwrap(),
        version_id: ModelVersionId(Uuid::nil()),
        request_id: None,
        kind: FeedbackKind::Correction,
        value: None,
        label: Some("x".repeat(200)),
    }
}

fn event(detail: &str) -> Event {
    let kind = EventKind::DiskFull;
    Event { id: Uuid::now_v7(), at: Timestamp(1), slot: None, bundle: None, kind, detail: detail.to_owned() }
}

fn saved(name: &str) -> Saved {
    Saved { desired: None, slots: vec![SlotSaved::empty(name.parse().unwrap())], ..Saved::default() }
}

#[test]
fn a_full_disk_loses_no_state_and_records_are_taken_again_once_there_is_space() {
    let Some(disk) =
        small_disk("a_full_disk_loses_no_state_and_records_are_taken_again_once_there_is_space", "8m")
    else {
        return;
    };
    let path = disk.join("store.sled");
    let store = Arc::new(Store::open(&path, 1_000_000).unwrap());
    store.persist(&saved("first"), &[event("first")]).unwrap();
    let filler = disk.join("filler");
    fill(&filler);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let put = |store: &Arc<Store>| {
        let records: Vec<_> = (0..50).map(|_| feedback()).collect();
        runtime.block_on(store.put_durably(records))
    };
    let refused = until("records are refused", || {
        // Each reopening gives some space back; the filler takes it again.
        fill(&disk.join(format!("filler-{}", Uuid::new_v4())));
        put(&store).err()
    });
    assert!(refused.is_disk_full(), "{refused:?}");

    // The state has to be written also now, or nothing could ever be removed.
    let second = event("second");
    store.persist(&saved("second"), std::slice::from_ref(&second)).unwrap();
    drop(store);
    fill(&disk.join("filler-last"));
    let store = match Store::open(&path, 1_000_000) {
        Ok(store) => Arc::new(store),
        Err(error @ (Error::Open { .. } | Error::Database(_))) => panic!("no degraded start: {error:?}"),
        Err(error) => panic!("{error:?}"),
    };
    assert_eq!(store.saved().unwrap(), saved("second"));

    for entry in std::fs::read_dir(&disk).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("filler") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    until("records are taken again", || put(&store).ok());
    store.persist(&saved("third"), &[event("third")]).unwrap();
    assert_eq!(store.trouble(), None);
    let device = "cam-01".parse().unwrap();
    let outgoing = store.outgoing::<Event>(&device).unwrap().unwrap();
    let batch = shared::wire::Batch::<Event>::decode(&outgoing.payload, &device).unwrap();
    let details: Vec<_> = batch.records.iter().map(|event| event.detail.as_str()).collect();
    assert_eq!(details, ["first", "second", "third"]);
    assert!(disk.join("store.ballast").exists(), "no space is held back again");
}

/// Asks until there is an answer, for at most half a minute.
fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "waited for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
