//! What incidents are decided by, and what an overview shows.

use super::{Reader, Result, Store, number};
use control_core::{
    incident::{
        FailedJob, LOST_WITHIN_MS, Presence, REFUSED_WITHIN_MS, Refused, RolledBack, STOPPED_WITHIN_MS,
        StoppedRollout,
    },
    rollout::Status,
};
use shared::{Timestamp, VersionLabel};

/// Things of one kind that are looked at.
const EACH_MAX: i64 = 100;
/// Devices that are named as an example.
const SUCH_AS_MAX: i64 = 5;
/// Devices that went back from a version are counted over this.
const ROLLED_BACK_WITHIN_MS: u64 = 24 * 60 * 60 * 1000;
/// Jobs that failed are looked at for so long.
const FAILED_WITHIN_MS: u64 = 24 * 60 * 60 * 1000;

/// Devices of a kind of board.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct OfBoard {
    pub board: String,
    pub devices: u64,
}

/// Devices that shall run a version in a slot.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct OfVersion {
    /// As in `mnist@v1.0`.
    pub version: String,
    pub slot: String,
    pub devices: u64,
}

fn since(now: Timestamp, ms: u64) -> i64 {
    number(now.0.saturating_sub(ms))
}

fn version_name(row: &Reader<'_>) -> Result<String> {
    let label = VersionLabel { major: row.small("major")?, minor: row.small("minor")? };
    Ok(format!("{}@{label}", row.text("model")?))
}

impl Store {
    /// Rollouts that were stopped, without those that a newer completed one of the same model, board and slot followed.
    pub async fn stopped_rollouts(&self, now: Timestamp) -> Result<Vec<StoppedRollout>> {
        let rows = sqlx::query(
            "SELECT r.id, r.status, r.finished_at, v.model, v.major, v.minor, (SELECT count(*) FROM rollout_members m \
             WHERE m.rollout = r.id AND m.state = 'failed') AS failed \
             FROM rollouts r JOIN versions v ON v.id = r.version \
             WHERE r.state = 'stopped' AND r.finished_at >= $1 AND NOT EXISTS (SELECT 1 FROM rollouts n \
             JOIN versions w ON w.id = n.version WHERE n.state = 'completed' AND n.created_at > r.created_at \
             AND w.model = v.model AND w.board = v.board AND n.slot = r.slot) ORDER BY r.id DESC LIMIT $2",
        )
        .bind(since(now, STOPPED_WITHIN_MS))
        .bind(EACH_MAX)
        .fetch_all(&self.readers)
        .await?;
        Reader::each("rollouts", &rows, |row| {
            let status: Status = row.json("status", "status")?;
            Ok(StoppedRollout {
                id: row.parse("id", "rollout id")?,
                version: version_name(&row)?,
                at: row.time("finished_at")?,
                reason: status.reason,
                failed: row.number("failed")?,
            })
        })
    }

    /// Who is there, where an incident about that is open since a time or none is.
    pub async fn presence(&self, now: Timestamp, open_since: Option<Timestamp>) -> Result<Presence> {
        let seen_since = since(open_since.unwrap_or(now), LOST_WITHIN_MS);
        let row = sqlx::query(
            "SELECT count(*) AS total, coalesce(sum(CASE WHEN online = 0 AND seen_at >= $1 THEN 1 ELSE 0 END), 0) AS lost \
             FROM devices WHERE revoked_at IS NULL AND seen_at IS NOT NULL",
        )
        .bind(seen_since)
        .fetch_one(&self.readers)
        .await?;
        let row = Reader::new("devices", &row);
        let (total, lost) = (row.number("total")?, row.number("lost")?);
        let rows = sqlx::query(
            "SELECT id FROM devices WHERE revoked_at IS NULL AND online = 0 AND seen_at >= $1 ORDER BY id LIMIT $2",
        )
        .bind(seen_since)
        .bind(SUCH_AS_MAX)
        .fetch_all(&self.readers)
        .await?;
        let name = |row| Reader::new("devices", row).parse("id", "device id");
        let such_as = rows.iter().map(name).collect::<Result<_>>()?;
        Ok(Presence { total, lost, such_as, open: open_since.is_some() })
    }

