//! Deltas that were made: which blob leads from which file to which.

use super::{Reader, Result, Store, number, time};
use shared::{DeviceId, Digest, Timestamp, wire::DeltaRef};
use std::collections::BTreeMap;

/// Devices with the deltas that their assignments name.
pub type DeviceDeltas = BTreeMap<DeviceId, Vec<DeltaRef>>;

/// What came of making a delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    Delta(DeltaRef),
    /// The file itself is hardly larger.
    NotWorthIt,
}

impl Store {
    /// What came of making the delta from one file to another; `None` before that.
    pub async fn delta(&self, from: Digest, to: Digest) -> Result<Option<Made>> {
        let row = sqlx::query("SELECT delta, bytes FROM deltas WHERE from_digest = $1 AND to_digest = $2")
            .bind(from.to_string())
            .bind(to.to_string())
            .fetch_optional(&self.readers)
            .await?;
        let Some(row) = &row else { return Ok(None) };
        let row = Reader::new("deltas", row);
        let delta: Option<Digest> = row.parse_option("delta", "digest")?;
        Ok(Some(match (delta, row.number_option("bytes")?) {
            (Some(delta), Some(bytes)) => Made::Delta(DeltaRef { from, to, delta, bytes }),
            _ => Made::NotWorthIt,
        }))
    }

    /// Notes what came of making a delta; of two that were made for the same files the first counts.
    pub async fn add_delta(&self, from: Digest, to: Digest, made: Made, now: Timestamp) -> Result<()> {
        let delta = match made {
            Made::Delta(delta) => Some(delta),
            Made::NotWorthIt => None,
        };
        sqlx::query(
            "INSERT INTO deltas (from_digest, to_digest, delta, bytes, made_at) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT DO NOTHING",
        )
        .bind(from.to_string())
        .bind(to.to_string())
        .bind(delta.map(|delta| delta.delta.to_string()))
        .bind(delta.map(|delta| number(delta.bytes)))
        .bind(time(now))
        .execute(&self.writer)
        .await?;
        Ok(())
    }
}
