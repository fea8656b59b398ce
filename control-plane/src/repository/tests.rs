use super::*;
use shared::{
    Digest,
    signing::{Role, SigningKey, TrustedKey},
};
use trust::catalogue::keyring;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn key() -> SigningKey {
    SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap()
}

struct Ring {
    root: Vec<SigningKey>,
    targets: Vec<SigningKey>,
    snapshot: SigningKey,
    timestamp: SigningKey,
    director: TrustedKey,
}

impl Ring {
    fn new(count: usize) -> Self {
        let keys = || (0..count).map(|_| key()).collect();
        let director = TrustedKey { role: Role::Director, key: key().public().clone() };
        Self { root: keys(), targets: keys(), snapshot: key(), timestamp: key(), director }
    }

    fn online(&self) -> Online<'_> {
        Online { snapshot: &self.snapshot, timestamp: &self.timestamp }
    }

    fn keys(keys: &[SigningKey], threshold: u32) -> Keys {
        Keys { threshold, keys: keys.iter().map(|key| key.public().clone()).collect() }
    }

    fn found(&self, threshold: u32) -> Repository {
        let ceremony = Ceremony {
            root: Self::keys(&self.root, threshold),
            targets: Self::keys(&self.targets, threshold),
            snapshot: self.snapshot.public().clone(),
            timestamp: self.timestamp.public().clone(),
        };
        let keyring = Keyring::new([self.director.clone()]);
        let (mut root, mut targets) = Repository::draft(&ceremony, &keyring, NOW);
        signed(&mut root, &self.root);
        signed(&mut targets, &self.targets);
        Repository::found(root, targets, &self.online(), NOW).unwrap()
    }

    fn next(&self, repository: &Repository, name: &str) -> Document {
        let target = Target { length: 3, sha256: Digest::of(name.as_bytes()), custom: None };
        let add = BTreeMap::from([(format!("models/{name}/v1.0"), target)]);
        let targets = repository.next_targets(&OfflineRole::Targets, add, &[], NOW).unwrap();
        Document::of_targets(&targets)
    }
}

fn signed(document: &mut Document, keys: &[SigningKey]) {
    sign_all(document, keys, "offline").unwrap();
}

#[test]
fn a_new_repository_vouches_for_the_directors_key_and_for_no_model() {
    let ring = Ring::new(1);
    let repository = ring.found(1);
    let targets = repository.targets().unwrap().targets;
    let found = keyring(targets.iter().map(|(path, target)| (path.as_str(), target.clone())));
    assert_eq!(found.keys(), std::slice::from_ref(&ring.director));
    assert_eq!(repository.find("models/mnist/v1.0", NOW).unwrap(), None);
}

#[test]
fn targets_that_too_few_keys_signed_are_refused_and_nothing_changes() {
    let ring = Ring::new(3);
    let repository = ring.found(2);
    let mut document = ring.next(&repository, "mnist");
    signed(&mut document, &ring.targets[..1]);
    let accept =
        |document: &Document| repository.accept(&OfflineRole::Targets, document.clone(), &ring.online(), NOW);
    let error = accept(&document).unwrap_err();
    assert!(matches!(error, Error::Refused { source: client::Error::Signature { .. }, .. }), "{error:?}");
    signed(&mut document, &ring.targets[1..2]);
    let next = accept(&document).unwrap();
    assert!(next.find("models/mnist/v1.0", NOW).unwrap().is_some());
    // Keys of another role, however many.
    let mut document = ring.next(&repository, "forged");
    signed(&mut document, &ring.root);
    document.sign(&ring.snapshot).unwrap();
    document.sign(&ring.timestamp).unwrap();
    assert!(accept(&document).is_err());
}

#[test]
fn what_was_made_from_an_older_state_is_told_so() {
    let ring = Ring::new(1);
    let first = ring.found(1);
    let (mut one, mut other) = (ring.next(&first, "one"), ring.next(&first, "other"));
    signed(&mut one, &ring.targets);
    signed(&mut other, &ring.targets);
    let second = first.accept(&OfflineRole::Targets, one, &ring.online(), NOW).unwrap();
    let error = second.accept(&OfflineRole::Targets, other, &ring.online(), NOW).unwrap_err();
    assert!(matches!(error, Error::Version { got: 2, expected: 3, .. }), "{error:?}");
}