    /// Versions that devices went back from, by the clock that does not jump.
    pub async fn rolled_back(&self, steady: Timestamp) -> Result<Vec<RolledBack>> {
        let rows = sqlx::query(
            "SELECT e.bundle, v.model, v.major, v.minor, count(DISTINCT e.device) AS devices, max(e.stored_at) AS last_at, \
             max(e.device) AS last_device FROM events e LEFT JOIN versions v ON v.bundle = e.bundle \
             WHERE e.kind = 'rolled_back' AND e.stored_at >= $1 AND e.bundle IS NOT NULL \
             GROUP BY e.bundle, v.model, v.major, v.minor ORDER BY last_at DESC LIMIT $2",
        )
        .bind(since(steady, ROLLED_BACK_WITHIN_MS))
        .bind(EACH_MAX)
        .fetch_all(&self.readers)
        .await?;
        Reader::each("events", &rows, |row| {
            let version = match row.text_option("model")? {
                Some(_) => version_name(&row)?,
                None => row.text("bundle")?,
            };
            Ok(RolledBack {
                version,
                devices: row.number("devices")?,
                last_device: row.parse("last_device", "device id")?,
                last_at: row.time("last_at")?,
            })
        })
    }

    /// What was refused lately, by kind.
    pub async fn refused_lately(&self, now: Timestamp) -> Result<Vec<Refused>> {
        let rows = sqlx::query(
            "SELECT kind, CAST(sum(count) AS BIGINT) AS count, max(at) AS last_at, max(subject) AS last_subject \
             FROM security_events WHERE at >= $1 GROUP BY kind LIMIT $2",
        )
        .bind(since(now, REFUSED_WITHIN_MS))
        .bind(EACH_MAX)
        .fetch_all(&self.readers)
        .await?;
        Reader::each("security_events", &rows, |row| {
            Ok(Refused {
                kind: row.text("kind")?,
                count: row.number("count")?,
                last_subject: row.text("last_subject")?,
                last_at: row.time("last_at")?,
            })
        })
    }

    /// Jobs that failed lately.
    pub async fn failed_jobs(&self, now: Timestamp) -> Result<Vec<FailedJob>> {
        let rows = sqlx::query(
            "SELECT id, model, finished_at, error FROM jobs WHERE state = 'failed' AND finished_at >= $1 \
             ORDER BY id DESC LIMIT $2",
        )
        .bind(since(now, FAILED_WITHIN_MS))
        .bind(EACH_MAX)
        .fetch_all(&self.readers)
        .await?;
        Reader::each("jobs", &rows, |row| {
            Ok(FailedJob {
                id: row.parse("id", "job id")?,
                model: row.text("model")?,
                at: row.time("finished_at")?,
                error: row.text_option("error")?.unwrap_or_default(),
            })
        })
    }

    /// Devices by board, without those that were revoked.
    pub async fn devices_by_board(&self) -> Result<Vec<OfBoard>> {
        let rows = sqlx::query(
            "SELECT board, count(*) AS devices FROM devices WHERE revoked_at IS NULL GROUP BY board ORDER BY board",
        )
        .fetch_all(&self.readers)
        .await?;
        Reader::each("devices", &rows, |row| {
            Ok(OfBoard { board: row.text("board")?, devices: row.number("devices")? })
        })
    }

    /// Devices by what they shall run, without those that were revoked; what most have comes first.
    pub async fn devices_by_version(&self) -> Result<Vec<OfVersion>> {
        let rows = sqlx::query(
            "SELECT v.model, v.major, v.minor, s.slot, count(*) AS devices FROM device_slots s \
             JOIN devices d ON d.id = s.device JOIN versions v ON v.id = s.version WHERE d.revoked_at IS NULL \
             GROUP BY v.model, v.major, v.minor, s.slot ORDER BY devices DESC, v.model, v.major, v.minor, s.slot LIMIT $1",
        )
        .bind(EACH_MAX)
        .fetch_all(&self.readers)
        .await?;
        Reader::each("device_slots", &rows, |row| {
            Ok(OfVersion {
                version: version_name(&row)?,
                slot: row.text("slot")?,
                devices: row.number("devices")?,
            })
        })
    }

    /// Devices that were revoked.
    pub async fn count_revoked(&self) -> Result<u64> {
        let row = sqlx::query("SELECT count(*) AS number FROM devices WHERE revoked_at IS NOT NULL")
            .fetch_one(&self.readers)
            .await?;
        Reader::new("devices", &row).number("number")
    }

    /// Jobs that run, and those that wait.
    pub async fn count_jobs(&self) -> Result<(u64, u64)> {
        let row = sqlx::query(
            "SELECT coalesce(sum(CASE WHEN state = 'running' THEN 1 ELSE 0 END), 0) AS running, \
             coalesce(sum(CASE WHEN state = 'queued' THEN 1 ELSE 0 END), 0) AS queued FROM jobs \
             WHERE state IN ('running', 'queued')",
        )
        .fetch_one(&self.readers)
        .await?;
        let row = Reader::new("jobs", &row);
        Ok((row.number("running")?, row.number("queued")?))
    }

