//! Records from devices, each kept once however often it comes, and what was refused.
//!
//! What is counted is counted in the transaction that keeps it, so that a look at the counts reads no records.

use super::{Page, Reader, Real, Result, Store, json, number, time, word};
use control_core::entity::{IngestCounts, SecurityEvent};
use shared::{
    DeviceId, Timestamp,
    wire::{Batch, Event, Feedback, Record, Telemetry, cut},
};
use sqlx::{Any, Transaction};

/// Security events of one kind that are kept; older ones go. A flood of one kind leaves the others as they are.
pub const SECURITY_EVENTS_PER_KIND_MAX: u64 = 1000;
/// Events of one device that are kept; older ones go.
pub const EVENTS_PER_DEVICE_MAX: u64 = 5_000;
/// Feedback records of one device that are kept.
pub const FEEDBACK_PER_DEVICE_MAX: u64 = 100_000;
/// Telemetry records of one device that are kept.
pub const TELEMETRY_PER_DEVICE_MAX: u64 = 20_000;
/// So many over the limit are waited for, as a share of it, before the oldest go: not one by one with each batch.
const SLACK_SHARE: u64 = 10;

/// A kind of record.
struct Kind {
    name: &'static str,
    stored: &'static str,
    redelivered: &'static str,
    per_device_max: u64,
    /// Deletes the oldest so many of a device.
    trim: &'static str,
}

const EVENTS: Kind = Kind {
    name: "events",
    stored: "stored.events",
    redelivered: "redelivered.events",
    per_device_max: EVENTS_PER_DEVICE_MAX,
    trim: "DELETE FROM events WHERE number IN (SELECT number FROM events WHERE device = $1 ORDER BY number LIMIT $2)",
};
const FEEDBACK: Kind = Kind {
    name: "feedback",
    stored: "stored.feedback",
    redelivered: "redelivered.feedback",
    per_device_max: FEEDBACK_PER_DEVICE_MAX,
    trim: "DELETE FROM feedback WHERE number IN (SELECT number FROM feedback WHERE device = $1 ORDER BY number LIMIT $2)",
};
const TELEMETRY: Kind = Kind {
    name: "telemetry",
    stored: "stored.telemetry",
    redelivered: "redelivered.telemetry",
    per_device_max: TELEMETRY_PER_DEVICE_MAX,
    trim: "DELETE FROM telemetry WHERE number IN (SELECT number FROM telemetry WHERE device = $1 ORDER BY number LIMIT $2)",
};
/// Records of the same content as one that was there already, under another id.
const TWICE: &str = "twice";
const REFUSED: &str = "refused";

/// What came of a batch.
#[derive(Default)]
struct Tally {
    added: u64,
    twice: u64,
}

impl Store {
    /// Keeps a batch of events; gives how many were new. All or nothing, and on the disk when it returns.
    pub async fn ingest_events(&self, batch: &Batch<Event>, now: Timestamp) -> Result<u64> {
        let mut tx = self.begin_as_leader().await?;
        let mut tally = Tally::default();
        for event in &batch.records {
            let id = event.id.to_string();
            let slot = event.slot.as_ref().map(shared::SlotName::as_str);
            let bundle = event.bundle.map(|digest| digest.to_string());
            let kind = word(&event.kind)?;
            let added = sqlx::query(
                "INSERT INTO events (id, device, at, received_at, slot, bundle, kind, detail) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
            )
            .bind(&id)
            .bind(batch.device.as_str())
            .bind(time(event.at))
            .bind(time(now))
            .bind(slot)
            .bind(&bundle)
            .bind(&kind)
            .bind(cut(&event.detail))
            .execute(&mut *tx)
            .await?
            .rows_affected();
            if added == 0 {
                continue;
            }
            let other = sqlx::query(
                "SELECT 1 FROM events WHERE device = $1 AND at = $2 AND kind = $3 AND slot IS NOT DISTINCT FROM $4 \
                 AND bundle IS NOT DISTINCT FROM $5 AND detail = $6 AND id <> $7 LIMIT 1",
            )
            .bind(batch.device.as_str())
            .bind(time(event.at))
            .bind(&kind)
            .bind(slot)
            .bind(&bundle)
            .bind(cut(&event.detail))
            .bind(&id)
            .fetch_optional(&mut *tx)
            .await?;
            tally.add(other.is_some());
        }
        finish(tx, &EVENTS, batch, &tally).await
    }

