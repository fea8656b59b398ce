//! What is beyond its time goes.

use super::{App, Result, chain, now};
use crate::store;
use control_core::{
    retention::{Horizon, Retention},
    rollup::Period,
};
use shared::Timestamp;
use std::{sync::Arc, time::Duration};

/// The setting that the horizon is kept under.
const HORIZON: &str = "retention_horizon";
/// How often it is looked, but for the first time, which is soon after a start.
const LOOK_PERIOD: Duration = Duration::from_secs(60 * 60);
const FIRST_LOOK: Duration = Duration::from_secs(60);
/// Between two parts that go: others want to write, too.
const BREATH: Duration = Duration::from_millis(50);
/// The audit log ages by the clock of the machine: only while that is no further from the horizon.
const ASTRAY_MS: u64 = 24 * 60 * 60 * 1000;

impl App {
    /// Has go what is beyond its time, until the application stops.
    pub async fn run_retention(self: Arc<Self>) {
        let (mut wait, mut looked_ms) = (FIRST_LOOK, self.numbers.clock.passed_ms());
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stopped() => return,
            }
            let passed_ms = self.numbers.clock.passed_ms();
            match self.retire(passed_ms.saturating_sub(looked_ms)).await {
                Ok(()) => looked_ms = passed_ms,
                Err(error) => tracing::error!("not all that is beyond its time is gone: {}", chain(&error)),
            }
            wait = LOOK_PERIOD;
        }
    }

    /// One look, `elapsed_ms` after the one before.
    async fn retire(&self, elapsed_ms: u64) -> Result<()> {
        let retention = self.retention().await?;
        let saved: Option<Horizon> = self.store.setting(HORIZON).await?;
        let horizon = Horizon::advanced(saved, self.numbers.clock.now(), elapsed_ms);
        self.store.set_setting(HORIZON, &horizon).await?;
        self.retire_by(&retention, horizon).await?;
        if astray_ms(now(), horizon) <= ASTRAY_MS {
            self.purge_access(retention.audit_days).await?;
        }
        Ok(())
    }

    async fn retire_by(&self, retention: &Retention, horizon: Horizon) -> store::Result<()> {
        while !self.is_stopping() && self.store.retire_records(retention.raw_before(horizon)).await? {
            tokio::time::sleep(BREATH).await;
        }
        for period in Period::ALL {
            let before = retention.rollups_before(period, horizon);
            while !self.is_stopping() && self.store.retire_rollups(period, before).await? {
                tokio::time::sleep(BREATH).await;
            }
        }
        self.store.retire_incidents(retention.rollups_before(Period::Day, horizon)).await
    }
}

fn astray_ms(now: Timestamp, horizon: Horizon) -> u64 {
    now.0.abs_diff(horizon.0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::testing;

    #[tokio::test]
    async fn the_horizon_is_kept_and_does_not_follow_a_clock_that_jumps() {
        let folder = tempfile::tempdir().unwrap();
        let app = testing::app(folder.path(), "exit 1").await;
        app.retire(0).await.unwrap();
        let first: Horizon = app.store.setting(HORIZON).await.unwrap().unwrap();
        assert!(astray_ms(now(), first) < ASTRAY_MS);
        // As after a start whose clock was years behind: the time goes on from there at most by what has passed.
        let behind = Horizon(Timestamp(first.0.0 - 365 * 24 * 60 * 60 * 1000));
        app.store.set_setting(HORIZON, &behind).await.unwrap();
        app.retire(1000).await.unwrap();
        let next: Horizon = app.store.setting(HORIZON).await.unwrap().unwrap();
        assert_eq!(next.0.since_ms(behind.0), 24_000);
    }
}
