//! What is checked of a foreign model before it is quantised, and the counting of its parts before it is decoded.

#![no_main]

use edgewright_fuzz as _;
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|bytes: &[u8]| {
    match quantiser::file::read(bytes) {
        // What is read and written stays the same from then on.
        Ok(model) => {
            let written = model.encode_to_vec();
            let again = quantiser::proto::ModelProto::decode(&written[..]).expect("what was written is read");
            // By the bytes: a value that is no number is equal to none.
            assert_eq!(again.encode_to_vec(), written);
        }
        Err(error) => edgewright_fuzz::assert_one_line(&error),
    }
});
