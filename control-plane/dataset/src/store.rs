//! A data set that memory does not hold: one file of samples, row major, that is read as samples are needed.
//!
//! | bytes | what |
//! |---|---|
//! | 0 to 7 | [`MAGIC`] |
//! | 8 to 23 | where the description begins and how many bytes it has, u64, little endian |
//! | 24 to 55 | SHA-256 of the description |
//! | from 4096 | values of the training samples, then of those for testing: bytes, or f32, little endian |
//! | behind them | a label a sample, u32, little endian |
//! | behind them | the description, JSON: the schema, which names the digest of what it was made from, and the kind of values |
//!
//! The file appears whole or not at all: it is written under another name, made durable, and moved.

use super::{Error, Split};
use serde::{Deserialize, Serialize};
use shared::{Digest, job::DatasetSchema};
use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

/// What a file begins with.
const MAGIC: [u8; 8] = *b"EWDATA\0\x01";
/// Where values begin.
const VALUES_AT: u64 = 4096;
/// What is written at a time.
const BUFFER_BYTES: usize = 1 << 20;
/// Longest description.
const DESCRIPTION_BYTES_MAX: u64 = 64 << 20;

/// How a value lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A byte, which stands for its 255th part.
    U8,
    F32,
}

impl Kind {
    pub(crate) fn width(self) -> u64 {
        match self {
            Self::U8 => 1,
            Self::F32 => 4,
        }
    }
}

/// What a byte of an image stands for.
pub(crate) fn of_byte(byte: u8) -> f32 {
    f32::from(byte) / 255.0
}

#[derive(Serialize, Deserialize)]
struct Description {
    schema: DatasetSchema,
    kind: Kind,
}

/// The samples of a split in a file.
#[derive(Clone, Debug)]
pub struct Stored {
    opened: Arc<Opened>,
    kind: Kind,
    /// Byte of the first sample.
    at: u64,
    count: u64,
    /// Which samples of the file these are; all, in their order, where not given.
    rows: Option<Arc<[u32]>>,
}

#[derive(Debug)]
struct Opened {
    file: File,
    path: PathBuf,
    /// The first read that failed.
    failed: OnceLock<io::Error>,
}

impl PartialEq for Stored {
    fn eq(&self, other: &Self) -> bool {
        let place = |one: &Self| (one.kind, one.at, one.count, one.rows.clone());
        self.opened.path == other.opened.path && place(self) == place(other)
    }
}

impl Stored {
    /// Adds the `each` values of sample `index`; nothing where there is no such sample. What cannot be read is zero and
    /// [`Self::failure`] says so: whoever goes on from these values asks it first.
    pub(crate) fn values(&self, index: usize, each: usize, into: &mut Vec<f32>) {
        let index = match &self.rows {
            Some(rows) => rows.get(index).map(|row| u64::from(*row)),
            None => Some(index as u64),
        };
        let Some(index) = index.filter(|index| *index < self.count) else { return };
        let row_bytes = each as u64 * self.kind.width();
        let mut row = vec![0; usize::try_from(row_bytes).unwrap_or(0)];
        if let Err(error) = self.opened.file.read_exact_at(&mut row, self.at + index * row_bytes) {
            // Only the first says why; those after it follow from it.
            let _ = self.opened.failed.set(error);
            row.fill(0);
        }
        match self.kind {
            Kind::U8 => into.extend(row.iter().copied().map(of_byte)),
            Kind::F32 => into.extend(row.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value))),
        }
    }

    /// The samples at `indices` of these.
    pub(crate) fn part(&self, indices: &[usize]) -> Self {
        let row = |index: &usize| match &self.rows {
            Some(rows) => rows.get(*index).copied(),
            None => u32::try_from(*index).ok(),
        };
        Self { rows: Some(indices.iter().filter_map(row).collect()), ..self.clone() }
    }

    /// Why values could not be read, where that happened.
    pub(crate) fn failure(&self) -> Option<Error> {
        let error = self.opened.failed.get()?;
        let source = io::Error::new(error.kind(), error.to_string());
        Some(Error::Io { path: self.opened.path.clone(), source })
    }
}

/// A file that is being written; nothing of it stays where it is not finished.
#[derive(Debug)]
pub(crate) struct Writer {
    path: PathBuf,
    temporary: PathBuf,
    /// None once it is finished.
    file: Option<BufWriter<File>>,
    kind: Kind,
    values: u64,
}

impl Writer {
    /// Begins the file at `path`.
    ///
    /// # Errors
    /// The disk refused.
    pub(crate) fn begin(path: &Path, kind: Kind) -> Result<Self, Error> {
        let temporary = path.with_extension("tmp");
        let file = File::create(&temporary).map_err(|source| store_error(&temporary, source))?;
        let file = Some(BufWriter::with_capacity(BUFFER_BYTES, file));
        let mut writer = Self { path: path.to_owned(), temporary, file, kind, values: 0 };
        writer.write(&[0; VALUES_AT as usize])?;
        Ok(writer)
    }

    /// Adds bytes, which is what this file holds.
    ///
    /// # Errors
    /// The disk refused.
    pub(crate) fn bytes(&mut self, row: &[u8]) -> Result<(), Error> {
        self.values += row.len() as u64;
        self.write(row)
    }

