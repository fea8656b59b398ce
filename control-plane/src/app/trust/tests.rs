use super::*;
use crate::{
    app::{Page, testing},
    testing as fixtures,
};
use shared::signing::SigningKey;
use std::fs;

struct World {
    folder: tempfile::TempDir,
    app: Arc<App>,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let app = testing::app(folder.path(), "exit 1").await;
        Self { folder, app }
    }

    /// The keys go to a safe, as an operator would put them.
    fn put_keys_away(&self) -> KeyFolder {
        let safe = self.folder.path().join("safe");
        fs::rename(self.folder.path().join("keys/offline"), &safe).unwrap();
        KeyFolder::at(safe)
    }

    async fn next(&self, add: &[&Version], remove: &[&Version]) -> Targets {
        let repository = self.app.trust.repository.lock().await;
        let target = |version: &&Version| {
            let wanted = vouching(version);
            (wanted.path, Target { length: wanted.length, sha256: wanted.sha256, custom: None })
        };
        let remove: Vec<String> = remove.iter().map(|version| vouching(version).path).collect();
        let add = add.iter().map(target).collect();
        repository.next_targets(&OfflineRole::Targets, add, &remove, now()).unwrap()
    }
}

fn version(label: &str) -> Version {
    fixtures::version(label, label, Vec::new())
}

fn sent(targets: &Targets, keys: &[SigningKey]) -> NewMetadata {
    let mut document = Document::of_targets(targets);
    sign_all(&mut document, keys, "targets").unwrap();
    NewMetadata {
        role: "targets".to_owned(),
        document: serde_json::from_slice(&document.to_bytes()).unwrap(),
    }
}

#[tokio::test]
async fn with_its_keys_at_hand_the_server_vouches_by_itself_and_says_so() {
    let world = World::new().await;
    let version = version("v1.0");
    world.app.vouch(&version).await.unwrap();
    let status = world.app.trust_status().await.unwrap();
    assert!(status.automatic);
    assert_eq!(status.targets, ["models/m/v1.0"]);
    assert!(
        status.warnings.iter().any(|warning| warning.contains("move them away")),
        "{:?}",
        status.warnings
    );
    world.app.withdraw(&version).await.unwrap();
    assert!(world.app.trust_status().await.unwrap().targets.is_empty());
}

#[tokio::test]
async fn without_the_offline_keys_nothing_new_goes_out_until_a_person_has_signed() {
    let world = World::new().await;
    let keys = world.put_keys_away();
    let version = version("v1.0");
    let error = world.app.vouch(&version).await.unwrap_err().to_string();
    assert!(error.contains("edgewright trust sign --keys DIR m@v1.0"), "{error}");
    let targets = world.next(&[&version], &[]).await;
    let status =
        world.app.accept_trust(sent(&targets, &keys.keys(&OfflineRole::Targets).unwrap())).await.unwrap();
    assert!(!status.automatic);
    world.app.vouch(&version).await.unwrap();
    // Another bundle under the same name is another thing.
    let swapped = Version { bundle: Digest::of(b"other"), ..version.clone() };
    assert!(matches!(world.app.vouch(&swapped).await, Err(Error::Conflict(_))));
    let error = world.app.withdraw(&version).await.unwrap_err().to_string();
    assert!(error.contains("--withdraw m@v1.0"), "{error}");
}

#[tokio::test]
async fn what_the_online_keys_sign_is_refused_and_on_record() {
    let world = World::new().await;
    world.put_keys_away();
    let targets = world.next(&[&version("v1.0")], &[]).await;
    let mut document = Document::of_targets(&targets);
    let online = world.app.signer.online();
    document.sign(online.snapshot).unwrap();
    document.sign(online.timestamp).unwrap();
    let new = NewMetadata {
        role: "targets".to_owned(),
        document: serde_json::from_slice(&document.to_bytes()).unwrap(),
    };
    assert!(matches!(world.app.accept_trust(new).await, Err(Error::Invalid(_))));
    world.app.flush_refusals().await;
    let events = world.app.security_events(&Page::first(10)).await.unwrap();
    assert!(events.iter().any(|event| event.kind == "metadata_refused"), "{events:?}");
    assert!(online.snapshot.public() != online.timestamp.public());
}

#[tokio::test]
async fn a_second_start_has_the_same_repository() {
    let world = World::new().await;
    world.app.vouch(&version("v1.0")).await.unwrap();
    let files = world.app.trust_metadata().await.unwrap().files;
    let signer = Signer::open(&world.folder.path().join("keys"), &[], now()).unwrap();
    let again = Trust::open(world.folder.path(), &signer, now()).unwrap();
    let names: Vec<_> = again.repository.lock().await.files().into_keys().collect();
    assert_eq!(names, files.into_keys().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_server_whose_offline_keys_have_not_signed_for_years_starts_all_the_same() {
    let world = World::new().await;
    let signer = Signer::open(&world.folder.path().join("keys"), &[], now()).unwrap();
    let later = now().plus_ms(3 * 366 * 86_400_000);
    let again = Trust::open(world.folder.path(), &signer, later).unwrap();
    assert_eq!(again.repository.lock().await.root().unwrap().version, 1);
}
