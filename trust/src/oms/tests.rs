use super::*;
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use proptest::prelude::*;
use serde_json::{Value, json};
use shared::signing::pre_authentication_encoding;

/// Made by `model_signing sign key` 1.1.1 over `model.onnx` ("hello"), `sub/a` ("x") and `sub-b` ("y").
const THEIRS: &[u8] = include_bytes!("theirs.sig");
const THEIR_KEY: &str = include_str!("theirs.pub");

fn key() -> ModelKey {
    ModelKey::from_pkcs8(&ModelKey::generate_pkcs8().unwrap()).unwrap()
}

fn file(name: &str, content: &str) -> Resource {
    Resource { name: name.to_owned(), digest: Digest::of(content.as_bytes()) }
}

fn their_files() -> Vec<Resource> {
    vec![file("model.onnx", "hello"), file("sub/a", "x"), file("sub-b", "y")]
}

fn verify(bytes: &[u8], key: &ModelPublicKey) -> Result<SignedModel, Error> {
    Signature::parse(bytes)?.verify(key)
}

/// A bundle around `statement`, rightly signed.
fn sealed(statement: &Value, key: &ModelKey) -> Vec<u8> {
    let payload = serde_json::to_vec(statement).unwrap();
    let sig = key.sign(&pre_authentication_encoding(PAYLOAD_TYPE, &payload)).unwrap();
    let mut bundle: Value = serde_json::from_slice(THEIRS).unwrap();
    bundle["verificationMaterial"]["publicKey"]["hint"] = json!(key.public().hint());
    bundle["dsseEnvelope"]["payload"] = json!(BASE64.encode(payload));
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = json!(BASE64.encode(sig));
    serde_json::to_vec(&bundle).unwrap()
}

fn their_statement() -> Value {
    let bundle: Value = serde_json::from_slice(THEIRS).unwrap();
    let payload = BASE64.decode(bundle["dsseEnvelope"]["payload"].as_str().unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

#[test]
fn a_signature_by_the_reference_tool_is_accepted_for_its_files_and_no_others() {
    let key = ModelPublicKey::from_pem(THEIR_KEY).unwrap();
    let model = verify(THEIRS, &key).unwrap();
    assert_eq!((model.name(), model.resources()), ("m", &their_files()[..]));
    model.check(&their_files()).unwrap();
    let mut with_ignored = their_files();
    with_ignored.extend([file("model.sig", "?"), file(".git/config", "?")]);
    model.check(&with_ignored).unwrap();
    let changed = vec![file("model.onnx", "hellO"), file("sub-b", "y"), file("new", "")];
    let Err(Error::Differs(differences)) = model.check(&changed) else { panic!("accepted") };
    assert_eq!(differences.to_string(), "changed: model.onnx; missing: sub/a; not signed: new");
}

#[test]
fn our_statement_says_what_the_reference_tool_would_say() {
    let key = key();
    let mut files = their_files();
    files.reverse();
    let ignored = [".github", ".gitattributes", "model.sig", ".git", ".gitignore"];
    let bytes = sign("m", &files, &ignored, &key).unwrap();
    let bundle: Value = serde_json::from_slice(&bytes).unwrap();
    let payload = BASE64.decode(bundle["dsseEnvelope"]["payload"].as_str().unwrap()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&payload).unwrap(), their_statement());
    assert_eq!(bundle["verificationMaterial"]["publicKey"]["hint"], json!(key.public().hint()));
}

#[test]
fn a_public_key_is_read_and_written_as_others_do() {
    let key = ModelPublicKey::from_pem(THEIR_KEY).unwrap();
    assert_eq!(key.to_pem(), THEIR_KEY);
    let spread = format!("text before\n{}\ntext after", THEIR_KEY.replace('\n', "\r\n"));
    assert_eq!(ModelPublicKey::from_pem(&spread).unwrap(), key);
}

#[test]
fn keys_of_other_kinds_and_what_is_no_key_are_refused_by_name() {
    let ed25519 = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    let refused = |text: &str| ModelPublicKey::from_pem(text).unwrap_err().to_string();
    assert!(refused(ed25519).contains("P-256"));
    assert!(refused("").contains("not a public key in PEM"));
    assert!(refused(&THEIR_KEY[..100]).contains("not a public key in PEM"));
    assert!(refused(&THEIR_KEY.replace("ES7C", "%%%%")).contains("base64"));
    assert!(refused(&"x".repeat(limits::PUBLIC_KEY_BYTES_MAX + 1)).contains("too large"));
    assert!(ModelKey::from_pkcs8(b"no key").is_err());
}

#[test]
fn another_key_a_forged_signature_and_a_changed_statement_are_refused() {
    let (ours, other) = (key(), key());
    let bytes = sign("m", &their_files(), &[], &ours).unwrap();
    assert!(matches!(verify(&bytes, other.public()), Err(Error::OtherKey { .. })));
    let bundle: Value = serde_json::from_slice(&bytes).unwrap();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut bundle = bundle.clone();
        change(&mut bundle);
        verify(&serde_json::to_vec(&bundle).unwrap(), ours.public())
    };
    let resigned = sign("m", &[file("other", "x")], &[], &other).unwrap();
    let resigned: Value = serde_json::from_slice(&resigned).unwrap();
    for forged in [
        changed(&|bundle| bundle["dsseEnvelope"] = resigned["dsseEnvelope"].clone()),
        changed(&|bundle| bundle["dsseEnvelope"]["payload"] = json!("e30=")),
        changed(&|bundle| bundle["dsseEnvelope"]["signatures"][0]["sig"] = json!("")),
    ] {
        assert!(matches!(forged, Err(Error::Untrusted)), "{forged:?}");
    }
    changed(&|bundle| bundle["verificationMaterial"]["publicKey"] = json!({})).unwrap();
}

