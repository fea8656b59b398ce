//! Chunks of one blob in any order and of any content, with restarts between them. A blob is whole only when its bytes
//! are the promised ones, and it is whole once all of them have come.

#![no_main]

use agent_core::update::Fetched;
use edgewright_agent::{
    blobs::{Blobs, Error},
    store::Store,
};
use edgewright_fuzz::folder;
use libfuzzer_sys::{
    arbitrary::{self, Unstructured},
    fuzz_target,
};
use shared::{Digest, wire};
use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Arc, LazyLock},
};

/// Most things that happen to one blob.
const STEPS_MAX: usize = 64;
const SIZE_BYTES_MAX: u16 = 4096;
const CHUNK_BYTES_MAX: u32 = 1024;

static STORE: LazyLock<Arc<Store>> =
    LazyLock::new(|| Arc::new(Store::open(&folder().join("store"), 1000).expect("a store opens")));
static BLOBS: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = folder().join("blobs");
    fs::create_dir_all(&path).expect("a folder for blobs");
    path
});

/// The blob, and which of its chunks have come: true for the right bytes.
struct Blob {
    content: Vec<u8>,
    digest: Digest,
    chunk_bytes: u32,
    come: BTreeMap<u32, bool>,
    open: bool,
    whole: bool,
}

impl Blob {
    fn total(&self) -> u32 {
        wire::chunk_count(self.content.len() as u64, self.chunk_bytes)
    }

    fn chunk(&self, index: u32) -> &[u8] {
        let start = (index as usize).saturating_mul(self.chunk_bytes as usize).min(self.content.len());
        let end = start.saturating_add(self.chunk_bytes as usize).min(self.content.len());
        &self.content[start..end]
    }

    fn open(&mut self, blobs: &Blobs) {
        let size_bytes = self.content.len() as u64;
        match blobs.open(self.digest, size_bytes, self.chunk_bytes).expect("a blob opens") {
            Fetched::Whole => assert!(self.whole),
            Fetched::Part(present) => {
                assert!(!self.whole);
                assert_eq!(present.total(), self.total());
                let indices: Vec<u32> =
                    (0..present.total()).filter(|index| present.contains(*index)).collect();
                assert!(indices.iter().eq(self.come.keys()), "other chunks are there than have come");
                self.open = true;
            }
        }
    }

    fn write(&mut self, blobs: &Blobs, index: u32, bytes: &[u8]) {
        let fits = !bytes.is_empty() && bytes.len() == self.chunk(index).len();
        match blobs.write(self.digest, &[(index, bytes)]) {
            Ok(indices) => {
                assert!(self.open && fits && indices == [index]);
                let right = bytes == self.chunk(index);
                self.come.entry(index).or_insert(right);
            }
            Err(Error::NotOpen { .. }) => assert!(!self.open),
            Err(Error::Chunk { .. }) => assert!(self.open && !fits),
            Err(error) => panic!("a chunk was not written: {error}"),
        }
    }

    fn finish(&mut self, blobs: &Blobs) {
        let size_bytes = self.content.len() as u64;
        let all = self.come.len() == self.total() as usize && self.come.values().all(|right| *right);
        match blobs.finish(self.digest, size_bytes) {
            Ok(()) => {
                let read = blobs.read(self.digest, size_bytes).expect("a whole blob is read");
                assert_eq!(read, self.content);
                self.whole = true;
                self.come.clear();
            }
            Err(Error::Corrupt { .. }) => {
                assert!(!all || self.whole, "all chunks have come, and the blob is refused");
                self.come.clear();
            }
            Err(error) => assert!(error.is_missing(), "{error}"),
        }
        self.open = false;
    }
}

fn play(input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let size: u16 = input.int_in_range(1..=SIZE_BYTES_MAX)?;
    let content: Vec<u8> = (0..u32::from(size)).map(|at| (at * 31 % 251) as u8).collect();
    let chunk_bytes = input.int_in_range(1..=CHUNK_BYTES_MAX)?;
    let digest = Digest::of(&content);
    let mut blob = Blob { content, digest, chunk_bytes, come: BTreeMap::new(), open: false, whole: false };
    let mut blobs = Blobs::new(BLOBS.clone(), STORE.clone());
    blobs.discard(digest);
    let _ = fs::remove_file(BLOBS.join(digest.to_string()));
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        match input.int_in_range(0..=9)? {
            0 | 1 if !blob.open => blob.open(&blobs),
            2 => {
                let index = input.arbitrary()?;
                let bytes: &[u8] = input.arbitrary()?;
                blob.write(&blobs, index, bytes);
            }
            3 => {
                let index = input.int_in_range(0..=blob.total())?;
                let mut bytes = blob.chunk(index).to_vec();
                if let Some(first) = bytes.first_mut() {
                    *first ^= 1;
                }
                blob.write(&blobs, index, &bytes);
            }
            4 => blob.finish(&blobs),
            5 => {
                blobs.discard(digest);
                blob.come.clear();
                blob.open = false;
            }
            6 => {
                // As after a restart: only what is on disk is known.
                blobs = Blobs::new(BLOBS.clone(), STORE.clone());
                blob.open = false;
            }
            7 => {
                for index in 0..blob.total() {
                    let bytes = blob.chunk(index).to_vec();
                    blob.write(&blobs, index, &bytes);
                }
            }
            _ => {
                let index = input.int_in_range(0..=blob.total())?;
                let bytes = blob.chunk(index).to_vec();
                blob.write(&blobs, index, &bytes);
            }
        }
    }
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    let _ = play(&mut Unstructured::new(bytes));
});
