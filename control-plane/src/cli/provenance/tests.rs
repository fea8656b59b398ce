use super::*;
use shared::signing::{Role, SigningKey, TrustedKey};
use trust::{
    lineage::StepKind,
    oms::{self, ModelKey},
};

/// A signed folder with its public key beside it.
struct Folder {
    keep: tempfile::TempDir,
    model: PathBuf,
    public_key: PathBuf,
}

fn write(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

impl Folder {
    fn new() -> Self {
        let keep = tempfile::tempdir().unwrap();
        let model = keep.path().join("model");
        for (name, content) in [("model.onnx", "a model"), ("sub/tokens", "t"), ("ignored/x", "x")] {
            write(&model.join(name), content);
        }
        let key = ModelKey::from_pkcs8(&ModelKey::generate_pkcs8().unwrap()).unwrap();
        let resources = [("model.onnx", "a model"), ("sub/tokens", "t")].map(|(name, content)| Resource {
            name: name.to_owned(),
            digest: Digest::of(content.as_bytes()),
        });
        let signature = oms::sign("m", &resources, &["ignored"], &key).unwrap();
        write(&model.join(SIGNATURE_FILE), signature);
        let public_key = keep.path().join("model.pub");
        write(&public_key, key.public().to_pem());
        Self { keep, model, public_key }
    }

    fn verify(&self, signature: Option<PathBuf>) -> Outcome {
        let args = VerifyArgs { model: self.model.clone(), signature, public_key: self.public_key.clone() };
        verify(&args, true)
    }

    fn failed(&self) -> String {
        match self.verify(None) {
            Err(Failure::Failed(text)) => text,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_folder_as_it_was_signed_verifies_wherever_the_signature_lies() {
    let folder = Folder::new();
    folder.verify(None).unwrap();
    // Its name in the folder is not ignored by the signature; that it is the signature itself is what counts.
    let renamed = folder.model.join("other.sig");
    fs::rename(folder.model.join(SIGNATURE_FILE), &renamed).unwrap();
    folder.verify(Some(renamed.clone())).unwrap();
    let outside = folder.keep.path().join("outside.sig");
    fs::rename(renamed, &outside).unwrap();
    folder.verify(Some(outside)).unwrap();
}

#[test]
fn what_differs_is_named() {
    let folder = Folder::new();
    write(&folder.model.join("model.onnx"), "a modeL");
    fs::remove_file(folder.model.join("sub/tokens")).unwrap();
    write(&folder.model.join("sub/more"), "");
    let text = folder.failed();
    assert!(text.contains("changed: model.onnx; missing: sub/tokens; not signed: sub/more"), "{text}");
}

#[test]
fn links_are_refused() {
    let folder = Folder::new();
    std::os::unix::fs::symlink("/etc", folder.model.join("sub/link")).unwrap();
    assert!(folder.failed().contains("neither a file nor a folder"));
}

#[test]
fn another_key_fails_and_what_cannot_be_used_is_an_error_of_usage() {
    let folder = Folder::new();
    fs::copy(Folder::new().public_key, &folder.public_key).unwrap();
    assert!(folder.failed().contains("signed with another key"));
    write(&folder.public_key, "no key");
    assert!(matches!(folder.verify(None), Err(Failure::Usage(text)) if text.contains("model.pub")));
    let missing = folder.keep.path().join("missing.sig");
    write(&folder.public_key, fs::read(Folder::new().public_key).unwrap());
    assert!(
        matches!(folder.verify(Some(missing)), Err(Failure::Usage(text)) if text.contains("missing.sig"))
    );
}

#[test]
fn a_lineage_in_a_folder_is_checked_against_its_files_and_the_keys_that_are_named() {
    let keep = tempfile::tempdir().unwrap();
    let dir = keep.path().join("m");
    let model = Artefact::new("model.onnx", Digest::of(b"a model"));
    let step = |step, materials| Step {
        step,
        subjects: vec![model.clone()],
        materials,
        at: shared::Timestamp(1),
        by: String::new(),
        parent: None,
        details: Default::default(),
    };
    let steps = vec![step(StepKind::Import, vec![]), step(StepKind::Signing, vec![model.clone()])];
    let key = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap();
    write(&dir.join("model.onnx"), "a model");
    write(&dir.join("bundle"), "is not a file of the bundle");
    write(&dir.join(LINEAGE_FILE), lineage::seal(steps.clone(), &key).unwrap());
    let keyring = dir.join("keyring.json");
    let trusted = Keyring::new([TrustedKey { role: Role::Release, key: key.public().clone() }]);
    write(&keyring, serde_json::to_vec(&trusted).unwrap());
    assert_eq!(local_steps(&dir, &keyring).unwrap(), steps);
    assert_eq!(steps_table(&steps).lines().count(), 3);
    write(&dir.join("model.onnx"), "a modeL");
    let Failure::Failed(text) = local_steps(&dir, &keyring).unwrap_err() else { panic!("not a failure") };
    assert!(text.contains("changed: model.onnx"), "{text}");
    write(&keyring, serde_json::to_vec(&Keyring::default()).unwrap());
    let Failure::Failed(text) = local_steps(&dir, &keyring).unwrap_err() else { panic!("not a failure") };
    assert!(text.contains("no valid signature by a trusted Release key"), "{text}");
}
