//! What an outbox sends next, what it drops when it is full.

use shared::limits;

/// The kinds of record, in the order in which they are given up when there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Telemetry,
    Feedback,
    Event,
}

impl Kind {
    /// All kinds, least precious first.
    pub const ALL: [Self; 3] = [Self::Telemetry, Self::Feedback, Self::Event];

    /// One byte for keys on disk.
    pub fn code(self) -> u8 {
        match self {
            Self::Telemetry => b't',
            Self::Feedback => b'f',
            Self::Event => b'e',
        }
    }
}

/// Records stored of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    pub telemetry: u64,
    pub feedback: u64,
    pub event: u64,
}

impl Depth {
    /// Records of `kind`.
    pub fn of(self, kind: Kind) -> u64 {
        match kind {
            Kind::Telemetry => self.telemetry,
            Kind::Feedback => self.feedback,
            Kind::Event => self.event,
        }
    }

    /// The counter of `kind`.
    pub fn of_mut(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Telemetry => &mut self.telemetry,
            Kind::Feedback => &mut self.feedback,
            Kind::Event => &mut self.event,
        }
    }

    /// Records of all kinds.
    pub fn total(self) -> u64 {
        self.telemetry + self.feedback + self.event
    }
}

/// The kind whose oldest record goes when a box of `depth` records may hold `capacity` and takes one more;
/// `None` while there is room. Telemetry goes first, then feedback, then events.
pub fn to_drop(depth: Depth, capacity: u64) -> Option<Kind> {
    if depth.total() < capacity {
        return None;
    }
    Kind::ALL.into_iter().find(|&kind| depth.of(kind) > 0)
}

/// How many of the records with these encoded sizes, oldest first, go into one batch: as many as fit into
/// [`limits::BATCH_BYTES_MAX`] and [`limits::BATCH_RECORDS_MAX`] with room for the frame, at least one.
pub fn batch_len(sizes_bytes: impl IntoIterator<Item = usize>) -> usize {
    let mut total_bytes = BATCH_FRAME_BYTES;
    let mut count = 0;
    for size_bytes in sizes_bytes {
        total_bytes += size_bytes;
        if count > 0 && (total_bytes > limits::BATCH_BYTES_MAX || count == limits::BATCH_RECORDS_MAX) {
            break;
        }
        count += 1;
    }
    count
}

/// Room for the device's name and the lengths around the records.
const BATCH_FRAME_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn telemetry_goes_first_and_events_last() {
        let full = |telemetry, feedback, event| to_drop(Depth { telemetry, feedback, event }, 10);
        assert_eq!(full(1, 4, 5), Some(Kind::Telemetry));
        assert_eq!(full(0, 4, 6), Some(Kind::Feedback));
        assert_eq!(full(0, 0, 10), Some(Kind::Event));
        assert_eq!(full(3, 3, 3), None);
    }

    proptest! {
        #[test]
        fn a_batch_fits_and_moves_forward(sizes in prop::collection::vec(1usize..5000, 0..1200)) {
            let count = batch_len(sizes.iter().copied());
            prop_assert!(count <= limits::BATCH_RECORDS_MAX);
            prop_assert_eq!(count == 0, sizes.is_empty());
            let bytes: usize = sizes[..count].iter().sum();
            prop_assert!(count <= 1 || bytes + BATCH_FRAME_BYTES <= limits::BATCH_BYTES_MAX);
            let full = count == sizes.len() || count == limits::BATCH_RECORDS_MAX
                || bytes + sizes[count] + BATCH_FRAME_BYTES > limits::BATCH_BYTES_MAX;
            prop_assert!(full);
        }
    }
}
