//! What a person should know of a data set before trusting what was measured on it: test samples that were trained on,
//! samples with two labels, rare and missing classes, channels that say nothing. One pass over the samples, of which only
//! a hash of each is kept.

use super::{Split, balance, intake::Row};
use shared::{
    Digest, limits,
    manifest::Task,
    wire::{cut_to, one_line},
};
use std::ops::Range;

/// Names that one remark lists.
const NAMES_SHOWN: usize = 5;
/// Bytes of a name that are shown.
const NAME_BYTES_SHOWN: usize = 64;
/// Which split a sample is of, in its number.
const TESTING: u32 = 1 << 31;

/// The samples that were seen.
#[derive(Debug, Default)]
pub(crate) struct Examiner {
    /// The first 8 bytes of the SHA-256 of each sample, and which it is. Of all pairs among the most samples that are read,
    /// two that differ share them with a probability under one in a million.
    seen: Vec<(u64, u32)>,
    counts: [u32; 2],
    /// Least and largest value of each channel over the training samples.
    channels: Vec<Range<f32>>,
    bytes: Vec<u8>,
}

impl Examiner {
    /// Looks at the next sample, of `channels`.
    pub(crate) fn see(&mut self, row: Row<'_>, channels: usize, testing: bool) {
        self.bytes.clear();
        match row {
            Row::Bytes(row) => self.bytes.extend_from_slice(row),
            Row::Floats(row) => self.bytes.extend(row.iter().flat_map(|value| value.to_le_bytes())),
        }
        let digest = Digest::of(&self.bytes);
        let key = digest.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let count = &mut self.counts[usize::from(testing)];
        self.seen.push((key, *count | if testing { TESTING } else { 0 }));
        *count += 1;
        if testing {
            return;
        }
        self.channels.resize(channels, f32::INFINITY..f32::NEG_INFINITY);
        match row {
            Row::Bytes(row) => {
                for (channel, values) in self.channels.iter_mut().zip(parts(row, channels)) {
                    let ends = values.iter().min().zip(values.iter().max());
                    let (low, high) = ends.map_or((0, 0), |(low, high)| (*low, *high));
                    widen(channel, super::store::of_byte(low), super::store::of_byte(high));
                }
            }
            Row::Floats(row) => {
                for (channel, values) in self.channels.iter_mut().zip(parts(row, channels)) {
                    values.iter().for_each(|value| widen(channel, *value, *value));
                }
            }
        }
    }

    /// What is to be said, given the labels of both splits as places in `names`.
    pub(crate) fn remarks(mut self, task: Task, names: &[String], [train, test]: [&Split; 2]) -> Vec<String> {
        let labels = [&train.labels[..], &test.labels[..]];
        self.seen.sort_unstable();
        let copies = Copies::of(&self.seen, labels);
        let mut remarks = Vec::new();
        remarks.extend(copies.leaks(test.len()));
        remarks.extend(copies.doubts(names));
        if matches!(task, Task::ImageClassification | Task::SeriesClassification | Task::IntentSlots) {
            remarks.extend(unbalanced(names, &train.labels, task));
        }
        if matches!(task, Task::ImageClassification | Task::SeriesClassification) {
            remarks.extend(untested(names, &test.labels));
            remarks.extend(constant(&self.channels));
        }
        remarks
    }
}

fn parts<T>(row: &[T], channels: usize) -> std::slice::ChunksExact<'_, T> {
    row.chunks_exact((row.len() / channels.max(1)).max(1))
}

fn widen(range: &mut Range<f32>, low: f32, high: f32) {
    range.start = range.start.min(low);
    range.end = range.end.max(high);
}

/// A sample for people: its number from 0, and its label.
#[derive(Clone, Copy, Debug)]
struct Named {
    sample: u32,
    label: i64,
}

impl Named {
    fn says(self) -> String {
        let split = if self.sample & TESTING == 0 { "training" } else { "test" };
        format!("{split} sample {}", self.sample & !TESTING)
    }
}

/// Samples that occur more than once.
#[derive(Debug, Default)]
struct Copies {
    /// Test samples that are in training too.
    leaked: u64,
    /// The first: for testing, for training.
    leak: Option<[Named; 2]>,
    /// Samples whose copies have another label.
    doubtful: u64,
    /// The first, with one of its copies.
    doubt: Option<[Named; 2]>,
}

