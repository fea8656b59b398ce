//! Tables of numbers: `.csv`, plain or gzip, separated by commas, semicolons or tabs, with or without a row of names, one
//! column of labels. A row is a sample of one position with a channel for each column of numbers.

mod guard;
mod parts;
#[cfg(test)]
mod tests;

use super::{
    Classes, Error, FILE_BYTES_MAX, Place, Raw, SAMPLES_MAX, Split, VALUES_MAX, read_file,
    series::{self, Parsed},
};
use csv::{ByteRecord, ReaderBuilder};
use guard::{Fault, Guard, LINE_BYTES_MAX};
use shared::{
    digest::Hasher,
    job::DataFormat,
    limits,
    manifest::{Column, standardise},
};
use std::{
    io::Read,
    path::{Path, PathBuf},
};

const ENDINGS: [&str; 2] = ["csv", "csv.gz"];
const SEPARATORS: [u8; 3] = *b",;\t";
/// Mean and deviation are taken between the values that cut off one of so many at either end: a few wild ones must not make
/// all others alike.
const TAIL_ONE_OF: usize = 100;
/// Columns that an error lists.
const SHOWN: usize = 20;

/// The table at `path`, or its parts for training and testing: a file, `FOLDER/NAME`, or a folder that holds one.
pub(super) fn find(path: &Path) -> Result<Option<Vec<PathBuf>>, Error> {
    let is_table = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        ENDINGS.iter().any(|ending| name.ends_with(&format!(".{ending}"))) && path.is_file()
    };
    if is_table(path) {
        return Ok(Some(vec![path.to_owned()]));
    }
    let named = |stem: &str| {
        let mut files = ENDINGS.iter().map(|ending| PathBuf::from(format!("{stem}.{ending}")));
        files.find(|file| file.is_file())
    };
    let pair = |stem: &str| Some(vec![named(&format!("{stem}_TRAIN"))?, named(&format!("{stem}_TEST"))?]);
    let stem = path.to_string_lossy();
    if let Some(found) = pair(&stem).or_else(|| Some(vec![named(&stem)?])) {
        return Ok(Some(found));
    }
    if !path.is_dir() {
        return Ok(None);
    }
    let io = |source| Error::Io { path: path.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(io)? {
        let file = entry.map_err(io)?.path();
        if is_table(&file) {
            found.push(file);
        }
    }
    found.sort();
    let stem_of = |file: &Path| {
        let name = file.to_string_lossy().into_owned();
        ENDINGS.iter().find_map(|ending| Some(name.strip_suffix(&format!("_TRAIN.{ending}"))?.to_owned()))
    };
    let mut pairs = found.iter().filter_map(|file| pair(&stem_of(file)?));
    match (pairs.next(), pairs.next(), found.as_slice()) {
        (Some(pair), None, _) => Ok(Some(pair)),
        (None, _, []) => Ok(None),
        (None, _, [only]) => Ok(Some(vec![only.clone()])),
        (_, _, [first, ..]) => {
            let message =
                format!("{} tables are in this folder: name one, such as {}", found.len(), first.display());
            Err(Error::bad(path, Place::File, message))
        }
        (Some(pair), Some(_), []) => Ok(Some(pair)),
    }
}

/// Reads one table, which is then split by its rows, or one for each split. Gives the names of the columns of numbers too;
/// the numbers are as they stand in the files.
pub(super) fn read(
    files: &[PathBuf],
    label_column: Option<&str>,
    classes: Classes,
    hasher: &mut Hasher,
) -> Result<(Raw, Vec<String>), Error> {
    let mut tables = Vec::new();
    for file in files {
        tables.push((file.as_path(), table(file, label_column, hasher)?));
    }
    match <[_; 2]>::try_from(tables) {
        Ok([(train_path, train), (test_path, test)]) => {
            if train.names != test.names {
                let message = format!(
                    "its columns are {}, those for training {}",
                    series::shown(&test.names),
                    series::shown(&train.names)
                );
                return Err(Error::bad(test_path, Place::File, message));
            }
            let raw =
                series::join(DataFormat::Csv, classes, (train_path, train.rows), (test_path, test.rows))?;
            Ok((raw, train.names))
        }
        Err(tables) => {
            let Some((path, table)) = tables.into_iter().next() else {
                let expected = super::expected(Some(DataFormat::Csv));
                return Err(Error::NotFound { path: PathBuf::new(), expected });
            };
            let [train, test] = parts::parted(path, &table.rows)?;
            let mut raw = series::join(DataFormat::Csv, classes, (path, train), (path, test))?;
            raw.remarks.push(parts::REMARK.to_owned());
            Ok((raw, table.names))
        }
    }
}

