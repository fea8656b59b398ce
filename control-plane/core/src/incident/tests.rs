use super::*;
use proptest::prelude::*;
use shared::{JobId, RolloutId};

const NOW: Timestamp = Timestamp(1_790_000_000_000);
const HOUR_MS: u64 = 60 * 60 * 1000;

fn stopped() -> StoppedRollout {
    StoppedRollout {
        id: RolloutId(Uuid::from_u128(1)),
        version: "mnist@v1.1".to_owned(),
        at: NOW,
        reason: "agreement 0.1, at least 0.9".to_owned(),
        failed: 1,
    }
}

/// Everything was looked at, and nothing is wrong.
fn well() -> Facts {
    Facts {
        stopped: Some(Vec::new()),
        presence: Some(Presence { total: 10, lost: 0, such_as: Vec::new(), open: false }),
        rolled_back: Some(Vec::new()),
        refused: Some(Vec::new()),
        failed_jobs: Some(Vec::new()),
        disk: Some(Disk { free_bytes: 1 << 40, total_bytes: 1 << 41 }),
        database: Some(Outage::default()),
        broker: Some(Outage::default()),
    }
}

/// What is kept of incidents, as the store keeps it.
#[derive(Default)]
struct Desk {
    known: Vec<Incident>,
    next: u128,
}

impl Desk {
    fn look(&mut self, facts: &Facts, now: Timestamp) -> Vec<Change> {
        let next = &mut self.next;
        let changes = decide(findings(facts, now), &self.known, now, || {
            *next += 1;
            Uuid::from_u128(*next)
        });
        for change in &changes {
            match change {
                Change::Opened(incident) => self.known.push(incident.clone()),
                Change::Updated(incident) => {
                    let at = self.known.iter().position(|known| known.id == incident.id).unwrap();
                    self.known[at] = incident.clone();
                }
                Change::Resolved(incident) => self.known.retain(|known| known.id != incident.id),
                Change::Unmuted(id) => self.known.retain(|known| known.id != *id),
            }
        }
        changes
    }

    fn open(&self) -> Vec<&Incident> {
        self.known.iter().filter(|incident| incident.resolved_at.is_none()).collect()
    }

    fn close_first(&mut self, now: Timestamp) {
        self.known[0] = self.known[0].resolved("kim", now).unwrap();
    }
}

