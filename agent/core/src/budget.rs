//! How many bytes a device may receive: for one update, and within a day.
//!
//! What is asked for counts from the moment in which it is asked for, and is on disk as counted before the request
//! goes out; what comes unasked counts when it comes. So a restart at any point may count too much, and too little by
//! at most [`UNSAVED_BYTES_MAX`] of what nobody asked for.

use serde::{Deserialize, Serialize};
use shared::Timestamp;

/// Length of the day that is counted, from its first byte on.
pub const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Bytes that may come unasked before they are on disk as counted.
pub const UNSAVED_BYTES_MAX: u64 = 1024 * 1024;

/// What the device's owner allows. None is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// For one update of one slot.
    pub update_bytes_max: Option<u64>,
    /// Within a day, for all slots.
    pub day_bytes_max: Option<u64>,
}

/// What survives a restart of the day's count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaySaved {
    /// When the day began.
    pub since: Timestamp,
    /// Received in it, or asked for.
    pub bytes: u64,
}

/// The bytes of a day. It lasts [`DAY_MS`] by the clock that is given; a clock that is set back begins no other day,
/// it makes this one longer.
#[derive(Debug)]
pub struct Day {
    bytes_max: Option<u64>,
    since: Timestamp,
    received_bytes: u64,
    unsaved_bytes: u64,
}

impl Day {
    /// Goes on from what was saved.
    pub fn restore(saved: DaySaved, bytes_max: Option<u64>) -> Self {
        Self { bytes_max, since: saved.since, received_bytes: saved.bytes, unsaved_bytes: 0 }
    }

    /// What to save, while `asked_bytes` are under way.
    pub fn saved(&self, asked_bytes: u64) -> DaySaved {
        DaySaved { since: self.since, bytes: self.received_bytes.saturating_add(asked_bytes) }
    }

    /// Notes that it was saved.
    pub fn mark_saved(&mut self) {
        self.unsaved_bytes = 0;
    }

    /// Begins another day where this one is over. True where what is saved changed.
    pub fn turn(&mut self, now: Timestamp) -> bool {
        let before = self.since;
        self.since = self.since.min(now);
        if self.received_bytes == 0 || now.since_ms(self.since) >= DAY_MS {
            (self.since, self.received_bytes) = (now, 0);
        }
        self.since != before
    }

    /// Counts bytes that came. True where they ought to be saved.
    pub fn receive(&mut self, bytes: u64) -> bool {
        self.received_bytes = self.received_bytes.saturating_add(bytes);
        self.unsaved_bytes = self.unsaved_bytes.saturating_add(bytes);
        self.unsaved_bytes >= UNSAVED_BYTES_MAX
    }

    /// Bytes that may still be asked for, while `asked_bytes` are under way.
    pub fn room_bytes(&self, asked_bytes: u64) -> u64 {
        let used = self.received_bytes.saturating_add(asked_bytes);
        self.bytes_max.map_or(u64::MAX, |most| most.saturating_sub(used))
    }

    /// The limit, where there is one.
    pub fn bytes_max(&self) -> Option<u64> {
        self.bytes_max
    }

    /// When the next day begins.
    pub fn ends_at(&self) -> Timestamp {
        self.since.plus_ms(DAY_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_clock_that_is_set_back_gives_no_fresh_budget_and_one_that_runs_on_does() {
        let mut day = Day::restore(DaySaved::default(), Some(100));
        day.turn(Timestamp(10 * DAY_MS));
        day.receive(90);
        day.turn(Timestamp(10 * DAY_MS + 5));
        assert_eq!((day.room_bytes(0), day.room_bytes(7)), (10, 3));
        day.turn(Timestamp(3 * DAY_MS));
        assert_eq!((day.room_bytes(0), day.ends_at()), (10, Timestamp(4 * DAY_MS)));
        let mut day = Day::restore(day.saved(7), Some(100));
        day.turn(Timestamp(4 * DAY_MS - 1));
        assert_eq!(day.room_bytes(0), 3);
        day.turn(Timestamp(4 * DAY_MS));
        assert_eq!(day.room_bytes(0), 100);
    }

    #[test]
    fn sizes_near_the_largest_number_do_not_wrap() {
        let mut day = Day::restore(DaySaved { since: Timestamp(u64::MAX), bytes: u64::MAX }, Some(u64::MAX));
        assert!(day.receive(u64::MAX));
        assert_eq!((day.room_bytes(u64::MAX), day.saved(9).bytes), (0, u64::MAX));
        day.mark_saved();
        assert!(!day.receive(1));
    }

    proptest! {
        /// Steps of the clock, forward as time passes or back, with bytes that take all that is allowed.
        #[test]
        fn a_day_of_true_time_never_brings_more_than_a_days_bytes(
            steps in prop::collection::vec((0u64..DAY_MS, prop::option::of(0u64..3 * DAY_MS), any::<bool>()), 1..40),
        ) {
            let start = Timestamp(20 * DAY_MS);
            let (mut now, mut passed_ms, mut taken) = (start, 0u64, 0u64);
            let mut day = Day::restore(DaySaved::default(), Some(1000));
            for (wait_ms, back_ms, restart) in steps {
                passed_ms += wait_ms;
                now = now.plus_ms(wait_ms);
                if let Some(back_ms) = back_ms {
                    now = Timestamp(now.0.saturating_sub(back_ms));
                }
                if restart {
                    day = Day::restore(day.saved(0), Some(1000));
                }
                day.turn(now);
                let room = day.room_bytes(0);
                day.receive(room);
                taken += room;
                prop_assert!(taken <= 1000 * (passed_ms / DAY_MS + 1), "{taken} in {passed_ms} ms");
            }
        }
    }
}
