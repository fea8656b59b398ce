use super::*;
use proptest::prelude::*;

const START: Timestamp = Timestamp(1_000_000);

fn at(ms: u64) -> Timestamp {
    START.plus_ms(ms)
}

#[test]
fn a_server_asks_until_it_gets_the_lease_and_then_acts() {
    let mut server = Candidate::new(false, START);
    assert_eq!(server.poll_action(at(0)), Some(Action::Take));
    server.handle(Answer::Taken(None), at(0), at(5));
    assert_eq!(server.poll_action(at(5)), None);
    assert_eq!(server.poll_timeout(), at(5 + ASK_MS));
    assert_eq!(server.poll_action(at(5 + ASK_MS)), Some(Action::Take));
    server.handle(Answer::Taken(Some(7)), at(1005), at(1010));
    assert_eq!(server.poll_action(at(1010)), Some(Action::Begin { epoch: 7 }));
    assert_eq!((server.poll_action(at(1010)), server.epoch()), (None, Some(7)));
    assert_eq!(server.poll_action(at(1005 + RENEW_MS)), Some(Action::Renew { epoch: 7 }));
}

#[test]
fn a_holder_that_hears_nothing_ends_before_its_lease_does() {
    let mut server = Candidate::holding(false, 3, START);
    let mut now = at(RENEW_MS);
    loop {
        match server.poll_action(now) {
            Some(Action::Renew { .. }) => {
                let asked_at = now;
                now = now.plus_ms(ANSWER_MS_MAX);
                server.handle(Answer::None, asked_at, now);
            }
            Some(Action::End(end)) => {
                assert_eq!(end, End::Silence);
                break;
            }
            other => {
                assert_eq!(other, None);
                now = server.poll_timeout();
            }
        }
    }
    assert!(now < at(LEASE_MS), "{now:?}");
    assert_eq!(server.epoch(), None);
}

#[test]
fn one_that_cannot_begin_again_goes_on_through_silence_and_ends_only_where_another_has_the_lease() {
    let mut server = Candidate::holding(true, 3, START);
    for turn in 1..100 {
        let now = at(turn * LEASE_MS);
        assert_eq!(server.poll_action(now), Some(Action::Renew { epoch: 3 }));
        server.handle(Answer::None, now, now);
    }
    server.handle(Answer::Renewed(true), at(100 * LEASE_MS), at(100 * LEASE_MS));
    assert_eq!(server.poll_action(at(100 * LEASE_MS)), None);
    server.handle(Answer::Renewed(false), at(101 * LEASE_MS), at(101 * LEASE_MS));
    assert_eq!(server.poll_action(at(101 * LEASE_MS)), Some(Action::End(End::Deposed)));
}

/// The lease as the database keeps it.
#[derive(Default)]
struct Lease {
    epoch: u64,
    expires_at: Option<Timestamp>,
}

impl Lease {
    fn answer(&mut self, action: Action, now: Timestamp) -> Answer {
        match action {
            Action::Take if self.expires_at.is_none_or(|at| at <= now) => {
                self.epoch += 1;
                self.expires_at = Some(now.plus_ms(LEASE_MS));
                Answer::Taken(Some(self.epoch))
            }
            Action::Take => Answer::Taken(None),
            Action::Renew { epoch } if epoch == self.epoch => {
                self.expires_at = Some(now.plus_ms(LEASE_MS));
                Answer::Renewed(true)
            }
            Action::Renew { .. } => Answer::Renewed(false),
            Action::Begin { .. } | Action::End(_) => Answer::None,
        }
    }
}

/// What becomes of one question.
#[derive(Clone, Copy, Debug)]
struct Fate {
    /// Until the database sees it.
    there_ms: u64,
    /// And until its answer is back.
    back_ms: u64,
    /// The question or the answer is lost.
    lost: Option<bool>,
}

fn fate() -> impl Strategy<Value = Fate> {
    let lost = prop_oneof![6 => Just(None), 1 => Just(Some(false)), 1 => Just(Some(true))];
    (0..ANSWER_MS_MAX / 2, 0..ANSWER_MS_MAX / 2, lost).prop_map(|(there_ms, back_ms, lost)| Fate {
        there_ms,
        back_ms,
        lost,
    })
}

/// A question on its way.
struct Asked {
    action: Action,
    at: Timestamp,
    fate: Fate,
    answer: Option<Answer>,
}

struct Server {
    candidate: Candidate,
    asked: Option<Asked>,
    acts: bool,
}

proptest! {
    #[test]
    fn two_servers_never_act_at_once_and_one_acts_again_soon_after_trouble(
        fates in prop::collection::vec(fate(), 1..200),
    ) {
        let mut lease = Lease::default();
        let mut servers = [START, at(300)].map(|now| Server {
            candidate: Candidate::new(false, now),
            asked: None,
            acts: false,
        });
        let mut fates = fates.into_iter();
        let well = Fate { there_ms: 1, back_ms: 1, lost: None };
        let (mut now, mut quiet_since) = (START, None);
        loop {
            for server in &mut servers {
                if let Some(asked) = &mut server.asked {
                    let Fate { there_ms, back_ms, lost } = asked.fate;
                    if asked.answer.is_none() && lost != Some(false) && now >= asked.at.plus_ms(there_ms) {
                        asked.answer = Some(lease.answer(asked.action, now));
                    }
                    let heard = lost.is_none() && now >= asked.at.plus_ms(there_ms + back_ms);
                    if heard || now >= asked.at.plus_ms(ANSWER_MS_MAX) {
                        let answer = asked.answer.filter(|_| heard).unwrap_or(Answer::None);
                        server.candidate.handle(answer, asked.at, now);
                        server.asked = None;
                    }
                }
                while server.asked.is_none() {
                    match server.candidate.poll_action(now) {
                        Some(Action::Begin { .. }) => server.acts = true,
                        Some(Action::End(_)) => server.acts = false,
                        Some(action @ (Action::Take | Action::Renew { .. })) => {
                            let fate = fates.next();
                            if fate.is_none() {
                                quiet_since.get_or_insert(now);
                            }
                            server.asked = Some(Asked { action, at: now, fate: fate.unwrap_or(well), answer: None });
                        }
                        None => break,
                    }
                }
            }
            let acting = servers.iter().filter(|server| server.acts).count();
            prop_assert!(acting <= 1, "two act at {now:?}");
            if let Some(since) = quiet_since
                && now.since_ms(since) > 2 * LEASE_MS
            {
                prop_assert!(acting == 1, "nobody acts at {now:?}");
                break;
            }
            now = now.plus_ms(10);
        }
    }
}
