#![allow(clippy::unwrap_used)]
//! The wire as files: what was written once must be read for as long as this wire version lives, and each
//! attack in `tests/hostile/` must be refused for its own reason.
//!
//! `UPDATE_GOLDEN=1 cargo test -p shared --test golden` writes the files again.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use ring::signature::Ed25519KeyPair;
use serde::{Serialize, de::DeserializeOwned};
use shared::{
    Digest, Signed, Timestamp,
    board::RuntimeName,
    manifest::{FileEntry, GOLDEN_FILE, Lineage, MODEL_FILE, Manifest, Preprocess, Task, TensorSpec},
    profile::{
        Form, Measured, Processor, ProfileReport, ProfileRequest, Step, Timing as ProfileTiming, Workload,
    },
    signing::{Keyring, Payload, Role, SigningKey, TrustedKey},
    wire::{
        Assignment, Attempt, Batch, DeltaRef, Desired, Event, EventKind, Feedback, FeedbackKind, Outcome,
        Phase, Presence, Record, Refusal, Reported, SlotReport, Telemetry, TrialPolicy, VersionRef, WaitsFor,
        Want, encode_json,
    },
};
use std::{fmt::Debug, fs, path::PathBuf};
use uuid::Uuid;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn updating() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

/// Compares with the golden file, or writes it when asked to.
fn same_as_file(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = folder("golden").join(name);
    if updating() {
        fs::create_dir_all(folder("golden")).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    let stored = fs::read(&path).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&stored),
        String::from_utf8_lossy(bytes),
        "{name} is written differently than the golden file"
    );
    stored
}

fn key(name: &str) -> SigningKey {
    let path = folder("keys").join(format!("{name}.pk8"));
    if updating() && !path.exists() {
        fs::create_dir_all(folder("keys")).unwrap();
        fs::write(&path, SigningKey::generate_pkcs8().unwrap()).unwrap();
    }
    SigningKey::from_pkcs8(&fs::read(path).unwrap()).unwrap()
}

fn keyring() -> Keyring {
    Keyring::new([
        TrustedKey { role: Role::Director, key: key("director").public().clone() },
        TrustedKey { role: Role::Release, key: key("release").public().clone() },
    ])
}

fn assignment() -> Assignment {
    Assignment {
        slot: "default".parse().unwrap(),
        model: "mnist".parse().unwrap(),
        version: "v1.3".parse().unwrap(),
        version_id: "018f3c2e-7c00-7000-8000-000000000001".parse().unwrap(),
        bundle: Digest::of(b"bundle"),
        bundle_bytes: 1234,
        rollout: Some("018f3c2e-7c00-7000-8000-0000000000aa".parse().unwrap()),
        trial: TrialPolicy { latency_p99_us_max: Some(5000), ..TrialPolicy::default() },
        deltas: Vec::new(),
        update_bytes_max: None,
    }
}

fn desired_with_a_delta() -> Desired {
    let delta = DeltaRef {
        from: Digest::of(b"old model"),
        to: Digest::of(MODEL_FILE.as_bytes()),
        delta: Digest::of(b"delta"),
        bytes: 5,
    };
    let assignment = Assignment { deltas: vec![delta], update_bytes_max: Some(1_000_000), ..assignment() };
    Desired { assignments: vec![assignment], ..desired() }
}

fn desired() -> Desired {
    Desired {
        device: "cam-01".parse().unwrap(),
        generation: 42,
        issued_at: Timestamp(1_700_000_000_000),
        chunk_bytes: 65_536,
        assignments: vec![assignment()],
    }
}

fn version() -> VersionRef {
    let Assignment { model, version, version_id, bundle, .. } = assignment();
    VersionRef { model, version, version_id, bundle }
}

