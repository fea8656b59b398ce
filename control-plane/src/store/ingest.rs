//! Records from devices, each kept once however often it comes, and what was refused.

use super::{Page, Reader, Result, Store, json, number, time, word};
use control_core::entity::{IngestCounts, SecurityEvent};
use shared::{
    DeviceId, Timestamp,
    wire::{Batch, Event, Feedback, Telemetry},
};
use sqlx::{Sqlite, Transaction};

/// Security events that are kept; older ones go.
const SECURITY_EVENTS_MAX: i64 = 10_000;

impl Store {
    /// Keeps a batch of events; gives how many were new. All or nothing, and on the disk when it returns.
    pub async fn ingest_events(&self, batch: &Batch<Event>, now: Timestamp) -> Result<u64> {
        let mut tx = self.begin().await?;
        let mut added = 0;
        for event in &batch.records {
            added += sqlx::query(
                "INSERT OR IGNORE INTO events (id, device, at, received_at, slot, bundle, kind, detail) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(event.id.to_string())
            .bind(batch.device.as_str())
            .bind(time(event.at))
            .bind(time(now))
            .bind(event.slot.as_ref().map(shared::SlotName::as_str))
            .bind(event.bundle.map(|digest| digest.to_string()))
            .bind(word(&event.kind)?)
            .bind(shared::wire::cut(&event.detail))
            .execute(&mut *tx)
            .await?
            .rows_affected();
        }
        finish(tx, "events", batch.records.len(), added).await
    }

    /// Keeps a batch of feedback; gives how many were new.
    pub async fn ingest_feedback(&self, batch: &Batch<Feedback>, now: Timestamp) -> Result<u64> {
        let mut tx = self.begin().await?;
        let mut added = 0;
        for record in &batch.records {
            added += sqlx::query(
                "INSERT OR IGNORE INTO feedback (id, device, at, received_at, slot, version, request, kind, value, label) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(record.id.to_string())
            .bind(batch.device.as_str())
            .bind(time(record.at))
            .bind(time(now))
            .bind(record.slot.as_str())
            .bind(record.version_id.to_string())
            .bind(&record.request_id)
            .bind(word(&record.kind)?)
            .bind(record.value)
            .bind(&record.label)
            .execute(&mut *tx)
            .await?
            .rows_affected();
        }
        finish(tx, "feedback", batch.records.len(), added).await
    }

    /// Keeps a batch of telemetry; gives how many were new.
    pub async fn ingest_telemetry(&self, batch: &Batch<Telemetry>, now: Timestamp) -> Result<u64> {
        let mut tx = self.begin().await?;
        let mut added = 0;
        for record in &batch.records {
            added += sqlx::query(
                "INSERT OR IGNORE INTO telemetry (id, device, at, received_at, version, record) VALUES (?, ?, ?, ?, ?, ?)",
            )
            .bind(record.id.to_string())
            .bind(batch.device.as_str())
            .bind(time(record.at))
            .bind(time(now))
            .bind(record.version_id.to_string())
            .bind(json(record)?)
            .execute(&mut *tx)
            .await?
            .rows_affected();
        }
        finish(tx, "telemetry", batch.records.len(), added).await
    }

    /// What has been counted, and the rows that are there twice (by a look at the rows, not by trust in the key).
    pub async fn ingest_counts(&self) -> Result<IngestCounts> {
        let row = sqlx::query(
            "SELECT (SELECT count(*) FROM events) AS events, (SELECT count(*) FROM feedback) AS feedback, \
             (SELECT count(*) FROM telemetry) AS telemetry, \
             (SELECT count(*) - count(DISTINCT id) FROM (SELECT id FROM events UNION ALL SELECT id FROM feedback \
              UNION ALL SELECT id FROM telemetry)) AS duplicate_rows, \
             (SELECT coalesce(sum(value), 0) FROM counters WHERE name LIKE 'redelivered.%') AS redelivered, \
             (SELECT coalesce(sum(value), 0) FROM counters WHERE name = 'refused') AS refused",
        )
        .fetch_one(&self.readers)
        .await?;
        let row = Reader::new("counters", &row);
        Ok(IngestCounts {
            events: row.number("events")?,
            feedback: row.number("feedback")?,
            telemetry: row.number("telemetry")?,
            redelivered: row.number("redelivered")?,
            duplicate_rows: row.number("duplicate_rows")?,
            refused: row.number("refused")?,
        })
    }

    /// Keeps that something was refused.
    pub async fn add_security_event(&self, event: &SecurityEvent) -> Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query("INSERT INTO security_events (at, subject, kind, detail) VALUES (?, ?, ?, ?)")
            .bind(time(event.at))
            .bind(shared::wire::cut(&event.subject))
            .bind(&event.kind)
            .bind(shared::wire::cut(&event.detail))
            .execute(&mut *tx)
            .await?;
        sqlx::query("DELETE FROM security_events WHERE id <= (SELECT max(id) FROM security_events) - ?")
            .bind(SECURITY_EVENTS_MAX)
            .execute(&mut *tx)
            .await?;
        count(&mut tx, "refused", 1).await?;
        Ok(tx.commit().await?)
    }

    /// What was refused, the newest first.
    pub async fn security_events(&self, page: Page) -> Result<Vec<SecurityEvent>> {
        let rows = sqlx::query("SELECT * FROM security_events ORDER BY id DESC LIMIT ? OFFSET ?")
            .bind(page.sql_limit())
            .bind(page.sql_offset())
            .fetch_all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| {
                let row = Reader::new("security_events", row);
                Ok(SecurityEvent {
                    at: row.time("at")?,
                    subject: row.text("subject")?,
                    kind: row.text("kind")?,
                    detail: row.text("detail")?,
                })
            })
            .collect()
    }

    /// Feedback records of a device, for tests and the device page.
    pub async fn count_feedback(&self, device: &DeviceId) -> Result<u64> {
        let row = sqlx::query("SELECT count(*) AS n FROM feedback WHERE device = ?")
            .bind(device.as_str())
            .fetch_one(&self.readers)
            .await?;
        Reader::new("feedback", &row).number("n")
    }
}

async fn finish(mut tx: Transaction<'static, Sqlite>, kind: &str, came: usize, added: u64) -> Result<u64> {
    let again = (came as u64).saturating_sub(added);
    if again > 0 {
        count(&mut tx, &format!("redelivered.{kind}"), again).await?;
    }
    tx.commit().await?;
    Ok(added)
}

async fn count(tx: &mut Transaction<'static, Sqlite>, name: &str, by: u64) -> Result<()> {
    sqlx::query(
        "INSERT INTO counters (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = value + ?2",
    )
    .bind(name)
    .bind(number(by))
    .execute(&mut **tx)
    .await?;
    Ok(())
}
