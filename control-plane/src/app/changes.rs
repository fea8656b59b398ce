//! What changes, told to whoever listens, with a memory for those who lost the connection.

use super::{App, now};
use control_core::throttle::Throttle;
use serde::{Deserialize, Serialize};
use shared::{
    Timestamp,
    limits::{CHANGES_KEPT, CHANGES_PER_KIND_BURST, CHANGES_PER_KIND_PER_S},
};
use std::{
    collections::{HashMap, VecDeque},
    fmt::Display,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::broadcast;

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    Rollout,
    Job,
    Device,
    Incident,
    Version,
}

impl ChangeKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Rollout, Self::Job, Self::Device, Self::Incident, Self::Version];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rollout => "rollout",
            Self::Job => "job",
            Self::Device => "device",
            Self::Incident => "incident",
            Self::Version => "version",
        }
    }
}

impl FromStr for ChangeKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.into_iter().map(Self::as_str).collect();
            format!("{text:?} is nothing that changes; allowed are {}", known.join(", "))
        })
    }
}

/// One change. Whoever wants to know more asks for the thing itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Change {
    pub kind: ChangeKind,
    /// [`MANY`] where more change than are told one by one.
    pub id: String,
    pub at: Timestamp,
    /// What happened to it, as in `created`.
    pub change: String,
}

/// The id where many things of a kind change at once: whoever shows them looks at all of them anew.
pub const MANY: &str = "*";
/// Many changes are told at most this often.
const MANY_PERIOD_MS: u64 = 1000;

/// A change with its place in the order of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub number: u64,
    pub change: Change,
}

/// The changes of this server, the newest ones kept.
#[derive(Debug)]
pub struct Changes {
    kept: Mutex<Kept>,
    sender: broadcast::Sender<Arc<Told>>,
}

#[derive(Debug)]
struct Kept {
    /// Changes of each kind that are told one by one.
    told: Throttle<ChangeKind>,
    many_told_at: HashMap<ChangeKind, Timestamp>,
    next: u64,
    newest: VecDeque<Arc<Told>>,
}

/// What a listener gets first, and from where it goes on.
#[derive(Debug)]
pub struct Listening {
    /// Something is missing between what the listener had and what comes: it has to look at everything anew.
    pub reset: bool,
    pub missed: Vec<Arc<Told>>,
    pub coming: broadcast::Receiver<Arc<Told>>,
}

impl Changes {
    /// Numbers begin with the time of the start, so that no number of an earlier start is one of this.
    pub(super) fn new(started_at: Timestamp) -> Self {
        let kept = Kept {
            told: Throttle::new(CHANGES_PER_KIND_PER_S, CHANGES_PER_KIND_BURST),
            many_told_at: HashMap::new(),
            next: started_at.0.saturating_mul(1000),
            newest: VecDeque::new(),
        };
        Self { kept: Mutex::new(kept), sender: broadcast::channel(CHANGES_KEPT).0 }
    }

    fn tell(&self, mut change: Change) {
        let mut kept = self.kept();
        let (kind, at) = (change.kind, change.at);
        if kept.told.take(kind, 1, at).is_err() {
            let earlier = kept.many_told_at.get(&kind);
            if earlier.is_some_and(|earlier| at.since_ms(*earlier) < MANY_PERIOD_MS) {
                return;
            }
            kept.many_told_at.insert(kind, at);
            (change.id, change.change) = (MANY.to_owned(), "many".to_owned());
        }
        let told = Arc::new(Told { number: kept.next, change });
        kept.next += 1;
        if kept.newest.len() >= CHANGES_KEPT {
            kept.newest.pop_front();
        }
        kept.newest.push_back(Arc::clone(&told));
        // Under the lock, so that listeners get them in order. Nobody may listen.
        let _ = self.sender.send(told);
    }

    /// Listens from now on, and for whoever has had all up to `last` from there.
    fn listen(&self, last: Option<u64>) -> Listening {
        let kept = self.kept();
        let coming = self.sender.subscribe();
        let Some(last) = last else { return Listening { reset: false, missed: Vec::new(), coming } };
        let first = kept.newest.front().map_or(kept.next, |told| told.number);
        let reset = last.saturating_add(1) < first || last >= kept.next;
        let missed = kept.newest.iter().filter(|told| !reset && told.number > last).cloned().collect();
        Listening { reset, missed, coming }
    }

    /// Adding and counting does not panic, so what the lock guards is whole.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl App {
    /// Tells whoever listens that something has changed. The one way in; called after the change is in the store.
    pub fn tell(&self, kind: ChangeKind, id: impl Display, change: &str) {
        self.changes.tell(Change { kind, id: id.to_string(), at: now(), change: change.to_owned() });
    }

    /// What changes from now on, and since `last` where that number is known.
    pub fn listen(&self, last: Option<u64>) -> Listening {
        self.changes.listen(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(id: &str) -> Change {
        Change { kind: ChangeKind::Job, id: id.to_owned(), at: Timestamp(1), change: "created".to_owned() }
    }

    fn ids(listening: &Listening) -> Vec<&str> {
        listening.missed.iter().map(|told| told.change.id.as_str()).collect()
    }

    #[test]
    fn whoever_comes_back_gets_what_it_missed_and_nothing_twice() {
        let changes = Changes::new(Timestamp(7));
        changes.tell(change("a"));
        let mut first = changes.listen(None);
        changes.tell(change("b"));
        changes.tell(change("c"));
        assert!(first.missed.is_empty() && !first.reset);
        let seen = first.coming.try_recv().unwrap();
        assert_eq!((seen.number, seen.change.id.as_str()), (7001, "b"));
        let again = changes.listen(Some(7001));
        assert_eq!((again.reset, ids(&again)), (false, vec!["c"]));
        let all = changes.listen(Some(7002));
        assert_eq!((all.reset, all.missed.len()), (false, 0));
    }

    #[test]
    fn whoever_was_away_too_long_or_comes_from_another_start_begins_anew() {
        let changes = Changes::new(Timestamp(7));
        for number in 0..=CHANGES_KEPT {
            // Not so fast that they are told together.
            let at = Timestamp(1000 * number as u64);
            changes.tell(Change { at, ..change(&number.to_string()) });
        }
        assert!(!changes.listen(Some(7000)).reset);
        assert_eq!(changes.listen(Some(7000)).missed.len(), CHANGES_KEPT);
        for last in [0, 6_999, u64::MAX, 9_000_000] {
            let listening = changes.listen(Some(last));
            assert!(listening.reset && listening.missed.is_empty(), "{last}");
        }
    }

    #[test]
    fn a_whole_fleet_that_changes_at_once_is_told_of_in_one_word() {
        let changes = Changes::new(Timestamp(0));
        for _ in 0..10_000 {
            changes.tell(change("a"));
        }
        changes.tell(Change { kind: ChangeKind::Rollout, ..change("r") });
        let told: Vec<_> = changes.kept().newest.iter().map(|told| told.change.clone()).collect();
        assert_eq!(told.len() as u64, CHANGES_PER_KIND_BURST + 2);
        assert_eq!(told[told.len() - 2].id, MANY);
        assert_eq!(told[told.len() - 1].id, "r");
    }
}
