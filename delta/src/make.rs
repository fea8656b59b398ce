//! From two files to the smallest delta, in the cloud.

use crate::{
    Error,
    format::{Header, INSTRUCTIONS_MAX, Instruction, Method},
    frame,
};
use shared::Digest;
use std::ops::Range;

/// A range of the old file and one of the new file that belong together, of the same length.
pub type Region = (Range<usize>, Range<usize>);

/// Regions below this cost as much as they save.
const REGION_BYTES_MIN: usize = 64;

/// The smallest delta that was found. `regions` are a hint: those that leave a file, overlap in the new file or come
/// out of order there are not used, nor are those whose residuals compress no better than their bytes.
///
/// # Errors
/// There is no memory for it.
pub fn make(old: &[u8], new: &[u8], regions: &[Region]) -> Result<Vec<u8>, Error> {
    let (mut method, mut body) = (Method::Patch, frame::compress(new, old)?);
    let used = usable(old, new, regions);
    if !used.is_empty() {
        let other = diff(old, new, &used)?;
        if other.len() < body.len() {
            (method, body) = (Method::Diff, other);
        }
    }
    let header = Header {
        method,
        old: Digest::of(old),
        new: Digest::of(new),
        old_bytes: old.len() as u64,
        new_bytes: new.len() as u64,
    };
    let mut delta = Vec::with_capacity(crate::HEADER_BYTES + body.len());
    header.write(&mut delta);
    delta.extend_from_slice(&body);
    Ok(delta)
}

fn usable<'a>(old: &[u8], new: &[u8], regions: &'a [Region]) -> Vec<&'a Region> {
    let mut end = 0;
    let fits = |(from, to): &&Region| {
        let good = from.len() == to.len()
            && to.len() >= REGION_BYTES_MIN
            && to.start >= end
            && old.get(from.clone()).zip(new.get(to.clone())).is_some_and(|(base, bytes)| {
                let residuals = base.iter().zip(bytes).map(|(base, byte)| byte.wrapping_sub(*base));
                entropy_bits(residuals) < entropy_bits(bytes.iter().copied())
            });
        if good {
            end = to.end;
        }
        good
    };
    // Each region may need an insertion before it, and there may be one at the end.
    regions.iter().filter(fits).take(INSTRUCTIONS_MAX / 2 - 1).collect()
}

/// Bits that an entropy coder needs for the bytes, each taken by itself.
fn entropy_bits(bytes: impl Iterator<Item = u8>) -> f64 {
    let mut counts = [0u32; 256];
    for byte in bytes {
        counts[usize::from(byte)] = counts[usize::from(byte)].saturating_add(1);
    }
    let total: f64 = counts.iter().map(|&count| f64::from(count)).sum();
    let bits = |&count: &u32| f64::from(count) * (total / f64::from(count)).log2();
    counts.iter().filter(|count| **count > 0).map(bits).sum()
}

fn diff(old: &[u8], new: &[u8], regions: &[&Region]) -> Result<Vec<u8>, Error> {
    let (mut instructions, mut residuals, mut literals) = (Vec::new(), Vec::new(), Vec::new());
    let mut at = 0;
    let insert = |instructions: &mut Vec<u8>, literals: &mut Vec<u8>, range: Range<usize>| {
        if !range.is_empty() {
            Instruction::Insert { length: range.len() as u64 }.write(instructions);
            literals.extend_from_slice(&new[range]);
        }
    };
    for (from, to) in regions.iter().copied() {
        insert(&mut instructions, &mut literals, at..to.start);
        Instruction::Add { from: from.start as u64, length: to.len() as u64 }.write(&mut instructions);
        let pairs = old[from.clone()].iter().zip(&new[to.clone()]);
        residuals.extend(pairs.map(|(base, byte)| byte.wrapping_sub(*base)));
        at = to.end;
    }
    insert(&mut instructions, &mut literals, at..new.len());
    let frames = [
        (instructions.len(), frame::compress(&instructions, &[])?),
        (residuals.len(), frame::compress(&residuals, &[])?),
        (literals.len(), frame::compress(&literals, old)?),
    ];
    let mut body = Vec::new();
    for (whole, frame) in &frames {
        body.extend_from_slice(&(*whole as u64).to_le_bytes());
        body.extend_from_slice(&(frame.len() as u64).to_le_bytes());
    }
    frames.iter().for_each(|(_, frame)| body.extend_from_slice(frame));
    Ok(body)
}
