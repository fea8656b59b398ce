//! Which chunks of a blob are there: a bitmap with the ranges that are missing.

use shared::limits;

/// Most chunks of one blob: the largest file in the smallest chunks.
pub const CHUNKS_MAX: u32 = (limits::BUNDLE_FILE_BYTES_MAX / limits::CHUNK_BYTES_MIN as u64) as u32;

/// A set of chunk indices below a total.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkSet {
    total: u32,
    count: u32,
    words: Vec<u64>,
}

impl ChunkSet {
    /// The empty set of a blob of `total` chunks, at most [`CHUNKS_MAX`].
    pub fn empty(total: u32) -> Self {
        let total = total.min(CHUNKS_MAX);
        Self { total, count: 0, words: vec![0; total.div_ceil(64) as usize] }
    }

    /// Reads the bytes of [`ChunkSet::to_bytes`]; `None` where they are not a set of `total` chunks.
    pub fn from_bytes(total: u32, bytes: &[u8]) -> Option<Self> {
        let mut set = Self::empty(total);
        if total > CHUNKS_MAX || bytes.len() != set.words.len() * 8 {
            return None;
        }
        for (word, bytes) in set.words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().ok()?);
        }
        set.count = set.words.iter().map(|word| word.count_ones()).sum();
        let past_end =
            (!total.is_multiple_of(64)).then(|| set.words.last().map_or(0, |word| word >> (total % 64)));
        (past_end.unwrap_or(0) == 0).then_some(set)
    }

    /// The bitmap, eight bytes for each 64 chunks, least significant bit first.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Adds `index`; false where it was there or is past the end.
    pub fn insert(&mut self, index: u32) -> bool {
        if index >= self.total || self.contains(index) {
            return false;
        }
        self.words[(index / 64) as usize] |= 1 << (index % 64);
        self.count += 1;
        true
    }

    /// Takes `index` out.
    pub fn remove(&mut self, index: u32) {
        if self.contains(index) {
            self.words[(index / 64) as usize] &= !(1 << (index % 64));
            self.count -= 1;
        }
    }

    /// Is `index` in it?
    pub fn contains(&self, index: u32) -> bool {
        index < self.total && self.words[(index / 64) as usize] & (1 << (index % 64)) != 0
    }

    /// How many are in it.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How many there can be.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// All of them?
    pub fn is_full(&self) -> bool {
        self.count == self.total
    }

    /// Half-open ranges of indices that are in neither `self` nor `other`, ascending and apart: at most
    /// `chunks_max` indices in at most `ranges_max` ranges, lowest first.
    pub fn missing(&self, other: &Self, chunks_max: u32, ranges_max: usize) -> Vec<(u32, u32)> {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        let mut left = chunks_max;
        for index in 0..self.total {
            if left == 0 {
                break;
            }
            if self.contains(index) || other.contains(index) {
                continue;
            }
            match ranges.last_mut() {
                Some((_, end)) if *end == index => *end += 1,
                _ => {
                    if ranges.len() == ranges_max {
                        break;
                    }
                    ranges.push((index, index + 1));
                }
            }
            left -= 1;
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_like_a_set_of_numbers(total in 0u32..300, indices in prop::collection::vec(0u32..400, 0..200)) {
            let mut set = ChunkSet::empty(total);
            let mut model = BTreeSet::new();
            for index in indices {
                prop_assert_eq!(set.insert(index), index < total && model.insert(index));
                model.retain(|&index| index < total);
            }
            prop_assert_eq!(set.count() as usize, model.len());
            prop_assert_eq!(set.is_full(), model.len() == total as usize);
            let missing: BTreeSet<u32> = set.missing(&ChunkSet::empty(total), u32::MAX, usize::MAX)
                .into_iter().flat_map(|(start, end)| start..end).collect();
            prop_assert_eq!(missing, (0..total).filter(|index| !model.contains(index)).collect::<BTreeSet<_>>());
            prop_assert_eq!(ChunkSet::from_bytes(total, &set.to_bytes()), Some(set));
        }

        #[test]
        fn ranges_keep_their_limits(present in prop::collection::vec(any::<bool>(), 1..300), chunks in 1u32..50, ranges in 1usize..8) {
            let total = present.len() as u32;
            let mut set = ChunkSet::empty(total);
            for (index, _) in present.iter().enumerate().filter(|(_, present)| **present) {
                set.insert(index as u32);
            }
            let missing = set.missing(&ChunkSet::empty(total), chunks, ranges);
            prop_assert!(missing.len() <= ranges);
            prop_assert!(missing.iter().map(|(start, end)| end - start).sum::<u32>() <= chunks);
            prop_assert!(missing.windows(2).all(|pair| pair[0].1 < pair[1].0));
            prop_assert_eq!(missing.is_empty(), set.is_full());
        }

        #[test]
        fn bytes_from_a_disk_are_checked(total in 0u32..300, bytes in prop::collection::vec(any::<u8>(), 0..50)) {
            if let Some(set) = ChunkSet::from_bytes(total, &bytes) {
                prop_assert_eq!(set.to_bytes(), bytes);
                prop_assert!(set.count() <= total);
            }
        }
    }
}