    /// Of an open rollout, members by state.
    pub async fn members_by_state(
        &self,
        id: shared::RolloutId,
    ) -> Result<std::collections::BTreeMap<String, u64>> {
        let rows = sqlx::query(
            "SELECT state, count(*) AS devices FROM rollout_members WHERE rollout = $1 GROUP BY state ORDER BY state",
        )
        .bind(id.to_string())
        .fetch_all(&self.readers)
        .await?;
        Reader::each("rollout_members", &rows, |row| Ok((row.text("state")?, row.number("devices")?)))
    }

    /// Open rollouts with their version, state, wave and number of waves.
    pub async fn open_rollouts_at_a_glance(&self) -> Result<Vec<(shared::RolloutId, String, Status, u64)>> {
        let rows = sqlx::query(
            "SELECT r.id, r.status, r.policy, v.model, v.major, v.minor FROM rollouts r JOIN versions v ON v.id = r.version \
             WHERE r.state IN ('running', 'paused') ORDER BY r.id DESC LIMIT $1",
        )
        .bind(EACH_MAX)
        .fetch_all(&self.readers)
        .await?;
        Reader::each("rollouts", &rows, |row| {
            let policy: control_core::rollout::Policy = row.json("policy", "policy")?;
            let status = row.json("status", "status")?;
            Ok((row.parse("id", "rollout id")?, version_name(&row)?, status, policy.waves.len() as u64))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{testing::stores, tests as fixtures};
    use shared::wire::{Batch, Event, EventKind};
    use uuid::Uuid;

    const NOW: Timestamp = Timestamp(1_790_000_000_000);

    #[tokio::test]
    async fn an_empty_fleet_has_nothing_to_tell_on_either_database() {
        for (_folder, store) in stores().await {
            assert!(store.stopped_rollouts(NOW).await.unwrap().is_empty());
            let presence = store.presence(NOW, None).await.unwrap();
            assert_eq!((presence.total, presence.lost, presence.open), (0, 0, false));
            assert!(store.rolled_back(NOW).await.unwrap().is_empty());
            assert!(store.refused_lately(NOW).await.unwrap().is_empty());
            assert!(store.failed_jobs(NOW).await.unwrap().is_empty());
            assert!(store.devices_by_board().await.unwrap().is_empty());
            assert!(store.devices_by_version().await.unwrap().is_empty());
            assert!(store.open_rollouts_at_a_glance().await.unwrap().is_empty());
            assert_eq!(
                (store.count_revoked().await.unwrap(), store.count_jobs().await.unwrap()),
                (0, (0, 0))
            );
        }
    }

    #[tokio::test]
    async fn devices_that_went_back_are_counted_by_the_version_that_they_went_back_from() {
        for (_folder, store) in stores().await {
            let version = fixtures::version(&store, "v1.0", "bundle").await;
            for (number, device) in [(1, "cam-01"), (2, "cam-01"), (3, "cam-02")] {
                let event = Event {
                    id: Uuid::from_u128(number),
                    at: NOW,
                    slot: None,
                    bundle: Some(version.bundle),
                    kind: EventKind::RolledBack,
                    detail: String::new(),
                };
                let batch = Batch { device: fixtures::id(device), records: vec![event] };
                store.ingest_events(&batch, NOW).await.unwrap();
            }
            let found = store.rolled_back(NOW.plus_ms(1)).await.unwrap();
            assert_eq!(
                (found.len(), found[0].devices, found[0].version.as_str()),
                (1, 2, version.name.as_str())
            );
            let later = store.rolled_back(NOW.plus_ms(ROLLED_BACK_WITHIN_MS + 1)).await.unwrap();
            assert!(later.is_empty());
        }
    }

    #[tokio::test]
    async fn whoever_was_seen_lately_and_is_gone_is_lost() {
        for (_folder, store) in stores().await {
            for device in ["a", "b", "c"] {
                fixtures::enrol(&store, device).await;
            }
            let seen = |device: &'static str, online, at| {
                let store = &store;
                async move { store.set_online(&fixtures::id(device), online, Some(at)).await.unwrap() }
            };
            seen("a", true, NOW).await;
            seen("b", false, NOW).await;
            seen("c", false, Timestamp(NOW.0 - LOST_WITHIN_MS - 1)).await;
            let presence = store.presence(NOW, None).await.unwrap();
            assert_eq!((presence.total, presence.lost, presence.such_as), (3, 1, vec![fixtures::id("b")]));
            let open = store.presence(NOW, Some(Timestamp(NOW.0 - 1))).await.unwrap();
            assert_eq!((open.lost, open.open), (2, true));
        }
    }
}
