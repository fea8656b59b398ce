//! Where the weights of an ONNX file are: a walk over its protobuf bytes that copies nothing.

use crate::{Region, format::INSTRUCTIONS_MAX};
use std::{collections::HashMap, ops::Range};

// Field numbers of onnx.proto3.
const MODEL_GRAPH: u64 = 7;
const GRAPH_INITIALIZER: u64 = 5;
const TENSOR_NAME: u64 = 8;
const TENSOR_RAW_DATA: u64 = 9;

/// The constants of the same name and length in both files, in the order of the new one. None where a file is no ONNX
/// file: that is no error, the files are compared without it.
pub fn regions(old: &[u8], new: &[u8]) -> Vec<Region> {
    let (Some(old_tensors), Some(new_tensors)) = (tensors(old), tensors(new)) else { return Vec::new() };
    let mut by_name: HashMap<&[u8], Range<usize>> = HashMap::new();
    for (name, data) in old_tensors {
        by_name.entry(name).or_insert(data);
    }
    let matched = new_tensors.into_iter().filter_map(|(name, data)| {
        let base = by_name.get(name).filter(|base| base.len() == data.len())?;
        Some((base.clone(), data))
    });
    matched.collect()
}

/// Names and ranges of raw data of the graph's initialisers, in file order; at most [`INSTRUCTIONS_MAX`] of them.
fn tensors(bytes: &[u8]) -> Option<Vec<(&[u8], Range<usize>)>> {
    let mut found = Vec::new();
    for field in Fields::of(bytes, 0..bytes.len()) {
        let (number, graph) = field?;
        if number != MODEL_GRAPH {
            continue;
        }
        for field in Fields::of(bytes, graph) {
            let (number, tensor) = field?;
            if number != GRAPH_INITIALIZER || found.len() == INSTRUCTIONS_MAX {
                continue;
            }
            let (mut name, mut data) = (None, None);
            for field in Fields::of(bytes, tensor) {
                match field? {
                    (TENSOR_NAME, value) => name = bytes.get(value),
                    (TENSOR_RAW_DATA, value) => data = Some(value),
                    _ => {}
                }
            }
            if let (Some(name), Some(data)) = (name, data) {
                found.push((name, data));
            }
        }
    }
    Some(found)
}

/// The length-delimited fields of a message, one at a time: a hostile file has a field in every two bytes. `None` where
/// the bytes are no message, and nothing after it.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl Iterator for Fields<'_> {
    type Item = Option<(u64, Range<usize>)>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.at < self.end {
            match self.field() {
                Some(Some(field)) => return Some(Some(field)),
                Some(None) => {}
                None => {
                    self.at = self.end;
                    return Some(None);
                }
            }
        }
        None
    }
}

impl<'a> Fields<'a> {
    fn of(bytes: &'a [u8], range: Range<usize>) -> Self {
        Self { bytes, at: range.start, end: range.end }
    }

    /// Goes past one field, and gives it if it is length-delimited.
    fn field(&mut self) -> Option<Option<(u64, Range<usize>)>> {
        let tag = self.varint()?;
        match tag & 7 {
            0 => self.varint().map(|_| None),
            1 => self.skip(8).map(|_| None),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Some(Some((tag >> 3, self.skip(length)?)))
            }
            5 => self.skip(4).map(|_| None),
            _ => None,
        }
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let at = self.skip(1)?.start;
            let byte = *self.bytes.get(at)?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn skip(&mut self, length: usize) -> Option<Range<usize>> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.end)?;
        let range = self.at..end;
        self.at = end;
        Some(range)
    }
}
