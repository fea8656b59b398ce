//! Data sets: labelled images (IDX, folders of PNG and JPEG), labelled time series (UCR `.tsv`, aeon `.ts`), tables of numbers
//! (`.csv`), sentences with intent and slots, and plain text; and samples without labels (`.npy`).
//!
//! A reader trusts nothing: sizes are capped, and every refusal names the file, the line or byte offset, and what
//! was expected there. Images and series are read sample by sample: into memory, or into a file where memory has no
//! [`Room`] for them. What a person should know of a set is among its remarks.
//!
//! A crate of its own, so that what reads strangers' files can be tested and fuzzed without libtorch.

mod anomaly;
pub mod balance;
mod examine;
mod file;
mod idx;
mod images;
mod intake;
pub mod intents;
pub mod npy;
pub mod prose;
mod series;
mod store;
mod table;

pub use anomaly::NORMAL_MIN;

pub use intake::Room;
pub use store::Stored;

use file::read_file;
use intake::{Intake, Keep, Row};
use shared::{
    Digest,
    digest::Hasher,
    job::{DataFormat, DatasetRef, DatasetSchema, Reading},
    limits,
    manifest::{Column, Head, Task},
    text::{self, TextPreprocess},
};
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Largest data file that is read whole, as it lies on the disk.
pub const FILE_BYTES_MAX: u64 = 2 << 30;
/// Largest data file that is read piece by piece, as it lies on the disk.
pub const STREAM_BYTES_MAX: u64 = 256 << 30;
/// Most files of one set.
pub const FILES_MAX: usize = 10_000;
/// Most samples in one split.
pub const SAMPLES_MAX: usize = 5_000_000;
/// Most values that are kept in memory.
pub const VALUES_MAX: usize = 1 << 29;
/// Most values of a set that is read sample by sample.
pub const STORED_VALUES_MAX: u64 = 1 << 36;

/// Where in a file something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The file as a whole.
    File,
    /// A line, counted from 1.
    Line(usize),
    /// A byte, counted from 0, after decompression.
    Byte(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => Ok(()),
            Self::Line(line) => write!(f, ":{line}"),
            Self::Byte(byte) => write!(f, ", byte {byte}"),
        }
    }
}

/// Why a data set is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing at that path that a reader takes.
    #[error("{}: no data set found: expected {expected}", path.display())]
    NotFound {
        /// What was given.
        path: PathBuf,
        /// The file names that were looked for.
        expected: String,
    },
    /// A file cannot be read.
    #[error("{}: cannot be read", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file that holds the samples of a set beyond memory cannot be written.
    #[error(
        "{}: samples that memory has no room for cannot be kept there: free some of the disk and start again",
        path.display()
    )]
    Store {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file breaks its format or a limit.
    #[error("{}{at}: {message}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// Where in it.
        at: Place,
        /// What was found and what was expected.
        message: String,
    },
    /// The set is not the one that was registered.
    #[error(
        "{}: the data set changed: its SHA-256 is {found}, {expected} was registered; register it again",
        path.display()
    )]
    Changed {
        /// The data set.
        path: PathBuf,
        /// What the job names.
        expected: Digest,
        /// What the files give.
        found: Digest,
    },
}

impl Error {
    fn bad(path: &Path, at: Place, message: impl Into<String>) -> Self {
        // Labels and fields of a file are quoted in it.
        let message = message.into().replace(char::is_control, " ");
        Self::Bad { path: path.to_owned(), at, message }
    }

    /// What was said of a set does not fit it.
    fn reading(path: &Path, message: &str) -> Self {
        Self::bad(path, Place::File, message)
    }

    fn one_class(path: &Path, label: &str) -> Self {
        let message =
            format!("all training samples have the label {label:?}: a classifier needs at least two classes");
        Self::bad(path, Place::File, message)
    }
}

/// Labelled samples, row major: sample `i` is `samples[i * n..][..n]` where `n` is the product of the schema's shape; or
/// text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Split {
    /// Values; an image's are 0 to 1. None of text, and none where they are [`Self::stored`]: [`Self::values`] gives either.
    pub samples: Vec<f32>,
    /// Index of each sample's class in [`DatasetSchema::labels`].
    pub labels: Vec<i64>,
    /// Empty where samples are numbers.
    pub text: Text,
    /// The samples of a set that memory has no room for.
    pub stored: Option<Stored>,
}

