//! From the old file and a delta to the new file, on a device.

use crate::{
    Error,
    format::{Header, INSTRUCTION_BYTES, INSTRUCTIONS_MAX, Instruction, Method, Reader},
    frame,
};
use shared::Digest;

/// What the files may be at most. Nothing larger is allocated for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub old_bytes_max: u64,
    pub new_bytes_max: u64,
}

/// The new file. Takes memory for it, once more for it where the method is [`Method::Diff`], and for at most
/// [`INSTRUCTIONS_MAX`] instructions.
///
/// # Errors
/// `old` is not the file that the delta is for, a file is over the limits, or the delta is damaged: there is no way to
/// get other bytes than those whose digest the header names.
pub fn apply(old: &[u8], delta: &[u8], limits: Limits) -> Result<Vec<u8>, Error> {
    let (header, body) = Header::read(delta)?;
    for (what, size_bytes, limit_bytes) in
        [("old", header.old_bytes, limits.old_bytes_max), ("new", header.new_bytes, limits.new_bytes_max)]
    {
        if size_bytes > limit_bytes {
            return Err(Error::TooLarge { what, size_bytes, limit_bytes });
        }
    }
    let got = Digest::of(old);
    if header.old_bytes != old.len() as u64 || header.old != got {
        return Err(Error::OtherBase { expected: header.old, got });
    }
    let new_bytes = size(header.new_bytes)?;
    let new = match header.method {
        Method::Patch => frame::decompress(body, new_bytes, old)?,
        Method::Diff => diff(old, body, new_bytes)?,
    };
    let got = Digest::of(&new);
    if got == header.new { Ok(new) } else { Err(Error::Mismatch { expected: header.new, got }) }
}

fn diff(old: &[u8], body: &[u8], new_bytes: usize) -> Result<Vec<u8>, Error> {
    let mut reader = Reader(body);
    let mut sizes = [(0usize, 0usize); 3];
    for (whole, compressed) in &mut sizes {
        *whole = size(reader.number()?)?;
        *compressed = size(reader.number()?)?;
    }
    let [instructions, residuals, literals] = sizes;
    let most = INSTRUCTIONS_MAX * INSTRUCTION_BYTES;
    if instructions.0 > most || !instructions.0.is_multiple_of(INSTRUCTION_BYTES) {
        return Err(Error::Form("it has too many instructions, or half a one"));
    }
    // Together they are the new file, so that neither asks for more memory than that.
    let given = residuals.0.checked_add(literals.0);
    if given != Some(new_bytes) {
        let got_bytes = given.map_or(u64::MAX, |given| given as u64);
        return Err(Error::Length { got_bytes, expected_bytes: new_bytes as u64 });
    }
    let mut section = |(whole, compressed): (usize, usize), prefix: &[u8]| {
        frame::decompress(reader.take(compressed)?, whole, prefix)
    };
    let instructions = section(instructions, &[])?;
    let residuals = section(residuals, &[])?;
    let literals = section(literals, old)?;
    if !reader.0.is_empty() {
        return Err(Error::Form("there are bytes after its end"));
    }
    follow(old, &instructions, &residuals, &literals, new_bytes)
}

fn follow(
    old: &[u8],
    instructions: &[u8],
    residuals: &[u8],
    literals: &[u8],
    new_bytes: usize,
) -> Result<Vec<u8>, Error> {
    let mut new = frame::room(new_bytes)?;
    let (mut residuals, mut literals) = (residuals, literals);
    for (at, instruction) in Instruction::read_all(instructions).enumerate() {
        let instruction = instruction?;
        let past = |of| Error::OutOfRange { at, of };
        let length = usize::try_from(instruction.length()).map_err(|_| past("new file"))?;
        if length > new_bytes - new.len() {
            return Err(past("new file"));
        }
        match instruction {
            Instruction::Add { from, .. } => {
                let from = usize::try_from(from).map_err(|_| past("old file"))?;
                let end = from.checked_add(length).ok_or(past("old file"))?;
                let base = old.get(from..end).ok_or(past("old file"))?;
                let (mine, rest) = residuals.split_at_checked(length).ok_or(past("residuals"))?;
                residuals = rest;
                new.extend(base.iter().zip(mine).map(|(base, residual)| base.wrapping_add(*residual)));
            }
            Instruction::Insert { .. } => {
                let (mine, rest) = literals.split_at_checked(length).ok_or(past("literals"))?;
                literals = rest;
                new.extend_from_slice(mine);
            }
        }
    }
    if new.len() == new_bytes {
        Ok(new)
    } else {
        Err(Error::Length { got_bytes: new.len() as u64, expected_bytes: new_bytes as u64 })
    }
}

fn size(size_bytes: u64) -> Result<usize, Error> {
    usize::try_from(size_bytes).map_err(|_| Error::Memory(size_bytes))
}