/// Standardises both splits by mean and deviation of the training split, and says how.
pub(super) fn standardised(train: &mut Split, test: &mut Split, names: Vec<String>) -> Vec<Column> {
    let count = names.len().max(1);
    let mut columns = Vec::with_capacity(count);
    for (at, name) in names.into_iter().enumerate() {
        let mut values: Vec<f32> = train.samples.iter().skip(at).step_by(count).copied().collect();
        let (mean, deviation) = moments(&mut values);
        let scale = if deviation > 0.0 { 1.0 / deviation } else { 1.0 };
        let (narrow, offset) = (scale as f32, (-mean * scale) as f32);
        // Where 32 bits do not hold the scale, differences from the mean stay as they are.
        let fits = narrow.is_finite() && narrow > 0.0 && offset.is_finite();
        let (scale, offset) = if fits { (narrow, offset) } else { (1.0, -mean as f32) };
        columns.push(Column { name, scale, offset });
    }
    standardise(&columns, &mut train.samples);
    standardise(&columns, &mut test.samples);
    columns
}

/// Mean and deviation of the values without their tails; those beyond count as the last one within.
fn moments(values: &mut [f32]) -> (f64, f64) {
    values.sort_unstable_by(f32::total_cmp);
    let cut = values.len() / TAIL_ONE_OF;
    let (Some(low), Some(high)) = (values.get(cut), values.get(values.len().saturating_sub(1 + cut))) else {
        return (0.0, 0.0);
    };
    let (low, high) = (*low, *high);
    let count = values.len() as f64;
    let kept = || values.iter().map(|value| f64::from(value.clamp(low, high)));
    let mean = kept().sum::<f64>() / count;
    let variance = kept().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

/// A file's rows, and the names of its columns of numbers.
struct Table {
    names: Vec<String>,
    rows: Parsed,
}

fn table(path: &Path, label_column: Option<&str>, hasher: &mut Hasher) -> Result<Table, Error> {
    let raw = read_file(path, hasher)?;
    let packed = path.extension().is_some_and(|ending| ending == "gz");
    let plain = || -> Box<dyn Read + '_> {
        if packed { Box::new(flate2::read::MultiGzDecoder::new(&raw[..])) } else { Box::new(&raw[..]) }
    };
    let mut beginning = Vec::new();
    // What is damaged is met again, and told, below.
    let _ = plain().take(LINE_BYTES_MAX).read_to_end(&mut beginning);
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(separator(&beginning))
        // With an end of its last line, so that each record is followed by the beginning of the next line.
        .from_reader(Guard::new(plain().chain(&b"\n"[..]), FILE_BYTES_MAX));
    let mut found: Option<(Layout, Table)> = None;
    let mut record = ByteRecord::new();
    while reader.read_byte_record(&mut record).map_err(|error| told(path, &error))? {
        let line = usize::try_from(reader.position().line().saturating_sub(1)).unwrap_or(usize::MAX);
        let (layout, table) = match &mut found {
            Some((layout, table)) => (layout, table),
            None => {
                let (layout, names) = Layout::of(path, line, &record, label_column)?;
                let rows = Parsed { shape: [names.len(), 1], ..Parsed::default() };
                let is_header = layout.named;
                let found = found.insert((layout, Table { names, rows }));
                if is_header {
                    continue;
                }
                (&mut found.0, &mut found.1)
            }
        };
        layout.row(path, line, &record, table)?;
    }
    match found {
        Some((_, table)) if !table.rows.labels.is_empty() => Ok(table),
        _ => Err(Error::bad(path, Place::File, "the table has no rows")),
    }
}

/// Of commas, semicolons and tabs the one that the first line has most of.
fn separator(beginning: &[u8]) -> u8 {
    let line = beginning.split(|byte| *byte == b'\n').find(|line| !line.trim_ascii().is_empty());
    let count = |separator: u8| line.unwrap_or_default().iter().filter(|byte| **byte == separator).count();
    // Of equally many the first.
    SEPARATORS.into_iter().rev().max_by_key(|separator| count(*separator)).unwrap_or(b',')
}

