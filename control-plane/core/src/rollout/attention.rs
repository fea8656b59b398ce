//! Whether the fleet was listened to all the time.

use shared::Timestamp;

/// Longest time on the clock between two looks that belong to one stretch of listening.
const GAP_MS_MAX: u64 = 10_000;

/// Since when the fleet has been listened to without a break.
///
/// The time in which nobody listened is not the devices' time: the server was down, its machine slept, or its clock
/// was set. All of these show as a gap between two looks, or as a clock that goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attention {
    since: Timestamp,
    looked_at: Timestamp,
}

impl Attention {
    /// Listening begins.
    pub fn new(now: Timestamp) -> Self {
        Self { since: now, looked_at: now }
    }

    /// Takes in that somebody looks, and gives since when there was no break.
    pub fn look(&mut self, now: Timestamp) -> Timestamp {
        let (forward_ms, back_ms) = (now.since_ms(self.looked_at), self.looked_at.since_ms(now));
        if forward_ms > GAP_MS_MAX || back_ms > GAP_MS_MAX {
            self.since = now;
        }
        self.looked_at = now;
        self.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_on_the_clock_in_either_direction_begins_a_stretch() {
        let start = Timestamp(1_000_000);
        let mut attention = Attention::new(start);
        let later = start.plus_ms(GAP_MS_MAX);
        assert_eq!(attention.look(later), start);
        assert_eq!(attention.look(Timestamp(later.0 - 5)), start, "the clock may be trimmed");
        let ahead = later.plus_ms(GAP_MS_MAX + 1);
        assert_eq!(attention.look(ahead), ahead);
        assert_eq!(attention.look(start), start);
    }
}
