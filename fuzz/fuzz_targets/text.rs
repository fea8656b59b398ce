//! Text to learn from: a byte that says which kind, then the file. What is read is whole, and read again the same.

#![no_main]

use dataset::Dataset;
use edgewright_fuzz::{assert_one_line, folder};
use libfuzzer_sys::fuzz_target;
use shared::{job::DataFormat, text::EMPTY};
use std::fs;

const KINDS: [(DataFormat, &str); 3] = [
    (DataFormat::Text, "text.txt"),
    (DataFormat::IntentJsonl, "text.jsonl"),
    (DataFormat::IntentJson, "text.json"),
];

/// Every sample is a whole window of known tokens and labels.
fn assert_sound(set: &Dataset) {
    let [channels, length] = set.schema.shape[..] else { panic!("text has an alphabet and a length") };
    let text = set.schema.text.as_ref().expect("a rule from text to samples");
    text.validate().expect("a rule that devices take");
    assert_eq!(text.alphabet.chars().count(), channels);
    let marks = set.schema.heads.first().map_or(channels, |head| head.labels.len());
    for (split, count) in [(&set.train, set.schema.train_count), (&set.test, set.schema.test_count)] {
        assert_eq!(split.len() as u64, count);
        assert_eq!(split.text.tokens.len(), split.text.labels.len());
        let known = |token: &u8, count: usize| *token == EMPTY || usize::from(*token) < count;
        for sample in 0..split.len() {
            let (window, labels) =
                (split.text.window(sample, length), split.text.window_labels(sample, length));
            assert_eq!((window.len(), labels.len()), (length, length));
            assert!(window.iter().all(|token| known(token, channels)));
            assert!(labels.iter().all(|label| known(label, marks)));
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, file)) = bytes.split_first() else { return };
    let (format, name) = KINDS[usize::from(*kind) % KINDS.len()];
    let path = folder().join(name);
    fs::write(&path, file).expect("a file to read from");
    match dataset::open(&path, Some(format)) {
        Ok(set) => {
            assert_sound(&set);
            assert_eq!(dataset::open(&path, Some(format)).expect("what was read is read again"), set);
        }
        Err(error) => assert_one_line(&error),
    }
});