#[test]
fn a_stopped_rollout_is_one_incident_until_another_takes_its_place() {
    let mut desk = Desk::default();
    let facts = Facts { stopped: Some(vec![stopped()]), ..well() };
    assert!(matches!(&desk.look(&facts, NOW)[..], [Change::Opened(_)]));
    assert_eq!(desk.look(&facts, NOW.plus_ms(1)), []);
    let incident = desk.open()[0].clone();
    assert_eq!(
        (incident.severity, incident.evidence[0].text.as_str()),
        (Severity::Critical, "agreement 0.1, at least 0.9")
    );
    let changes = desk.look(&well(), NOW.plus_ms(2));
    let [Change::Resolved(closed)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((closed.id, closed.resolved_at), (incident.id, Some(NOW.plus_ms(2))));
}

#[test]
fn what_an_operator_closed_stays_closed_until_it_happens_anew() {
    let mut desk = Desk::default();
    let job = |at| {
        let job = FailedJob { id: JobId(Uuid::from_u128(3)), model: "mnist".into(), at, error: "no".into() };
        Facts { failed_jobs: Some(vec![job]), ..well() }
    };
    desk.look(&job(NOW), NOW);
    desk.close_first(NOW.plus_ms(10));
    assert_eq!(desk.look(&job(NOW), NOW.plus_ms(20)), []);
    let changes = desk.look(&job(NOW.plus_ms(15)), NOW.plus_ms(30));
    assert!(matches!(&changes[..], [Change::Unmuted(_), Change::Opened(_)]), "{changes:?}");
    assert_eq!(desk.open().len(), 1);
}

#[test]
fn a_state_that_an_operator_closed_is_told_again_after_it_was_gone() {
    let mut desk = Desk::default();
    let full = Facts { disk: Some(Disk { free_bytes: 1 << 20, total_bytes: 1 << 40 }), ..well() };
    desk.look(&full, NOW);
    desk.close_first(NOW);
    assert_eq!(desk.look(&full, NOW.plus_ms(1)), []);
    assert!(matches!(&desk.look(&well(), NOW.plus_ms(2))[..], [Change::Unmuted(_)]));
    assert!(matches!(&desk.look(&full, NOW.plus_ms(3))[..], [Change::Opened(_)]));
}

#[test]
fn what_could_not_be_looked_at_stays_as_it_is() {
    let mut desk = Desk::default();
    let offline = |lost, open| Facts {
        presence: Some(Presence { total: 10, lost, such_as: vec!["cam-01".parse().unwrap()], open }),
        ..well()
    };
    assert_eq!(desk.look(&offline(1, false), NOW), []);
    assert_eq!(desk.look(&offline(2, false), NOW), [], "two devices are no fleet");
    desk.look(&offline(3, false), NOW);
    let blind = Facts { presence: None, ..well() };
    assert_eq!(desk.look(&blind, NOW.plus_ms(1)), []);
    let changes = desk.look(&offline(6, true), NOW.plus_ms(2));
    let [Change::Updated(incident)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((incident.severity, incident.count), (Severity::Critical, 6));
    assert_eq!(desk.look(&offline(6, true), NOW.plus_ms(3)), []);
    desk.look(&offline(1, true), NOW.plus_ms(4));
    assert_eq!(desk.open().len(), 1, "one in ten is still half of what opens it");
    desk.look(&offline(0, true), NOW.plus_ms(5));
    assert!(desk.open().is_empty());
}

#[test]
fn mistakes_are_no_attack_and_a_short_outage_is_no_incident() {
    let mut desk = Desk::default();
    let facts = |count, since| Facts {
        refused: Some(vec![Refused {
            kind: "foreign_topic".into(),
            count,
            last_subject: "cam-01".into(),
            last_at: NOW,
        }]),
        database: Some(Outage { since: Some((since, "connection refused".into())) }),
        ..well()
    };
    assert_eq!(desk.look(&facts(99, NOW), NOW.plus_ms(29_999)), []);
    let changes = desk.look(&facts(100, NOW), NOW.plus_ms(30_000));
    assert_eq!(changes.len(), 2, "{changes:?}");
}

#[test]
fn a_version_that_is_left_alone_for_an_hour_is_over() {
    let mut desk = Desk::default();
    let facts = |devices, last_at| {
        let back = RolledBack {
            version: "mnist@v1.1".into(),
            devices,
            last_device: "cam-02".parse().unwrap(),
            last_at,
        };
        Facts { rolled_back: Some(vec![back]), ..well() }
    };
    desk.look(&facts(1, NOW), NOW);
    desk.look(&facts(2, NOW.plus_ms(5)), NOW.plus_ms(5));
    assert_eq!(desk.open()[0].title, "2 devices went back from mnist@v1.1");
    desk.look(&facts(2, NOW.plus_ms(5)), NOW.plus_ms(6 + HOUR_MS));
    assert!(desk.open().is_empty());
}

#[test]
fn acknowledging_twice_and_closing_what_is_closed_change_nothing() {
    let mut desk = Desk::default();
    desk.look(&Facts { stopped: Some(vec![stopped()]), ..well() }, NOW);
    let incident = desk.known[0].acknowledged("kim", NOW).unwrap();
    assert_eq!(incident.acknowledged("kim", NOW), None);
    let closed = incident.resolved("kim", NOW).unwrap();
    assert_eq!((closed.resolved("kim", NOW), closed.acknowledged("kim", NOW)), (None, None));
}

proptest! {
    #[test]
    fn of_a_kind_and_subject_one_is_open_and_evidence_is_bounded(
        looks in prop::collection::vec((0u64..8, 0u64..200, any::<bool>(), any::<bool>()), 1..60),
    ) {
        let mut desk = Desk::default();
        for (at, (lost, refused, there, close)) in looks.into_iter().enumerate() {
            let now = NOW.plus_ms(at as u64);
            let open = desk.open().iter().any(|incident| incident.kind == Kind::DevicesOffline);
            let facts = Facts {
                stopped: Some(there.then(stopped).into_iter().collect()),
                presence: Some(Presence { total: 10, lost, such_as: Vec::new(), open }),
                refused: there.then(|| vec![Refused {
                    kind: "x".into(), count: refused, last_subject: refused.to_string(), last_at: now,
                }]),
                ..well()
            };
            desk.look(&facts, now);
            let mut seen = BTreeSet::new();
            for incident in desk.open() {
                prop_assert!(seen.insert((incident.kind, incident.subject.clone())));
                prop_assert!(incident.evidence.len() <= EVIDENCE_MAX);
            }
            if close && !desk.open().is_empty() {
                let at = desk.known.iter().position(|incident| incident.resolved_at.is_none()).unwrap();
                desk.known[at] = desk.known[at].resolved("kim", now).unwrap();
            }
        }
    }
}
