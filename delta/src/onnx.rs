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

/// Names and ranges of raw data of the graph's initialisers, in file order.
fn tensors(bytes: &[u8]) -> Option<Vec<(&[u8], Range<usize>)>> {
    let mut found = Vec::new();
    for (number, graph) in fields(bytes, 0..bytes.len())? {
        if number != MODEL_GRAPH {
            continue;
        }
        for (number, tensor) in fields(bytes, graph)? {
            if number != GRAPH_INITIALIZER || found.len() == INSTRUCTIONS_MAX {
                continue;
            }
            let (mut name, mut data) = (None, None);
            for (number, value) in fields(bytes, tensor)? {
                match number {
                    TENSOR_NAME => name = bytes.get(value),
                    TENSOR_RAW_DATA => data = Some(value),
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

/// The length-delimited fields of the message in `range`; none where the bytes are no message.
fn fields(bytes: &[u8], range: Range<usize>) -> Option<Vec<(u64, Range<usize>)>> {
    let mut message = Walk { bytes, at: range.start, end: range.end };
    let mut found = Vec::new();
    while message.at < message.end {
        let tag = message.varint()?;
        match tag & 7 {
            0 => {
                message.varint()?;
            }
            1 => {
                message.skip(8)?;
            }
            2 => {
                let length = usize::try_from(message.varint()?).ok()?;
                found.push((tag >> 3, message.skip(length)?));
            }
            5 => {
                message.skip(4)?;
            }
            _ => return None,
        }
    }
    Some(found)
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl Walk<'_> {
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
