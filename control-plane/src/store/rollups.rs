//! Roll-ups: merged as records are taken apart, read for questions, and gone when their time is over.

use super::{Error, Reader, Result, Store, many, time};
use control_core::rollup::{Key, Period, Span, Stats};
use shared::{DeviceId, ModelVersionId, SlotName, Timestamp};
use sqlx::{Any, Row, Transaction, any::AnyRow};
use std::collections::{BTreeMap, HashMap};

/// Most roll-ups that one question reads.
pub const READ_MAX: usize = 400_000;
/// Rows that go in one statement.
const RETIRED_MAX: i64 = 20_000;

/// Which roll-ups a question is about.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Of these devices; none is the fleet as a whole.
    pub devices: Option<Vec<DeviceId>>,
    pub slot: Option<SlotName>,
    pub version: Option<ModelVersionId>,
}

/// A roll-up that a question is about.
#[derive(Debug)]
pub struct Found {
    pub at: Timestamp,
    /// Empty for the fleet.
    pub device: String,
    /// Empty where its records name none.
    pub version: String,
    pub stats: Stats,
}

fn stats(row: &AnyRow) -> Result<Stats> {
    let bytes: Vec<u8> = row.try_get("stats")?;
    Stats::decode(&bytes).map_err(|error| Error::Corrupt {
        table: "rollups",
        column: "stats".to_owned(),
        expected: "statistics",
        reason: error.to_string(),
    })
}

/// The part of a key that is not its time, as the table has it.
fn place(key: &Key) -> (String, String, String) {
    (
        key.device.as_ref().map_or(String::new(), |device| device.as_str().to_owned()),
        key.slot.as_ref().map_or(String::new(), |slot| slot.as_str().to_owned()),
        key.version.map_or(String::new(), |version| version.to_string()),
    )
}

/// A roll-up as it is to be written.
pub(super) struct Merged {
    period: Period,
    at: Timestamp,
    device: String,
    slot: String,
    version: String,
    stats: Vec<u8>,
}

/// Writes roll-ups in place of those that are there.
pub(super) async fn write(tx: &mut Transaction<'static, Any>, merged: &[Merged]) -> Result<()> {
    let insert = many::OverRows {
        head: "INSERT INTO rollups (period, at, device, slot, version, stats)",
        columns: 6,
        tail: "ON CONFLICT (period, at, device, slot, version) DO UPDATE SET stats = excluded.stats",
    };
    let statements = insert.statements(many::dialect(tx), merged, |query, row| {
        query
            .bind(i64::from(row.period.code()))
            .bind(time(row.at))
            .bind(row.device.as_str())
            .bind(row.slot.as_str())
            .bind(row.version.as_str())
            .bind(row.stats.clone())
    });
    many::run(tx, statements).await
}

impl Store {
    /// What roll-ups become by what is added to them, in the order of the table.
    pub(super) async fn merged_rollups(&self, increments: BTreeMap<Key, Stats>) -> Result<Vec<Merged>> {
        let mut merged = Vec::with_capacity(increments.len());
        let mut increments = increments.into_iter().peekable();
        // Keys are in the order of their times: those of one are together.
        while let Some((first, _)) = increments.peek() {
            let (period, at) = (first.period, first.at);
            let mut group: BTreeMap<(String, String, String), Stats> = BTreeMap::new();
            while let Some((key, stats)) = increments.next_if(|(key, _)| key.period == period && key.at == at)
            {
                group.entry(place(&key)).or_default().merge(&stats);
            }
            let devices: std::collections::BTreeSet<&str> =
                group.keys().map(|(device, ..)| device.as_str()).collect();
            let devices: Vec<&str> = devices.into_iter().collect();
            let mut there = HashMap::new();
            for part in devices.chunks(many::LIST_MAX) {
                for row in self.rollups_of(period, at, part).await? {
                    let stats = stats(&row)?;
                    let row = Reader::new("rollups", &row);
                    there.insert((row.text("device")?, row.text("slot")?, row.text("version")?), stats);
                }
            }
            merged.extend(group.into_iter().map(|(place, mut stats)| {
                if let Some(there) = there.get(&place) {
                    stats.merge(there);
                }
                let (device, slot, version) = place;
                Merged { period, at, device, slot, version, stats: stats.encode() }
            }));
        }
        Ok(merged)
    }

