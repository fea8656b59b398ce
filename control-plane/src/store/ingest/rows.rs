//! Records as rows, many in a statement.

use super::{
    super::{Dialect, Reader, Real, Result, json, many, number, time, word},
    cut,
    journal::Came,
};
use shared::{
    DeviceId, Timestamp,
    wire::{Event, Feedback, Telemetry},
};
use sqlx::{Any, Transaction};
use std::collections::HashMap;

/// Where more windows of telemetry than this come at once, those of a slot within [`WINDOW_MS`] become one row. Roll-ups
/// count each, and so do ids.
const WHOLE_MAX: usize = 20_000;
const WINDOW_MS: u64 = 10_000;

/// Records that are new: whose, when they came, and what they say.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    pub(super) events: Vec<(DeviceId, Came, Event)>,
    pub(super) feedback: Vec<(DeviceId, Came, Feedback)>,
    pub(super) telemetry: Vec<(DeviceId, Came, Telemetry)>,
}

impl Fresh {
    /// How many events, feedback and telemetry records.
    pub(super) fn counts(&self) -> [u64; 3] {
        [self.events.len(), self.feedback.len(), self.telemetry.len()].map(|length| length as u64)
    }

    /// The same for each device.
    pub(super) fn by_device(&self) -> [HashMap<&DeviceId, u64>; 3] {
        fn counted<'a>(devices: impl Iterator<Item = &'a DeviceId>) -> HashMap<&'a DeviceId, u64> {
            let mut counts = HashMap::new();
            for device in devices {
                *counts.entry(device).or_default() += 1;
            }
            counts
        }
        [
            counted(self.events.iter().map(|(device, ..)| device)),
            counted(self.feedback.iter().map(|(device, ..)| device)),
            counted(self.telemetry.iter().map(|(device, ..)| device)),
        ]
    }
}

/// Writes the rows; gives how many say what another record had said under another id.
pub(super) async fn write(
    tx: &mut Transaction<'static, Any>,
    fresh: &Fresh,
    stored: Timestamp,
) -> Result<u64> {
    let mut twice = 0;
    if !fresh.events.is_empty() {
        let after = newest(tx, "events").await?;
        write_events(tx, &fresh.events).await?;
        twice += said_before(tx, EVENT_BEFORE, after).await?;
    }
    if !fresh.feedback.is_empty() {
        let after = newest(tx, "feedback").await?;
        write_feedback(tx, &fresh.feedback).await?;
        for before in FEEDBACK_BEFORE {
            twice += said_before(tx, before, after).await?;
        }
    }
    if !fresh.telemetry.is_empty() {
        write_ids(tx, &fresh.telemetry, stored).await?;
        let after = newest(tx, "telemetry").await?;
        write_telemetry(tx, &fresh.telemetry).await?;
        twice += said_before(tx, WINDOW_BEFORE, after).await?;
    }
    Ok(twice)
}

async fn newest(tx: &mut Transaction<'static, Any>, table: &'static str) -> Result<u64> {
    let sql = format!("SELECT coalesce(max(number), 0) AS number FROM {table}");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_one(&mut **tx).await?;
    Reader::new(table, &row).number("number")
}

/// An event is the same when all of it is.
const EVENT_BEFORE: &str = "SELECT count(*) AS twice FROM events n WHERE n.number > $1 AND EXISTS (SELECT 1 FROM events o \
    WHERE o.device = n.device AND o.at = n.at AND o.number < n.number AND o.kind = n.kind AND o.detail = n.detail \
    AND o.slot IS NOT DISTINCT FROM n.slot AND o.bundle IS NOT DISTINCT FROM n.bundle)";
/// Of one request the same thing is said once, whenever that was; without a request the time tells.
const FEEDBACK_BEFORE: [&str; 2] = [
    "SELECT count(*) AS twice FROM feedback n WHERE n.number > $1 AND n.request IS NOT NULL AND EXISTS (SELECT 1 \
     FROM feedback o WHERE o.device = n.device AND o.request = n.request AND o.number < n.number AND o.slot = n.slot \
     AND o.version = n.version AND o.kind = n.kind AND o.value IS NOT DISTINCT FROM n.value \
     AND o.label IS NOT DISTINCT FROM n.label)",
    "SELECT count(*) AS twice FROM feedback n WHERE n.number > $1 AND n.request IS NULL AND EXISTS (SELECT 1 \
     FROM feedback o WHERE o.device = n.device AND o.request IS NULL AND o.at = n.at AND o.number < n.number \
     AND o.slot = n.slot AND o.version = n.version AND o.kind = n.kind AND o.value IS NOT DISTINCT FROM n.value \
     AND o.label IS NOT DISTINCT FROM n.label)",
];
/// A slot has one window of a version that begins at a time.
const WINDOW_BEFORE: &str = "SELECT count(*) AS twice FROM telemetry n WHERE n.number > $1 AND EXISTS (SELECT 1 \
    FROM telemetry o WHERE o.device = n.device AND o.at = n.at AND o.number < n.number AND o.version = n.version \
    AND o.slot = n.slot)";

