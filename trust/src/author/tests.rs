use super::*;
use proptest::prelude::*;

fn key() -> SigningKey {
    SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap()
}

fn keys(threshold: u32, keys: &[&SigningKey]) -> Keys {
    Keys { threshold, keys: keys.iter().map(|key| key.public().clone()).collect() }
}

fn root(of: Keys) -> Root {
    Root {
        version: 1,
        issued_at: Timestamp(1_700_000_000_123),
        expires: Timestamp(1_800_000_000_000),
        root: of.clone(),
        targets: of.clone(),
        snapshot: of.clone(),
        timestamp: of,
    }
}

fn targets(path: &str, delegations: Vec<Delegation>) -> Targets {
    let target = Target { length: 5, sha256: Digest::of(b"model"), custom: None };
    Targets {
        version: 3,
        issued_at: Timestamp(1),
        expires: Timestamp(1_800_000_000_000),
        targets: BTreeMap::from([(path.to_owned(), target)]),
        delegations,
    }
}

fn delegation(name: &str, keys: Keys, pattern: &str) -> Delegation {
    let paths = vec![pattern.to_owned()];
    Delegation { name: name.parse().unwrap(), keys, paths, terminating: true }
}

#[test]
fn what_is_written_is_read_back() {
    let (one, other) = (key(), key());
    let root = root(keys(2, &[&one, &other]));
    let mut document = Document::of_root(&root);
    document.sign(&one).unwrap();
    let read = Document::parse(&document.to_bytes()).unwrap();
    assert_eq!(read, document);
    assert_eq!(read.as_root().unwrap(), root);

    let mut targets = targets("models/ctr/7", vec![delegation("team", keys(1, &[&one]), "team/*")]);
    targets.targets.get_mut("models/ctr/7").unwrap().custom = Some(serde_json::json!({ "k": [1, "å"] }));
    let mut document = Document::of_targets(&targets);
    document.sign(&one).unwrap();
    assert_eq!(Document::parse(&document.to_bytes()).unwrap().as_targets().unwrap(), targets);

    let meta = BTreeMap::from([("targets.json".to_owned(), document.meta())]);
    let snapshot = Snapshot { version: 4, issued_at: Timestamp(2), expires: Timestamp(3_000), meta };
    let document = Document::of_snapshot(&snapshot);
    assert_eq!(Document::parse(&document.to_bytes()).unwrap().as_snapshot().unwrap(), snapshot);
    let timestamp = TimestampMetadata {
        version: 5,
        issued_at: Timestamp(2),
        expires: Timestamp(3_000),
        snapshot: document.meta(),
    };
    let document = Document::of_timestamp(&timestamp);
    assert_eq!(Document::parse(&document.to_bytes()).unwrap().as_timestamp().unwrap(), timestamp);
    assert!(matches!(document.as_root(), Err(Error::Role { .. })));
}

#[test]
fn counts_each_trusted_key_that_signed_once() {
    let (one, other, stranger) = (key(), key(), key());
    let trusted = keys(2, &[&one, &other]);
    let mut document = Document::of_root(&root(trusted.clone()));
    assert_eq!(document.valid_signatures(&trusted), 0);
    document.sign(&one).unwrap();
    document.sign(&one).unwrap();
    document.sign(&stranger).unwrap();
    assert_eq!(document.valid_signatures(&trusted), 1);
    document.sign(&other).unwrap();
    assert_eq!(document.valid_signatures(&trusted), 2);
    let changed = String::from_utf8(document.to_bytes()).unwrap().replace("\"version\":1", "\"version\":2");
    assert_eq!(Document::parse(changed.as_bytes()).unwrap().valid_signatures(&trusted), 0);
}

#[test]
fn signs_nothing_that_a_reader_would_refuse() {
    let (one, other) = (key(), key());
    let refused = |mut document: Document| {
        document.sign(&one).is_err() && document.valid_signatures(&keys(1, &[&one])) == 0
    };
    assert!(refused(Document::of_root(&root(keys(0, &[&one])))));
    assert!(refused(Document::of_root(&root(keys(2, &[&one])))));
    assert!(refused(Document::of_root(&root(keys(1, &[&one, &one])))));
    assert!(refused(Document::of_root(&Root { version: 0, ..root(keys(1, &[&one])) })));
    for path in ["", "/etc/passwd", "a/../b", "a//b", "./a", "a/", "a\0b"] {
        assert!(refused(Document::of_targets(&targets(path, Vec::new()))), "{path:?}");
    }
    let twice =
        || vec![delegation("team", keys(1, &[&one]), "a/*"), delegation("team", keys(1, &[&other]), "b/*")];
    assert!(refused(Document::of_targets(&targets("a", twice()))));
    assert!(refused(Document::of_targets(&targets("a", vec![delegation("team", keys(1, &[&one]), "a/[")]))));
    let mut fraction = targets("a", Vec::new());
    fraction.targets.get_mut("a").unwrap().custom = Some(serde_json::json!(0.5));
    assert!(refused(Document::of_targets(&fraction)));
    let mut large = targets("a", Vec::new());
    large.targets.get_mut("a").unwrap().custom = Some(serde_json::json!("x".repeat(200_000)));
    assert!(refused(Document::of_targets(&large)));
}

#[test]
fn a_time_beyond_the_format_is_written_as_the_last_there_is() {
    let one = key();
    let mut document = Document::of_root(&Root { expires: Timestamp(u64::MAX), ..root(keys(1, &[&one])) });
    document.sign(&one).unwrap();
    assert_eq!(Document::parse(&document.to_bytes()).unwrap().expires(), document.expires());
}

#[test]
fn a_key_has_the_id_that_the_reader_of_others_gives_it() {
    let key = key();
    let public = hex::encode(key.public().as_bytes());
    let same: sigstore_tuf::Key = serde_json::from_value(serde_json::json!({
        "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": public },
    }))
    .unwrap();
    assert_eq!(key_id(key.public()), same.key_id().unwrap());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        drop(Document::parse(&bytes));
    }

    #[test]
    fn damage_never_leaves_a_signature_valid(at in 0usize..4000, bit in 0u8..8) {
        let one = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap();
        let trusted = keys(1, &[&one]);
        let mut document = Document::of_root(&root(trusted.clone()));
        document.sign(&one).unwrap();
        let mut bytes = document.to_bytes();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(read) = Document::parse(&bytes) {
            prop_assert!(read.valid_signatures(&trusted) == 0 || read.as_root().ok() == document.as_root().ok());
        }
    }
}