/// Samples of text: windows of as many tokens as the schema's shape is long, which may overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// One a character, see [`shared::text`].
    pub tokens: Vec<u8>,
    /// What is to be said of each token: a label of the model's head, or the token that follows;
    /// [`text::EMPTY`] where there is nothing to say.
    pub labels: Vec<u8>,
    /// Where each sample begins.
    pub starts: Vec<u32>,
}

impl Text {
    /// The tokens of sample `index`; none where there is no such sample.
    pub fn window(&self, index: usize, length: usize) -> &[u8] {
        of_sample(&self.tokens, self.starts.get(index), length)
    }

    /// The labels of sample `index`.
    pub fn window_labels(&self, index: usize, length: usize) -> &[u8] {
        of_sample(&self.labels, self.starts.get(index), length)
    }
}

fn of_sample<'a>(values: &'a [u8], start: Option<&u32>, length: usize) -> &'a [u8] {
    let found = start.and_then(|start| values.get(*start as usize..)?.get(..length));
    found.unwrap_or_default()
}

impl Split {
    /// Adds the values of sample `index`, row major, for samples of `shape`.
    pub fn values(&self, index: usize, shape: &[usize], into: &mut Vec<f32>) {
        if let ([channels, length], false) = (shape, self.text.starts.is_empty()) {
            return text::one_hot(self.text.window(index, *length), *channels, into);
        }
        let each: usize = shape.iter().product();
        if let Some(stored) = &self.stored {
            return stored.values(index, each, into);
        }
        let at = index.saturating_mul(each);
        into.extend_from_slice(self.samples.get(at..).and_then(|rest| rest.get(..each)).unwrap_or_default());
    }

    /// The samples at `indices`, in their order; those that it does not have are left out. Not for text.
    pub fn part(&self, indices: &[usize]) -> Self {
        let indices: Vec<usize> = indices.iter().copied().filter(|index| *index < self.len()).collect();
        let mut part = Self::default();
        part.labels.extend(indices.iter().filter_map(|index| self.labels.get(*index)));
        match &self.stored {
            Some(stored) => part.stored = Some(stored.part(&indices)),
            None => {
                let each = [self.samples.len() / self.len().max(1)];
                indices.iter().for_each(|index| self.values(*index, &each, &mut part.samples));
            }
        }
        part
    }