    async fn rollups_of(&self, period: Period, at: Timestamp, devices: &[&str]) -> Result<Vec<AnyRow>> {
        let sql = format!(
            "SELECT device, slot, version, stats FROM rollups WHERE period = $1 AND at = $2 AND {}",
            many::among(self.dialect(), "device", 3)
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(i64::from(period.code()))
            .bind(time(at))
            .bind(many::list(devices)?)
            .fetch_all(&self.readers)
            .await?;
        Ok(rows)
    }

    /// The roll-ups that answer a question, at most [`READ_MAX`] and one more; the caller sees by that whether it asks for
    /// too much.
    pub async fn rollups(&self, span: &Span, asked: &Asked) -> Result<Vec<Found>> {
        let fleet = [String::new()];
        let devices: Vec<&str> = match &asked.devices {
            Some(devices) => devices.iter().map(DeviceId::as_str).collect(),
            None => fleet.iter().map(String::as_str).collect(),
        };
        let starts: Vec<String> = span.starts().map(|at| at.0.to_string()).collect();
        let dialect = self.dialect();
        // One seek for each time and device where both are few; otherwise all of the range, of which the devices are picked.
        let few = starts.len().saturating_mul(devices.len()) <= READ_MAX;
        let times = match few {
            true => many::among_numbers(dialect, "at", 2),
            false => "at >= $2 AND at < $6".to_owned(),
        };
        let sql = format!(
            "SELECT at, device, version, stats FROM rollups WHERE period = $1 AND {times} AND {} \
             AND ($4 = '' OR slot = $4) AND ($5 = '' OR version = $5) LIMIT {}",
            many::among(dialect, "device", 3),
            READ_MAX + 1
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(i64::from(span.period.code()));
        let query = if few { query.bind(many::list(&starts)?) } else { query.bind(time(span.from)) };
        let query = query
            .bind(many::list(&devices)?)
            .bind(asked.slot.as_ref().map_or("", SlotName::as_str))
            .bind(asked.version.map_or(String::new(), |version| version.to_string()));
        let query = if few { query } else { query.bind(time(span.to)) };
        let rows = query.fetch_all(&self.readers).await?;
        rows.iter()
            .map(|row| {
                let stats = stats(row)?;
                let row = Reader::new("rollups", row);
                Ok(Found {
                    at: row.time("at")?,
                    device: row.text("device")?,
                    version: row.text("version")?,
                    stats,
                })
            })
            .collect()
    }

    /// Removes roll-ups of a period that begin before a time; gives whether there are more.
    pub async fn retire_rollups(&self, period: Period, before: Timestamp) -> Result<bool> {
        let mut tx = self.begin_as_leader().await?;
        let gone = sqlx::query(
            "DELETE FROM rollups WHERE period = $1 AND at < $2 AND at <= (SELECT max(l.at) FROM (SELECT at FROM rollups \
             WHERE period = $1 ORDER BY at LIMIT $3) AS l)",
        )
        .bind(i64::from(period.code()))
        .bind(time(before))
        .bind(RETIRED_MAX)
        .execute(&mut *tx)
        .await?
        .rows_affected();
        tx.commit().await?;
        Ok(gone > 0)
    }

    /// Removes records that were stored before a time, the oldest first and so many at a time; gives whether there are more.
    pub async fn retire_records(&self, before: Timestamp) -> Result<bool> {
        let mut tx = self.begin_as_leader().await?;
        let mut gone = 0;
        for (table, kind) in [("events", "events"), ("feedback", "feedback"), ("telemetry", "telemetry")] {
            let old =
                format!("number < (SELECT min(number) FROM {table}) + {RETIRED_MAX} AND stored_at < $1");
            let kept = format!(
                "UPDATE kept_records SET kept = kept - (SELECT count(*) FROM {table} t WHERE t.device = kept_records.device \
                 AND t.{old}) WHERE kind = $2 AND device IN (SELECT device FROM {table} WHERE {old})"
            );
            sqlx::query(sqlx::AssertSqlSafe(kept)).bind(time(before)).bind(kind).execute(&mut *tx).await?;
            let delete = format!("DELETE FROM {table} WHERE {old}");
            gone += sqlx::query(sqlx::AssertSqlSafe(delete))
                .bind(time(before))
                .execute(&mut *tx)
                .await?
                .rows_affected();
        }
        gone += sqlx::query(
            "DELETE FROM telemetry_ids WHERE id IN (SELECT id FROM telemetry_ids WHERE came_at < $1 \
             ORDER BY came_at LIMIT $2)",
        )
        .bind(time(before))
        .bind(RETIRED_MAX)
        .execute(&mut *tx)
        .await?
        .rows_affected();
        tx.commit().await?;
        Ok(gone > 0)
    }
}
