//! Data sets from bytes, through files, as the forge reads them.

use dataset::{Dataset, Error};
use shared::job::DataFormat;
use std::{fmt::Write, fs};

/// Separates the file for training from the one for testing; no text has this byte.
const BETWEEN: u8 = 0xff;

/// Reads a pair of text files. Without a [`BETWEEN`] both are the same.
pub fn open(bytes: &[u8], format: DataFormat, extension: &str) -> Result<Dataset, Error> {
    let mut files = bytes.splitn(2, |byte| *byte == BETWEEN);
    let train = files.next().unwrap_or_default();
    write(&[("TRAIN", train), ("TEST", files.next().unwrap_or(train))], extension);
    let read = dataset::open(&crate::folder().join("set"), Some(format));
    match &read {
        Ok(set) => assert_sound(set),
        Err(error) => crate::assert_one_line(error),
    }
    read
}

/// What every set holds that a reader gives.
pub fn assert_sound(set: &Dataset) {
    let elements: usize = set.schema.shape.iter().product();
    for (split, count) in [(&set.train, set.schema.train_count), (&set.test, set.schema.test_count)] {
        assert_eq!(split.len() as u64, count);
        assert_eq!(split.samples.len(), split.len() * elements);
        assert!(split.samples.iter().all(|value| value.is_finite()));
        assert!(split.labels.iter().all(|label| (0..set.schema.labels.len() as i64).contains(label)));
    }
    let classes: std::collections::BTreeSet<_> = set.train.labels.iter().collect();
    assert!(classes.len() >= 2 && classes.len() == set.schema.labels.len());
}

/// What a reader gave, written by `line(series, label)` and read again, is the same.
pub fn again_as_text(
    set: &Dataset,
    format: DataFormat,
    extension: &str,
    head: &str,
    line: impl Fn(&[String], &str) -> String,
) {
    let [_, length] = set.schema.shape[..] else { panic!("series have channels and a length") };
    let text = |split: &dataset::Split| {
        let mut text = head.to_owned();
        let elements: usize = set.schema.shape.iter().product();
        for (sample, label) in split.samples.chunks_exact(elements).zip(&split.labels) {
            let channels: Vec<String> = sample
                .chunks_exact(length)
                .map(|channel| {
                    let values: Vec<String> = channel.iter().map(ToString::to_string).collect();
                    values.join(if extension == "ts" { "," } else { "\t" })
                })
                .collect();
            let _ = writeln!(text, "{}", line(&channels, &set.schema.labels[*label as usize]));
        }
        text
    };
    let files = [("TRAIN", text(&set.train)), ("TEST", text(&set.test))];
    write(&files.each_ref().map(|(part, text)| (*part, text.as_bytes())), extension);
    let again = dataset::open(&crate::folder().join("set"), Some(format)).expect("what was written is read");
    assert_eq!(again.schema.labels, set.schema.labels);
    assert_eq!(again.schema.shape, set.schema.shape);
    assert_eq!((&again.train, &again.test), (&set.train, &set.test));
}

fn write(files: &[(&str, &[u8])], extension: &str) {
    for (part, bytes) in files {
        let path = crate::folder().join(format!("set_{part}.{extension}"));
        fs::write(path, bytes).expect("a file to read from");
    }
}
