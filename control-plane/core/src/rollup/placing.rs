//! When something is taken to have happened: a device's clock is believed within bounds.

use shared::Timestamp;

/// A device's clock may be so far ahead of the server's.
pub const AHEAD_MS_MAX: u64 = 5 * 60 * 1000;
/// What was queued offline may come so late.
pub const LATE_MS_MAX: u64 = 31 * 24 * 60 * 60 * 1000;

/// The time of the device, or the time at which the record came where that cannot be.
pub fn placed(at: Timestamp, received: Timestamp) -> Timestamp {
    let believable = at <= received.plus_ms(AHEAD_MS_MAX) && received.since_ms(at) <= LATE_MS_MAX;
    if believable { at } else { received }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_whose_clock_is_wrong_is_counted_when_its_record_comes() {
        let received = Timestamp(1_790_000_000_000);
        for at in [received, received.plus_ms(AHEAD_MS_MAX), Timestamp(received.0 - LATE_MS_MAX)] {
            assert_eq!(placed(at, received), at);
        }
        for at in [Timestamp(0), received.plus_ms(AHEAD_MS_MAX + 1), Timestamp(received.0 - LATE_MS_MAX - 1)]
        {
            assert_eq!(placed(at, received), received);
        }
    }
}
