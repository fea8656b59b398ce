use super::*;
use proptest::prelude::*;

const CHUNK: u32 = 1024;

struct Device {
    folder: tempfile::TempDir,
}

impl Device {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("blobs")).unwrap();
        Self { folder }
    }

    /// As after a restart.
    fn blobs(&self) -> Blobs {
        let store = Arc::new(Store::open(&self.folder.path().join("s"), 100).unwrap());
        Blobs::new(self.folder.path().join("blobs"), store)
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path().join("blobs")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 % 251) as u8).collect()
}

fn chunk(content: &[u8], index: u32) -> (u32, &[u8]) {
    let start = (index * CHUNK) as usize;
    (index, &content[start..content.len().min(start + CHUNK as usize)])
}

#[test]
fn goes_on_from_the_chunks_on_disk_after_a_restart() {
    let device = Device::new();
    let content = content(5000);
    let digest = Digest::of(&content);
    let blobs = device.blobs();
    assert_eq!(blobs.open(digest, 5000, CHUNK).unwrap(), Fetched::Part(ChunkSet::empty(5)));
    assert_eq!(blobs.write(digest, &[chunk(&content, 4), chunk(&content, 1)]).unwrap(), [4, 1]);
    let again = blobs.write(digest, &[chunk(&content, 1), chunk(&content, 1)]).unwrap();
    assert_eq!(again, [1, 1], "a chunk that is there is told again");
    let Some(Fetched::Part(present)) = blobs.fetched(digest) else { panic!("not open") };
    assert_eq!(present.count(), 2);
    drop(blobs);

    let blobs = device.blobs();
    let Fetched::Part(present) = blobs.open(digest, 5000, CHUNK).unwrap() else { panic!("whole") };
    assert_eq!((present.count(), present.contains(4), present.contains(1)), (2, true, true));
    blobs.write(digest, &[chunk(&content, 0), chunk(&content, 2), chunk(&content, 3)]).unwrap();
    blobs.finish(digest, 5000).unwrap();
    assert_eq!(blobs.read(digest, 5000).unwrap(), content);
    assert_eq!(blobs.open(digest, 5000, CHUNK).unwrap(), Fetched::Whole);
    assert_eq!(blobs.fetched(digest), Some(Fetched::Whole));
    assert_eq!(device.files(), [digest.to_string()]);
    // A power cut before the machine heard of it repeats the call.
    blobs.finish(digest, 5000).unwrap();
}

#[test]
fn a_corrupt_blob_leaves_nothing() {
    let device = Device::new();
    let mut content = content(3000);
    let digest = Digest::of(&content);
    content[2999] ^= 1;
    let blobs = device.blobs();
    blobs.open(digest, 3000, CHUNK).unwrap();
    blobs.write(digest, &[chunk(&content, 0), chunk(&content, 1), chunk(&content, 2)]).unwrap();
    assert!(matches!(blobs.finish(digest, 3000), Err(Error::Corrupt { .. })));
    assert!(device.files().is_empty());
    assert_eq!(blobs.open(digest, 3000, CHUNK).unwrap(), Fetched::Part(ChunkSet::empty(3)));
}

/// A folder in a file's place opens, and reading it is an I/O error.
#[test]
fn a_disk_that_fails_to_read_costs_no_bytes() {
    let device = Device::new();
    let content = content(3000);
    let digest = Digest::of(&content);
    let blobs = device.blobs();
    blobs.open(digest, 3000, CHUNK).unwrap();
    let aside = blobs.folder.join("aside");
    fs::rename(blobs.partial_path(digest), &aside).unwrap();
    fs::create_dir(blobs.partial_path(digest)).unwrap();
    assert!(matches!(blobs.finish(digest, 3000), Err(Error::Io { .. })));
    assert!(blobs.partial_path(digest).exists());
    fs::remove_dir(blobs.partial_path(digest)).unwrap();
    fs::create_dir(blobs.path(digest)).unwrap();
    assert!(matches!(blobs.finish(digest, 3000), Err(Error::Io { .. })));
    assert!(matches!(blobs.open(digest, 3000, CHUNK), Err(Error::Io { .. })));
    assert!(blobs.path(digest).exists());
}

