//! One table as two: rows for training and rows for testing.

use super::{Error, Parsed, Path};
use shared::Digest;
use std::collections::BTreeMap;

/// Of so many rows of a label, one is for testing.
const TEST_OF: usize = 5;
/// The second row of a label tests, so that one with two has one on each side.
const FIRST: usize = 3;

/// What a person should know of it.
pub(super) const REMARK: &str =
    "split by content: of each label one row of five is for testing, equal rows are on one side";

/// Equal rows, whatever their labels.
struct Group {
    digest: Digest,
    /// The label of the first of them.
    class: u32,
    rows: Vec<usize>,
}

/// For training and for testing, by content alone: the order of the rows changes neither part's rows.
pub(super) fn parted(path: &Path, all: &Parsed) -> Result<[Parsed; 2], Error> {
    let width = all.shape[0];
    let mut groups: BTreeMap<Digest, Group> = BTreeMap::new();
    for (row, values) in all.samples.chunks_exact(width.max(1)).enumerate() {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_bits().to_le_bytes()).collect();
        let digest = Digest::of(&bytes);
        let class = all.labels[row];
        groups.entry(digest).or_insert_with(|| Group { digest, class, rows: Vec::new() }).rows.push(row);
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by_key(|group| (group.class, group.digest));
    let mut testing = vec![false; all.labels.len()];
    let (mut class, mut seen, mut tested) = (None, 0, 0);
    for group in &groups {
        if class != Some(group.class) {
            (class, seen, tested) = (Some(group.class), 0, 0);
        }
        let size = group.rows.len();
        seen += size;
        // The first rows of a label are always trained on.
        if seen > size && (tested + size) * TEST_OF <= seen + FIRST {
            tested += size;
            group.rows.iter().for_each(|row| testing[*row] = true);
        }
    }
    let part = |test: bool| {
        let mut part = Parsed { shape: all.shape, ..Parsed::default() };
        for (row, values) in all.samples.chunks_exact(width.max(1)).enumerate() {
            if testing[row] == test {
                part.samples.extend_from_slice(values);
                part.labelled(path, all.lines[row], all.names[all.labels[row] as usize].clone())?;
            }
        }
        Ok(part)
    };
    Ok([part(false)?, part(true)?])
}
