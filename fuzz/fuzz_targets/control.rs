//! Control messages, JSON. What is read comes back the same when it is written and read again.

#![no_main]

use edgewright_fuzz as _;
use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};
use shared::{
    limits,
    profile::ProfileReport,
    wire::{Presence, Reported, Want, decode_json, encode_json},
};
use std::fmt::Debug;

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(
    what: &'static str,
    bytes: &[u8],
) -> Option<T> {
    let message: T = decode_json(what, bytes).ok()?;
    // Fields that were left out are written as null; a message at the limit may then be over it.
    if let Ok(again) = encode_json(what, &message) {
        assert_eq!(decode_json::<T>(what, &again).expect("what was written is read"), message);
    }
    Some(message)
}

fuzz_target!(|bytes: &[u8]| {
    let _ = round_trip::<Presence>("presence", bytes);
    if let Some(reported) = round_trip::<Reported>("reported", bytes)
        && reported.validate().is_ok()
    {
        assert!(reported.slots.len() <= limits::REPORTED_SLOTS_MAX);
    }
    if let Some(report) = round_trip::<ProfileReport>("profile report", bytes)
        && report.validate().is_ok()
    {
        assert!(report.measured.len() <= limits::PROFILE_MEASURED_MAX);
    }
    if let Some(want) = round_trip::<Want>("want", bytes)
        && want.validate().is_ok()
    {
        let indices: Vec<u32> = want.indices().take(limits::WANT_CHUNKS_MAX as usize + 1).collect();
        assert!((1..=limits::WANT_CHUNKS_MAX as usize).contains(&indices.len()));
        assert!(indices.is_sorted_by(|a, b| a < b), "a chunk is asked for twice");
    }
});
