//! Signatures of models, keys, and statements under a good signature.

#![no_main]

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use libfuzzer_sys::fuzz_target;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};
use shared::signing::pre_authentication_encoding;
use std::{path::Path, sync::LazyLock};
use trust::oms::{ModelKey, ModelPublicKey, PAYLOAD_TYPE, Resource, Signature, SignedModel, sign};

/// A signature by the reference tool, and its key.
const THEIRS: &[u8] = include_bytes!("../../trust/src/oms/theirs.sig");
static THEIR_KEY: LazyLock<ModelPublicKey> = LazyLock::new(|| {
    ModelPublicKey::from_pem(include_str!("../../trust/src/oms/theirs.pub")).expect("their key")
});
static THEIR_MODEL: LazyLock<SignedModel> =
    LazyLock::new(|| verify(THEIRS, &THEIR_KEY).expect("their signature"));

/// A key of our own, in both forms.
static OURS: LazyLock<(ModelKey, EcdsaKeyPair)> = LazyLock::new(|| {
    let bytes = ModelKey::generate_pkcs8().expect("a key");
    let random = SystemRandom::new();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &bytes, &random);
    (ModelKey::from_pkcs8(&bytes).expect("a key"), pair.expect("a key"))
});

fn verify(bytes: &[u8], key: &ModelPublicKey) -> Result<SignedModel, trust::oms::Error> {
    Signature::parse(bytes)?.verify(key)
}

/// A bundle around any bytes at all, rightly signed.
fn seal(statement: &[u8]) -> Vec<u8> {
    let (key, pair) = &*OURS;
    let message = pre_authentication_encoding(PAYLOAD_TYPE, statement);
    let signature = pair.sign(&SystemRandom::new(), &message).expect("a signature");
    let bundle = serde_json::json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": { "publicKey": { "hint": key.public().hint() }, "tlogEntries": [] },
        "dsseEnvelope": {
            "payload": BASE64.encode(statement),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{ "sig": BASE64.encode(signature), "keyid": "" }],
        },
    });
    bundle.to_string().into_bytes()
}

fn check_model(model: &SignedModel) {
    let resources = model.resources();
    for resource in resources {
        let below = Path::new("model").join(&resource.name);
        assert!(
            below.starts_with("model") && !resource.name.split('/').any(|part| part == ".."),
            "{below:?}"
        );
    }
    let (left_out, signed): (Vec<Resource>, _) =
        resources.iter().cloned().partition(|resource| model.ignores(&resource.name));
    if left_out.is_empty() {
        model.check(resources).expect("a model is the one that was signed");
        assert!(model.check(&resources[1..]).is_err(), "a file is missing");
        let again = sign(model.name(), resources, &[], &OURS.0).expect("what was accepted can be signed");
        let again = verify(&again, OURS.0.public()).expect("what was signed is accepted");
        let sorted = |mut resources: Vec<Resource>| {
            resources.sort();
            resources
        };
        assert_eq!(sorted(again.resources().to_vec()), sorted(signed));
        assert_eq!(again.name(), model.name());
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(model) = verify(bytes, &THEIR_KEY) {
        assert_eq!(model, *THEIR_MODEL, "nobody signed this");
    }
    if let Ok(model) = verify(&seal(bytes), OURS.0.public()) {
        check_model(&model);
    }
    if let Some(key) = std::str::from_utf8(bytes).ok().and_then(|text| ModelPublicKey::from_pem(text).ok()) {
        assert_eq!(ModelPublicKey::from_pem(&key.to_pem()).expect("what was written is read"), key);
    }
});