/// How many rows behind `after` say what one before them says.
async fn said_before(tx: &mut Transaction<'static, Any>, sql: &'static str, after: u64) -> Result<u64> {
    let row = sqlx::query(sql).bind(number(after)).fetch_one(&mut **tx).await?;
    Reader::new("records", &row).number("twice")
}

async fn write_events(tx: &mut Transaction<'static, Any>, events: &[(DeviceId, Came, Event)]) -> Result<()> {
    let mut rows = Vec::with_capacity(events.len());
    for (device, came, event) in events {
        rows.push((device, came, event, word(&event.kind)?));
    }
    let insert = many::OverRows {
        head: "INSERT INTO events (id, device, at, received_at, stored_at, slot, bundle, kind, detail)",
        columns: 9,
        tail: "ON CONFLICT DO NOTHING",
    };
    let statements = insert.statements(many::dialect(tx), &rows, |query, (device, came, event, kind)| {
        query
            .bind(event.id.to_string())
            .bind(device.as_str())
            .bind(time(event.at))
            .bind(time(came.received))
            .bind(time(came.steady))
            .bind(event.slot.as_ref().map(shared::SlotName::as_str))
            .bind(event.bundle.map(|digest| digest.to_string()))
            .bind(kind.as_str())
            .bind(cut(&event.detail))
    });
    many::run(tx, statements).await
}

async fn write_feedback(
    tx: &mut Transaction<'static, Any>,
    feedback: &[(DeviceId, Came, Feedback)],
) -> Result<()> {
    let mut rows = Vec::with_capacity(feedback.len());
    for (device, came, record) in feedback {
        rows.push((device, came, record, word(&record.kind)?));
    }
    let insert = many::OverRows {
        head: "INSERT INTO feedback (id, device, at, received_at, stored_at, slot, version, request, kind, value, label)",
        columns: 11,
        tail: "ON CONFLICT DO NOTHING",
    };
    let statements = insert.statements(many::dialect(tx), &rows, |query, (device, came, record, kind)| {
        query
            .bind(record.id.to_string())
            .bind(device.as_str())
            .bind(time(record.at))
            .bind(time(came.received))
            .bind(time(came.steady))
            .bind(record.slot.as_str())
            .bind(record.version_id.to_string())
            .bind(record.request_id.as_deref().map(cut))
            .bind(kind.as_str())
            .bind(Real(record.value.filter(|value| value.is_finite())))
            .bind(record.label.as_deref().map(cut))
    });
    many::run(tx, statements).await
}

async fn write_ids(
    tx: &mut Transaction<'static, Any>,
    telemetry: &[(DeviceId, Came, Telemetry)],
    stored: Timestamp,
) -> Result<()> {
    let mut ids: Vec<uuid::Uuid> = telemetry.iter().map(|(_, _, record)| record.id).collect();
    ids.sort_unstable();
    let sql = match many::dialect(tx) {
        Dialect::Sqlite => "INSERT INTO telemetry_ids (id, came_at) SELECT value, $2 FROM json_each($1)",
        Dialect::Postgres => {
            "INSERT INTO telemetry_ids (id, came_at) SELECT json_array_elements_text(CAST($1 AS json)), $2"
        }
    };
    for part in ids.chunks(many::LIST_MAX) {
        sqlx::query(sql).bind(many::list(part)?).bind(time(stored)).execute(&mut **tx).await?;
    }
    Ok(())
}

