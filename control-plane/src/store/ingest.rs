//! Records from devices, each kept once however often it comes, and what was refused.
//!
//! What comes is written as it came, for many messages in one transaction, and acknowledged when that is committed
//! (`journal`). It is taken apart later, for many more (`fold`): then records become rows and roll-ups, and are
//! counted in that transaction, so that a look at the counts reads no records.

mod fold;
mod journal;
mod rows;

pub use fold::Folded;
pub use journal::{Came, Input, Message, Recent, Records};

use super::{Page, Reader, Result, Store, number, plain, time};
use control_core::entity::{IngestCounts, SecurityEvent};
use shared::wire;
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

/// Text of a device as it is kept.
fn cut(text: &str) -> String {
    plain(&wire::cut(text))
}

impl Store {
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
        Reader::each("security_events", &rows, |row| {
            Ok(SecurityEvent {
                number: row.number("id")?,
                at: row.time("at")?,
                subject: row.text("subject")?,
                kind: row.text("kind")?,
                detail: row.text("detail")?,
                count: row.number("count")?,
            })
        })
    }
}

async fn count(tx: &mut Transaction<'static, Any>, name: &str, by: u64) -> Result<()> {
    if by == 0 {
        return Ok(());
    }
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
pub(crate) mod testing;
#[cfg(test)]
mod tests;
