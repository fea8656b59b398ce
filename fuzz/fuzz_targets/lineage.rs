//! Lineages: a statement a line, each put under a good signature. A chain that is accepted is accepted again when it is
//! sealed anew; without a signature nothing is.

#![no_main]

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use edgewright_fuzz::{RELEASE, keyring};
use libfuzzer_sys::fuzz_target;
use ring::signature::Ed25519KeyPair;
use serde::Deserialize;
use shared::signing::SigningKey;
use shared::signing::pre_authentication_encoding;
use std::sync::LazyLock;
use trust::{
    lineage::{Artefact, Step, StepKind, follows, read, seal},
    oms::PAYLOAD_TYPE,
};

static KEY: LazyLock<(SigningKey, Ed25519KeyPair)> = LazyLock::new(|| {
    let pair = Ed25519KeyPair::from_pkcs8(RELEASE).expect("a key of the golden files");
    (SigningKey::from_pkcs8(RELEASE).expect("a key of the golden files"), pair)
});

/// What the last step signs are the files of the bundle.
#[derive(Deserialize)]
struct Last {
    subject: Vec<Artefact>,
}

fn sealed(statement: &[u8]) -> String {
    let (key, pair) = &*KEY;
    let signature = pair.sign(&pre_authentication_encoding(PAYLOAD_TYPE, statement));
    let envelope = serde_json::json!({
        "payloadType": PAYLOAD_TYPE,
        "payload": BASE64.encode(statement),
        "signatures": [{ "keyid": key.public().id(), "sig": BASE64.encode(signature) }],
    });
    format!("{envelope}\n")
}

fn same(a: &Step, b: &Step) -> bool {
    // Details are numbers and texts of others; a fraction may come back as its neighbour.
    let facts = |step: &Step| {
        let Step { step, subjects, materials, at, by, parent, details } = step.clone();
        (step, subjects, materials, at, by, parent, details.into_keys().collect::<Vec<_>>())
    };
    facts(a) == facts(b)
}

fuzz_target!(|bytes: &[u8]| {
    assert!(read(bytes, keyring(), &[]).is_err(), "nobody signed this");
    let lines = || bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let Some(Ok(Last { subject })) = lines().last().map(|line| serde_json::from_slice::<Last>(line)) else {
        return;
    };
    let file: String = lines().take(32).map(sealed).collect();
    let Ok(steps) = read(file.as_bytes(), keyring(), &subject) else { return };
    assert_eq!(steps.last().map(|step| step.step), Some(StepKind::Signing));
    assert!(steps.is_sorted_by(|a, b| a.step < b.step), "steps out of order");
    let _ = follows(&steps, &steps);
    let again = seal(steps.clone(), &KEY.0).expect("what was accepted can be sealed");
    let again = read(&again, keyring(), &subject).expect("what was sealed is accepted");
    assert!(again.len() == steps.len() && again.iter().zip(&steps).all(|(a, b)| same(a, b)));
});
