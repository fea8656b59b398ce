//! Time series as text: UCR's `.tsv` (label first, tab separated) and aeon's `.ts` (a header, dimensions separated
//! by colons, label last).

use super::{Error, Place, Raw, SAMPLES_MAX, Split, VALUES_MAX, read_file};
use shared::{digest::Hasher, job::DataFormat, limits, manifest::Task};
use std::path::Path;

/// One file's samples with their labels as written.
struct Parsed {
    /// Channels, length.
    shape: [usize; 2],
    samples: Vec<f32>,
    labels: Vec<String>,
    /// Line of each sample.
    lines: Vec<usize>,
}

impl Parsed {
    fn empty() -> Self {
        Self { shape: [0, 0], samples: Vec::new(), labels: Vec::new(), lines: Vec::new() }
    }

    /// Adds one sample; every sample must have the shape of the first.
    fn push(&mut self, path: &Path, line: usize, channels: &[Vec<f32>], label: &str) -> Result<(), Error> {
        let bad = |message: String| Error::bad(path, Place::Line(line), message);
        let length = channels.first().map_or(0, Vec::len);
        if let Some(other) = channels.iter().position(|channel| channel.len() != length) {
            let found = channels[other].len();
            return Err(bad(format!(
                "dimension {other} has {found} values, dimension 0 has {length}: only series of equal length are taken"
            )));
        }
        if self.labels.is_empty() {
            if length == 0 {
                return Err(bad("the sample has no values".to_owned()));
            }
            self.shape = [channels.len(), length];
        }
        let [wanted_channels, wanted_length] = self.shape;
        if channels.len() != wanted_channels {
            return Err(bad(format!(
                "{} dimensions, the first sample has {wanted_channels}",
                channels.len()
            )));
        }
        if length != wanted_length {
            return Err(bad(format!(
                "{length} values, the first sample has {wanted_length}: only series of equal length are taken"
            )));
        }
        let elements = wanted_channels * wanted_length;
        if self.labels.len() >= SAMPLES_MAX || elements * (self.labels.len() + 1) > VALUES_MAX {
            return Err(bad(format!(
                "more than {SAMPLES_MAX} samples or {VALUES_MAX} values, the most that is read"
            )));
        }
        for channel in channels {
            self.samples.extend_from_slice(channel);
        }
        self.labels.push(label.to_owned());
        self.lines.push(line);
        Ok(())
    }
}

/// Reads a UCR pair.
pub(super) fn read_tsv(train: &Path, test: &Path, hasher: &mut Hasher) -> Result<Raw, Error> {
    join(DataFormat::UcrTsv, train, tsv(train, hasher)?, test, tsv(test, hasher)?)
}

/// Reads an aeon pair.
pub(super) fn read_ts(train: &Path, test: &Path, hasher: &mut Hasher) -> Result<Raw, Error> {
    join(DataFormat::Ts, train, ts(train, hasher)?, test, ts(test, hasher)?)
}

fn join(
    format: DataFormat,
    train_path: &Path,
    train: Parsed,
    test_path: &Path,
    test: Parsed,
) -> Result<Raw, Error> {
    if train.shape != test.shape {
        let message = format!(
            "series have {} dimensions of {} values, those for training have {} of {}",
            test.shape[0], test.shape[1], train.shape[0], train.shape[1]
        );
        return Err(Error::bad(test_path, Place::File, message));
    }
    let mut labels = train.labels.clone();
    // Numeric labels sort as numbers, so that 10 comes after 9.
    labels.sort_by(|a, b| match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => a.total_cmp(&b),
        _ => a.cmp(b),
    });
    labels.dedup();
    if let [only] = labels.as_slice() {
        return Err(Error::one_class(train_path, only));
    }
    let index = |path: &Path, parsed: Parsed| {
        let mut split = Split { samples: parsed.samples, labels: Vec::with_capacity(parsed.labels.len()) };
        for (label, line) in parsed.labels.iter().zip(parsed.lines) {
            let Some(class) = labels.iter().position(|known| known == label) else {
                let message =
                    format!("label {label:?} does not occur in the training split ({})", labels.join(", "));
                return Err(Error::bad(path, Place::Line(line), message));
            };
            split.labels.push(i64::try_from(class).unwrap_or(i64::MAX));
        }
        Ok(split)
    };
    let shape = train.shape.to_vec();
    let (train, test) = (index(train_path, train)?, index(test_path, test)?);
    let origin = train_path.to_owned();
    Ok(Raw { format, task: Task::SeriesClassification, shape, labels, origin, train, test })
}

fn text(path: &Path, hasher: &mut Hasher) -> Result<String, Error> {
    String::from_utf8(read_file(path, hasher)?).map_err(|error| {
        let byte = error.utf8_error().valid_up_to();
        Error::bad(path, Place::Byte(byte), "not text: expected lines of numbers")
    })
}