fn reported() -> Reported {
    Reported {
        device: "cam-01".parse().unwrap(),
        board: "raspberry-pi-4".parse().unwrap(),
        agent_version: "0.1.0".to_owned(),
        at: Timestamp(1_700_000_000_001),
        generation: 42,
        slots: vec![SlotReport {
            slot: "default".parse().unwrap(),
            active: Some(version()),
            last_good: None,
            runtime: Some("tract".to_owned()),
            phase: Phase::Fetching { bundle: Digest::of(b"bundle"), chunks_done: 3, chunks_total: 9 },
            attempt: Some(Attempt {
                generation: 41,
                rollout: None,
                version: version(),
                outcome: Outcome::Refused { reason: Refusal::GoldenMismatch, detail: "input 3".to_owned() },
                at: Timestamp(1_700_000_000_000),
                trial: None,
            }),
        }],
        disk_free_bytes: Some(1 << 30),
        api: Some("127.0.0.1:8000".to_owned()),
    }
}

fn manifest() -> Manifest {
    let file =
        |name: &str| FileEntry { name: name.to_owned(), digest: Digest::of(name.as_bytes()), size_bytes: 9 };
    Manifest {
        format: 1,
        model: "mnist".parse().unwrap(),
        version: "v1.3".parse().unwrap(),
        version_id: "018f3c2e-7c00-7000-8000-000000000001".parse().unwrap(),
        task: Task::ImageClassification,
        board: "generic-arm64".parse().unwrap(),
        created_at: Timestamp(1_700_000_000_000),
        input: TensorSpec { name: "input".to_owned(), shape: vec![1, 28, 28] },
        output: TensorSpec { name: "probabilities".to_owned(), shape: vec![2] },
        preprocess: Preprocess::linear(0.5, 0.0),
        labels: vec!["no".to_owned(), "yes".to_owned()],
        heads: Vec::new(),
        alarm: None,
        golden_tolerance: 0.125,
        files: vec![file(MODEL_FILE), file(GOLDEN_FILE)],
        lineage: Lineage { dataset: Digest::of(b"data"), job: None, seed: 42, parent: None },
    }
}

fn profile_request() -> ProfileRequest {
    let conv = Step::Conv { channels: 8, kernel: 3, stride: 2, groups: 1, relu: true };
    let depthwise = Step::Conv { channels: 8, kernel: 5, stride: 1, groups: 8, relu: false };
    let pools = [Step::MaxPool { kernel: 3, stride: 1 }, Step::AveragePool { kernel: 3, stride: 1 }];
    let rest = [Step::Add, Step::Concat, Step::GlobalAverage, Step::Linear { features: 10 }];
    let steps = [conv, depthwise].into_iter().chain(pools).chain(rest).collect();
    ProfileRequest {
        device: "cam-01".parse().unwrap(),
        generation: 3,
        issued_at: Timestamp(1_700_000_000_000),
        duration_ms_max: 600_000,
        workloads: vec![Workload { input: vec![1, 28, 28], steps }],
    }
}

fn profile_report() -> ProfileReport {
    let took = ProfileTiming::Took { median_ns: 21_000, low_ns: 20_000, high_ns: 23_000, runs: 201 };
    let failed = ProfileTiming::Failed { reason: "not here".to_owned() };
    let measured = |runtime, form, result| Measured { workload: 0, runtime, form, result };
    ProfileReport {
        device: "cam-01".parse().unwrap(),
        board: "raspberry-pi-4".parse().unwrap(),
        agent_version: "0.1.0".to_owned(),
        generation: 3,
        at: Timestamp(1_700_000_000_001),
        complete: true,
        cut_short: Some("the time was over".to_owned()),
        processor: Processor {
            architecture: "aarch64".to_owned(),
            name: Some("Raspberry Pi 4 Model B".to_owned()),
            cores: 4,
            load_permille: Some(1250),
        },
        measured: vec![
            measured(RuntimeName::Tract, Form::Fp32, took),
            measured(RuntimeName::OnnxRuntime, Form::Int8, failed),
        ],
    }
}

fn json_is_stable<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &'static str, message: &T) {
    let stored = same_as_file(name, &encode_json(name, message).unwrap());
    assert_eq!(&shared::wire::decode_json::<T>(name, &stored).unwrap(), message);
}

fn batch_is_stable<R: Record + PartialEq + Debug + Clone>(name: &str, record: R) {
    let batch = Batch { device: "cam-01".parse().unwrap(), records: vec![record] };
    let stored = same_as_file(name, hex::encode(batch.encode().unwrap()).as_bytes());
    let bytes = hex::decode(stored).unwrap();
    assert_eq!(Batch::<R>::decode(&bytes, &batch.device).unwrap(), batch);
}