impl Copies {
    /// Of hashes in their order.
    fn of(seen: &[(u64, u32)], labels: [&[i64]; 2]) -> Self {
        let mut found = Self::default();
        for copies in seen.chunk_by(|a, b| a.0 == b.0).filter(|copies| copies.len() > 1) {
            let named = |(_, sample): &(u64, u32)| {
                let labels = labels[usize::from(sample & TESTING != 0)];
                let label = labels.get((sample & !TESTING) as usize).copied().unwrap_or(-1);
                Named { sample: *sample, label }
            };
            // Those for training come first.
            let tested = copies.partition_point(|(_, sample)| sample & TESTING == 0);
            if let (Some(first), Some(leak)) = (copies[..tested].first(), copies.get(tested)) {
                found.leaked += (copies.len() - tested) as u64;
                let leak = [named(leak), named(first)];
                keep_first(&mut found.leak, leak);
            }
            let first = named(&copies[0]);
            if let Some(other) = copies.iter().map(named).find(|other| other.label != first.label) {
                found.doubtful += copies.len() as u64;
                keep_first(&mut found.doubt, [first, other]);
            }
        }
        found
    }

    fn leaks(&self, tested: usize) -> Option<String> {
        let [test, train] = self.leak?;
        Some(format!(
            "{} of {tested} test samples are training samples too, bit for bit, such as {} and {} (from 0): the accuracy \
             counts what was learned by heart",
            self.leaked,
            test.says(),
            train.says()
        ))
    }

    fn doubts(&self, names: &[String]) -> Option<String> {
        let label = |of: Named| {
            shown(names.get(usize::try_from(of.label).unwrap_or(usize::MAX)).map_or("", String::as_str))
        };
        let [one, other] = self.doubt?;
        Some(format!(
            "{} samples are alike bit for bit and have different labels, such as {} ({}) and {} ({}): no model gets them all \
             right",
            self.doubtful,
            one.says(),
            label(one),
            other.says(),
            label(other)
        ))
    }
}

/// Hashes have no order that a person knows; samples do.
fn keep_first(known: &mut Option<[Named; 2]>, found: [Named; 2]) {
    if known.is_none_or(|known| found[0].sample < known[0].sample) {
        *known = Some(found);
    }
}

fn unbalanced(names: &[String], train: &[i64], task: Task) -> Option<String> {
    balance::weights(train, names.len())?;
    let counts = balance::counts(train, names.len());
    let there: Vec<usize> = (0..counts.len()).filter(|class| counts[*class] > 0).collect();
    let rarest = there.iter().copied().min_by_key(|class| counts[*class])?;
    // Of equally frequent ones the first.
    let commonest = there.iter().rev().copied().max_by_key(|class| counts[*class])?;
    let share = |class: usize| 100.0 * counts[class] as f64 / train.len() as f64;
    let told = format!(
        "unbalanced classes: {:.1} % of the training samples have the label {}, {:.1} % the label {}",
        share(commonest),
        shown(&names[commonest]),
        share(rarest),
        shown(&names[rarest])
    );
    Some(match task {
        Task::IntentSlots => told,
        _ => format!("{told}: rare ones weigh more in training, and the balanced accuracy is measured too"),
    })
}

fn untested(names: &[String], test: &[i64]) -> Option<String> {
    let counts = balance::counts(test, names.len());
    let missing: Vec<&str> =
        names.iter().zip(counts).filter(|(_, count)| *count == 0).map(|(name, _)| name.as_str()).collect();
    (!missing.is_empty()).then(|| {
        format!(
            "{} of {} classes have no test sample: {}: how well they are told is not measured",
            missing.len(),
            names.len(),
            listed(missing.iter().copied())
        )
    })
}

fn constant(channels: &[Range<f32>]) -> Option<String> {
    let never: Vec<String> = (0..)
        .zip(channels)
        .filter(|(_, range)| range.start == range.end)
        .map(|(channel, range): (usize, _)| format!("{channel} (always {})", range.start))
        .collect();
    (!never.is_empty()).then(|| {
        format!(
            "{} of {} channels never change in the training samples and tell nothing: {}",
            never.len(),
            channels.len(),
            listed(never.iter().map(String::as_str))
        )
    })
}

/// A name from a file: without control characters, and cut.
pub(crate) fn shown(name: &str) -> String {
    format!("{:?}", cut_to(name, NAME_BYTES_SHOWN))
}

/// The first names, and how many there are beside.
pub(crate) fn listed<'n>(names: impl ExactSizeIterator<Item = &'n str>) -> String {
    let more = names.len().saturating_sub(NAMES_SHOWN);
    let mut text: Vec<String> = names.take(NAMES_SHOWN).map(|name| cut_to(name, NAME_BYTES_SHOWN)).collect();
    if more > 0 {
        text.push(format!("and {more} more"));
    }
    text.join(", ").replace(char::is_control, " ")
}

/// At most [`limits::DATASET_REMARKS_MAX`], each on one line and cut; what is beyond them is counted.
pub(crate) fn bounded(remarks: Vec<String>) -> Vec<String> {
    let count = remarks.len();
    let most = if count > limits::DATASET_REMARKS_MAX { limits::DATASET_REMARKS_MAX - 1 } else { count };
    let mut kept: Vec<String> = remarks.iter().take(most).map(|remark| one_line(remark)).collect();
    if count > most {
        kept.push(format!("and {} more remarks", count - most));
    }
    kept
}

#[cfg(test)]
mod tests;
