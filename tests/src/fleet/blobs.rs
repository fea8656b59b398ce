//! Bytes of blobs, once for all devices that fetch them.
//!
//! A device knows which chunks it has; the bytes of the first that came are kept for everybody, and those of the others
//! are compared with them. A blob whose devices are through with it is forgotten.

use agent_core::chunks::ChunkSet;
use shared::{Digest, wire::chunk_count};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak},
};

/// Blobs that are remembered although nobody holds them any more, before they are looked for and dropped.
const GONE_MAX: usize = 64;

/// All blobs that some device fetches or holds.
#[derive(Debug, Default)]
pub struct Blobs(Mutex<HashMap<Digest, Weak<Shared>>>);

#[derive(Debug)]
struct Shared {
    digest: Digest,
    size_bytes: u64,
    chunk_bytes: u32,
    bytes: RwLock<Bytes>,
    /// Whether the whole has its digest.
    is_right: OnceLock<bool>,
}

#[derive(Debug)]
struct Bytes {
    bytes: Vec<u8>,
    there: ChunkSet,
}

/// What one device has of a blob.
#[derive(Debug)]
pub struct Blob {
    shared: Arc<Shared>,
    /// Chunks that came to this device.
    pub present: ChunkSet,
}

impl Blobs {
    /// A device begins to fetch a blob.
    pub fn open(&self, digest: Digest, size_bytes: u64, chunk_bytes: u32) -> Blob {
        let mut blobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if blobs.len() > GONE_MAX {
            blobs.retain(|_, shared| shared.strong_count() > 0);
        }
        let there = blobs.get(&digest).and_then(Weak::upgrade);
        let fits =
            |shared: &Arc<Shared>| shared.size_bytes == size_bytes && shared.chunk_bytes == chunk_bytes;
        let shared = there.filter(fits).unwrap_or_else(|| {
            let shared = Arc::new(Shared::new(digest, size_bytes, chunk_bytes));
            blobs.insert(digest, Arc::downgrade(&shared));
            shared
        });
        Blob { present: ChunkSet::empty(chunk_count(size_bytes, chunk_bytes)), shared }
    }
}

impl Shared {
    fn new(digest: Digest, size_bytes: u64, chunk_bytes: u32) -> Self {
        let there = ChunkSet::empty(chunk_count(size_bytes, chunk_bytes));
        let bytes = vec![0; usize::try_from(size_bytes).unwrap_or(0)];
        let bytes = RwLock::new(Bytes { bytes, there });
        Self { digest, size_bytes, chunk_bytes, bytes, is_right: OnceLock::new() }
    }

    /// Keeps a chunk, or compares it with the one that is there. False where they differ.
    fn take(&self, index: u32, range: std::ops::Range<usize>, payload: &[u8]) -> bool {
        {
            let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
            if bytes.there.contains(index) {
                return bytes.bytes.get(range) == Some(payload);
            }
        }
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let Bytes { bytes, there } = &mut *bytes;
        let Some(place) = bytes.get_mut(range) else { return false };
        if there.insert(index) {
            place.copy_from_slice(payload);
            return true;
        }
        place == payload
    }
}

impl Blob {
    /// Takes a chunk in; an error says what is wrong with it.
    pub fn store(&mut self, index: u32, payload: &[u8]) -> Result<(), String> {
        let Shared { size_bytes, chunk_bytes, .. } = *self.shared;
        let start = u64::from(index) * u64::from(chunk_bytes);
        let end = (start + u64::from(chunk_bytes)).min(size_bytes);
        if start >= end || payload.len() as u64 != end - start {
            return Err(format!("it has {} bytes", payload.len()));
        }
        let range = usize::try_from(start).unwrap_or(0)..usize::try_from(end).unwrap_or(0);
        if !self.shared.take(index, range, payload) {
            return Err("its bytes differ from those that another device got".to_owned());
        }
        self.present.insert(index);
        Ok(())
    }

    /// Has the whole its digest?
    pub fn verify(&self) -> Result<(), String> {
        if !self.present.is_full() {
            return Err("chunks are missing".to_owned());
        }
        let is_right = *self.shared.is_right.get_or_init(|| {
            let bytes = self.shared.bytes.read().unwrap_or_else(PoisonError::into_inner);
            Digest::of(&bytes.bytes) == self.shared.digest
        });
        if is_right { Ok(()) } else { Err("its digest differs".to_owned()) }
    }

    /// Gives its bytes to `read`.
    pub fn with_bytes<T>(&self, read: impl FnOnce(&[u8]) -> T) -> T {
        read(&self.shared.bytes.read().unwrap_or_else(PoisonError::into_inner).bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> Vec<u8> {
        (0..2500u32).map(|value| u8::try_from(value % 251).unwrap()).collect()
    }

    #[test]
    fn a_device_has_what_came_to_it_and_the_bytes_are_there_once() {
        let (blobs, bytes) = (Blobs::default(), content());
        let digest = Digest::of(&bytes);
        let chunk = |index: u32| &bytes[index as usize * 1024..(index as usize * 1024 + 1024).min(2500)];
        let (mut one, mut other) = (blobs.open(digest, 2500, 1024), blobs.open(digest, 2500, 1024));
        assert!(one.store(3, &bytes[..10]).is_err());
        assert!(one.store(2, &bytes[..1024]).is_err(), "the last chunk is shorter");
        (0..3).for_each(|index| one.store(index, chunk(index)).unwrap());
        one.verify().unwrap();
        assert_eq!(other.verify().unwrap_err(), "chunks are missing");
        assert!(other.store(1, &[7; 1024]).is_err(), "compared with what came first");
        (0..3).for_each(|index| other.store(index, chunk(index)).unwrap());
        other.verify().unwrap();
        assert!(Arc::ptr_eq(&one.shared, &other.shared));
        assert!(other.with_bytes(|read| read == bytes));
    }

    #[test]
    fn a_wrong_whole_is_found_and_forgotten_with_those_that_held_it() {
        let (blobs, bytes) = (Blobs::default(), content());
        let digest = Digest::of(&bytes);
        let mut wrong = blobs.open(digest, 1000, 1024);
        wrong.store(0, &[9; 1000]).unwrap();
        assert_eq!(wrong.verify().unwrap_err(), "its digest differs");
        drop(wrong);
        let mut right = blobs.open(digest, 2500, 1024);
        for (index, chunk) in (0..).zip(bytes.chunks(1024)) {
            right.store(index, chunk).unwrap();
        }
        right.verify().unwrap();
    }
}
