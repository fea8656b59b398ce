//! Tables: a byte that says how they lie and are read, then one file, or two with a byte of 255 between them. What is read
//! is whole, within the limits of standardised numbers, and read again the same.

#![no_main]

use dataset::Dataset;
use edgewright_fuzz::{assert_one_line, assert_sound, folder};
use libfuzzer_sys::fuzz_target;
use shared::{
    job::{DataFormat, Reading},
    manifest::{ANOMALY_LABELS, Column, Task},
};
use std::fs;

/// Bits of the first byte.
const PACKED: u8 = 1;
const PAIR: u8 = 2;
const NORMAL: u8 = 4;
const FIRST_COLUMN: u8 = 8;

fn assert_table(set: &Dataset) {
    let [columns, 1] = set.schema.shape[..] else { panic!("a row has one position") };
    assert_eq!(set.schema.columns.len(), columns);
    for split in [&set.train, &set.test] {
        assert!(split.samples.iter().all(|value| value.abs() <= Column::LIMIT));
    }
    if set.schema.task == Task::AnomalyDetection {
        assert_eq!(set.schema.labels, ANOMALY_LABELS);
        assert!(set.train.labels.iter().all(|label| *label == 0));
        for split in [&set.train, &set.test] {
            assert_eq!(split.samples.len(), split.len() * columns);
        }
    } else {
        assert_sound(set);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((how, rest)) = bytes.split_first() else { return };
    let ending = if how & PACKED > 0 { "csv.gz" } else { "csv" };
    let table = folder().join("table");
    for name in ["table", "table_TRAIN", "table_TEST"] {
        for ending in ["csv", "csv.gz"] {
            let _ = fs::remove_file(folder().join(format!("{name}.{ending}")));
        }
    }
    let write = |name: &str, bytes: &[u8]| {
        fs::write(folder().join(format!("{name}.{ending}")), bytes).expect("a file to read from");
    };
    if how & PAIR > 0 {
        let mut files = rest.splitn(2, |byte| *byte == 0xff);
        let train = files.next().unwrap_or_default();
        write("table_TRAIN", train);
        write("table_TEST", files.next().unwrap_or(train));
    } else {
        write("table", rest);
    }
    let reading = Reading {
        normal: (how & NORMAL > 0).then(|| "0".to_owned()),
        label_column: (how & FIRST_COLUMN > 0).then(|| "1".to_owned()),
    };
    let open = || dataset::open_as(&table, Some(DataFormat::Csv), &reading);
    match open() {
        Ok(set) => {
            assert_table(&set);
            assert_eq!(open().expect("what was read is read again"), set);
        }
        Err(error) => assert_one_line(&error),
    }
});
