//! A token bucket.

use shared::Timestamp;

/// Lets through so much a second, with a burst of its capacity. Full at first.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    per_s: u64,
    capacity: u64,
    /// Thousandths, so that short steps lose nothing.
    level_milli: u64,
    filled_at: Option<Timestamp>,
}

impl Bucket {
    /// `per_s` of zero sets no limit.
    pub(crate) fn new(per_s: u64, capacity: u64) -> Self {
        Self { per_s, capacity, level_milli: capacity.saturating_mul(1000), filled_at: None }
    }

    /// Adds what came since the last call.
    pub(crate) fn fill(&mut self, now: Timestamp) {
        if let Some(filled_at) = self.filled_at {
            let gained = self.per_s.saturating_mul(now.since_ms(filled_at));
            self.level_milli =
                self.level_milli.saturating_add(gained).min(self.capacity.saturating_mul(1000));
        }
        self.filled_at = Some(now);
    }

    /// Takes `amount`, or nothing if there is less.
    pub(crate) fn take(&mut self, amount: u64) -> bool {
        if self.per_s == 0 {
            return true;
        }
        match self.level_milli.checked_sub(amount.saturating_mul(1000)) {
            Some(level) => {
                self.level_milli = level;
                true
            }
            None => false,
        }
    }

    /// Puts back what was taken for nothing.
    pub(crate) fn give_back(&mut self, amount: u64) {
        self.level_milli = self
            .level_milli
            .saturating_add(amount.saturating_mul(1000))
            .min(self.capacity.saturating_mul(1000));
    }

    /// Was nothing taken, or has all come back?
    pub(crate) fn is_full(&self) -> bool {
        self.level_milli >= self.capacity.saturating_mul(1000)
    }

    /// When `amount` will be there.
    pub(crate) fn ready_at(&self, amount: u64) -> Timestamp {
        let missing = amount.saturating_mul(1000).saturating_sub(self.level_milli);
        let now = self.filled_at.unwrap_or_default();
        if self.per_s == 0 || missing == 0 { now } else { now.plus_ms(missing.div_ceil(self.per_s)) }
    }
}