    /// Why values of a stored set could not be read, where that happened: they are then zeros.
    pub fn failure(&self) -> Option<Error> {
        self.stored.as_ref().and_then(Stored::failure)
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

/// A data set that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// What it is.
    pub schema: DatasetSchema,
    /// For training.
    pub train: Split,
    /// For measuring, never for training.
    pub test: Split,
}

/// Opens the set that a job names and refuses one that changed since it was registered. Samples that `room` holds already,
/// from files of the registered digest, are not read from those again.
///
/// # Errors
/// As [`open_within`], and [`Error::Changed`].
pub fn open_ref(reference: &DatasetRef, room: &Room) -> Result<Dataset, Error> {
    if let Some((schema, [train, test])) =
        reference.digest.and_then(|made_from| store::open(&room.file, made_from))
    {
        return Ok(Dataset { schema, train, test });
    }
    let DatasetRef { path, format, reading, .. } = reference;
    let set = read(path, Some(*format), reading, Keep::Within(room))?;
    match reference.digest {
        Some(expected) if expected != set.schema.digest => {
            Err(Error::Changed { path: reference.path.clone(), expected, found: set.schema.digest })
        }
        _ => Ok(set),
    }
}

/// Opens a data set whole into memory. `path` is a folder, or for the pair formats also `FOLDER/NAME`; without a format the
/// files that are there decide.
///
/// # Errors
/// Missing, damaged, oversized or contradictory files, and sets with fewer than two classes.
pub fn open(path: &Path, format: Option<DataFormat>) -> Result<Dataset, Error> {
    open_as(path, format, &Reading::default())
}

/// Opens a data set as [`open`] does, read as a person says.
///
/// # Errors
/// As [`open`]; and a label or column that is not there, fewer normal samples than a model learns from, and what does not go
/// with the format.
pub fn open_as(path: &Path, format: Option<DataFormat>, reading: &Reading) -> Result<Dataset, Error> {
    read(path, format, reading, Keep::Memory)
}

/// As [`open`], with images and series in a file where memory has no room for them.
///
/// # Errors
/// As [`open`], and [`Error::Store`].
pub fn open_within(path: &Path, format: Option<DataFormat>, room: &Room) -> Result<Dataset, Error> {
    read(path, format, &Reading::default(), Keep::Within(room))
}

/// What a data set is: as [`open_as`], without keeping the samples of images and series.
///
/// # Errors
/// As [`open_as`].
pub fn inspect(path: &Path, format: Option<DataFormat>, reading: &Reading) -> Result<DatasetSchema, Error> {
    read(path, format, reading, Keep::Nothing).map(|set| set.schema)
}

fn read(
    path: &Path,
    format: Option<DataFormat>,
    reading: &Reading,
    keep: Keep<'_>,
) -> Result<Dataset, Error> {
    let found = match format {
        Some(DataFormat::Idx) => Files::idx(path),
        Some(DataFormat::ImageFolder) => Files::images(path),
        Some(DataFormat::UcrTsv) => Files::pair(path, "tsv")?,
        Some(DataFormat::Ts) => Files::pair(path, "ts")?,
        // Without labels: nothing is trained on it.
        Some(DataFormat::Npy) => None,
        Some(DataFormat::Text) => Files::prose(path)?,
        Some(DataFormat::IntentJsonl) => Files::single(path, "jsonl")?,
        Some(DataFormat::IntentJson) => Files::single(path, "json")?,
        Some(DataFormat::Csv) => Files::table(path)?,
        None => Files::any(path)?,
    };
    let files = found.ok_or_else(|| Error::NotFound { path: path.to_owned(), expected: expected(format) })?;
    let mut hasher = Hasher::new();
    // What is regrouped is picked from both splits: it has to be in memory.
    let mut intake = Intake::new(path, if reading.normal.is_some() { Keep::Memory } else { keep });
    let wanted = if reading.normal.is_some() { Classes::Any } else { Classes::OfTraining };
    if reading.label_column.is_some() && !matches!(files, Files::Csv(_)) {
        return Err(Error::reading(
            path,
            "only the labels of a .csv table are in a column that can be named",
        ));
    }
    let mut columns = None;
    let mut raw = match files {
        Files::Idx(paths) => idx::read(&paths, wanted, &mut hasher, &mut intake)?,
        Files::Images(folder) => images::read(&folder, wanted, &mut hasher, &mut intake)?,
        Files::Tsv(train, test) => series::read_tsv(&train, &test, wanted, &mut hasher, &mut intake)?,
        Files::Ts(train, test) => series::read_ts(&train, &test, wanted, &mut hasher, &mut intake)?,
        Files::Csv(files) => {
            let (raw, names) = table::read(&files, reading.label_column.as_deref(), wanted, &mut hasher)?;
            columns = Some(names);
            raw
        }
        Files::Prose(files) => prose::read(&files, &mut hasher)?,
        Files::IntentJsonl(file) => intents::jsonl::read(&file, &mut hasher)?,
        Files::IntentJson(file) => intents::assistant::read(&file, &mut hasher)?,
    };
    if let Some(normal) = &reading.normal {
        if !intake.is_empty() {
            [raw.train, raw.test] = intake.in_memory([raw.train, raw.test]);
            intake = Intake::new(path, keep);
        }
        raw = anomaly::regroup(raw, normal)?;
    }
    let columns = columns.map(|names| table::standardised(&mut raw.train, &mut raw.test, names));
    // The same files read in another way are another set.
    for said in [&reading.normal, &reading.label_column].into_iter().flatten() {
        hasher.update(&(said.len() as u64).to_le_bytes());
        hasher.update(said.as_bytes());
    }
    raw.finish(hasher.finish(), (reading, columns.unwrap_or_default()), intake)
}

/// Which labels a set may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Classes {
    /// At least two, all of them in the training split.
    OfTraining,
    /// Any in either split: only one of them is learned from.
    Any,
}

/// The text of a set of plain text that is held out of training.
///
/// # Errors
/// As [`open`].
pub fn held_out(path: &Path) -> Result<String, Error> {
    let format = Some(DataFormat::Text);
    match Files::prose(path)? {
        Some(Files::Prose(files)) => prose::held_out(&files),
        _ => Err(Error::NotFound { path: path.to_owned(), expected: expected(format) }),
    }
}