async fn write_telemetry(
    tx: &mut Transaction<'static, Any>,
    telemetry: &[(DeviceId, Came, Telemetry)],
) -> Result<()> {
    let merged = (telemetry.len() > WHOLE_MAX).then(|| merged(telemetry));
    let telemetry = merged.as_deref().unwrap_or(telemetry);
    let mut rows = Vec::with_capacity(telemetry.len());
    for (device, came, record) in telemetry {
        rows.push((device, came, record, json(record)?));
    }
    let insert = many::OverRows {
        head: "INSERT INTO telemetry (id, device, at, received_at, stored_at, version, slot, requests, failed, \
               latency_p99_us, record)",
        columns: 11,
        tail: "ON CONFLICT DO NOTHING",
    };
    let statements = insert.statements(many::dialect(tx), &rows, |query, (device, came, record, json)| {
        query
            .bind(record.id.to_string())
            .bind(device.as_str())
            .bind(time(record.at))
            .bind(time(came.received))
            .bind(time(came.steady))
            .bind(record.version_id.to_string())
            .bind(record.slot.as_str())
            .bind(number(record.requests))
            .bind(number(record.failed.min(record.requests)))
            .bind(record.latency_p99_us.map(number))
            .bind(json.as_str())
    });
    many::run(tx, statements).await
}

/// One row for the windows of a device's slot and version that begin within [`WINDOW_MS`]: what adds up is added up, of
/// latencies and memory the most is kept. In the order of devices and times.
fn merged(telemetry: &[(DeviceId, Came, Telemetry)]) -> Vec<(DeviceId, Came, Telemetry)> {
    let key = |(device, _, record): &(DeviceId, Came, Telemetry)| {
        (device.clone(), record.at.0 / WINDOW_MS, record.slot.clone(), record.version_id)
    };
    let mut order: Vec<&(DeviceId, Came, Telemetry)> = telemetry.iter().collect();
    order.sort_by(|a, b| {
        let part = |(_, _, record): &&(DeviceId, Came, Telemetry)| record.at.0 / WINDOW_MS;
        a.0.cmp(&b.0)
            .then_with(|| part(a).cmp(&part(b)))
            .then_with(|| a.2.slot.cmp(&b.2.slot))
            .then_with(|| a.2.version_id.cmp(&b.2.version_id))
    });
    let mut rows: Vec<(DeviceId, Came, Telemetry)> = Vec::new();
    for one in order {
        match rows.last_mut().filter(|last| key(last) == key(one)) {
            Some((_, _, sum)) => add(sum, &one.2),
            None => rows.push(one.clone()),
        }
    }
    rows
}

fn add(sum: &mut Telemetry, more: &Telemetry) {
    sum.at = sum.at.min(more.at);
    sum.duration_ms = sum.duration_ms.saturating_add(more.duration_ms);
    sum.requests = sum.requests.saturating_add(more.requests);
    sum.failed = sum.failed.saturating_add(more.failed);
    sum.latency_p50_us = sum.latency_p50_us.max(more.latency_p50_us);
    sum.latency_p99_us = sum.latency_p99_us.max(more.latency_p99_us);
    sum.rss_bytes = sum.rss_bytes.max(more.rss_bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::ModelVersionId;
    use uuid::Uuid;

    fn window(device: &str, at: u64, requests: u64) -> (DeviceId, Came, Telemetry) {
        let came = Came { received: Timestamp(0), steady: Timestamp(0) };
        let record = Telemetry {
            id: Uuid::from_u128(u128::from(at)),
            at: Timestamp(at),
            duration_ms: 1000,
            slot: "default".parse().unwrap(),
            version_id: ModelVersionId(Uuid::from_u128(7)),
            requests,
            failed: 1,
            latency_p50_us: None,
            latency_p99_us: Some(requests),
            rss_bytes: None,
        };
        (device.parse().unwrap(), came, record)
    }

    #[test]
    fn windows_of_ten_seconds_of_a_slot_become_one_and_nothing_is_lost_by_that() {
        let said = [window("b", 1000, 5), window("a", 9000, 7), window("b", 2000, 3), window("b", 10_000, 1)];
        let rows = merged(&said);
        let found: Vec<(&str, u64, u64, Option<u64>)> = rows
            .iter()
            .map(|(device, _, record)| (device.as_str(), record.at.0, record.requests, record.latency_p99_us))
            .collect();
        assert_eq!(found, [("a", 9000, 7, Some(7)), ("b", 1000, 8, Some(5)), ("b", 10_000, 1, Some(1))]);
        assert_eq!(rows.iter().map(|(_, _, record)| record.failed).sum::<u64>(), 4);
    }
}
