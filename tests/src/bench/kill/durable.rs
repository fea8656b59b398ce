//! What of a download was on disk and noted when the power went, by the record of what the agent did.

use crate::powercut::Record;
use std::collections::BTreeMap;

/// Ending of the names of blobs that are not whole.
const PARTIAL: &str = ".partial";

/// What must not be fetched again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// Bytes of all blobs.
    pub size_bytes: u64,
    /// Chunks of the blob that was not whole yet; none where there was none, or nothing of it was safe.
    pub chunks: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Blob {
    /// Written and not synced.
    fresh: Size,
    /// Synced; whether that was noted is not known.
    synced: Size,
    /// Noted: what came next had begun.
    noted: Size,
    whole: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Size {
    chunks: u64,
    bytes: u64,
}

impl Size {
    fn take(&mut self, other: &mut Self) {
        self.chunks += other.chunks;
        self.bytes += other.bytes;
        *other = Self::default();
    }
}

/// The agent writes chunks, syncs them, notes them, and then only writes the next: what was synced is surely noted
/// once anything more is written to a blob, or the blob gets its name. The last operation of a record did not happen
/// as a whole.
pub fn of(record: &Record) -> Durable {
    let mut blobs: BTreeMap<&str, Blob> = BTreeMap::new();
    let happened = record.operations.len().saturating_sub(1);
    for (index, operation) in record.operations.iter().enumerate() {
        let Some(name) = operation.path.strip_suffix(PARTIAL) else { continue };
        let blob = blobs.entry(name).or_default();
        match operation.call.as_str() {
            "pwrite64" => {
                blob.noted.take(&mut blob.synced);
                if index < happened {
                    blob.fresh.take(&mut Size { chunks: 1, bytes: operation.size_bytes });
                }
            }
            "fdatasync" if index < happened => blob.synced.take(&mut blob.fresh),
            "rename" => {
                blob.noted.take(&mut blob.synced);
                blob.whole |= index < happened;
            }
            _ => {}
        }
    }
    let size_bytes = blobs.values().map(|blob| blob.noted.bytes).sum();
    let unfinished = blobs.values().filter(|blob| !blob.whole && blob.noted.chunks > 0);
    Durable { size_bytes, chunks: unfinished.map(|blob| blob.noted.chunks).max() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::powercut::Operation;

    fn record(text: &str) -> Record {
        let operation = |word: &str| {
            let (call, path) = word.split_once(':').unwrap();
            Operation {
                call: call.to_owned(),
                path: format!("blobs/{path}"),
                size_bytes: if call == "pwrite64" { 100 } else { 0 },
                offset: None,
                refused: false,
            }
        };
        Record { process: 1, operations: text.split_whitespace().map(operation).collect() }
    }

    #[test]
    fn chunks_are_safe_once_the_next_ones_are_written() {
        for (text, size_bytes, chunks) in [
            ("", 0, None),
            ("openat:a.partial pwrite64:a.partial pwrite64:a.partial fdatasync:a.partial", 0, None),
            ("pwrite64:a.partial pwrite64:a.partial fdatasync:a.partial pwrite64:db", 0, None),
            ("pwrite64:a.partial pwrite64:a.partial fdatasync:a.partial pwrite64:a.partial", 200, Some(2)),
            ("pwrite64:a.partial fdatasync:a.partial rename:a.partial", 100, Some(1)),
            ("pwrite64:a.partial fdatasync:a.partial rename:a.partial fsync:", 100, None),
            (
                "pwrite64:a.partial fdatasync:a.partial rename:a.partial pwrite64:b.partial fdatasync:b.partial \
                 pwrite64:b.partial fdatasync:b.partial pwrite64:b.partial",
                300,
                Some(2),
            ),
        ] {
            assert_eq!(of(&record(text)), Durable { size_bytes, chunks }, "{text}");
        }
    }
}
