//! Time series as text: UCR's `.tsv` (label first, tab separated) and aeon's `.ts` (a header, dimensions separated
//! by colons, label last).

use super::{Classes, Error, Intake, Place, Raw, Row, SAMPLES_MAX, Split, VALUES_MAX, examine, file::Lines};
use shared::{digest::Hasher, job::DataFormat, limits, manifest::Task};
use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

/// Longest label in bytes.
const LABEL_BYTES_MAX: usize = 64;
/// Labels that an error lists.
const LABELS_SHOWN: usize = 20;

/// One file's samples.
#[derive(Default)]
pub(super) struct Parsed {
    /// Channels, length; zeros until the first sample is whole.
    pub(super) shape: [usize; 2],
    /// Of those samples that nobody took yet.
    pub(super) samples: Vec<f32>,
    /// Distinct labels in the order of their first samples.
    pub(super) names: Vec<String>,
    pub(super) known: HashMap<String, u32>,
    /// For each sample its place in `names`.
    pub(super) labels: Vec<u32>,
    /// Line of each sample.
    pub(super) lines: Vec<usize>,
    /// Labels that the file declares and no sample has.
    pub(super) unseen: Vec<String>,
}

impl Parsed {
    /// Hands the sample that is whole on.
    fn hand_on(&mut self, testing: bool, intake: &mut Intake<'_>) -> Result<(), Error> {
        intake.take(Row::Floats(&self.samples), self.shape[0], testing)?;
        self.samples.clear();
        Ok(())
    }

    /// Gives the sample whose values have been added its label, which is as [`canonical`] gives it.
    pub(super) fn labelled(&mut self, path: &Path, line: usize, label: String) -> Result<(), Error> {
        let class = match self.known.get(&label) {
            Some(class) => *class,
            None => {
                let class = self.names.len();
                if class >= limits::LABELS_MAX {
                    let message =
                        format!("more than {} classes, the most that are taken", limits::LABELS_MAX);
                    return Err(Error::bad(path, Place::Line(line), message));
                }
                self.names.push(label.clone());
                self.known.insert(label, class as u32);
                class as u32
            }
        };
        self.labels.push(class);
        self.lines.push(line);
        Ok(())
    }
}

/// Adds one sample, field by field; every sample must have the shape of the first. Limits hold before memory is taken.
struct Sample<'a> {
    path: &'a Path,
    line: usize,
    into: &'a mut Parsed,
    channels: usize,
    length: usize,
}

impl<'a> Sample<'a> {
    fn begin(path: &'a Path, line: usize, into: &'a mut Parsed) -> Result<Self, Error> {
        if into.labels.len() >= SAMPLES_MAX {
            let message = format!("more than {SAMPLES_MAX} samples, the most that is read");
            return Err(Error::bad(path, Place::Line(line), message));
        }
        Ok(Self { path, line, into, channels: 0, length: 0 })
    }

    fn bad(&self, message: String) -> Error {
        Error::bad(self.path, Place::Line(self.line), message)
    }

    fn channel<'t>(&mut self, mut fields: impl Iterator<Item = &'t str>) -> Result<(), Error> {
        let [channels_known, length_known] = self.into.shape;
        // Once the length is known no more than that is kept; what follows is only counted.
        let wanted = match self.channels {
            0 if length_known == 0 => None,
            0 => Some(length_known),
            _ => Some(self.length),
        };
        let mut count = 0;
        while let Some(field) = fields.next() {
            if Some(count) == wanted {
                count += 1 + fields.by_ref().count();
                break;
            }
            let value = number(self.path, self.line, count + 1, field)?;
            count += 1;
            let elements = self.channels * self.length + count;
            if elements > limits::TENSOR_ELEMENTS_MAX || self.into.samples.len() >= VALUES_MAX {
                return Err(self.bad(format!(
                    "more than {} values in a sample or {VALUES_MAX} in all, the most that is read",
                    limits::TENSOR_ELEMENTS_MAX
                )));
            }
            self.into.samples.push(value);
        }
        if self.channels > 0 && count != self.length {
            return Err(self.bad(format!(
                "dimension {} has {count} values, dimension 0 has {}: only series of equal length are taken",
                self.channels, self.length
            )));
        }
        if length_known > 0 && count != length_known {
            return Err(self.bad(format!(
                "{count} values, the first sample has {length_known}: only series of equal length are taken"
            )));
        }
        self.channels += 1;
        self.length = count;
        if channels_known > 0 && self.channels > channels_known {
            return Err(self.bad(format!("more than the {channels_known} dimensions of the first sample")));
        }
        Ok(())
    }

    /// `label` is as [`canonical`] gives it.
    fn end(self, label: String) -> Result<(), Error> {
        let [channels_known, _] = self.into.shape;
        if channels_known == 0 {
            self.into.shape = [self.channels, self.length];
        } else if self.channels != channels_known {
            return Err(
                self.bad(format!("{} dimensions, the first sample has {channels_known}", self.channels))
            );
        }
        self.into.labelled(self.path, self.line, label)
    }
}