fn expected(format: Option<DataFormat>) -> String {
    let idx = "a folder with train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and \
               t10k-labels-idx1-ubyte (plain or .gz)";
    match format {
        Some(DataFormat::Idx) => idx.to_owned(),
        Some(DataFormat::ImageFolder) => {
            "train/CLASS/*.png and test/CLASS/*.png, or CLASS/*.png (or .jpg)".to_owned()
        }
        Some(DataFormat::UcrTsv) => "NAME_TRAIN.tsv and NAME_TEST.tsv".to_owned(),
        Some(DataFormat::Ts) => "NAME_TRAIN.ts and NAME_TEST.ts".to_owned(),
        Some(DataFormat::Npy) => "a format with labels (.npy holds samples to calibrate by)".to_owned(),
        Some(DataFormat::Text) => "a .txt file, or a folder of them".to_owned(),
        Some(DataFormat::IntentJsonl) => "a .jsonl file of sentences with intent and slots".to_owned(),
        Some(DataFormat::IntentJson) => "a .json file of intents with sentences".to_owned(),
        Some(DataFormat::Csv) => {
            "a .csv file of numbers and labels, or NAME_TRAIN.csv and NAME_TEST.csv (plain or .gz)".to_owned()
        }
        None => format!(
            "{idx}, or NAME_TRAIN.tsv and NAME_TEST.tsv, or NAME_TRAIN.ts and NAME_TEST.ts, or a .csv table, or .txt files, \
             or a .jsonl or .json file of intents, or a folder of images for each class"
        ),
    }
}

/// The files of a set, found but not read.
enum Files {
    /// Images and labels for training, images and labels for testing.
    Idx([PathBuf; 4]),
    /// A folder that holds one of images for each class.
    Images(PathBuf),
    Tsv(PathBuf, PathBuf),
    Ts(PathBuf, PathBuf),
    /// Plain text, by name.
    Prose(Vec<PathBuf>),
    IntentJsonl(PathBuf),
    IntentJson(PathBuf),
    /// One table, or one for training and one for testing.
    Csv(Vec<PathBuf>),
}

impl Files {
    fn table(path: &Path) -> Result<Option<Self>, Error> {
        Ok(table::find(path)?.map(Self::Csv))
    }

    fn images(path: &Path) -> Option<Self> {
        images::is(path).then(|| Self::Images(path.to_owned()))
    }

    /// What the files that are there are.
    fn any(path: &Path) -> Result<Option<Self>, Error> {
        if let Some(files) = Self::idx(path) {
            return Ok(Some(files));
        }
        for extension in ["tsv", "ts"] {
            if let Some(files) = Self::pair(path, extension)? {
                return Ok(Some(files));
            }
        }
        if !path.is_dir()
            && let Some(files) = Self::table(path)?
        {
            return Ok(Some(files));
        }
        if let Some(files) = Self::prose(path)? {
            return Ok(Some(files));
        }
        for extension in ["jsonl", "json"] {
            if let Some(file) = Self::single(path, extension)? {
                return Ok(Some(file));
            }
        }
        // A folder of images may have a table beside them.
        match Self::images(path) {
            Some(files) => Ok(Some(files)),
            None => Self::table(path),
        }
    }

    /// The one file with this extension: at `path`, in it, or `path` without its extension.
    fn single(path: &Path, extension: &str) -> Result<Option<Self>, Error> {
        let named = match named(path, extension)? {
            files if files.is_empty() => named(&path.with_added_extension(extension), extension)?,
            files => files,
        };
        match named.as_slice() {
            [] => Ok(None),
            [file] if extension == "jsonl" => Ok(Some(Self::IntentJsonl(file.clone()))),
            [file] => Ok(Some(Self::IntentJson(file.clone()))),
            [first, ..] => {
                let message = format!(
                    "{} .{extension} files are in this folder: name one, such as {}",
                    named.len(),
                    first.display()
                );
                Err(Error::bad(path, Place::File, message))
            }
        }
    }

    fn prose(path: &Path) -> Result<Option<Self>, Error> {
        let files = named(path, "txt")?;
        Ok((!files.is_empty()).then_some(Self::Prose(files)))
    }

    fn idx(path: &Path) -> Option<Self> {
        let find = |stem: &str| {
            // The names with a dot are those of the original site's unpacked files.
            [stem.to_owned(), format!("{stem}.gz"), stem.replacen("-idx", ".idx", 1)]
                .into_iter()
                .map(|name| path.join(name))
                .find(|file| file.is_file())
        };
        let [a, b, c, d] = [
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
        ]
        .map(find);
        Some(Self::Idx([a?, b?, c?, d?]))
    }

