use super::*;
use crate::{store::Store, testing::Offline};
use shared::{ModelVersionId, board::RuntimeName, manifest::FileEntry};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(20);

struct Thread {
    blobs: PathBuf,
    jobs: queue::Sender<Job>,
    done: mpsc::Receiver<Done>,
}

impl Thread {
    fn start(folder: &Path) -> Self {
        let blobs = folder.join("blobs");
        fs::create_dir(&blobs).unwrap();
        let store = Arc::new(Store::open(&folder.join("s"), 10).unwrap());
        let mut offline = Offline::new(&Keyring::default());
        let version = version();
        offline.vouch(&version.model, version.version, version.bundle);
        let (sender, done) = mpsc::channel();
        let installer = Installer {
            blobs: Arc::new(Blobs::new(blobs.clone(), store)),
            models: Arc::default(),
            engine: Arc::new(Engine::open(&[RuntimeName::Tract], None).unwrap()),
            trust: Arc::new(offline.trust(&folder.join("trust.json"))),
            disk_reserve_bytes: 0,
        };
        let jobs = installer.start(move |outcome| drop(sender.send(outcome))).unwrap();
        Self { blobs, jobs, done }
    }

    fn act(&self, slot: &str, action: SlotAction) {
        let slot = slot.parse().unwrap();
        self.jobs.blocking_send(Job { slot, work: Work::Action(action), runtime: None }).unwrap();
    }

    fn ask(&self, slot: &str, action: SlotAction) -> SlotInput {
        self.act(slot, action);
        // Jobs without an answer say that they are done, too.
        loop {
            if let Some(input) = self.done.recv_timeout(PATIENCE).unwrap().input {
                return input;
            }
        }
    }
}

fn version() -> VersionRef {
    VersionRef {
        model: "m".parse().unwrap(),
        version: "v1.0".parse().unwrap(),
        version_id: ModelVersionId(uuid::Uuid::from_u128(1)),
        bundle: Digest::of(b"bundle"),
    }
}

/// A folder in a file's place opens, and reading it is an I/O error.
#[test]
fn a_disk_that_fails_to_read_is_waited_for_and_is_no_fault_of_the_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let thread = Thread::start(folder.path());
    let digest = Digest::of(b"bundle");
    fs::create_dir(thread.blobs.join(digest.to_string())).unwrap();
    for action in [
        SlotAction::OpenBlob { digest, size_bytes: 6, chunk_bytes: 1024 },
        SlotAction::VerifyBlob { digest, size_bytes: 6 },
        SlotAction::ReadManifest { version: version(), newest: None },
    ] {
        let input = thread.ask("default", action);
        assert!(matches!(input, SlotInput::StorageFailed { bundle, .. } if bundle == digest), "{input:?}");
    }
    // Bytes that can be read and are wrong are refused.
    fs::remove_dir(thread.blobs.join(digest.to_string())).unwrap();
    fs::write(thread.blobs.join(digest.to_string()), "other!").unwrap();
    let input = thread.ask("default", SlotAction::VerifyBlob { digest, size_bytes: 6 });
    assert!(matches!(input, SlotInput::BlobCorrupt { .. }), "{input:?}");
    let input = thread.ask("default", SlotAction::ReadManifest { version: version(), newest: None });
    assert!(matches!(input, SlotInput::ManifestRefused { reason: Refusal::BadManifest, .. }), "{input:?}");
    let other = VersionRef { bundle: Digest::of(b"other"), ..version() };
    let input = thread.ask("default", SlotAction::ReadManifest { version: other, newest: None });
    assert!(matches!(input, SlotInput::ManifestRefused { reason: Refusal::NotVouchedFor, .. }), "{input:?}");
}

#[test]
fn two_slots_are_not_promised_the_same_space() {
    let folder = tempfile::tempdir().unwrap();
    let thread = Thread::start(folder.path());
    let free_bytes = crate::data::free_bytes(&thread.blobs).unwrap();
    let reserve = |name: &str| {
        let bundle = Digest::of(name.as_bytes());
        let file =
            FileEntry { name: "model.onnx".to_owned(), digest: bundle, size_bytes: free_bytes / 3 * 2 };
        SlotAction::Reserve { bundle, files: vec![file] }
    };
    let input = thread.ask("first", reserve("a"));
    assert!(matches!(input, SlotInput::Reserved { .. }), "{input:?}");
    let input = thread.ask("second", reserve("b"));
    let SlotInput::StorageFailed { detail, .. } = input else { panic!("{input:?}") };
    assert!(detail.contains("for other slots"), "{detail}");
    thread.act("first", SlotAction::Discard { bundle: Digest::of(b"a") });
    let input = thread.ask("second", reserve("b"));
    assert!(matches!(input, SlotInput::Reserved { .. }), "{input:?}");
}
