//! TUF metadata: the signed parts of a second root, of timestamp, snapshot, targets and of a delegated role, with a byte
//! of 255 between them. As they come nothing is accepted; under good signatures what was accepted is accepted again.

#![no_main]

use edgewright_fuzz::DIRECTOR;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use shared::{Timestamp, signing::SigningKey};
use sigstore_tuf::canonical_json::to_canonical_bytes;
use std::{collections::BTreeMap, sync::LazyLock};
use trust::{
    author::{Document, Keys, Root, Signer, key_id},
    client::{Accepted, Client, Source, SourceError},
};

const NOW: Timestamp = Timestamp(1_790_000_000_000);
const LATER: Timestamp = Timestamp(1_900_000_000_000);
/// Separates the files; no JSON has this byte.
const BETWEEN: u8 = 0xff;
const NAMES: [&str; 5] = ["root.json", "timestamp.json", "snapshot.json", "targets.json", "team.json"];

static KEY: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::from_pkcs8(DIRECTOR).expect("a key of the golden files"));

/// One key signs everything.
static ROOT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let keys = || Keys { threshold: 1, keys: vec![Signer::public(&*KEY).clone()] };
    let root = Root {
        version: 1,
        issued_at: Timestamp(0),
        expires: LATER,
        root: keys(),
        targets: keys(),
        snapshot: keys(),
        timestamp: keys(),
    };
    let mut document = Document::of_root(&root);
    document.sign(&*KEY).expect("a root can be signed");
    document.to_bytes()
});

/// What stands between the bytes of 255, by the end of the files' names.
struct Files(BTreeMap<&'static str, Vec<u8>>);

impl Source for Files {
    fn get(&self, file: &str, _: u64) -> Result<Option<Vec<u8>>, SourceError> {
        // A third root would be the second once more.
        if file.ends_with("root.json") && file != "2.root.json" {
            return Ok(None);
        }
        let found = self.0.iter().find(|(name, _)| file.ends_with(**name));
        Ok(found.map(|(_, bytes)| bytes.clone()).filter(|bytes| !bytes.is_empty()))
    }
}

/// The file that the key's holder would make of any signed part at all.
fn sealed(part: &[u8]) -> Vec<u8> {
    let Ok(signed) = serde_json::from_slice::<Value>(part) else { return part.to_vec() };
    let Ok(message) = to_canonical_bytes(&signed) else { return part.to_vec() };
    let signature = Signer::sign(&*KEY, &message).expect("a signature");
    let sig: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({ "signatures": [{ "keyid": key_id(Signer::public(&*KEY)), "sig": sig }], "signed": signed })
        .to_string()
        .into_bytes()
}

fn fresh() -> Client {
    Client::new(&ROOT).expect("a root that is believed")
}

fn files(bytes: &[u8], make: impl Fn(&[u8]) -> Vec<u8>) -> Files {
    Files(NAMES.into_iter().zip(bytes.split(|byte| *byte == BETWEEN).map(make)).collect())
}

fn kept(accepted: &Accepted) -> Vec<(String, Vec<u8>)> {
    accepted.files().map(|(role, bytes)| (role.to_owned(), bytes.to_vec())).collect()
}

fn check_document(bytes: &[u8]) {
    let Ok(document) = Document::parse(bytes) else { return };
    let again = Document::parse(&document.to_bytes()).expect("what was written is read");
    assert_eq!(again.to_bytes(), document.to_bytes());
    assert_eq!(again.version(), document.version());
    let _ = (document.as_root(), document.as_targets(), document.as_snapshot(), document.as_timestamp());
}

fuzz_target!(|bytes: &[u8]| {
    let raw = files(bytes, <[u8]>::to_vec);
    raw.0.values().for_each(|file| check_document(file));
    let mut client = fresh();
    assert!(client.refresh(&raw, NOW).is_err(), "nobody signed this");
    assert_eq!(client.accepted(), fresh().accepted(), "nobody signed this");

    let signed = files(bytes, sealed);
    signed.0.values().for_each(|file| check_document(file));
    let mut client = fresh();
    let refreshed = client.refresh(&signed, NOW).is_ok();
    assert!((1..=2).contains(&client.root_version()));
    let restored = Client::restore(client.accepted()).expect("what was accepted is believed");
    assert_eq!(restored.root_version(), client.root_version());
    assert_eq!(restored.signed_time(), client.signed_time());
    assert_eq!(kept(restored.accepted()), kept(client.accepted()));
    if refreshed {
        let again = client.refresh(&signed, NOW).expect("the same files are accepted again");
        assert!(!again.any(), "the same files change nothing");
        let paths: Vec<String> = client.targets().map(|(path, _)| path.to_owned()).collect();
        for path in &paths {
            let target = client.target(path, &signed, NOW);
            assert!(matches!(target, Ok(Some(_))), "a target of the top level is found");
        }
        let _ = client.target("team/m.onnx", &signed, NOW);
    }
});
