//! How a delta is written. All numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `EWD1` |
//! | 1 | method |
//! | 32, 32 | SHA-256 of the old file, of the new file |
//! | 8, 8 | size of the old file, of the new file |
//! | rest | body |
//!
//! The body of [`Method::Patch`] is one zstd frame with the old file as its prefix. That of [`Method::Diff`] is three
//! pairs of sizes (whole, compressed; 8 bytes each) and then three frames: instructions, residuals, and literals,
//! which have the old file as their prefix.

use crate::Error;
use shared::Digest;

/// The first bytes of every delta.
const MAGIC: [u8; 4] = *b"EWD1";
/// Bytes before the body.
pub const HEADER_BYTES: usize = 4 + 1 + 32 + 32 + 8 + 8;
/// Most instructions of one delta.
pub const INSTRUCTIONS_MAX: usize = 65_536;
/// Bytes of one instruction: what it does, how many bytes it gives, where they begin in the old file.
pub(crate) const INSTRUCTION_BYTES: usize = 1 + 8 + 8;

/// How the body says what the new file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Instructions: add residuals to a range of the old file, byte by byte and wrapping, or insert literals. For
    /// files whose bytes stay in their places and change a little, as weights do.
    Diff,
    /// Compressed with the old file in view. For files whose parts move.
    Patch,
}

impl Method {
    fn number(self) -> u8 {
        match self {
            Self::Diff => 1,
            Self::Patch => 2,
        }
    }

    fn from_number(number: u8) -> Result<Self, Error> {
        match number {
            1 => Ok(Self::Diff),
            2 => Ok(Self::Patch),
            _ => Err(Error::Form("it has a method that is not known")),
        }
    }
}

/// What a delta is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub method: Method,
    pub old: Digest,
    pub new: Digest,
    pub old_bytes: u64,
    pub new_bytes: u64,
}

impl Header {
    /// Reads the header and gives the body with it.
    ///
    /// # Errors
    /// [`Error::Form`] where the bytes are no delta.
    pub fn read(bytes: &[u8]) -> Result<(Self, &[u8]), Error> {
        let mut reader = Reader(bytes);
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(Error::Form("it does not begin with EWD1"));
        }
        let method = Method::from_number(reader.byte()?)?;
        let header = Self {
            method,
            old: reader.digest()?,
            new: reader.digest()?,
            old_bytes: reader.number()?,
            new_bytes: reader.number()?,
        };
        Ok((header, reader.0))
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.push(self.method.number());
        out.extend_from_slice(self.old.as_bytes());
        out.extend_from_slice(self.new.as_bytes());
        out.extend_from_slice(&self.old_bytes.to_le_bytes());
        out.extend_from_slice(&self.new_bytes.to_le_bytes());
    }
}

/// One instruction of a diff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instruction {
    /// `length` bytes of the old file from `from` on, each plus the next residual.
    Add { from: u64, length: u64 },
    /// The next `length` literals.
    Insert { length: u64 },
}

impl Instruction {
    pub(crate) fn length(self) -> u64 {
        match self {
            Self::Add { length, .. } | Self::Insert { length } => length,
        }
    }

    pub(crate) fn write(self, out: &mut Vec<u8>) {
        let (kind, length, from) = match self {
            Self::Add { from, length } => (0u8, length, from),
            Self::Insert { length } => (1, length, 0),
        };
        out.push(kind);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&from.to_le_bytes());
    }

    /// Reads instructions one after another.
    pub(crate) fn read_all(bytes: &[u8]) -> impl Iterator<Item = Result<Self, Error>> + '_ {
        bytes.chunks(INSTRUCTION_BYTES).map(|bytes| {
            let mut reader = Reader(bytes);
            let kind = reader.byte()?;
            let (length, from) = (reader.number()?, reader.number()?);
            match (kind, from) {
                (0, from) => Ok(Self::Add { from, length }),
                (1, 0) => Ok(Self::Insert { length }),
                _ => Err(Error::Form("it has an instruction that is not known")),
            }
        })
    }
}

/// Takes bytes off the front.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (front, rest) = self.0.split_at_checked(length).ok_or(Error::Form("it is cut short"))?;
        self.0 = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>()?[0])
    }

    fn digest(&mut self) -> Result<Digest, Error> {
        Ok(Digest::from(self.array::<32>()?))
    }

    pub(crate) fn number(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }
}
