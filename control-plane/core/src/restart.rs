//! Whether a killed worker is started again, and when.
//!
//! A worker that a signal ends (no memory, an operator, a power cut of its machine) goes on from its checkpoint. One
//! that is killed again and again at the same place is given up.

use shared::job::Stage;

/// Kills in a row without a step further, after which a job is given up.
const KILLS_MAX: u32 = 5;
/// The pause before the first new start; it doubles with each kill in a row.
const PAUSE_MS_FIRST: u64 = 1_000;

/// What follows a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Start it again after a pause.
    Again { after_ms: u64 },
    /// It gets no further.
    GiveUp { kills: u32 },
}

/// How far a job has come, and how often it was killed since.
#[derive(Clone, Copy, Debug, Default)]
pub struct Restarts {
    furthest: Option<(Stage, u64)>,
    kills: u32,
}

impl Restarts {
    /// Takes in that a worker was killed after it had told `reached`; none if it told nothing.
    pub fn killed(&mut self, reached: Option<(Stage, u64)>) -> Verdict {
        if reached > self.furthest {
            self.furthest = reached;
            self.kills = 0;
        }
        self.kills = self.kills.saturating_add(1);
        if self.kills >= KILLS_MAX {
            return Verdict::GiveUp { kills: self.kills };
        }
        Verdict::Again { after_ms: PAUSE_MS_FIRST << (self.kills - 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_gets_no_further_is_given_up_after_longer_and_longer_pauses() {
        let mut restarts = Restarts::default();
        let pauses: Vec<Verdict> = (0..KILLS_MAX).map(|_| restarts.killed(None)).collect();
        let again = |after_ms| Verdict::Again { after_ms };
        assert_eq!(
            pauses,
            [again(1000), again(2000), again(4000), again(8000), Verdict::GiveUp { kills: KILLS_MAX }]
        );
    }

    #[test]
    fn a_step_further_or_a_later_stage_counts_from_one_again() {
        let mut restarts = Restarts::default();
        for step in [Some((Stage::Search, 90)), Some((Stage::Search, 91)), Some((Stage::Train, 0))] {
            assert_eq!(restarts.killed(step), Verdict::Again { after_ms: PAUSE_MS_FIRST });
        }
        assert_eq!(restarts.killed(Some((Stage::Search, 100))), Verdict::Again { after_ms: 2000 });
        assert_eq!(restarts.killed(Some((Stage::Train, 0))), Verdict::Again { after_ms: 4000 });
    }
}