    /// Keeps a batch of feedback; gives how many were new.
    pub async fn ingest_feedback(&self, batch: &Batch<Feedback>, now: Timestamp) -> Result<u64> {
        let mut tx = self.begin_as_leader().await?;
        let mut tally = Tally::default();
        for record in &batch.records {
            let id = record.id.to_string();
            let version = record.version_id.to_string();
            let request = record.request_id.as_deref().map(cut);
            let kind = word(&record.kind)?;
            let label = record.label.as_deref().map(cut);
            let added = sqlx::query(
                "INSERT INTO feedback (id, device, at, received_at, slot, version, request, kind, value, label) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING",
            )
            .bind(&id)
            .bind(batch.device.as_str())
            .bind(time(record.at))
            .bind(time(now))
            .bind(record.slot.as_str())
            .bind(&version)
            .bind(&request)
            .bind(&kind)
            .bind(Real(record.value))
            .bind(&label)
            .execute(&mut *tx)
            .await?
            .rows_affected();
            if added == 0 {
                continue;
            }
            // Of one request the same thing is said once, whenever that was; without a request the time tells.
            let other = sqlx::query(
                "SELECT 1 FROM feedback WHERE device = $1 AND (request = $2 OR ($2 IS NULL AND request IS NULL AND at = $3)) \
                 AND slot = $4 AND version = $5 AND kind = $6 AND value IS NOT DISTINCT FROM $7 \
                 AND label IS NOT DISTINCT FROM $8 AND id <> $9 LIMIT 1",
            )
            .bind(batch.device.as_str())
            .bind(&request)
            .bind(time(record.at))
            .bind(record.slot.as_str())
            .bind(&version)
            .bind(&kind)
            .bind(Real(record.value))
            .bind(&label)
            .bind(&id)
            .fetch_optional(&mut *tx)
            .await?;
            tally.add(other.is_some());
        }
        finish(tx, &FEEDBACK, batch, &tally).await
    }

    /// Keeps a batch of telemetry; gives how many were new.
    pub async fn ingest_telemetry(&self, batch: &Batch<Telemetry>, now: Timestamp) -> Result<u64> {
        let mut tx = self.begin_as_leader().await?;
        let mut tally = Tally::default();
        for record in &batch.records {
            let id = record.id.to_string();
            let version = record.version_id.to_string();
            let added = sqlx::query(
                "INSERT INTO telemetry (id, device, at, received_at, version, slot, requests, failed, latency_p99_us, \
                 record) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING",
            )
            .bind(&id)
            .bind(batch.device.as_str())
            .bind(time(record.at))
            .bind(time(now))
            .bind(&version)
            .bind(record.slot.as_str())
            .bind(number(record.requests))
            .bind(number(record.failed.min(record.requests)))
            .bind(record.latency_p99_us.map(number))
            .bind(json(record)?)
            .execute(&mut *tx)
            .await?
            .rows_affected();
            if added == 0 {
                continue;
            }
            // A slot has one window of a version that begins at a time.
            let other = sqlx::query(
                "SELECT 1 FROM telemetry WHERE device = $1 AND at = $2 AND version = $3 AND slot = $4 \
                 AND id <> $5 LIMIT 1",
            )
            .bind(batch.device.as_str())
            .bind(time(record.at))
            .bind(&version)
            .bind(record.slot.as_str())
            .bind(&id)
            .fetch_optional(&mut *tx)
            .await?;
            tally.add(other.is_some());
        }
        finish(tx, &TELEMETRY, batch, &tally).await
    }

    /// What has been counted.
    pub async fn ingest_counts(&self) -> Result<IngestCounts> {
        let mut counts = IngestCounts::default();
        for row in sqlx::query("SELECT name, value FROM counters").fetch_all(&self.readers).await? {
            let row = Reader::new("counters", &row);
            let (name, value) = (row.text("name")?, row.number("value")?);
            match name.as_str() {
                name if name == EVENTS.stored => counts.events = value,
                name if name == FEEDBACK.stored => counts.feedback = value,
                name if name == TELEMETRY.stored => counts.telemetry = value,
                name if [&EVENTS, &FEEDBACK, &TELEMETRY].iter().any(|kind| kind.redelivered == name) => {
                    counts.redelivered += value;
                }
                TWICE => counts.duplicate_rows = value,
                REFUSED => counts.refused = value,
                _ => {}
            }
        }
        Ok(counts)
    }

