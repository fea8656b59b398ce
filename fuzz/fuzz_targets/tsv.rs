//! Series in UCR's `.tsv`: two files with a byte of 255 between them. What is read is the same when it is written and
//! read again.

#![no_main]

use edgewright_fuzz::{again_as_text, open};
use libfuzzer_sys::fuzz_target;
use shared::job::DataFormat;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(set) = open(bytes, DataFormat::UcrTsv, "tsv") {
        again_as_text(&set, DataFormat::UcrTsv, "tsv", "", |channels, label| {
            format!("{label}\t{}", channels.concat())
        });
    }
});