#[test]
fn the_space_of_a_blob_is_taken_when_it_is_opened_and_not_asked_for_again() {
    let device = Device::new();
    let blobs = device.blobs();
    let (digest, size_bytes) = (Digest::of(b"large"), 64 * 1024 * 1024);
    blobs.open(digest, size_bytes, 65536).unwrap();
    let held = fs::metadata(blobs.partial_path(digest)).unwrap().blocks() * BLOCK_BYTES;
    assert!(held >= size_bytes, "{held} bytes are taken");
    let free = blobs.free_bytes().unwrap();
    assert!(blobs.check_space(&[(digest, size_bytes)], &[], free).is_ok(), "nothing more is needed");
    let other = Digest::of(b"other");
    let message = blobs.check_space(&[(digest, size_bytes), (other, 1)], &[], u64::MAX / 2).unwrap_err();
    assert!(message.starts_with("1 bytes"), "{message}");
}

#[test]
fn room_that_was_promised_to_others_is_not_promised_twice() {
    let device = Device::new();
    let blobs = device.blobs();
    let (mine, theirs) = ((Digest::of(b"mine"), 1), (Digest::of(b"theirs"), u64::MAX / 2));
    assert!(blobs.check_space(&[mine], &[], 0).is_ok());
    assert!(blobs.check_space(&[mine], &[theirs], 0).is_err());
    assert!(blobs.check_space(&[mine], &[(mine.0, u64::MAX / 2)], 0).is_ok(), "the same file is there once");
    fs::write(blobs.path(theirs.0), b"x").unwrap();
    assert!(blobs.check_space(&[mine], &[theirs], 0).is_ok());
}

#[test]
fn all_parts_can_be_given_up_for_space() {
    let device = Device::new();
    let blobs = device.blobs();
    let [whole, open, left] = [b"a", b"b", b"c"].map(|text| Digest::of(text));
    fs::write(blobs.path(whole), b"a").unwrap();
    fs::write(blobs.partial_path(left), b"c").unwrap();
    blobs.open(open, 1, CHUNK).unwrap();
    assert_eq!(blobs.discard_all(), [open]);
    assert_eq!(device.files(), [whole.to_string()]);
    assert_eq!(blobs.fetched(open), None);
}

#[test]
fn a_whole_blob_that_went_bad_on_disk_is_fetched_again() {
    let device = Device::new();
    let content = content(2048);
    let digest = Digest::of(&content);
    let blobs = device.blobs();
    fs::write(blobs.path(digest), &content).unwrap();
    assert_eq!(blobs.open(digest, 2048, CHUNK).unwrap(), Fetched::Whole);
    fs::write(blobs.path(digest), vec![0; 2048]).unwrap();
    assert!(blobs.read(digest, 4096).is_err());
    assert_eq!(blobs.open(digest, 2048, CHUNK).unwrap(), Fetched::Part(ChunkSet::empty(2)));
}

/// The file before, the file after, and the delta between them, of which the first and the last are on disk.
fn with_delta(blobs: &Blobs) -> (Vec<u8>, DeltaRef) {
    let (old, new) = (content(4000), content(5000));
    let bytes = delta::make(&old, &new, &[]).unwrap();
    let delta = DeltaRef {
        from: Digest::of(&old),
        to: Digest::of(&new),
        delta: Digest::of(&bytes),
        bytes: bytes.len() as u64,
    };
    fs::write(blobs.path(delta.from), old).unwrap();
    fs::write(blobs.path(delta.delta), bytes).unwrap();
    (new, delta)
}

#[test]
fn a_delta_makes_its_file_and_is_gone_then() {
    let device = Device::new();
    let blobs = device.blobs();
    let (new, delta) = with_delta(&blobs);
    blobs.apply_delta(&delta, new.len() as u64).unwrap();
    assert_eq!(blobs.read(delta.to, 5000).unwrap(), new);
    assert!(!blobs.path(delta.delta).exists());
}