#[test]
fn bundles_of_other_kinds_are_refused_by_name() {
    let key = ModelPublicKey::from_pem(THEIR_KEY).unwrap();
    let refused = |pointer: &str, value: Value| {
        let mut bundle: Value = serde_json::from_slice(THEIRS).unwrap();
        *bundle.pointer_mut(pointer).unwrap() = value;
        verify(&serde_json::to_vec(&bundle).unwrap(), &key).unwrap_err().to_string()
    };
    assert!(refused("/mediaType", json!("application/x")).contains("the bundle is \"application/x\""));
    assert!(refused("/verificationMaterial", json!({ "certificate": {} })).contains("certificate"));
    assert!(refused("/dsseEnvelope/payloadType", json!("text/plain")).contains("the payload is"));
    assert!(refused("/dsseEnvelope/signatures", json!([])).contains("0 signatures"));
    assert!(refused("/dsseEnvelope/payload", json!("%")).contains("payload of the signature is not base64"));
    assert!(refused("/dsseEnvelope", json!(null)).contains("not a Sigstore bundle"));
}

#[test]
fn statements_that_break_a_rule_are_refused_although_the_key_is_right() {
    let key = key();
    let refused = |pointer: &str, value: Value| {
        let mut statement = their_statement();
        *statement.pointer_mut(pointer).unwrap() = value;
        verify(&sealed(&statement, &key), key.public()).unwrap_err().to_string()
    };
    verify(&sealed(&their_statement(), &key), key.public()).unwrap();
    let resources = "/predicate/resources";
    assert!(refused("/_type", json!("x")).contains("the statement is \"x\""));
    assert!(refused("/predicateType", json!("https://slsa.dev/provenance/v1")).contains("slsa"));
    assert!(refused("/predicate/serialization/method", json!("shards")).contains("\"shards\""));
    assert!(refused("/predicate/serialization/hash_type", json!("blake3")).contains("\"blake3\""));
    assert!(refused("/predicate/resources/0/algorithm", json!("sha1")).contains("\"sha1\""));
    assert!(refused("/predicate/resources/0/digest", json!("00")).contains("\"model.onnx\""));
    assert!(refused("/predicate/resources/1/name", json!("model.onnx")).contains("named twice"));
    for name in ["../x", "/etc/passwd", "a//b", "", "a/./b", "a\0b"] {
        assert!(refused("/predicate/resources/0/name", json!(name)).contains("no path inside"), "{name:?}");
    }
    assert!(refused(resources, json!([])).contains("covers 1 to"));
    assert!(refused("/subject", json!([])).contains("one subject"));
    assert!(refused("/subject/0/digest/sha256", json!(Digest::of(b""))).contains("contradicts itself"));
    assert!(refused("/predicate", json!(7)).contains("not a statement about a model"));
    assert!(matches!(verify(&sealed(&json!([]), &key), key.public()), Err(Error::Statement(_))));
}

