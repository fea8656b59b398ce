//! The fleet at a glance.

use super::{App, Result, intake::Taken, now};
use crate::store::{OfBoard, OfVersion};
use control_core::rollout::State;
use serde::{Deserialize, Serialize};
use shared::{RolloutId, Timestamp};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// An overview is shown again for so long.
const FRESH: Duration = Duration::from_secs(1);
/// The rate of records is taken over at least this.
const RATE_MS_MIN: u64 = 2_000;

/// The fleet at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Overview {
    pub devices: DevicesSeen,
    /// What devices shall run; what most have comes first.
    pub versions: Vec<OfVersion>,
    pub boards: Vec<OfBoard>,
    /// Those that are under way, the newest first.
    pub rollouts: Vec<RolloutSeen>,
    pub incidents: IncidentsSeen,
    pub jobs: JobsSeen,
    pub ingest: IngestSeen,
    pub at: Timestamp,
}

/// Devices by what is seen of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DevicesSeen {
    /// Those that are not revoked.
    pub total: u64,
    pub online: u64,
    pub offline: u64,
    pub revoked: u64,
}

/// A rollout that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RolloutSeen {
    pub id: RolloutId,
    /// As in `mnist@v1.0`.
    pub version: String,
    pub state: State,
    /// The newest open wave, from 0.
    pub wave: u32,
    pub waves: u64,
    /// Devices by where they are in it.
    pub counts: BTreeMap<String, u64>,
}

/// Incidents that are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct IncidentsSeen {
    pub open: u64,
    pub critical: u64,
}

/// Jobs that are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct JobsSeen {
    pub running: u64,
    pub queued: u64,
}

/// Records that were stored, and how many come in a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct IngestSeen {
    pub events: u64,
    pub feedback: u64,
    pub telemetry: u64,
    pub per_s: f64,
}

/// What was seen last.
#[derive(Debug, Default)]
pub(super) struct Seen {
    rate: Mutex<Rate>,
    overview: tokio::sync::Mutex<Option<(Instant, Overview)>>,
}

#[derive(Debug, Default)]
struct Rate {
    passed_ms: u64,
    records: u64,
    per_s: f64,
}

impl Seen {
    /// Notes what was taken in until a time.
    pub(super) fn note(&self, taken: &Taken, passed_ms: u64) {
        let records = taken.events + taken.feedback + taken.telemetry;
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed_ms = passed_ms.saturating_sub(rate.passed_ms);
        if elapsed_ms >= RATE_MS_MIN {
            let per_s = records.saturating_sub(rate.records) as f64 * 1000.0 / elapsed_ms as f64;
            *rate = Rate { passed_ms, records, per_s };
        }
    }

    fn per_s(&self) -> f64 {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).per_s
    }
}

impl App {
    /// The fleet at a glance, not older than a second.
    pub async fn overview(&self) -> Result<Overview> {
        let mut seen = self.numbers.seen.overview.lock().await;
        if let Some((at, overview)) = seen.as_ref()
            && at.elapsed() < FRESH
        {
            return Ok(overview.clone());
        }
        let overview = self.look_over().await?;
        *seen = Some((Instant::now(), overview.clone()));
        Ok(overview)
    }

    async fn look_over(&self) -> Result<Overview> {
        self.see_all().await;
        self.numbers.seen.note(&self.numbers.intake.taken(), self.numbers.clock.passed_ms());
        let (enrolled, online) = self.store.count_devices().await?;
        let revoked = self.store.count_revoked().await?;
        let total = enrolled.saturating_sub(revoked);
        let mut rollouts = Vec::new();
        for (id, version, status, waves) in self.store.open_rollouts_at_a_glance().await? {
            let counts = self.store.members_by_state(id).await?;
            rollouts.push(RolloutSeen { id, version, state: status.state, wave: status.wave, waves, counts });
        }
        let (open, critical) = self.store.count_incidents().await?;
        let (running, queued) = self.store.count_jobs().await?;
        let counts = self.store.ingest_counts().await?;
        Ok(Overview {
            devices: DevicesSeen { total, online, offline: total.saturating_sub(online), revoked },
            versions: self.store.devices_by_version().await?,
            boards: self.store.devices_by_board().await?,
            rollouts,
            incidents: IncidentsSeen { open, critical },
            jobs: JobsSeen { running, queued },
            ingest: IngestSeen {
                events: counts.events,
                feedback: counts.feedback,
                telemetry: counts.telemetry,
                per_s: self.numbers.seen.per_s(),
            },
            at: now(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::testing;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let seen = Seen::default();
        let taken = |telemetry| Taken { telemetry, ..Taken::default() };
        seen.note(&taken(100), 500);
        assert_eq!(seen.per_s(), 0.0, "half a second says nothing");
        seen.note(&taken(20_000), 2_000);
        assert_eq!(seen.per_s(), 10_000.0);
        seen.note(&taken(20_000), 12_000);
        assert_eq!(seen.per_s(), 0.0);
    }

    #[tokio::test]
    async fn a_revoked_device_is_counted_as_that_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let app = testing::app(folder.path(), "exit 1").await;
        for device in ["cam-01", "cam-02"] {
            testing::enrol(&app, device, "x86-64").await;
        }
        app.revoke_device(&"cam-02".parse().unwrap()).await.unwrap();
        let overview = app.overview().await.unwrap();
        assert_eq!(overview.devices, DevicesSeen { total: 1, online: 0, offline: 1, revoked: 1 });
        assert_eq!(overview.boards, [OfBoard { board: "x86-64".to_owned(), devices: 1 }]);
        assert_eq!((overview.incidents.open, overview.jobs.running), (0, 0));
    }
}