/// What the first row says of all.
struct Layout {
    /// Fields of a row.
    fields: usize,
    /// The one with the label.
    label: usize,
    /// Whether the first row holds names.
    named: bool,
}

impl Layout {
    /// A first row without any number holds the names.
    fn of(
        path: &Path,
        line: usize,
        first: &ByteRecord,
        label_column: Option<&str>,
    ) -> Result<(Self, Vec<String>), Error> {
        let bad = |message: String| Error::bad(path, Place::Line(line), message);
        let fields: Vec<String> = first.iter().map(text).collect();
        let count = fields.len();
        if !(2..=limits::COLUMNS_MAX + 1).contains(&count) {
            return Err(bad(format!(
                "{count} columns, expected one of labels and 1 to {} of numbers, separated by commas, semicolons or tabs",
                limits::COLUMNS_MAX
            )));
        }
        let named = !fields.iter().any(|field| field.parse::<f64>().is_ok());
        let by_name = |wanted: &str| if named { fields.iter().position(|name| name == wanted) } else { None };
        let by_number = |wanted: &str| wanted.parse::<usize>().ok()?.checked_sub(1).filter(|at| *at < count);
        let label = match label_column {
            None => count - 1,
            Some(wanted) => by_name(wanted).or_else(|| by_number(wanted)).ok_or_else(|| {
                let known = if named {
                    fields.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ")
                } else {
                    format!("1 to {count}")
                };
                bad(format!("no column {wanted:?} for the labels, there are {known}"))
            })?,
        };
        let mut names = Vec::with_capacity(count - 1);
        for (at, field) in fields.into_iter().enumerate().filter(|(at, _)| *at != label) {
            if named && (field.is_empty() || field.len() > Column::NAME_BYTES_MAX) {
                let most = Column::NAME_BYTES_MAX;
                return Err(bad(format!(
                    "column {} has no name of 1 to {most} bytes: {:?}",
                    at + 1,
                    cut(&field)
                )));
            }
            names.push(if named { field } else { format!("column {}", at + 1) });
        }
        Ok((Self { fields: count, label, named }, names))
    }

    fn row(&self, path: &Path, line: usize, record: &ByteRecord, into: &mut Table) -> Result<(), Error> {
        let bad = |message: String| Error::bad(path, Place::Line(line), message);
        if record.len() != self.fields {
            return Err(bad(format!("{} fields, the first row has {}", record.len(), self.fields)));
        }
        if into.rows.labels.len() >= SAMPLES_MAX || into.rows.samples.len() + self.fields > VALUES_MAX {
            return Err(bad(format!(
                "more than {SAMPLES_MAX} rows or {VALUES_MAX} numbers, the most that is read"
            )));
        }
        let mut label = String::new();
        for (at, field) in record.iter().enumerate() {
            let field = text(field);
            if at == self.label {
                label = series::label_of(path, line, &field)?;
                continue;
            }
            let value = field.parse::<f32>().ok().filter(|value| value.is_finite()).ok_or_else(|| {
                bad(format!("column {} is {:?}, expected a finite number", at + 1, cut(&field)))
            })?;
            // Without a sign on zero, so that equal rows are equal.
            into.rows.samples.push(value + 0.0);
        }
        into.rows.labelled(path, line, label)
    }
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).trim().to_owned()
}

fn cut(field: &str) -> String {
    field.chars().take(40).collect()
}

/// What the reader of records came upon.
fn told(path: &Path, error: &csv::Error) -> Error {
    let line = error.position().map(|at| usize::try_from(at.line()).unwrap_or(usize::MAX));
    if let csv::ErrorKind::Io(io) = error.kind() {
        return match io.get_ref().and_then(|inner| inner.downcast_ref::<Fault>()) {
            Some(fault) => Error::bad(path, Place::Line(fault.line), fault.message.clone()),
            None => Error::bad(path, Place::File, format!("the gzip data is damaged: {io}")),
        };
    }
    Error::bad(path, line.map_or(Place::File, Place::Line), format!("no table: {error}"))
}