#[test]
fn a_team_signs_its_own_models_and_no_others() {
    let ring = Ring::new(1);
    let repository = ring.found(1);
    let team = key();
    let name: TeamName = "vision".parse().unwrap();
    let mut targets = repository.next_targets(&OfflineRole::Targets, BTreeMap::new(), &[], NOW).unwrap();
    targets.delegations.push(trust::author::Delegation {
        name: name.clone(),
        keys: Keys { threshold: 1, keys: vec![team.public().clone()] },
        paths: vec!["models/vision-*/*".to_owned()],
        terminating: false,
    });
    let mut document = Document::of_targets(&targets);
    signed(&mut document, &ring.targets);
    let repository = repository.accept(&OfflineRole::Targets, document, &ring.online(), NOW).unwrap();
    let role = OfflineRole::Delegated(name);
    let sign_for = |path: &str| {
        let target = Target { length: 3, sha256: Digest::of(b"x"), custom: None };
        let add = BTreeMap::from([(path.to_owned(), target)]);
        let mut document = Document::of_targets(&repository.next_targets(&role, add, &[], NOW).unwrap());
        document.sign(&team).unwrap();
        repository.accept(&role, document, &ring.online(), NOW)
    };
    let next = sign_for("models/vision-cats/v1.0").unwrap();
    assert!(next.find("models/vision-cats/v1.0", NOW).unwrap().is_some());
    let error = sign_for("models/audio/v1.0").unwrap_err().to_string();
    assert!(error.contains("not vision's to sign"), "{error}");
}

#[test]
fn online_metadata_is_signed_again_before_its_time_is_up_and_not_before() {
    let ring = Ring::new(1);
    let repository = ring.found(1);
    assert!(repository.renewed(&ring.online(), NOW.plus_ms(3_600_000)).unwrap().is_none());
    let later = NOW.plus_ms(2 * DAY_MS);
    let renewed = repository.renewed(&ring.online(), later).unwrap().unwrap();
    let version = |repository: &Repository, role: &str| {
        repository.documents().find(|(name, _)| name == role).unwrap().1.version()
    };
    assert_eq!((version(&renewed, "timestamp"), version(&renewed, "snapshot")), (2, 1));
    let much_later = NOW.plus_ms(20 * DAY_MS);
    let renewed = renewed.renewed(&ring.online(), much_later).unwrap().unwrap();
    assert_eq!((version(&renewed, "timestamp"), version(&renewed, "snapshot")), (3, 2));
}

#[test]
fn new_online_keys_are_used_at_once_and_devices_follow() {
    let mut ring = Ring::new(1);
    let before = ring.found(1);
    (ring.snapshot, ring.timestamp) = (key(), key());
    let mut root = before.root().unwrap();
    root.version += 1;
    root.snapshot = Ring::keys(std::slice::from_ref(&ring.snapshot), 1);
    root.timestamp = Ring::keys(std::slice::from_ref(&ring.timestamp), 1);
    let mut document = Document::of_root(&root);
    signed(&mut document, &ring.root);
    let after = before.accept_rotation(document, None, &ring.online(), NOW).unwrap();
    let mut client = Client::new(&before.files()["1.root.json"]).unwrap();
    client.refresh(&Held(before.files()), NOW).unwrap();
    client.refresh(&Held(after.files()), NOW).unwrap();
    assert_eq!(client.root_version(), 2);
}

#[test]
fn a_folder_gives_back_what_was_written_and_names_what_is_missing() {
    let ring = Ring::new(1);
    let repository = ring.found(1);
    let place = tempfile::tempdir().unwrap();
    let folder = Folder::at(place.path().join("trust"));
    assert!(folder.read().unwrap().is_none());
    folder.write(&repository).unwrap();
    let mut document = ring.next(&repository, "mnist");
    signed(&mut document, &ring.targets);
    let next = repository.accept(&OfflineRole::Targets, document, &ring.online(), NOW).unwrap();
    folder.write(&next).unwrap();
    assert_eq!(folder.read().unwrap().unwrap().files(), next.files());
    std::fs::remove_file(folder.path().join("2.targets.json")).unwrap();
    let error = folder.read().unwrap_err().to_string();
    assert!(error.contains("2.targets.json") && error.contains("backup"), "{error}");
}

#[test]
fn key_files_are_for_their_owner_and_a_damaged_one_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let place = tempfile::tempdir().unwrap();
    let folder = KeyFolder::at(place.path().join("stick"));
    let role = OfflineRole::Targets;
    assert!(folder.keys(&role).unwrap().is_empty());
    let (one, two) = (folder.make(&role).unwrap(), folder.make(&role).unwrap());
    folder.make(&OfflineRole::Root).unwrap();
    let read: Vec<_> = folder.keys(&role).unwrap().iter().map(|key| key.public().clone()).collect();
    assert_eq!(read, [one, two]);
    let path = folder.path().join("targets-2.pk8");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
    std::fs::write(&path, b"no key").unwrap();
    let error = folder.keys(&role).unwrap_err().to_string();
    assert!(error.contains("targets-2.pk8"), "{error}");
}