/// Reads a UCR pair.
pub(super) fn read_tsv(
    train: &Path,
    test: &Path,
    classes: Classes,
    hasher: &mut Hasher,
    intake: &mut Intake<'_>,
) -> Result<Raw, Error> {
    let training = tsv(train, false, hasher, intake)?;
    let testing = tsv(test, true, hasher, intake)?;
    join(DataFormat::UcrTsv, classes, (train, training), (test, testing))
}

/// Reads an aeon pair.
pub(super) fn read_ts(
    train: &Path,
    test: &Path,
    classes: Classes,
    hasher: &mut Hasher,
    intake: &mut Intake<'_>,
) -> Result<Raw, Error> {
    let training = ts(train, false, hasher, intake)?;
    let testing = ts(test, true, hasher, intake)?;
    let unseen = said_of_unseen(&training.unseen);
    let mut raw = join(DataFormat::Ts, classes, (train, training), (test, testing))?;
    raw.remarks.extend(unseen);
    Ok(raw)
}

fn said_of_unseen(labels: &[String]) -> Option<String> {
    let names = examine::listed(labels.iter().map(String::as_str));
    let told =
        || format!("@classLabel names labels that no training sample has, and no model learns: {names}");
    (!labels.is_empty()).then(told)
}

/// Two files, or parts of one, as the splits of a set.
pub(super) fn join(
    format: DataFormat,
    wanted: Classes,
    (train_path, train): (&Path, Parsed),
    (test_path, test): (&Path, Parsed),
) -> Result<Raw, Error> {
    if train.shape != test.shape {
        let message = format!(
            "series have {} dimensions of {} values, those for training have {} of {}",
            test.shape[0], test.shape[1], train.shape[0], train.shape[1]
        );
        return Err(Error::bad(test_path, Place::File, message));
    }
    let mut labels = train.names.clone();
    if wanted == Classes::Any {
        labels.extend(test.names.iter().filter(|name| !train.names.contains(name)).cloned());
    }
    labels.sort_by(|a, b| in_order(a, b));
    if let (Classes::OfTraining, [only]) = (wanted, labels.as_slice()) {
        return Err(Error::one_class(train_path, only));
    }
    let classes: HashMap<&str, i64> = labels.iter().map(String::as_str).zip(0..).collect();
    let index = |path: &Path, parsed: Parsed| {
        let known: Vec<Option<i64>> =
            parsed.names.iter().map(|name| classes.get(name.as_str()).copied()).collect();
        let mut split = Split {
            samples: parsed.samples,
            labels: Vec::with_capacity(parsed.labels.len()),
            ..Split::default()
        };
        for (label, line) in parsed.labels.iter().zip(parsed.lines) {
            let Some(class) = known[*label as usize] else {
                let message = format!(
                    "label {:?} does not occur in the training split ({})",
                    parsed.names[*label as usize],
                    shown(&labels)
                );
                return Err(Error::bad(path, Place::Line(line), message));
            };
            split.labels.push(class);
        }
        Ok(split)
    };
    let shape = train.shape.to_vec();
    let splits = [index(train_path, train)?, index(test_path, test)?];
    Ok(Raw::numeric((format, Task::SeriesClassification), shape, labels, train_path.to_owned(), splits))
}

/// Numbers come first and in their order, so that 10 comes after 9; then text.
fn in_order(a: &str, b: &str) -> std::cmp::Ordering {
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(x), Ok(y)) => x.total_cmp(&y).then_with(|| a.cmp(b)),
        (Ok(_), Err(_)) => std::cmp::Ordering::Less,
        (Err(_), Ok(_)) => std::cmp::Ordering::Greater,
        (Err(_), Err(_)) => a.cmp(b),
    }
}

