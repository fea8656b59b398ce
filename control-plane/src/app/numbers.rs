//! What the application keeps to count and to measure, in one place.

use super::{intake::Intake, now, overview::Seen, traffic::Traffic};
use crate::store::Store;
use control_core::clock::SteadyClock;
use shared::Timestamp;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

/// The setting that the believed time is noted under.
const CLOCK: &str = "steady_clock";

/// The server's clock as it is believed.
#[derive(Debug)]
pub(super) struct Clock {
    began: Instant,
    steady: Mutex<SteadyClock>,
}

impl Clock {
    fn new() -> Self {
        Self { began: Instant::now(), steady: Mutex::new(SteadyClock::new(None, now(), 0)) }
    }

    /// Milliseconds since it began, whatever the wall clock does.
    pub(super) fn passed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The time.
    pub(super) fn now(&self) -> Timestamp {
        let passed_ms = self.passed_ms();
        self.steady.lock().unwrap_or_else(PoisonError::into_inner).read(now(), passed_ms)
    }

    fn restore(&self, saved: Option<Timestamp>) {
        let restored = SteadyClock::new(saved, now(), self.passed_ms());
        if restored.is_stray() {
            tracing::warn!(
                "the clock of this machine is not near the time that was noted last; it is not believed yet"
            );
        }
        *self.steady.lock().unwrap_or_else(PoisonError::into_inner) = restored;
    }
}

/// Everything that is counted and measured.
#[derive(Debug)]
pub(super) struct Numbers {
    pub(super) clock: Arc<Clock>,
    pub(super) intake: Intake,
    pub(super) traffic: Traffic,
    /// What was seen of the fleet last.
    pub(super) seen: Seen,
}

impl Numbers {
    pub(super) fn new(store: &Store) -> Self {
        let clock = Arc::new(Clock::new());
        let intake = Intake::new(store.clone(), Arc::clone(&clock));
        Self { clock, intake, traffic: Traffic::default(), seen: Seen::default() }
    }

    /// Takes up the time that was noted last.
    pub(super) async fn restore_clock(&self, store: &Store) -> crate::store::Result<()> {
        self.clock.restore(store.setting(CLOCK).await?);
        Ok(())
    }

    /// Notes the time that is believed.
    pub(super) async fn note_clock(&self, store: &Store) -> crate::store::Result<()> {
        store.set_setting(CLOCK, &self.clock.now()).await
    }
}