    fn pair(path: &Path, extension: &str) -> Result<Option<Self>, Error> {
        let make = |stem: &str| {
            let file = |part: &str| PathBuf::from(format!("{stem}_{part}.{extension}"));
            let (train, test) = (file("TRAIN"), file("TEST"));
            (train.is_file() && test.is_file()).then_some(match extension {
                "ts" => Self::Ts(train, test),
                _ => Self::Tsv(train, test),
            })
        };
        let mut found = make(&path.to_string_lossy());
        if found.is_none() && path.is_dir() {
            let io = |source| Error::Io { path: path.to_owned(), source };
            let ending = format!("_TRAIN.{extension}");
            let mut names = Vec::new();
            for entry in std::fs::read_dir(path).map_err(io)? {
                let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
                if let Some(stem) = name.strip_suffix(&ending) {
                    names.push(stem.to_owned());
                }
            }
            names.sort();
            if names.len() > 1 {
                let message = format!(
                    "{} sets are in this folder: name one, such as {}",
                    names.len(),
                    path.join(&names[0]).display()
                );
                return Err(Error::bad(path, Place::File, message));
            }
            found = names.first().and_then(|stem| make(&path.join(stem).to_string_lossy()));
        }
        Ok(found)
    }
}

/// The file at `path` if it has that extension, or those of a folder, by name.
fn named(path: &Path, extension: &str) -> Result<Vec<PathBuf>, Error> {
    let fits = |path: &Path| path.extension().is_some_and(|found| found == extension) && path.is_file();
    if !path.is_dir() {
        return Ok(if fits(path) { vec![path.to_owned()] } else { Vec::new() });
    }
    let io = |source| Error::Io { path: path.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(io)? {
        let file = entry.map_err(io)?.path();
        if fits(&file) {
            files.push(file);
        }
        if files.len() > FILES_MAX {
            let message = format!("more than {FILES_MAX} .{extension} files, the most that are read");
            return Err(Error::bad(path, Place::File, message));
        }
    }
    files.sort();
    Ok(files)
}

/// What a reader gives before the checks that all formats share. Its splits have their labels; samples are in them, or went
/// into the [`Intake`].
struct Raw {
    format: DataFormat,
    task: Task,
    shape: Vec<usize>,
    labels: Vec<String>,
    heads: Vec<Head>,
    text: Option<TextPreprocess>,
    remarks: Vec<String>,
    /// The training file, for errors about the set as a whole.
    origin: PathBuf,
    train: Split,
    test: Split,
}

impl Raw {
    /// Of samples that are numbers.
    fn numeric(
        (format, task): (DataFormat, Task),
        shape: Vec<usize>,
        labels: Vec<String>,
        origin: PathBuf,
        [train, test]: [Split; 2],
    ) -> Self {
        let (heads, text, remarks) = (Vec::new(), None, Vec::new());
        Self { format, task, shape, labels, heads, text, remarks, origin, train, test }
    }

    fn finish(
        self,
        digest: Digest,
        (reading, columns): (&Reading, Vec<Column>),
        mut intake: Intake<'_>,
    ) -> Result<Dataset, Error> {
        let whole = |message: String| Error::bad(&self.origin, Place::File, message);
        let elements: usize = self.shape.iter().product();
        if elements == 0 || elements > limits::TENSOR_ELEMENTS_MAX {
            return Err(whole(format!(
                "a sample has {elements} values, allowed are 1 to {}",
                limits::TENSOR_ELEMENTS_MAX
            )));
        }
        if self.train.is_empty() || self.test.is_empty() {
            return Err(whole("training and test split need at least one sample each".to_owned()));
        }
        if intake.is_empty() {
            for (split, testing) in [(&self.train, false), (&self.test, true)] {
                let samples = split.samples.chunks_exact(elements);
                samples.for_each(|row| intake.examiner.see(Row::Floats(row), self.shape[0], testing));
            }
        }
        let mut remarks = self.remarks;
        let examiner = std::mem::take(&mut intake.examiner);
        remarks.extend(examiner.remarks(self.task, &self.labels, [&self.train, &self.test]));
        let schema = DatasetSchema {
            format: self.format,
            task: self.task,
            digest,
            shape: self.shape,
            labels: self.labels,
            heads: self.heads,
            text: self.text,
            reading: reading.clone(),
            columns,
            remarks: examine::bounded(remarks),
            train_count: self.train.len() as u64,
            test_count: self.test.len() as u64,
        };
        let [train, test] = intake.finish(&schema, [self.train, self.test])?;
        Ok(Dataset { schema, train, test })
    }
}

#[cfg(test)]
mod tests;