fn envelope_is_stable<T: Payload + PartialEq + Debug>(name: &str, value: &T, key: &SigningKey) {
    let stored = same_as_file(name, &Signed::sign(value, &[key]).unwrap());
    assert_eq!(&*Signed::<T>::parse(&stored).unwrap().verify(&keyring()).unwrap(), value);
}

#[test]
fn control_messages_are_stable() {
    json_is_stable("reported.json", &reported());
    let waiting = Phase::Waiting {
        bundle: Digest::of(b"bundle"),
        until: Timestamp(1_700_000_000_000),
        reason: "100 bytes are left of the day's 5000".to_owned(),
        waits_for: WaitsFor::Budget,
    };
    let mut reported = reported();
    reported.slots[0].phase = waiting;
    json_is_stable("reported-waiting.json", &reported);
    json_is_stable("profile-report.json", &profile_report());
    json_is_stable("presence.json", &Presence { online: true });
    json_is_stable(
        "want.json",
        &Want { digest: Digest::of(b"x"), chunk_bytes: 65_536, ranges: vec![(0, 3), (7, 8)] },
    );
}

#[test]
fn batches_are_stable() {
    let at = Timestamp(1_700_000_000_000);
    batch_is_stable(
        "event.cbor.hex",
        Event {
            id: Uuid::from_u128(1),
            at,
            slot: None,
            bundle: Some(Digest::of(b"b")),
            kind: EventKind::DownloadResumed,
            detail: "from chunk 3 of 9".to_owned(),
        },
    );
    batch_is_stable(
        "feedback.cbor.hex",
        Feedback {
            id: Uuid::from_u128(2),
            at,
            slot: "default".parse().unwrap(),
            version_id: version().version_id,
            request_id: Some("r1".to_owned()),
            kind: FeedbackKind::Correction,
            value: None,
            label: Some("7".to_owned()),
        },
    );
    batch_is_stable(
        "telemetry.cbor.hex",
        Telemetry {
            id: Uuid::from_u128(3),
            at,
            duration_ms: 60_000,
            slot: "default".parse().unwrap(),
            version_id: version().version_id,
            requests: 10,
            failed: 1,
            latency_p50_us: Some(55),
            latency_p99_us: None,
            rss_bytes: Some(1 << 25),
        },
    );
}

#[test]
fn envelopes_are_stable() {
    envelope_is_stable("desired.envelope.json", &desired(), &key("director"));
    envelope_is_stable("desired-delta.envelope.json", &desired_with_a_delta(), &key("director"));
    envelope_is_stable("profile-request.envelope.json", &profile_request(), &key("director"));
    envelope_is_stable("manifest.envelope.json", &manifest(), &key("release"));
}

#[test]
fn an_unknown_field_from_a_newer_peer_is_ignored() {
    let mut value = serde_json::to_value(reported()).unwrap();
    value["from_the_future"] = serde_json::json!({ "x": 1 });
    let bytes = serde_json::to_vec(&value).unwrap();
    assert_eq!(shared::wire::decode_json::<Reported>("reported", &bytes).unwrap(), reported());
}

/// Each attack: a folder with `envelope.json` and `expect.txt`, the start of the error.
#[test]
fn every_hostile_envelope_is_refused_for_its_own_reason() {
    if updating() {
        write_hostile_envelopes();
    }
    let mut count = 0;
    for entry in fs::read_dir(folder("hostile")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(path.join("envelope.json")).unwrap();
        let expected = fs::read_to_string(path.join("expect.txt")).unwrap();
        let error = Signed::<Desired>::parse(&bytes)
            .and_then(|signed| signed.verify(&keyring()))
            .expect_err(&format!("{} was accepted", path.display()));
        assert!(error.to_string().starts_with(expected.trim()), "{}: {error}", path.display());
        count += 1;
    }
    assert!(count >= 12, "only {count} attacks found");
}

