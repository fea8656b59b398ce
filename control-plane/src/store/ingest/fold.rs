//! Taking apart what came: the journal becomes records, roll-ups and counts in one transaction, each record once.
//!
//! What is looked up is looked up before the transaction: one fold goes on at a time, and that what it takes apart is still
//! there is checked within it.

use super::{
    super::{Error, Reader, Result, Store, many, number},
    EVENTS, FEEDBACK, Kind, TELEMETRY, TWICE, count,
    journal::{Came, Message, Recent, Records},
    rows::{self, Fresh},
};
use control_core::rollup::{Rollups, Source};
use shared::DeviceId;
use sqlx::{Any, Transaction};
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

/// Records of one fold, but for one message more: what comes meanwhile waits for its commit until the fold is over.
const RECORDS_MAX: u64 = 100_000;
/// Entries of the journal of one fold.
const ENTRIES_MAX: i64 = 4096;

/// What came of a fold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// Records that were taken apart, new or not.
    pub records: u64,
    /// Of those, new ones.
    pub added: u64,
    /// Records that still wait.
    pub waiting: u64,
}

/// One entry of the journal.
struct Entry {
    number: u64,
    came: Came,
    records: u64,
}

/// Ids of events, feedback and telemetry.
type Ids = [HashSet<Uuid>; 3];

/// What is new, and how often something came again.
#[derive(Default)]
struct Sorted {
    fresh: Fresh,
    rollups: Rollups,
    again: [u64; 3],
}

impl Store {
    /// Takes apart what came first of all that waits. One at a time.
    pub async fn fold(&self, recent: &Recent) -> Result<Folded> {
        let entries = self.next_entries().await?;
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(Folded::default());
        };
        let (first, last, steady) = (first.number, last.number, last.came.steady);
        let mut records = 0;
        let (mut messages, mut broken) = (Vec::new(), Vec::new());
        for entry in entries {
            records += entry.records;
            let read = match recent.take(entry.number) {
                Some(messages) => Ok(messages),
                None => self.read_messages(entry.number).await,
            };
            match read {
                Ok(read) => messages.extend(read.into_iter().map(|message| (entry.came, message))),
                Err(error @ Error::Corrupt { .. }) => {
                    tracing::error!("what devices said stays as it is: {error}");
                    broken.push(entry.number);
                }
                Err(error) => return Err(error),
            }
        }
        let known = self.known_ids(&messages).await?;
        let Sorted { fresh, rollups, again } = sorted(messages, &known);
        let increments = rollups.increments();
        let merged = self.merged_rollups(increments).await?;

        let mut tx = self.begin_as_leader().await?;
        if !is_first(&mut tx, first).await? {
            return Err(Error::Conflict("what devices said was taken apart by another server".to_owned()));
        }
        for at in broken {
            let held = sqlx::query("UPDATE intake SET broken = 1 WHERE number = $1").bind(number(at));
            held.execute(&mut *tx).await?;
        }
        let added = fresh.counts();
        let twice = rows::write(&mut tx, &fresh, steady).await?;
        super::super::rollups::write(&mut tx, &merged).await?;
        for (kind, (added, again)) in
            [&EVENTS, &FEEDBACK, &TELEMETRY].into_iter().zip(added.into_iter().zip(again))
        {
            count(&mut tx, kind.stored, added).await?;
            count(&mut tx, kind.redelivered, again).await?;
        }
        count(&mut tx, TWICE, twice).await?;
        for (kind, by_device) in [&EVENTS, &FEEDBACK, &TELEMETRY].into_iter().zip(fresh.by_device()) {
            keep_within(&mut tx, kind, by_device).await?;
        }
        sqlx::query("DELETE FROM intake WHERE number <= $1 AND broken = 0")
            .bind(number(last))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        recent.drop_until(last);
        Ok(Folded { records, added: added.iter().sum(), waiting: self.waiting_records().await? })
    }

    async fn next_entries(&self) -> Result<Vec<Entry>> {
        let rows = sqlx::query(
            "SELECT number, received_at, steady_at, records FROM intake WHERE broken = 0 ORDER BY number LIMIT $1",
        )
        .bind(ENTRIES_MAX)
        .fetch_all(&self.readers)
        .await?;
        let (mut entries, mut records) = (Vec::new(), 0);
        for row in &rows {
            let row = Reader::new("intake", row);
            let came = Came { received: row.time("received_at")?, steady: row.time("steady_at")? };
            let entry = Entry { number: row.number("number")?, came, records: row.number("records")? };
            records += entry.records;
            entries.push(entry);
            if records >= RECORDS_MAX {
                break;
            }
        }
        Ok(entries)
    }

    /// Which of the records' ids are known, of each kind: two kinds may have one id.
    async fn known_ids(&self, messages: &[(Came, Message)]) -> Result<Ids> {
        let mut ids: [Vec<Uuid>; 3] = Default::default();
        for (_, message) in messages {
            match &message.records {
                Records::Events(records) => ids[0].extend(records.iter().map(|record| record.id)),
                Records::Feedback(records) => ids[1].extend(records.iter().map(|record| record.id)),
                Records::Telemetry(records) => ids[2].extend(records.iter().map(|record| record.id)),
            }
        }
        let mut known = Ids::default();
        let tables = ["events", "feedback", "telemetry_ids"].into_iter().zip(ids);
        for ((table, ids), known) in tables.zip(&mut known) {
            let sql = format!("SELECT id FROM {table} WHERE {}", many::among(self.dialect(), "id", 1));
            for part in ids.chunks(many::LIST_MAX) {
                let rows = sqlx::query(sqlx::AssertSqlSafe(sql.clone()))
                    .bind(many::list(part)?)
                    .fetch_all(&self.readers)
                    .await?;
                for row in &rows {
                    known.insert(Reader::new(table, row).parse("id", "record id")?);
                }
            }
        }
        Ok(known)
    }
}

