//! Payloads under a good signature: what a signer with a fault would send. What is accepted keeps its rules and comes
//! back the same when it is signed again.

#![no_main]

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use edgewright_fuzz::{DIRECTOR, RELEASE, keyring};
use libfuzzer_sys::fuzz_target;
use ring::signature::Ed25519KeyPair;
use shared::signing::pre_authentication_encoding;
use shared::{
    Signed, Verified, limits,
    manifest::Manifest,
    profile::{Node, ProfileRequest},
    signing::{Payload, SigningKey},
    wire::Desired,
};
use std::{fmt::Debug, path::Path, sync::LazyLock};

struct Key {
    pair: Ed25519KeyPair,
    key: SigningKey,
}

static DIRECTOR_KEY: LazyLock<Key> = LazyLock::new(|| read(DIRECTOR));
static RELEASE_KEY: LazyLock<Key> = LazyLock::new(|| read(RELEASE));

fn read(bytes: &[u8]) -> Key {
    let pair = Ed25519KeyPair::from_pkcs8(bytes).expect("a key of the golden files");
    Key { pair, key: SigningKey::from_pkcs8(bytes).expect("a key of the golden files") }
}

/// The envelope that the key's holder would make of any bytes at all.
fn seal<T: Payload>(payload: &[u8], key: &Key) -> Vec<u8> {
    let signature = key.pair.sign(&pre_authentication_encoding(T::TYPE, payload));
    let envelope = serde_json::json!({
        "payloadType": T::TYPE,
        "payload": BASE64.encode(payload),
        "signatures": [{ "keyid": key.key.public().id(), "sig": BASE64.encode(signature) }],
    });
    envelope.to_string().into_bytes()
}

fn open<T: Payload>(envelope: &[u8]) -> Result<Verified<T>, shared::signing::Error> {
    Signed::parse(envelope)?.verify(keyring())
}

fn round_trip<T: Payload + PartialEq + Debug>(payload: &[u8], key: &Key) -> Option<T> {
    let value = open::<T>(&seal::<T>(payload, key)).ok()?;
    let again = Signed::sign(&*value, &[&key.key]).expect("what was accepted can be signed");
    assert_eq!(open::<T>(&again).expect("what was signed is accepted"), value);
    Some(value.into_inner())
}

fn check_manifest(manifest: &Manifest) {
    for file in &manifest.files {
        let name = Path::new(&file.name);
        assert_eq!(name.file_name(), Some(name.as_os_str()), "a name that leaves its folder");
        assert!(file.size_bytes <= limits::BUNDLE_FILE_BYTES_MAX);
    }
    assert!(manifest.input.elements() <= limits::TENSOR_ELEMENTS_MAX);
    assert_eq!(manifest.output.elements(), manifest.labels.len());
    let _ = manifest.size_bytes();
}

/// What a device computes for it is bounded.
fn check_profile_request(request: &ProfileRequest) {
    assert!(request.workloads.len() <= limits::PROFILE_WORKLOADS_MAX);
    for workload in &request.workloads {
        let nodes = workload.layout().expect("what was accepted has a layout");
        assert!(nodes.iter().map(Node::macs).sum::<u64>() <= limits::PROFILE_MACS_MAX);
        assert!(nodes.iter().map(Node::weights).sum::<u64>() <= limits::PROFILE_WEIGHTS_MAX);
        let _ = workload.features().expect("what has a layout has features");
    }
}

fuzz_target!(|payload: &[u8]| {
    if payload.len() > limits::ENVELOPE_BYTES_MAX / 2 {
        return;
    }
    let _ = round_trip::<Desired>(payload, &DIRECTOR_KEY);
    if let Some(request) = round_trip::<ProfileRequest>(payload, &DIRECTOR_KEY) {
        check_profile_request(&request);
    }
    if let Some(manifest) = round_trip::<Manifest>(payload, &RELEASE_KEY) {
        check_manifest(&manifest);
    }
});
