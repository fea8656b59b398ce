//! What was refused: counted at once, in the store a second later at the latest.

use super::{App, chain, now};
use control_core::refusals::Refusals;
use std::{
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

/// How often what was refused goes into the store.
const FLUSH_PERIOD: Duration = Duration::from_secs(1);

impl App {
    /// Notes that something was refused; says so in the log once until it is in the store.
    pub(super) fn note_refusal(&self, subject: &str, kind: &'static str, detail: &str) {
        if self.refusals().add(subject, kind, detail, now()) {
            tracing::warn!("refused {kind} of {subject:?}: {detail:?}");
        }
    }

    /// Puts what was refused into the store.
    pub(super) async fn flush_refusals(&self) {
        let taken = self.refusals().take();
        let events = taken.events();
        if events.is_empty() {
            return;
        }
        if let Err(error) = self.store.add_security_events(&events).await {
            tracing::error!("{} security events are not on record yet: {}", events.len(), chain(&error));
            self.refusals().put_back(taken);
        }
    }

    /// Keeps what is refused until the application stops.
    pub async fn run_refusals(self: Arc<Self>) {
        while !self.is_stopping() {
            self.flush_refusals().await;
            tokio::select! {
                () = tokio::time::sleep(FLUSH_PERIOD) => {}
                () = self.stopped() => {}
            }
        }
    }

    /// Counting does not panic, so what the lock guards is whole.
    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