/// Is an entry the first that waits?
async fn is_first(tx: &mut Transaction<'static, Any>, first: u64) -> Result<bool> {
    let row = sqlx::query("SELECT number FROM intake WHERE broken = 0 ORDER BY number LIMIT 1")
        .fetch_optional(&mut **tx)
        .await?;
    let there = row.map(|row| Reader::new("intake", &row).number("number")).transpose()?;
    Ok(there == Some(first))
}

/// Sorts out what is new.
fn sorted(messages: Vec<(Came, Message)>, known: &Ids) -> Sorted {
    let mut sorted = Sorted::default();
    let mut seen = Ids::default();
    let mut is_new = |id: Uuid, kind: usize, again: &mut [u64; 3]| {
        let new = !known[kind].contains(&id) && seen[kind].insert(id);
        again[kind] += u64::from(!new);
        new
    };
    for (came, message) in messages {
        let device = &message.device;
        let source = Source { device, received: came.steady };
        let Sorted { fresh, rollups, again } = &mut sorted;
        match message.records {
            Records::Events(records) => {
                for record in records.into_iter().filter(|record| is_new(record.id, 0, again)) {
                    rollups.event(source, &record);
                    fresh.events.push((device.clone(), came, record));
                }
            }
            Records::Feedback(records) => {
                for record in records.into_iter().filter(|record| is_new(record.id, 1, again)) {
                    rollups.feedback(source, &record);
                    fresh.feedback.push((device.clone(), came, record));
                }
            }
            Records::Telemetry(records) => {
                for record in records.into_iter().filter(|record| is_new(record.id, 2, again)) {
                    rollups.telemetry(source, &record);
                    fresh.telemetry.push((device.clone(), came, record));
                }
            }
        }
    }
    sorted
}

/// Keeps the number of records of each device within its limit, with some slack.
async fn keep_within(
    tx: &mut Transaction<'static, Any>,
    kind: &Kind,
    added: HashMap<&DeviceId, u64>,
) -> Result<()> {
    // In an order of its own: rows that lie together are written together.
    let added: BTreeMap<&DeviceId, u64> = added.into_iter().collect();
    let added: Vec<(&DeviceId, u64)> = added.into_iter().collect();
    if added.is_empty() {
        return Ok(());
    }
    let insert = many::OverRows {
        head: "INSERT INTO kept_records (device, kind, kept)",
        columns: 3,
        tail: "ON CONFLICT (device, kind) DO UPDATE SET kept = kept_records.kept + excluded.kept",
    };
    let statements = insert.statements(many::dialect(tx), &added, |query, (device, added)| {
        query.bind(device.as_str()).bind(kind.name).bind(number(*added))
    });
    many::run(tx, statements).await?;
    let over = sqlx::query("SELECT device, kept FROM kept_records WHERE kind = $1 AND kept > $2")
        .bind(kind.name)
        .bind(number(kind.per_device_max + kind.per_device_max / super::SLACK_SHARE))
        .fetch_all(&mut **tx)
        .await?;
    for row in &over {
        let row = Reader::new("kept_records", row);
        let (device, kept) = (row.text("device")?, row.number("kept")?);
        let gone = sqlx::query(kind.trim)
            .bind(&device)
            .bind(number(kept - kind.per_device_max))
            .execute(&mut **tx)
            .await?
            .rows_affected();
        sqlx::query("UPDATE kept_records SET kept = kept - $1 WHERE device = $2 AND kind = $3")
            .bind(number(gone))
            .bind(&device)
            .bind(kind.name)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}