    /// Keeps what was refused, all or nothing.
    pub async fn add_security_events(&self, events: &[SecurityEvent]) -> Result<()> {
        let mut tx = self.begin().await?;
        for event in events {
            sqlx::query(
                "INSERT INTO security_events (at, subject, kind, detail, count) VALUES ($1, $2, $3, $4, $5)",
            )
            .bind(time(event.at))
            .bind(cut(&event.subject))
            .bind(&event.kind)
            .bind(cut(&event.detail))
            .bind(number(event.count))
            .execute(&mut *tx)
            .await?;
            sqlx::query(
                "DELETE FROM security_events WHERE kind = $1 AND id <= \
                 (SELECT id FROM security_events WHERE kind = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)",
            )
            .bind(&event.kind)
            .bind(number(SECURITY_EVENTS_PER_KIND_MAX))
            .execute(&mut *tx)
            .await?;
            count(&mut tx, REFUSED, event.count).await?;
        }
        Ok(tx.commit().await?)
    }

    /// What was refused, the newest first.
    pub async fn security_events(&self, page: &Page) -> Result<Vec<SecurityEvent>> {
        let rows = sqlx::query("SELECT * FROM security_events WHERE id < $1 ORDER BY id DESC LIMIT $2")
            .bind(page.before_number()?)
            .bind(page.sql_limit())
            .fetch_all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| {
                let row = Reader::new("security_events", row);
                Ok(SecurityEvent {
                    number: row.number("id")?,
                    at: row.time("at")?,
                    subject: row.text("subject")?,
                    kind: row.text("kind")?,
                    detail: row.text("detail")?,
                    count: row.number("count")?,
                })
            })
            .collect()
    }
}

impl Tally {
    fn add(&mut self, there_already: bool) {
        self.added += 1;
        self.twice += u64::from(there_already);
    }
}

async fn finish<R: Record>(
    mut tx: Transaction<'static, Any>,
    kind: &Kind,
    batch: &Batch<R>,
    tally: &Tally,
) -> Result<u64> {
    let again = (batch.records.len() as u64).saturating_sub(tally.added);
    for (name, by) in [(kind.redelivered, again), (TWICE, tally.twice), (kind.stored, tally.added)] {
        if by > 0 {
            count(&mut tx, name, by).await?;
        }
    }
    if tally.added > 0 {
        trim(&mut tx, kind, &batch.device, tally.added).await?;
    }
    tx.commit().await?;
    Ok(tally.added)
}

/// Keeps the number of records of one device within its limit, with some slack.
async fn trim(tx: &mut Transaction<'static, Any>, kind: &Kind, device: &DeviceId, added: u64) -> Result<()> {
    let row = sqlx::query(
        "INSERT INTO kept_records (device, kind, kept) VALUES ($1, $2, $3) \
         ON CONFLICT (device, kind) DO UPDATE SET kept = kept_records.kept + $3 RETURNING kept",
    )
    .bind(device.as_str())
    .bind(kind.name)
    .bind(number(added))
    .fetch_one(&mut **tx)
    .await?;
    let kept = Reader::new("kept_records", &row).number("kept")?;
    if kept <= kind.per_device_max + kind.per_device_max / SLACK_SHARE {
        return Ok(());
    }
    let gone = sqlx::query(kind.trim)
        .bind(device.as_str())
        .bind(number(kept - kind.per_device_max))
        .execute(&mut **tx)
        .await?
        .rows_affected();
    sqlx::query("UPDATE kept_records SET kept = kept - $1 WHERE device = $2 AND kind = $3")
        .bind(number(gone))
        .bind(device.as_str())
        .bind(kind.name)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn count(tx: &mut Transaction<'static, Any>, name: &str, by: u64) -> Result<()> {
    sqlx::query(
        "INSERT INTO counters (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = counters.value + $2",
    )
    .bind(name)
    .bind(number(by))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests;
