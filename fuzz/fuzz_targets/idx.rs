//! The four files of an IDX set, plain or packed: a byte that says which, then each with its length before it.

#![no_main]

use dataset::{Dataset, Split};
use edgewright_fuzz::{assert_one_line, assert_sound, folder, parts};
use libfuzzer_sys::fuzz_target;
use shared::job::DataFormat;
use std::fs;

const NAMES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];
/// A packed file grows a thousandfold and each value takes five bytes; what the caps of the reader allow would not fit
/// under this process's own.
const BYTES_MAX: usize = 16 * 1024;

fn open(files: [&[u8]; 4], packed: bool) -> Result<Dataset, dataset::Error> {
    for (name, bytes) in NAMES.iter().zip(files) {
        let plain = folder().join(name);
        let gz = folder().join(format!("{name}.gz"));
        let (path, other) = if packed { (gz, plain) } else { (plain, gz) };
        let _ = fs::remove_file(other);
        fs::write(path, bytes).expect("a file to read from");
    }
    dataset::open(folder(), Some(DataFormat::Idx))
}

/// A set of one channel, written plain, is the same when it is read again.
fn again(set: &Dataset) {
    let [1, height, width] = set.schema.shape[..] else { return };
    let file = |sizes: &[usize], values: Vec<u8>| {
        let mut bytes = vec![0, 0, 8, sizes.len() as u8];
        bytes.extend(sizes.iter().flat_map(|size| (*size as u32).to_be_bytes()));
        bytes.extend(values);
        bytes
    };
    let split = |split: &Split| {
        let pixels = split.samples.iter().map(|value| (value * 255.0).round() as u8).collect();
        let labels = split.labels.iter().map(|label| *label as u8).collect();
        (file(&[split.len(), height, width], pixels), file(&[split.len()], labels))
    };
    let ((a, b), (c, d)) = (split(&set.train), split(&set.test));
    let read = open([&a, &b, &c, &d], false).expect("what was written is read");
    assert_eq!((&read.train, &read.test), (&set.train, &set.test));
}

fuzz_target!(|bytes: &[u8]| {
    let Some((packed, rest)) = bytes.split_first().filter(|_| bytes.len() <= BYTES_MAX) else { return };
    match open(parts(rest), packed % 2 == 1) {
        Ok(set) => {
            assert_sound(&set);
            again(&set);
        }
        Err(error) => assert_one_line(&error),
    }
});
