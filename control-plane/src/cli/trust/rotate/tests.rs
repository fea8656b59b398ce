use super::*;
use crate::app::trust::Trust;
use std::{fs, path::Path};

const ONLINE: [Rotated; 4] = [Rotated::Snapshot, Rotated::Timestamp, Rotated::Director, Rotated::Release];

/// The data folder of a server that has run.
fn server() -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    Trust::open(data.path(), &signer(data.path()), now()).unwrap();
    data
}

fn signer(data: &Path) -> Signer {
    Signer::open(&data.join("keys"), &[], now()).unwrap()
}

fn prepare(data: &Path, role: Rotated) -> Rotation {
    let args = RotateArgs { role, data: data.to_owned(), keys: data.join("keys/offline"), new_keys: None };
    Rotation::prepare(&args).unwrap()
}

/// The public keys that the server signs with.
fn public(signer: &Signer) -> Vec<PublicKey> {
    let online = signer.online();
    let keyring = signer.keyring();
    let trusted = keyring.keys().iter().map(|trusted| &trusted.key);
    [online.snapshot.public(), online.timestamp.public()].into_iter().chain(trusted).cloned().collect()
}

fn left(data: &Path) -> Vec<String> {
    let names = fs::read_dir(data.join("keys")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".next.pk8")).collect()
}

/// As the next start does, after which nothing is left to put right.
fn start(data: &Path) -> Signer {
    settle(data).unwrap();
    assert!(left(data).is_empty());
    let signer = signer(data);
    Trust::open(data, &signer, now()).unwrap();
    let repository = Folder::at(data.join("trust")).read().unwrap().unwrap();
    assert!(repository.renewed(&signer.online(), now()).unwrap().is_none());
    signer
}

#[test]
fn a_crash_after_the_metadata_was_written_leaves_the_new_key_in_its_place() {
    for role in ONLINE {
        let data = server();
        let data = data.path();
        let before = signer(data);
        let rotation = prepare(data, role);
        rotation.write().unwrap();
        let new = rotation.online_key.as_ref().unwrap().key.public().clone();
        drop(rotation);
        assert_eq!(left(data).len(), 1);
        let after = start(data);
        let changed: Vec<_> =
            public(&after).into_iter().filter(|key| !public(&before).contains(key)).collect();
        assert_eq!(changed, [new], "{role:?}");
        let kept = fs::read_dir(data.join("keys")).unwrap();
        let kept =
            kept.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "old"));
        assert_eq!(kept.count(), 1, "the old key stays beside it");
        let known: Vec<_> = after.keyring_to_read().keys().iter().map(|key| key.key.id()).collect();
        assert!(known.contains(&before.release_id()), "what was signed before is still read");
    }
}

#[test]
fn a_crash_before_the_metadata_was_written_leaves_everything_as_it_was() {
    for role in ONLINE {
        let data = server();
        let before = public(&signer(data.path()));
        drop(prepare(data.path(), role));
        assert_eq!(left(data.path()).len(), 1);
        assert_eq!(public(&start(data.path())), before, "{role:?}");
    }
}

#[test]
fn a_new_root_alone_is_enough_for_the_new_key_to_count() {
    let data = server();
    let data = data.path();
    let rotation = prepare(data, Rotated::Snapshot);
    fs::write(data.join("trust/2.root.json"), &rotation.next.files()["2.root.json"]).unwrap();
    let new = rotation.online_key.as_ref().unwrap().key.public().clone();
    assert_eq!(*start(data).online().snapshot.public(), new);
}

#[test]
fn an_old_key_that_was_moved_away_already_does_not_keep_the_new_one_out() {
    let data = server();
    let data = data.path();
    let rotation = prepare(data, Rotated::Director);
    rotation.write().unwrap();
    let place = data.join("keys/director.pk8");
    fs::rename(&place, place.with_extension("1.old")).unwrap();
    let new = rotation.online_key.as_ref().unwrap().key.public().clone();
    assert!(public(&start(data)).contains(&new));
}

#[test]
fn a_rotation_that_runs_through_leaves_nothing_to_settle() {
    for role in ONLINE {
        let data = server();
        let before = public(&signer(data.path()));
        let rotation = prepare(data.path(), role);
        rotation.write().unwrap();
        rotation.end().unwrap();
        assert!(left(data.path()).is_empty());
        assert_ne!(public(&start(data.path())), before, "{role:?}");
    }
}
