//! Arrays as numpy saves them (`.npy`, format 1.0 to 3.0): samples without labels, for calibration.
//!
//! The header is a Python literal of three known keys. It is read here, and not by a library, because the one that fits
//! (`npyz`) allocates what the file says its header is long, up to 4 GiB.

use super::{Error, Place, VALUES_MAX};
use shared::{Digest, digest::Hasher};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// What a file begins with.
const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest header; numpy itself writes a few hundred bytes at most.
const HEADER_BYTES_MAX: usize = 4096;
/// Most axes of an array.
const AXES_MAX: usize = 8;
/// Most files of a folder.
const FILES_MAX: usize = 4096;

/// An array of numbers, row major, as f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Its axes.
    pub shape: Vec<usize>,
    /// Its values; all finite.
    pub values: Vec<f32>,
}

/// The arrays of a folder.
#[derive(Clone, Debug, PartialEq)]
pub struct Folder {
    /// Each with its file, by name.
    pub arrays: Vec<(PathBuf, Array)>,
    /// SHA-256 over the files with their names.
    pub digest: Digest,
}

/// Reads every `.npy` file of a folder; `None` where it holds none.
///
/// # Errors
/// A file that is damaged, too large or not of real, finite numbers.
pub fn open(path: &Path) -> Result<Option<Folder>, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    if !path.is_dir() {
        return Ok(None);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(io)? {
        let file = entry.map_err(io)?.path();
        if file.extension().is_some_and(|extension| extension == "npy") && file.is_file() {
            files.push(file);
        }
        if files.len() > FILES_MAX {
            return Err(Error::bad(path, Place::File, format!("more than {FILES_MAX} .npy files are in it")));
        }
    }
    if files.is_empty() {
        return Ok(None);
    }
    files.sort();
    let mut hasher = Hasher::new();
    let mut arrays = Vec::with_capacity(files.len());
    let mut count = 0usize;
    for file in files {
        let bytes = super::read_file(&file, &mut hasher)?;
        let array = parse(&bytes).map_err(|reason| Error::bad(&file, Place::File, reason))?;
        count = count.saturating_add(array.values.len());
        if count > VALUES_MAX {
            return Err(Error::bad(path, Place::File, format!("more than {VALUES_MAX} values are in it")));
        }
        arrays.push((file, array));
    }
    Ok(Some(Folder { arrays, digest: hasher.finish() }))
}

/// Reads one file's bytes. The text of an error says what is wrong with them.
///
/// # Errors
/// No array of real, finite numbers in C order.
pub fn parse(bytes: &[u8]) -> Result<Array, String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("it does not begin as a .npy file does")?;
    let (length, at) = match *rest {
        [1, 0, a, b, ..] => (usize::from(u16::from_le_bytes([a, b])), 4),
        [2 | 3, 0, a, b, c, d, ..] => (u32::from_le_bytes([a, b, c, d]) as usize, 6),
        _ => return Err("its format is none of 1.0, 2.0 and 3.0".to_owned()),
    };
    if length > HEADER_BYTES_MAX {
        return Err(format!("its header has {length} bytes, at most {HEADER_BYTES_MAX} are read"));
    }
    let header = rest.get(at..at + length).ok_or("it is cut short in its header")?;
    let header = std::str::from_utf8(header).map_err(|_| "its header is no text")?;
    let data = &rest[at + length..];
    if value_of(header, "fortran_order")?.starts_with("True") {
        return Err("it is in Fortran order: save numpy.ascontiguousarray of it".to_owned());
    }
    let shape = shape_of(value_of(header, "shape")?)?;
    let count = shape.iter().try_fold(1usize, |product, axis| product.checked_mul(*axis));
    let count = count.filter(|count| *count <= VALUES_MAX).ok_or("its shape is impossible")?;
    let values = values(type_of(value_of(header, "descr")?)?, data, count)?;
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        return Err(format!("its value {at} is not a finite number"));
    }
    Ok(Array { shape, values })
}

/// What follows a key of the header.
fn value_of<'a>(header: &'a str, key: &str) -> Result<&'a str, String> {
    let found = [format!("'{key}':"), format!("\"{key}\":")]
        .iter()
        .find_map(|quoted| header.split_once(quoted.as_str()))
        .map(|(_, value)| value.trim_start());
    found.ok_or_else(|| format!("its header has no {key}"))
}

fn shape_of(text: &str) -> Result<Vec<usize>, String> {
    let inner = text.strip_prefix('(').and_then(|text| text.split_once(')')).map(|(inner, _)| inner);
    let inner = inner.ok_or("its header's shape is no tuple")?;
    let axes = inner.split(',').map(str::trim).filter(|axis| !axis.is_empty());
    let axes: Option<Vec<usize>> = axes.map(|axis| axis.trim_end_matches('L').parse().ok()).collect();
    let axes = axes.ok_or("its header's shape holds something else than sizes")?;
    if axes.len() > AXES_MAX {
        return Err(format!("it has {} axes, at most {AXES_MAX} are read", axes.len()));
    }
    Ok(axes)
}

/// Kind, bytes of one value, and whether the largest byte comes first.
type Kind = (u8, usize, bool);

fn type_of(text: &str) -> Result<Kind, String> {
    const ALLOWED: &str = "allowed are f4, f8, i1 to i8 and u1 to u8";
    let quote = text.chars().next().filter(|quote| ['\'', '"'].contains(quote));
    let name = quote.and_then(|quote| text[1..].split_once(quote)).map(|(name, _)| name);
    let name = name.ok_or_else(|| format!("its values are records; {ALLOWED}"))?;
    let refused =
        || format!("its values are of the type {:?}; {ALLOWED}", name.chars().take(16).collect::<String>());
    let (order, kind, width) = match name.as_bytes() {
        [order @ (b'<' | b'>' | b'|' | b'='), kind, width] => (*order, *kind, *width),
        _ => return Err(refused()),
    };
    let width = usize::from(width.wrapping_sub(b'0'));
    let known = matches!((kind, width), (b'f', 4 | 8) | (b'i' | b'u', 1 | 2 | 4 | 8));
    if known { Ok((kind, width, order == b'>')) } else { Err(refused()) }
}

fn values((kind, width, largest_first): Kind, data: &[u8], count: usize) -> Result<Vec<f32>, String> {
    if count.checked_mul(width) != Some(data.len()) {
        return Err(format!(
            "{} bytes of values, its shape and type declare {count} of {width} bytes",
            data.len()
        ));
    }
    let one = |bytes: &[u8]| {
        let mut word = [0u8; 8];
        let part = &mut word[..width];
        part.copy_from_slice(bytes);
        if largest_first {
            part.reverse();
        }
        let bits = u64::from_le_bytes(word);
        // Shifted up and down again, so that the sign fills what lies above.
        let above = 64 - 8 * width;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "f32 is what models take"
        )]
        match (kind, width) {
            (b'f', 4) => f32::from_bits(bits as u32),
            (b'f', _) => f64::from_bits(bits) as f32,
            (b'i', _) => ((bits << above).cast_signed() >> above) as f32,
            _ => bits as f32,
        }
    };
    Ok(data.chunks_exact(width).map(one).collect())
}

#[cfg(test)]
mod tests;
