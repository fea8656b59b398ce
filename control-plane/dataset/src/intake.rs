//! What a reader puts its samples into, one at a time: they are looked at, and kept where there is room.

use super::{
    Error, Place, STORED_VALUES_MAX, Split, VALUES_MAX,
    examine::Examiner,
    store::{Kind, Writer, of_byte},
};
use shared::job::DatasetSchema;
use std::path::{Path, PathBuf};

/// Where a data set finds room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// The file that samples go into where memory shall not hold them. Beside it one of the same name with `.tmp` is
    /// written.
    pub file: PathBuf,
    /// Most bytes that all samples together may take in memory, four a value.
    pub memory_bytes: u64,
}

/// What becomes of samples that were looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keep<'a> {
    Nothing,
    Memory,
    Within(&'a Room),
}

/// One sample, row major, channels first.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Row<'a> {
    /// Each the 255th part of a value.
    Bytes(&'a [u8]),
    Floats(&'a [f32]),
}

impl Row<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(row) => row.len(),
            Self::Floats(row) => row.len(),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Bytes(_) => Kind::U8,
            Self::Floats(_) => Kind::F32,
        }
    }
}

/// Samples on their way in: first all for training, then all for testing.
#[derive(Debug)]
pub(crate) struct Intake<'a> {
    /// For errors.
    origin: &'a Path,
    keep: Keep<'a>,
    bytes: Vec<u8>,
    floats: Vec<f32>,
    writer: Option<Writer>,
    /// Values of one sample, once there is one.
    each: Option<usize>,
    values: u64,
    /// Samples of both splits.
    counts: [u64; 2],
    pub(crate) examiner: Examiner,
}

impl<'a> Intake<'a> {
    /// For the data set at `origin`.
    pub(crate) fn new(origin: &'a Path, keep: Keep<'a>) -> Self {
        Self {
            origin,
            keep,
            bytes: Vec::new(),
            floats: Vec::new(),
            writer: None,
            each: None,
            values: 0,
            counts: [0; 2],
            examiner: Examiner::default(),
        }
    }

    /// Adds a sample of `channels`. All are of one kind; one of another size than the first is not taken, for its reader
    /// refuses the set.
    ///
    /// # Errors
    /// More values than are taken, or a disk that refuses them.
    pub(crate) fn take(&mut self, row: Row<'_>, channels: usize, testing: bool) -> Result<(), Error> {
        if *self.each.get_or_insert(row.len()) != row.len() {
            return Ok(());
        }
        self.values = self.values.saturating_add(row.len() as u64);
        let most = match self.keep {
            Keep::Memory => VALUES_MAX as u64,
            Keep::Nothing | Keep::Within(_) => STORED_VALUES_MAX,
        };
        if self.values > most {
            let message = format!("more than {most} values, the most that is read");
            return Err(Error::bad(self.origin, Place::File, message));
        }
        self.examiner.see(row, channels, testing);
        self.counts[usize::from(testing)] += 1;
        match self.keep {
            Keep::Nothing => return Ok(()),
            Keep::Memory => {}
            Keep::Within(room) => {
                if self.writer.is_none() && self.values * 4 > room.memory_bytes {
                    self.spill(room, row.kind())?;
                }
            }
        }
        match (row, &mut self.writer) {
            (Row::Bytes(row), Some(writer)) => writer.bytes(row),
            (Row::Floats(row), Some(writer)) => writer.floats(row),
            (Row::Bytes(row), None) => {
                self.bytes.extend_from_slice(row);
                Ok(())
            }
            (Row::Floats(row), None) => {
                self.floats.extend_from_slice(row);
                Ok(())
            }
        }
    }

    /// Moves what memory holds into a file.
    fn spill(&mut self, room: &Room, kind: Kind) -> Result<(), Error> {
        let mut writer = Writer::begin(&room.file, kind)?;
        match kind {
            Kind::U8 => writer.bytes(&std::mem::take(&mut self.bytes))?,
            Kind::F32 => writer.floats(&std::mem::take(&mut self.floats))?,
        }
        self.writer = Some(writer);
        Ok(())
    }

    /// Whether samples were put in: readers of text, and such as hold a small set in memory themselves, put in none.
    pub(crate) fn is_empty(&self) -> bool {
        self.counts == [0; 2]
    }

    /// Gives the splits, which have their labels already, their samples.
    ///
    /// # Errors
    /// The disk refused them.
    pub(crate) fn finish(mut self, schema: &DatasetSchema, splits: [Split; 2]) -> Result<[Split; 2], Error> {
        let [mut train, mut test] = splits;
        if self.is_empty() {
            return Ok([train, test]);
        }
        if let Some(writer) = self.writer.take() {
            let [for_train, for_test] = writer.finish(schema, [&train.labels, &test.labels])?;
            (train.stored, test.stored) = (Some(for_train), Some(for_test));
            return Ok([train, test]);
        }
        Ok(self.in_memory([train, test]))
    }

    /// Gives the splits the samples that memory holds, which is all where nothing else was asked for.
    pub(crate) fn in_memory(self, splits: [Split; 2]) -> [Split; 2] {
        let [mut train, mut test] = splits;
        let mut samples = self.floats;
        samples.extend(self.bytes.iter().copied().map(of_byte));
        let for_train = usize::try_from(self.counts[0]).unwrap_or(0).saturating_mul(self.each.unwrap_or(0));
        test.samples = samples.split_off(for_train.min(samples.len()));
        train.samples = samples;
        [train, test]
    }
}
