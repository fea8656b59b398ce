//! Deltas: a byte that says how, the old file with its length before it, then the delta or the new file. Whatever is
//! applied gives the file that its header names, or nothing; whatever is made can be applied.

#![no_main]

use delta::{HEADER_BYTES, Header, Limits, apply, make, onnx};
use edgewright_fuzz::parts;
use libfuzzer_sys::fuzz_target;
use shared::Digest;

const LIMITS: Limits = Limits { old_bytes_max: 1 << 20, new_bytes_max: 1 << 20 };

/// The delta as if it were for `old`: no fuzzer finds a digest.
fn addressed_to(old: &[u8], bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    let header = bytes.get_mut(..HEADER_BYTES)?;
    header[5..37].copy_from_slice(Digest::of(old).as_bytes());
    header[69..77].copy_from_slice(&(old.len() as u64).to_le_bytes());
    Some(bytes)
}

fn check(old: &[u8], bytes: &[u8]) {
    let Ok(new) = apply(old, bytes, LIMITS) else { return };
    let (header, _) = Header::read(bytes).expect("what was applied has a header");
    assert_eq!((header.old, header.old_bytes), (Digest::of(old), old.len() as u64));
    assert_eq!((header.new, header.new_bytes), (Digest::of(&new), new.len() as u64));
}

fuzz_target!(|bytes: &[u8]| {
    let Some((how, rest)) = bytes.split_first() else { return };
    let [old, rest] = parts(rest);
    match how % 4 {
        0 => check(old, rest),
        1 | 2 => {
            if let Some(bytes) = addressed_to(old, rest) {
                check(old, &bytes);
            }
        }
        _ => {
            let made = make(old, rest, &onnx::regions(old, rest)).expect("a delta can be made");
            assert_eq!(apply(old, &made, LIMITS).expect("what was made is applied"), rest);
        }
    }
});
