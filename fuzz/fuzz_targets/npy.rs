//! Arrays as numpy saves them.

#![no_main]

use edgewright_fuzz as _;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match dataset::npy::parse(bytes) {
        Ok(array) => {
            assert_eq!(array.shape.iter().product::<usize>(), array.values.len());
            assert!(array.values.iter().all(|value| value.is_finite()));
        }
        Err(reason) => assert!(!reason.is_empty() && reason.len() < 4096),
    }
});