/// The first labels for an error.
pub(super) fn shown(labels: &[String]) -> String {
    let mut text = labels.iter().take(LABELS_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if labels.len() > LABELS_SHOWN {
        text.push_str(&format!(", … {} in all", labels.len()));
    }
    text
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

/// A label in the one form that all its spellings have: 1, 1.0 and 1e0 are the same class.
pub(super) fn canonical(label: &str) -> String {
    match label.parse::<f64>() {
        Ok(value) => {
            // Without a sign on zero; powers of ten keep their exponent where the digits would not fit.
            let value = if value == 0.0 { 0.0 } else { value };
            let plain = value.to_string();
            if plain.len() <= LABEL_BYTES_MAX { plain } else { format!("{value:e}") }
        }
        Err(_) => label.to_owned(),
    }
}

pub(super) fn label_of(path: &Path, line: usize, field: &str) -> Result<String, Error> {
    let label = field.trim();
    let numeric_bad = label.parse::<f64>().is_ok_and(|value| !value.is_finite());
    if label.is_empty() || label.len() > LABEL_BYTES_MAX || numeric_bad {
        let shown: String = label.chars().take(40).collect();
        return Err(Error::bad(
            path,
            Place::Line(line),
            format!("{shown:?} is no label, expected 1 to {LABEL_BYTES_MAX} bytes"),
        ));
    }
    Ok(canonical(label))
}

/// Reads one file; its samples go into the intake.
fn tsv(path: &Path, testing: bool, hasher: &mut Hasher, intake: &mut Intake<'_>) -> Result<Parsed, Error> {
    let mut lines = Lines::open(path, hasher)?;
    let mut parsed = Parsed::default();
    while let Some((line, content)) = lines.next()? {
        if content.trim().is_empty() {
            continue;
        }
        let mut fields = content.split('\t');
        let label = label_of(path, line, fields.next().unwrap_or_default())?;
        let mut fields = fields.peekable();
        if fields.peek().is_none() {
            let message = "expected a label and values, separated by tabs";
            return Err(Error::bad(path, Place::Line(line), message));
        }
        let mut sample = Sample::begin(path, line, &mut parsed)?;
        sample.channel(fields)?;
        sample.end(label)?;
        parsed.hand_on(testing, intake)?;
    }
    if parsed.labels.is_empty() {
        return Err(Error::bad(path, Place::File, "the file has no samples"));
    }
    Ok(parsed)
}

/// Reads one file; its samples go into the intake.
fn ts(path: &Path, testing: bool, hasher: &mut Hasher, intake: &mut Intake<'_>) -> Result<Parsed, Error> {
    let mut lines = Lines::open(path, hasher)?;
    let mut parsed = Parsed::default();
    let mut declared: Option<Declared> = None;
    let mut in_data = false;
    while let Some((line, content)) = lines.next()? {
        let content = content.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if !in_data {
            in_data = header(path, line, content, &mut declared)?;
            continue;
        }
        let Some((dimensions, label)) = content.rsplit_once(':') else {
            let message = "expected values, a colon and a label: the line is cut";
            return Err(Error::bad(path, Place::Line(line), message));
        };
        let label = label_of(path, line, label)?;
        if let Some(known) = &declared
            && !known.names.contains(&label)
        {
            let message = format!("label {label:?} is not one of those in @classLabel ({})", known.shown);
            return Err(Error::bad(path, Place::Line(line), message));
        }
        let mut sample = Sample::begin(path, line, &mut parsed)?;
        for dimension in dimensions.split(':') {
            sample.channel(dimension.split(','))?;
        }
        sample.end(label)?;
        parsed.hand_on(testing, intake)?;
    }
    if !in_data {
        return Err(Error::bad(path, Place::File, "no line @data: the file is cut or no .ts file"));
    }
    if parsed.labels.is_empty() {
        return Err(Error::bad(path, Place::File, "no samples after @data"));
    }
    if let Some(Declared { names, .. }) = declared {
        parsed.unseen = names.into_iter().filter(|name| !parsed.known.contains_key(name)).collect();
        parsed.unseen.sort_by(|a, b| in_order(a, b));
    }
    Ok(parsed)
}

/// What `@classLabel` names.
struct Declared {
    names: HashSet<String>,
    /// For errors.
    shown: String,
}

/// Takes one header line; whether it was the last.
fn header(path: &Path, line: usize, content: &str, declared: &mut Option<Declared>) -> Result<bool, Error> {
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
            let names = words
                .take(limits::LABELS_MAX + 1)
                .map(|word| label_of(path, line, word))
                .collect::<Result<Vec<String>, Error>>()?;
            if names.len() > limits::LABELS_MAX {
                return Err(bad(format!(
                    "more than {} classes, the most that are taken",
                    limits::LABELS_MAX
                )));
            }
            if !names.is_empty() {
                *declared = Some(Declared { shown: shown(&names), names: names.into_iter().collect() });
            }
        }
        ("@classlabel", _) => return Err(bad("the set has no class labels".to_owned())),
        _ => {}
    }
    Ok(false)
}
