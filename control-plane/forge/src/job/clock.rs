//! Measures a stage over restarts, and says when something is due.

use std::time::{Duration, Instant};

/// Time between progress reports.
const REPORT_EVERY: Duration = Duration::from_millis(250);

pub(super) struct Clock {
    start: Instant,
    before: f64,
    every: Duration,
    saved: Instant,
    reported: Option<Instant>,
}

impl Clock {
    /// A stage that has taken `before` seconds in earlier runs, with a checkpoint `every` so often.
    pub(super) fn start(before: f64, every: Duration) -> Self {
        let now = Instant::now();
        Self { start: now, before, every, saved: now, reported: None }
    }

    /// Seconds of the stage so far, earlier runs included.
    pub(super) fn seconds(&self) -> f64 {
        self.before + self.start.elapsed().as_secs_f64()
    }

    /// Whether it is time to report.
    pub(super) fn due_for_report(&mut self) -> bool {
        let due = self.reported.is_none_or(|last| last.elapsed() >= REPORT_EVERY);
        if due {
            self.reported = Some(Instant::now());
        }
        due
    }

    /// Whether it is time for a checkpoint.
    pub(super) fn due_for_checkpoint(&mut self) -> bool {
        let due = self.saved.elapsed() >= self.every;
        if due {
            self.saved = Instant::now();
        }
        due
    }
}
