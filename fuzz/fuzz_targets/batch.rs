//! Batches of records, CBOR. What is read comes back the same when it is written and read again.

#![no_main]

use edgewright_fuzz as _;
use libfuzzer_sys::fuzz_target;
use shared::{
    DeviceId, limits,
    wire::{Batch, Event, Feedback, Record, Telemetry},
};
use std::sync::LazyLock;

static SENDER: LazyLock<DeviceId> = LazyLock::new(|| "cam-01".parse().expect("a device id"));

fn round_trip<R: Record>(bytes: &[u8]) {
    let Ok(batch) = Batch::<R>::decode(bytes, &SENDER) else { return };
    assert_eq!(batch.device, *SENDER);
    assert!((1..=limits::BATCH_RECORDS_MAX).contains(&batch.records.len()));
    // By bytes: a record may hold a value that is no number, which is unlike itself.
    if let Ok(again) = batch.encode() {
        let read = Batch::<R>::decode(&again, &SENDER).expect("what was written is read");
        assert_eq!(read.encode().expect("what was read is written"), again);
    }
}

fuzz_target!(|bytes: &[u8]| {
    round_trip::<Event>(bytes);
    round_trip::<Feedback>(bytes);
    round_trip::<Telemetry>(bytes);
});
