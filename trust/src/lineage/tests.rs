use super::*;
use proptest::prelude::*;
use shared::{
    Digest, ModelVersionId, Signed, Timestamp,
    signing::{Keyring, Role, SigningKey, TrustedKey},
};

fn key() -> SigningKey {
    SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap()
}

fn ring(key: &SigningKey, role: Role) -> Keyring {
    Keyring::new([TrustedKey { role, key: key.public().clone() }])
}

fn artefact(text: &str) -> Artefact {
    Artefact::new(text.split('#').next().unwrap_or(text), Digest::of(text.as_bytes()))
}

fn step(kind: StepKind, materials: &[&str], subjects: &[&str]) -> Step {
    let artefacts = |texts: &[&str]| texts.iter().map(|text| artefact(text)).collect();
    Step {
        step: kind,
        subjects: artefacts(subjects),
        materials: artefacts(materials),
        at: Timestamp(1_790_000_000_000),
        by: "job 7".to_owned(),
        parent: None,
        details: [("seed".to_owned(), serde_json::json!(7))].into(),
    }
}

/// What a search gives.
fn searched() -> Vec<Step> {
    vec![
        step(StepKind::Data, &[], &["mnist"]),
        step(StepKind::Search, &["mnist"], &["arch.json"]),
        step(StepKind::Training, &["mnist", "arch.json"], &["weights"]),
        step(StepKind::Compression, &["weights", "mnist"], &["model.onnx", "golden"]),
        step(StepKind::Signing, &["model.onnx", "golden"], &["model.onnx", "golden"]),
    ]
}

/// What a retraining on other data gives.
fn retrained() -> Vec<Step> {
    let mut training = step(StepKind::Training, &["other", "arch.json", "weights"], &["weights#2"]);
    training.parent = Some(Parent {
        version: "m@v1.0".to_owned(),
        id: ModelVersionId(Default::default()),
        bundle: Digest::of(b"bundle"),
    });
    vec![
        step(StepKind::Data, &[], &["other"]),
        training,
        step(StepKind::Compression, &["weights#2"], &["model.onnx#2"]),
        step(StepKind::Signing, &["model.onnx#2"], &["model.onnx#2"]),
    ]
}

fn files() -> Vec<Artefact> {
    vec![artefact("golden"), artefact("model.onnx")]
}

/// Signs each step, chain or not.
fn signed(steps: Vec<Step>, key: &SigningKey) -> Vec<u8> {
    let lines = steps.into_iter().map(|step| Signed::sign(&Statement::from(step), &[key]).unwrap());
    lines.flat_map(|line| [line, b"\n".to_vec()].concat()).collect()
}

#[test]
fn what_was_sealed_reads_back_as_the_same_steps() {
    let key = key();
    let file = seal(searched(), &key).unwrap();
    assert_eq!(read(&file, &ring(&key, Role::Release), &files()).unwrap(), searched());
    let imported = vec![
        step(StepKind::Import, &[], &["model.onnx"]),
        step(StepKind::Signing, &["model.onnx"], &["model.onnx"]),
    ];
    let file = seal(imported.clone(), &key).unwrap();
    assert_eq!(read(&file, &ring(&key, Role::Release), &[artefact("model.onnx")]).unwrap(), imported);
}

#[test]
fn each_line_is_an_in_toto_statement_in_an_envelope_that_others_read() {
    use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
    let file = seal(searched(), &key()).unwrap();
    let first = file.split(|&byte| byte == b'\n').nth(1).unwrap();
    let envelope: serde_json::Value = serde_json::from_slice(first).unwrap();
    assert_eq!(envelope["payloadType"], "application/vnd.in-toto+json");
    let payload = BASE64.decode(envelope["payload"].as_str().unwrap()).unwrap();
    let statement: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://edgewright.dev/lineage/search/v1");
    assert_eq!(
        statement["subject"],
        serde_json::json!([{ "name": "arch.json", "digest": { "sha256": Digest::of(b"arch.json") } }])
    );
    assert_eq!(statement["predicate"]["materials"][0]["name"], "mnist");
}

#[test]
fn steps_by_another_key_or_by_a_key_of_another_role_are_refused() {
    let (ours, other) = (key(), key());
    let file = seal(searched(), &ours).unwrap();
    for keyring in [ring(&other, Role::Release), ring(&ours, Role::Director), Keyring::default()] {
        let refused = read(&file, &keyring, &files());
        let untrusted = signing::Error::Untrusted { role: Role::Release };
        assert!(
            matches!(&refused, Err(Error::Envelope { number: 1, source }) if source.to_string() == untrusted.to_string())
        );
    }
    let mut mixed = signed(searched()[..4].to_vec(), &ours);
    mixed.extend(signed(searched()[4..].to_vec(), &other));
    assert!(matches!(
        read(&mixed, &ring(&ours, Role::Release), &files()),
        Err(Error::Envelope { number: 5, .. })
    ));
}

