//! What is checked of a model before a runtime sees it.

#![no_main]

use edgewright_fuzz as _;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(reason) = runtime::check_model(bytes) {
        assert!(!reason.is_empty());
    }
});
