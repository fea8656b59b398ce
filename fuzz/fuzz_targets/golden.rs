//! Golden inputs and outputs, safetensors. What is read is the same when it is written and read again.

#![no_main]

use edgewright_fuzz as _;
use libfuzzer_sys::fuzz_target;
use runtime::Golden;

fuzz_target!(|bytes: &[u8]| {
    let Ok(golden) = Golden::read(bytes) else { return };
    assert!((1..=runtime::golden::SAMPLES_MAX).contains(&golden.samples()));
    assert!(golden.input().iter().chain(golden.output()).all(|value| value.is_finite()));
    assert_eq!(golden.output().len(), golden.samples() * golden.classes());
    let again = golden.write().expect("what was read can be written");
    assert_eq!(Golden::read(&again).expect("what was written is read"), golden);
});