fn number(path: &Path, line: usize, column: usize, field: &str) -> Result<f32, Error> {
    match field.trim().parse::<f32>() {
        Ok(value) if value.is_finite() => Ok(value),
        Ok(value) => Err(Error::bad(
            path,
            Place::Line(line),
            format!("value {column} is {value}: missing values and series of different length are not taken"),
        )),
        Err(_) => {
            let shown: String = field.trim().chars().take(40).collect();
            Err(Error::bad(
                path,
                Place::Line(line),
                format!("value {column} is {shown:?}, expected a number"),
            ))
        }
    }
}

fn label_of<'a>(path: &Path, line: usize, field: &'a str) -> Result<&'a str, Error> {
    let label = field.trim();
    let numeric_bad = label.parse::<f64>().is_ok_and(|value| !value.is_finite());
    if label.is_empty() || label.len() > 64 || numeric_bad {
        let shown: String = label.chars().take(40).collect();
        return Err(Error::bad(
            path,
            Place::Line(line),
            format!("{shown:?} is no label, expected 1 to 64 bytes"),
        ));
    }
    Ok(label)
}

fn tsv(path: &Path, hasher: &mut Hasher) -> Result<Parsed, Error> {
    let text = text(path, hasher)?;
    let mut parsed = Parsed::empty();
    for (index, content) in text.lines().enumerate() {
        let line = index + 1;
        if content.trim().is_empty() {
            continue;
        }
        let mut fields = content.split('\t');
        let label = label_of(path, line, fields.next().unwrap_or_default())?;
        let values = fields
            .enumerate()
            .map(|(column, field)| number(path, line, column + 1, field))
            .collect::<Result<Vec<f32>, Error>>()?;
        if values.is_empty() {
            let message = "expected a label and values, separated by tabs";
            return Err(Error::bad(path, Place::Line(line), message));
        }
        // A label that is written 1 in one file and 1.0 in the other is the same class.
        let canonical = label.parse::<f64>().map_or_else(|_| label.to_owned(), |value| value.to_string());
        parsed.push(path, line, &[values], &canonical)?;
    }
    if parsed.labels.is_empty() {
        return Err(Error::bad(path, Place::File, "the file has no samples"));
    }
    Ok(parsed)
}

fn ts(path: &Path, hasher: &mut Hasher) -> Result<Parsed, Error> {
    let text = text(path, hasher)?;
    let mut parsed = Parsed::empty();
    let mut declared: Option<Vec<String>> = None;
    let mut in_data = false;
    for (index, content) in text.lines().enumerate() {
        let line = index + 1;
        let content = content.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if !in_data {
            in_data = header(path, line, content, &mut declared)?;
            continue;
        }
        let mut dimensions: Vec<&str> = content.split(':').collect();
        let label = match dimensions.pop() {
            Some(label) if !dimensions.is_empty() => label_of(path, line, label)?,
            _ => {
                let message = "expected values, a colon and a label: the line is cut";
                return Err(Error::bad(path, Place::Line(line), message));
            }
        };
        if let Some(known) = &declared
            && !known.iter().any(|name| name == label)
        {
            let message =
                format!("label {label:?} is not one of those in @classLabel ({})", known.join(", "));
            return Err(Error::bad(path, Place::Line(line), message));
        }
        let mut channels = Vec::with_capacity(dimensions.len());
        for dimension in &dimensions {
            let values = dimension
                .split(',')
                .enumerate()
                .map(|(column, field)| number(path, line, column + 1, field))
                .collect::<Result<Vec<f32>, Error>>()?;
            channels.push(values);
        }
        parsed.push(path, line, &channels, label)?;
    }
    if !in_data {
        return Err(Error::bad(path, Place::File, "no line @data: the file is cut or no .ts file"));
    }
    if parsed.labels.is_empty() {
        return Err(Error::bad(path, Place::File, "no samples after @data"));
    }
    Ok(parsed)
}

/// Takes one header line; whether it was the last.
fn header(
    path: &Path,
    line: usize,
    content: &str,
    declared: &mut Option<Vec<String>>,
) -> Result<bool, Error> {
    let bad = |message: String| Error::bad(path, Place::Line(line), message);
    let mut words = content.split_whitespace();
    let key = words.next().unwrap_or_default().to_ascii_lowercase();
    if !key.starts_with('@') {
        return Err(bad("expected a header line that begins with @, or @data".to_owned()));
    }
    let first = words.next().unwrap_or_default().to_ascii_lowercase();
    match (key.as_str(), first.as_str()) {
        ("@data", _) => return Ok(true),
        ("@timestamps", "true") => return Err(bad("series with time stamps are not taken".to_owned())),
        ("@equallength", "false") => return Err(bad("only series of equal length are taken".to_owned())),
        ("@targetlabel", "true") => return Err(bad("a regression target, expected @classLabel".to_owned())),
        ("@classlabel", "true") => {
            let names: Vec<String> = words.map(str::to_owned).collect();
            if names.len() > limits::LABELS_MAX {
                return Err(bad(format!(
                    "{} classes, at most {} are allowed",
                    names.len(),
                    limits::LABELS_MAX
                )));
            }
            if !names.is_empty() {
                *declared = Some(names);
            }
        }
        ("@classlabel", _) => return Err(bad("the set has no class labels".to_owned())),
        _ => {}
    }
    Ok(false)
}
