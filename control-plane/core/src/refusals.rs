//! What was refused, counted until it goes into the store: of the same thing by the same subject one entry, so that
//! whoever is refused a thousand times a second costs one row and hides nobody else.

use crate::entity::SecurityEvent;
use shared::{Timestamp, wire};
use std::collections::BTreeMap;

/// Entries of one kind that are held between two looks of the store; what finds no room is counted under [`OTHERS`].
const ENTRIES_PER_KIND_MAX: usize = 64;
/// The subject of entries that found no room.
pub const OTHERS: &str = "others";

/// What was refused since the last [`Refusals::take`].
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
        let key = self.key(kind, wire::cut(subject));
        let entry =
            self.entries.entry(key).or_insert_with(|| Entry { at: now, detail: String::new(), count: 0 });
        (entry.at, entry.detail) = (now, wire::cut(detail));
        entry.count = entry.count.saturating_add(1);
        entry.count == 1
    }

    /// Takes everything out.
    pub fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// Adds what was taken out and could not be kept: it counts together with what came meanwhile.
    pub fn put_back(&mut self, taken: Self) {
        for ((kind, subject), entry) in taken.entries {
            let key = self.key(kind, subject);
            let mine = self.entries.entry(key).or_insert_with(|| Entry {
                at: entry.at,
                detail: entry.detail.clone(),
                count: 0,
            });
            if entry.at > mine.at {
                (mine.at, mine.detail) = (entry.at, entry.detail);
            }
            mine.count = mine.count.saturating_add(entry.count);
        }
    }

    /// Everything as it is kept, the oldest first.
    pub fn events(&self) -> Vec<SecurityEvent> {
        let mut events: Vec<SecurityEvent> = self
            .entries
            .iter()
            .map(|((kind, subject), entry)| SecurityEvent {
                number: 0,
                at: entry.at,
                subject: subject.clone(),
                kind: (*kind).to_owned(),
                detail: entry.detail.clone(),
                count: entry.count,
            })
            .collect();
        events.sort_by_key(|event| event.at);
        events
    }

    /// Under which entry it is counted: those beyond the most of a kind are counted together.
    fn key(&self, kind: &'static str, subject: String) -> (&'static str, String) {
        let key = (kind, subject);
        if self.entries.contains_key(&key) {
            return key;
        }
        let of_kind = self.entries.keys().filter(|(other, _)| *other == kind).count();
        if of_kind >= ENTRIES_PER_KIND_MAX { (kind, OTHERS.to_owned()) } else { key }
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
        let events = refusals.take().events();
        let seen: Vec<_> = events.iter().map(|e| (e.subject.as_str(), e.detail.as_str(), e.count)).collect();
        assert_eq!(seen, [("cam-02", "c", 1), ("cam-01", "b", 2)]);
        assert!(refusals.events().is_empty());
    }

    #[test]
    fn what_could_not_be_kept_counts_together_with_what_came_meanwhile() {
        let mut refusals = Refusals::default();
        refusals.add("cam-01", "foreign_topic", "old", Timestamp(1));
        refusals.add("cam-02", "foreign_topic", "old", Timestamp(2));
        let taken = refusals.take();
        refusals.add("cam-01", "foreign_topic", "new", Timestamp(3));
        refusals.put_back(taken);
        let events = refusals.events();
        let seen: Vec<_> = events.iter().map(|e| (e.subject.as_str(), e.detail.as_str(), e.count)).collect();
        assert_eq!(seen, [("cam-02", "old", 1), ("cam-01", "new", 2)]);
    }

    #[test]
    fn subjects_without_end_are_counted_together_and_none_is_lost() {
        let mut refusals = Refusals::default();
        for number in 0..10_000 {
            refusals.add(&format!("d{number}"), "enrolment_refused", "x", Timestamp(number));
        }
        refusals.add("cam-01", "foreign_topic", "x", Timestamp(10_000));
        let events = refusals.events();
        assert_eq!(events.len(), ENTRIES_PER_KIND_MAX + 2);
        assert_eq!(events.iter().map(|event| event.count).sum::<u64>(), 10_001);
        assert_eq!(events.last().unwrap().subject, "cam-01");
    }
}