#[test]
fn a_bundle_over_the_limit_and_a_hostile_one_end_in_an_error() {
    assert!(matches!(
        Signature::parse(&vec![b' '; limits::MODEL_SIGNATURE_BYTES_MAX + 1]),
        Err(Error::TooLarge { .. })
    ));
    let nested = "[".repeat(100_000);
    assert!(matches!(Signature::parse(nested.as_bytes()), Err(Error::Bundle(_))));
    for cut in 0..THEIRS.len() {
        assert!(Signature::parse(&THEIRS[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn what_is_left_out_ends_at_a_parts_border_and_never_leads_outside() {
    let key = key();
    let ignore = ["logs/", "./notes.txt", "..", "/", ".", ""];
    let model = verify(&sign("m", &[file("a", "")], &ignore, &key).unwrap(), key.public()).unwrap();
    assert!(model.ignores("logs") && model.ignores("logs/1") && model.ignores("notes.txt"));
    assert!(!model.ignores("logs2") && !model.ignores("a") && !model.ignores("x/logs"));
    assert!(sign("m", &[file("logs/1", "")], &["logs"], &key).is_err());
}

#[test]
fn a_model_that_is_one_file_is_named_by_a_dot() {
    let key = key();
    let model = verify(&sign("m", &[file(".", "x")], &[], &key).unwrap(), key.public()).unwrap();
    model.check(&[file(".", "x")]).unwrap();
    assert!(model.check(&[file(".", "y")]).is_err());
}

fn models() -> impl Strategy<Value = Vec<Resource>> {
    let names = proptest::collection::btree_set("[a-c.-]{0,2}[a-c]{1,2}(/[a-c-]{1,2}){0,2}", 1..8);
    (names, any::<[u8; 32]>()).prop_map(|(names, seed)| {
        let digest = |name: &String| Digest::of(&[name.as_bytes(), &seed].concat());
        names.into_iter().map(|name| Resource { digest: digest(&name), name }).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_signed_verifies_in_any_order_and_nothing_else_does(
        files in models(), at in any::<proptest::sample::Index>(), rotate in any::<proptest::sample::Index>(),
    ) {
        let key = key();
        let model = verify(&sign("m", &files, &["model.sig"], &key).unwrap(), key.public()).unwrap();
        let mut shuffled = files.clone();
        shuffled.rotate_left(rotate.index(files.len()));
        model.check(&shuffled).unwrap();
        let at = at.index(files.len());
        let name = shuffled[at].name.clone();
        shuffled[at].digest = Digest::of(b"changed");
        let Err(Error::Differs(differences)) = model.check(&shuffled) else { panic!("accepted") };
        prop_assert_eq!(&differences.changed, std::slice::from_ref(&name));
        shuffled.remove(at);
        let Err(Error::Differs(differences)) = model.check(&shuffled) else { panic!("accepted") };
        prop_assert_eq!(&differences.missing, &[name]);
    }

    #[test]
    fn one_changed_byte_anywhere_is_never_a_different_model(at in 0usize..THEIRS.len(), byte: u8) {
        let mut bytes = THEIRS.to_vec();
        bytes[at] = byte;
        let key = ModelPublicKey::from_pem(THEIR_KEY).unwrap();
        if let Ok(model) = verify(&bytes, &key) {
            prop_assert_eq!(model, verify(THEIRS, &key).unwrap());
        }
    }

    #[test]
    fn bytes_from_anywhere_do_not_panic(bytes: Vec<u8>) {
        let _ = Signature::parse(&bytes);
        let _ = ModelPublicKey::from_pem(&String::from_utf8_lossy(&bytes));
        let key = key();
        let _ = statement::read(&bytes);
        let _ = ModelKey::from_pkcs8(&bytes);
        let _ = key.public().verify(&bytes, &bytes);
    }
}