#[test]
fn a_delta_for_other_files_than_was_asked_for_gives_none() {
    type Spoil = fn(&mut DeltaRef);
    let spoils: [Spoil; 2] =
        [|delta| delta.to = Digest::of(b"another"), |delta| delta.from = Digest::of(b"another")];
    for spoil in spoils {
        let device = Device::new();
        let blobs = device.blobs();
        let (new, mut delta) = with_delta(&blobs);
        spoil(&mut delta);
        let error = blobs.apply_delta(&delta, new.len() as u64).unwrap_err();
        assert!(!error.is_transient(), "{error}");
        assert!(!blobs.path(delta.to).exists() && !blobs.path(delta.delta).exists());
    }
    let device = Device::new();
    let blobs = device.blobs();
    let (new, delta) = with_delta(&blobs);
    assert!(matches!(blobs.apply_delta(&delta, new.len() as u64 + 1), Err(Error::Corrupt { .. })));
}

#[test]
fn a_delta_to_a_file_that_went_bad_gives_none() {
    let device = Device::new();
    let blobs = device.blobs();
    let (new, delta) = with_delta(&blobs);
    fs::write(blobs.path(delta.from), vec![0; 4000]).unwrap();
    let error = blobs.apply_delta(&delta, new.len() as u64).unwrap_err();
    assert!(matches!(error, Error::Delta { .. }) && !error.is_transient(), "{error}");
    assert!(!blobs.path(delta.to).exists());
}

#[test]
fn a_partial_file_of_another_length_is_not_trusted() {
    let device = Device::new();
    let content = content(4096);
    let digest = Digest::of(&content);
    let blobs = device.blobs();
    blobs.open(digest, 4096, CHUNK).unwrap();
    blobs.write(digest, &[chunk(&content, 0)]).unwrap();
    File::options().write(true).open(blobs.partial_path(digest)).unwrap().set_len(100).unwrap();
    assert_eq!(blobs.open(digest, 4096, CHUNK).unwrap(), Fetched::Part(ChunkSet::empty(4)));
}

#[test]
fn space_is_checked_with_the_reserve_and_without_what_is_there() {
    let device = Device::new();
    let blobs = device.blobs();
    let digest = Digest::of(b"x");
    assert!(blobs.check_space(&[(digest, 1)], &[], 0).is_ok());
    let message = blobs.check_space(&[(digest, 1)], &[], u64::MAX / 2).unwrap_err();
    assert!(message.contains("are free in"), "{message}");
    fs::write(blobs.path(digest), b"x").unwrap();
    assert!(blobs.check_space(&[(digest, 1)], &[], u64::MAX / 2).is_ok());
}

#[test]
fn collecting_keeps_what_is_pinned_and_what_is_being_fetched() {
    let device = Device::new();
    let blobs = device.blobs();
    let [kept, gone, open, left, resumed] = [b"a", b"b", b"c", b"d", b"e"].map(|text| Digest::of(text));
    fs::write(blobs.path(kept), b"a").unwrap();
    fs::write(blobs.path(gone), b"b").unwrap();
    fs::write(blobs.partial_path(left), b"d").unwrap();
    fs::write(blobs.partial_path(resumed), b"e").unwrap();
    fs::write(blobs.folder.join("notes.txt"), b"not ours").unwrap();
    blobs.open(open, 1, CHUNK).unwrap();
    blobs.collect(&BTreeSet::from([kept, resumed]));
    let mut files = device.files();
    files.sort();
    let mut expected = vec![
        kept.to_string(),
        format!("{open}.partial"),
        format!("{resumed}.partial"),
        "notes.txt".to_owned(),
    ];
    expected.sort();
    assert_eq!(files, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn hostile_chunks_change_nothing(writes in prop::collection::vec((any::<u32>(), 0usize..3000), 1..20)) {
        let device = Device::new();
        let content = content(2500);
        let digest = Digest::of(&content);
        let blobs = device.blobs();
        blobs.open(digest, 2500, CHUNK).unwrap();
        for (index, len) in writes {
            let fits = (index < 2 && len == 1024) || (index == 2 && len == 452);
            prop_assert_eq!(blobs.write(digest, &[(index, &vec![7; len])]).is_ok(), fits);
        }
        prop_assert_eq!(fs::metadata(blobs.partial_path(digest)).unwrap().len(), 2500);
        prop_assert!(blobs.write(Digest::of(b"other"), &[(0, &[0])]).is_err(), "not open");
    }
}
