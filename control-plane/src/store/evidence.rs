//! What devices and users said of versions, counted for the gates of a rollout.

use super::{Reader, Result, Store, number, time};
use control_core::{
    entity::Rollout,
    rollout::{Gate, Sample, Signal, Stored},
};
use shared::{DeviceId, RolloutId, Timestamp};
use sqlx::any::AnyRow;
use std::collections::HashMap;

/// One record counts at most so many requests: what a device claims must not be over what a sum can hold.
const REQUESTS_MAX: u64 = 1_000_000_000;

/// Requests and those that failed.
const FAILED: &str = "CAST(sum(CASE WHEN t.failed < $5 THEN t.failed ELSE $5 END) AS BIGINT) AS hits, \
                      CAST(sum(CASE WHEN t.requests < $5 THEN t.requests ELSE $5 END) AS BIGINT) AS total";
/// Windows and those that were slow.
const SLOW: &str = "CAST(sum(CASE WHEN t.latency_p99_us > $5 THEN 1 ELSE 0 END) AS BIGINT) AS hits, \
                    count(t.latency_p99_us) AS total";

impl Store {
    /// How often the agent of each member has started since the member committed.
    pub async fn agent_starts(&self, id: RolloutId) -> Result<HashMap<DeviceId, u64>> {
        let rows = sqlx::query(
            "SELECT m.device, count(*) AS starts FROM rollout_members m JOIN events e ON e.device = m.device \
             WHERE m.rollout = $1 AND m.state = 'committed' AND e.kind = 'agent_started' \
             AND e.received_at >= m.finished_at GROUP BY m.device",
        )
        .bind(id.to_string())
        .fetch_all(&self.readers)
        .await?;
        let read = |row: &AnyRow| {
            let row = Reader::new("events", row);
            Ok((row.parse("device", "device id")?, row.number("starts")?))
        };
        rows.iter().map(read).collect()
    }

    /// Windows of telemetry, for a gate on latency or on failed requests.
    pub async fn telemetry_evidence(&self, rollout: &Rollout, gate: &Gate) -> Result<Stored> {
        let (columns, bound) = match gate.signal {
            Signal::Latency => (SLOW, gate.p99_us_max.unwrap_or(u64::MAX)),
            _ => (FAILED, REQUESTS_MAX),
        };
        let of = |version: &str| {
            format!(
                "SELECT m.wave AS wave, {columns} FROM rollout_members m \
                 JOIN telemetry t ON t.device = m.device WHERE m.rollout = $1 AND t.version {version} $2 \
                 AND t.received_at >= $3 AND t.slot = $4 GROUP BY m.wave"
            )
        };
        let own = self.count(of("="), rollout, rollout.created_at, bound, None).await?;
        let before = match gate.worse_by_max {
            Some(_) => self.count(of("<>"), rollout, before(rollout, gate), bound, None).await?,
            None => Vec::new(),
        };
        Ok(stored(own, &before))
    }

    /// Impressions of requests, and those that users clicked, converted or corrected.
    pub async fn feedback_evidence(&self, rollout: &Rollout, gate: &Gate, now: Timestamp) -> Result<Stored> {
        let kind = match gate.signal {
            Signal::Ctr => "click",
            Signal::Conversion => "conversion",
            _ => "correction",
        };
        let of = |version: &str| {
            format!(
                "SELECT i.wave AS wave, count(*) AS total, CAST(sum(CASE WHEN EXISTS (SELECT 1 FROM feedback h \
                 WHERE h.device = i.device AND h.request = i.request AND h.version = i.version AND h.slot = $4 \
                 AND h.kind = $6) THEN 1 ELSE 0 END) AS BIGINT) AS hits \
                 FROM (SELECT DISTINCT m.wave AS wave, f.device, f.request, f.version \
                 FROM rollout_members m JOIN feedback f ON f.device = m.device \
                 WHERE m.rollout = $1 AND f.version {version} $2 AND f.kind = 'impression' \
                 AND f.request IS NOT NULL AND f.slot = $4 AND f.received_at >= $3 AND f.received_at <= $5) AS i \
                 GROUP BY i.wave"
            )
        };
        // An impression had its time to be clicked.
        let until = Timestamp(now.0.saturating_sub(gate.settle_ms()));
        let own = self.count(of("="), rollout, rollout.created_at, until.0, Some(kind)).await?;
        let before = match gate.worse_by_max {
            Some(_) => self.count(of("<>"), rollout, before(rollout, gate), until.0, Some(kind)).await?,
            None => Vec::new(),
        };
        Ok(stored(own, &before))
    }

    /// Runs a query that counts for each wave: of a rollout, a version, since a time, in a slot, with a bound of its own,
    /// and a kind of feedback where it takes one.
    async fn count(
        &self,
        sql: String,
        rollout: &Rollout,
        since: Timestamp,
        bound: u64,
        kind: Option<&str>,
    ) -> Result<Vec<(u32, Sample)>> {
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(rollout.id.to_string())
            .bind(rollout.version_id.to_string())
            .bind(time(since))
            .bind(rollout.slot.as_str())
            .bind(number(bound));
        if let Some(kind) = kind {
            query = query.bind(kind);
        }
        let rows = query.fetch_all(&self.readers).await?;
        rows.iter().map(sample).collect()
    }
}

/// Since when the version before is looked at.
fn before(rollout: &Rollout, gate: &Gate) -> Timestamp {
    Timestamp(rollout.created_at.0.saturating_sub(gate.before_ms()))
}

fn sample(row: &AnyRow) -> Result<(u32, Sample)> {
    let row = Reader::new("rollout_members", row);
    let hits = row.number_option("hits")?.unwrap_or_default();
    Ok((row.small("wave")?, Sample { hits, of: row.number("total")? }))
}

fn stored(own: Vec<(u32, Sample)>, before: &[(u32, Sample)]) -> Stored {
    let sum = |part: fn(&Sample) -> u64| before.iter().map(|(_, sample)| part(sample)).sum();
    let before = Sample { hits: sum(|sample| sample.hits), of: sum(|sample| sample.of) };
    Stored { waves: own.into_iter().collect(), before }
}

#[cfg(test)]
mod tests;
