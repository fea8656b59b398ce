//! What was refused, counted until it goes into the store: of the same thing by the same subject one entry, so that
//! whoever is refused a thousand times a second costs one row and hides nobody else.

use crate::entity::SecurityEvent;
use shared::{Timestamp, wire};
use std::collections::BTreeMap;

/// Entries of one kind that are held between two looks of the store; what finds no room is counted under [`OTHERS`].
const ENTRIES_PER_KIND_MAX: usize = 64;
/// The subject of entries that found no room.
pub const OTHERS: &str = "others";

/// What was refused since the last [`Refusals::drain`].
#[derive(Debug, Default)]
pub struct Refusals {
    entries: BTreeMap<(&'static str, String), Entry>,
}

#[derive(Debug)]
struct Entry {
    at: Timestamp,
    /// Of the newest.
    detail: String,
    count: u64,
}

impl Refusals {
    /// Adds one; `true` if it is the first of its kind and subject.
    pub fn add(&mut self, subject: &str, kind: &'static str, detail: &str, now: Timestamp) -> bool {
        let mut key = (kind, wire::cut(subject));
        if !self.entries.contains_key(&key) {
            let of_kind = self.entries.keys().filter(|(other, _)| *other == kind).count();
            if of_kind >= ENTRIES_PER_KIND_MAX {
                key.1 = OTHERS.to_owned();
            }
        }
        let entry =
            self.entries.entry(key).or_insert_with(|| Entry { at: now, detail: String::new(), count: 0 });
        (entry.at, entry.detail) = (now, wire::cut(detail));
        entry.count = entry.count.saturating_add(1);
        entry.count == 1
    }

    /// Takes everything out, the oldest first.
    pub fn drain(&mut self) -> Vec<SecurityEvent> {
        let entries = std::mem::take(&mut self.entries).into_iter();
        let mut events: Vec<SecurityEvent> = entries
            .map(|((kind, subject), entry)| SecurityEvent {
                at: entry.at,
                subject,
                kind: kind.to_owned(),
                detail: entry.detail,
                count: entry.count,
            })
            .collect();
        events.sort_by_key(|event| event.at);
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_thing_by_the_same_subject_is_one_entry_with_a_count() {
        let mut refusals = Refusals::default();
        assert!(refusals.add("cam-01", "foreign_topic", "a", Timestamp(1)));
        assert!(!refusals.add("cam-01", "foreign_topic", "b", Timestamp(3)));
        assert!(refusals.add("cam-02", "foreign_topic", "c", Timestamp(2)));
        let events = refusals.drain();
        let seen: Vec<_> = events.iter().map(|e| (e.subject.as_str(), e.detail.as_str(), e.count)).collect();
        assert_eq!(seen, [("cam-02", "c", 1), ("cam-01", "b", 2)]);
        assert!(refusals.drain().is_empty());
    }

    #[test]
    fn subjects_without_end_are_counted_together_and_none_is_lost() {
        let mut refusals = Refusals::default();
        for number in 0..10_000 {
            refusals.add(&format!("d{number}"), "enrolment_refused", "x", Timestamp(number));
        }
        refusals.add("cam-01", "foreign_topic", "x", Timestamp(10_000));
        let events = refusals.drain();
        assert_eq!(events.len(), ENTRIES_PER_KIND_MAX + 2);
        assert_eq!(events.iter().map(|event| event.count).sum::<u64>(), 10_001);
        assert_eq!(events.last().unwrap().subject, "cam-01");
    }
}