/// An envelope with the director's good signature over any payload: what a director with a fault would send.
fn signed_by_the_director(payload: &[u8]) -> Vec<u8> {
    let pair = Ed25519KeyPair::from_pkcs8(&fs::read(folder("keys").join("director.pk8")).unwrap()).unwrap();
    let head = format!("DSSEv1 {} {} {} ", Desired::TYPE.len(), Desired::TYPE, payload.len());
    let signature = pair.sign(&[head.as_bytes(), payload].concat());
    let envelope = serde_json::json!({
        "payloadType": Desired::TYPE,
        "payload": BASE64.encode(payload),
        "signatures": [{ "keyid": key("director").public().id(), "sig": BASE64.encode(signature) }],
    });
    serde_json::to_vec(&envelope).unwrap()
}

fn write_hostile_envelopes() {
    let good = Signed::sign(&desired(), &[&key("director")]).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&good).unwrap();
    let change = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut value = value.clone();
        edit(&mut value);
        serde_json::to_vec(&value).unwrap()
    };
    let payload = |edit: &dyn Fn(&mut serde_json::Value)| {
        change(&|envelope| {
            let bytes = BASE64.decode(envelope["payload"].as_str().unwrap()).unwrap();
            let mut inner: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            edit(&mut inner);
            envelope["payload"] = BASE64.encode(serde_json::to_vec(&inner).unwrap()).into();
        })
    };
    let untrusted = "no valid signature by a trusted Director key";
    let stranger = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap();
    let attacks: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", Vec::new(), "not a signed envelope"),
        ("cut-short", good[..good.len() / 2].to_vec(), "not a signed envelope"),
        ("unknown-field", change(&|e| e["alg"] = "none".into()), "not a signed envelope"),
        (
            "no-signature",
            change(&|e| e["signatures"] = serde_json::json!([])),
            "envelope carries 0 signatures",
        ),
        (
            "nine-signatures",
            change(&|e| e["signatures"] = vec![e["signatures"][0].clone(); 9].into()),
            "envelope carries 9 signatures",
        ),
        (
            "signature-not-base64",
            change(&|e| e["signatures"][0]["sig"] = "***".into()),
            "signature of the envelope",
        ),
        ("signature-cut", change(&|e| e["signatures"][0]["sig"] = "AAAA".into()), untrusted),
        (
            "signature-of-zeros",
            change(&|e| e["signatures"][0]["sig"] = BASE64.encode([0; 64]).into()),
            untrusted,
        ),
        (
            "foreign-key-id",
            change(&|e| e["signatures"][0]["keyid"] = Digest::of(b"other").to_string().into()),
            untrusted,
        ),
        ("stranger-signed", Signed::sign(&desired(), &[&stranger]).unwrap(), untrusted),
        ("release-key-signed", Signed::sign(&desired(), &[&key("release")]).unwrap(), untrusted),
        ("manifest-as-desired", Signed::sign(&manifest(), &[&key("release")]).unwrap(), "envelope holds a"),
        (
            "type-renamed",
            {
                let bytes = Signed::sign(&manifest(), &[&key("director")]).unwrap();
                let mut value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                value["payloadType"] = Desired::TYPE.into();
                serde_json::to_vec(&value).unwrap()
            },
            untrusted,
        ),
        ("generation-raised", payload(&|p| p["generation"] = 43.into()), untrusted),
        ("other-device", payload(&|p| p["device"] = "cam-02".into()), untrusted),
        (
            "bundle-swapped",
            payload(&|p| p["assignments"][0]["bundle"] = Digest::of(b"evil").to_string().into()),
            untrusted,
        ),
        (
            "signed-but-invalid",
            signed_by_the_director(&serde_json::to_vec(&Desired { chunk_bytes: 1, ..desired() }).unwrap()),
            "signed \"application/vnd.edgewright.desired.v1+json\" is invalid: chunk_bytes is 1",
        ),
        (
            "signed-but-incomplete",
            signed_by_the_director(b"{\"device\":\"cam-01\"}"),
            "signed payload is not a \"application/vnd.edgewright.desired.v1+json\"",
        ),
        ("too-large", vec![b' '; 256 * 1024 + 1], "envelope of 262145 bytes is over the limit"),
    ];
    for (name, bytes, expected) in attacks {
        let path = folder("hostile").join(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("envelope.json"), bytes).unwrap();
        fs::write(path.join("expect.txt"), format!("{expected}\n")).unwrap();
    }
}