#[test]
fn steps_that_are_no_chain_are_refused_although_each_is_signed() {
    let key = key();
    let keyring = ring(&key, Role::Release);
    let refused = |change: &dyn Fn(&mut Vec<Step>)| {
        let mut steps = searched();
        change(&mut steps);
        let unsealed = seal(steps.clone(), &key).unwrap_err().to_string();
        assert_eq!(read(&signed(steps, &key), &keyring, &files()).unwrap_err().to_string(), unsealed);
        unsealed
    };
    assert!(refused(&|steps| drop(steps.remove(0))).contains("(search) of the lineage is the first one"));
    assert!(refused(&|steps| drop(steps.pop())).contains("has to be the signing"));
    assert!(refused(&|steps| drop(steps.remove(1))).contains("took in \"arch.json\", which no step"));
    assert!(refused(&|steps| steps.swap(1, 2)).contains("step 2 (training)"));
    assert!(refused(&|steps| steps.insert(1, searched()[0].clone())).contains("step 2 (data)"));
    assert!(refused(&|steps| steps[0].materials.push(artefact("x"))).contains("took in something"));
    assert!(
        refused(&|steps| steps[3].materials.remove(0).name.clear()).contains("nothing that training gave")
    );
    assert!(refused(&|steps| steps[2].subjects[0] = artefact("weights#2")).contains("\"weights\""));
    assert!(refused(&|steps| steps.clear()).contains("0 steps"));
    let many = |steps: &mut Vec<Step>| *steps = vec![searched()[0].clone(); limits::LINEAGE_STEPS_MAX + 1];
    assert!(refused(&many).contains("17 steps"));
}

#[test]
fn a_chain_of_other_files_names_those_that_differ() {
    let key = key();
    let file = seal(searched(), &key).unwrap();
    let found = [artefact("extra"), Artefact::new("model.onnx", Digest::of(b"changed"))];
    let error = read(&file, &ring(&key, Role::Release), &found).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the lineage is of other files than these: changed: model.onnx; missing: golden; not signed: extra"
    );
}

#[test]
fn a_retraining_follows_the_version_that_it_went_on_from_and_no_other() {
    let key = key();
    seal(retrained(), &key).unwrap();
    follows(&retrained(), &searched()).unwrap();
    let mut other = searched();
    other[2].subjects[0] = artefact("weights#3");
    let error = follows(&retrained(), &other).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the training took \"weights\" from m@v1.0, whose lineage does not give it"
    );
    let mut orphan = retrained();
    orphan[1].parent = None;
    assert!(seal(orphan, &key).unwrap_err().to_string().contains("no step before it gave"));
}

#[test]
fn statements_that_break_a_rule_are_not_signed() {
    let key = key();
    let refused = |change: &dyn Fn(&mut Step)| {
        let mut steps = searched();
        change(&mut steps[4]);
        let error = seal(steps, &key).unwrap_err();
        std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string)
    };
    assert!(refused(&|step| step.subjects.clear()).contains("subject is empty"));
    assert!(refused(&|step| step.subjects.push(artefact("golden"))).contains("\"golden\" twice"));
    assert!(refused(&|step| step.subjects[0].name.clear()).contains("not of 1 to 256 bytes"));
    assert!(refused(&|step| step.by = "x".repeat(300)).contains("by has over"));
    assert!(refused(&|step| step.parent = retrained()[1].parent.clone()).contains("a signing has no parent"));
    let many: Vec<Artefact> = (0..=limits::LINEAGE_ARTEFACTS_MAX)
        .map(|index| Artefact::new(index.to_string(), Digest::of(b"")))
        .collect();
    assert!(refused(&|step| step.subjects = many.clone()).contains("over 64 entries"));
}

#[test]
fn a_file_over_the_limit_is_not_looked_at() {
    let file = vec![b'\n'; limits::LINEAGE_BYTES_MAX + 1];
    assert!(matches!(read(&file, &Keyring::default(), &[]), Err(Error::TooLarge { .. })));
    assert!(matches!(read(b"\n\n", &Keyring::default(), &[]), Err(Error::StepCount { count: 0 })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_lineage_cut_short_or_changed_anywhere_is_refused(at in any::<prop::sample::Index>(), byte: u8) {
        let key = key();
        let keyring = ring(&key, Role::Release);
        let file = seal(searched(), &key).unwrap();
        let at = at.index(file.len() - 1);
        prop_assert!(read(&file[..at], &keyring, &files()).is_err());
        let mut changed = file;
        changed[at] = byte;
        if let Ok(steps) = read(&changed, &keyring, &files()) {
            prop_assert_eq!(steps, searched());
        }
    }

    #[test]
    fn bytes_from_anywhere_do_not_panic(bytes: Vec<u8>) {
        let _ = read(&bytes, &ring(&key(), Role::Release), &[]);
    }
}