    /// Adds floats, which is what this file holds.
    ///
    /// # Errors
    /// The disk refused.
    pub(crate) fn floats(&mut self, row: &[f32]) -> Result<(), Error> {
        self.values += row.len() as u64;
        let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.write(&bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.file.as_mut().map_or(Ok(()), |file| file.write_all(bytes));
        written.map_err(|source| store_error(&self.temporary, source))
    }

    /// Adds the labels and puts the file into its place: the samples for training and for testing.
    ///
    /// # Errors
    /// The disk refused.
    pub(crate) fn finish(
        mut self,
        schema: &DatasetSchema,
        labels: [&[i64]; 2],
    ) -> Result<[Stored; 2], Error> {
        let labels: Vec<u8> = labels
            .iter()
            .flat_map(|labels| labels.iter())
            .flat_map(|label| u32::try_from(*label).unwrap_or(u32::MAX).to_le_bytes())
            .collect();
        let description = Description { schema: schema.clone(), kind: self.kind };
        let description = serde_json::to_vec(&description)
            .map_err(|error| store_error(&self.path, io::Error::other(error.to_string())))?;
        let at = VALUES_AT + self.values * self.kind.width() + labels.len() as u64;
        self.write(&labels)?;
        self.write(&description)?;
        let mut place = || -> io::Result<()> {
            let Some(file) = self.file.take() else { return Ok(()) };
            let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            let mut head = MAGIC.to_vec();
            head.extend(at.to_le_bytes());
            head.extend((description.len() as u64).to_le_bytes());
            head.extend(Digest::of(&description).as_bytes());
            file.write_all_at(&head, 0)?;
            file.sync_all()?;
            fs::rename(&self.temporary, &self.path)?;
            match self.path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                Some(parent) => File::open(parent)?.sync_all(),
                None => Ok(()),
            }
        };
        place().map_err(|source| store_error(&self.path, source))?;
        let (file, description, _) = read(&self.path).map_err(|source| store_error(&self.path, source))?;
        Ok(splits(file, &self.path, &description))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // On a full disk the part that fitted only takes room. Once it is in its place there is none.
        let _ = fs::remove_file(&self.temporary);
    }
}

fn store_error(path: &Path, source: io::Error) -> Error {
    Error::Store { path: path.to_owned(), source }
}

/// A data set at `path` that was made from files of this digest; `None` where there is none, or it is damaged: it can be
/// made again.
pub(crate) fn open(path: &Path, made_from: Digest) -> Option<(DatasetSchema, [Split; 2])> {
    let (file, description, [train, test]) = read(path).ok()?;
    if description.schema.digest != made_from {
        return None;
    }
    let stored = splits(file, path, &description);
    let split = |labels, stored: &Stored| Split { labels, stored: Some(stored.clone()), ..Split::default() };
    let found = [split(train, &stored[0]), split(test, &stored[1])];
    Some((description.schema, found))
}

fn splits(file: File, path: &Path, Description { schema, kind }: &Description) -> [Stored; 2] {
    let opened = Arc::new(Opened { file, path: path.to_owned(), failed: OnceLock::new() });
    let sample_bytes = schema.shape.iter().product::<usize>() as u64 * kind.width();
    let stored = |at, count| Stored {
        opened: Arc::clone(&opened),
        kind: *kind,
        at: VALUES_AT + at,
        count,
        rows: None,
    };
    [stored(0, schema.train_count), stored(schema.train_count * sample_bytes, schema.test_count)]
}

/// The file with its description and labels, if it is whole.
fn read(path: &Path) -> io::Result<(File, Description, [Vec<i64>; 2])> {
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut head = [0; 56];
    file.read_exact_at(&mut head, 0)?;
    let number = |at: usize| head[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let (at, bytes) = (number(8), number(16));
    if head[..8] != MAGIC || bytes > DESCRIPTION_BYTES_MAX || at.checked_add(bytes) != Some(length) {
        return Err(damaged("no data set"));
    }
    let mut text = vec![0; usize::try_from(bytes).unwrap_or(0)];
    file.read_exact_at(&mut text, at)?;
    if Digest::of(&text).as_bytes() != &head[24..] {
        return Err(damaged("its description is another"));
    }
    let description: Description = serde_json::from_slice(&text)?;
    let DatasetSchema { shape, train_count, test_count, .. } = &description.schema;
    let each = shape.iter().try_fold(1u64, |product, axis| product.checked_mul(*axis as u64));
    let count = train_count.checked_add(*test_count);
    let values = each.zip(count).and_then(|(each, count)| each.checked_mul(count));
    let labels_at = values
        .and_then(|values| values.checked_mul(description.kind.width()))
        .and_then(|bytes| bytes.checked_add(VALUES_AT));
    let (Some(labels_at), Some(count)) = (labels_at, count) else { return Err(damaged("no size")) };
    if count.checked_mul(4).and_then(|bytes| bytes.checked_add(labels_at)) != Some(at) {
        return Err(damaged("its sizes contradict each other"));
    }
    let mut labels = vec![0; usize::try_from(at - labels_at).unwrap_or(0)];
    file.read_exact_at(&mut labels, labels_at)?;
    let mut labels: Vec<i64> =
        labels.as_chunks::<4>().0.iter().map(|label| i64::from(u32::from_le_bytes(*label))).collect();
    let test = labels.split_off(usize::try_from(*train_count).unwrap_or(0).min(labels.len()));
    Ok((file, description, [labels, test]))
}

#[cfg(test)]
mod tests;
