//! Devices: what they shall run and what they said.

mod filter;

pub use filter::DeviceFilter;

use super::{
    Page, Reader, Result, Store, json,
    many::{self, OverRows},
    number, plain, time,
};
use control_core::entity::{Device, DeviceEvent};
use shared::{DeviceId, ModelVersionId, SlotName, Timestamp, wire::Reported};
use sqlx::{Any, Transaction, any::AnyRow};
use std::collections::BTreeMap;

pub(super) fn read(row: &AnyRow) -> Result<Device> {
    let row = Reader::new("devices", row);
    Ok(Device {
        id: row.parse("id", "device id")?,
        board: row.parse("board", "board id")?,
        agent_version: row.text("agent_version")?,
        labels: row.json("labels", "labels")?,
        online: row.flag("online")?,
        enrolled_at: row.time("enrolled_at")?,
        seen_at: row.time_option("seen_at")?,
        revoked_at: row.time_option("revoked_at")?,
        generation: row.number("generation")?,
        desired_at: row.time("desired_at")?,
        chunk_bytes: row.small("chunk_bytes")?,
        assignments: row.json("assignments", "list of assignments")?,
        reported: row.json_option("reported", "report")?,
    })
}

fn read_event(row: &AnyRow) -> Result<DeviceEvent> {
    let row = Reader::new("events", row);
    Ok(DeviceEvent {
        id: row.parse("id", "event id")?,
        device: row.parse("device", "device id")?,
        at: row.time("at")?,
        received_at: row.time("received_at")?,
        slot: row.parse_option("slot", "slot name")?,
        bundle: row.parse_option("bundle", "digest")?,
        kind: row.word("kind", "kind of event")?,
        detail: row.text("detail")?,
    })
}

/// What devices said of themselves, in its order; of each the last word counts.
#[derive(Debug, Default)]
pub(super) struct Words<'a>(BTreeMap<&'a DeviceId, Word<'a>>);

/// The last word of one device.
#[derive(Clone, Copy, Debug, Default)]
struct Word<'a> {
    reported: Option<&'a Reported>,
    online: Option<bool>,
    seen: Option<Timestamp>,
}

impl<'a> Words<'a> {
    /// What a device said of itself; it was `seen` by that, unless nobody knows when it said so.
    pub(super) fn reported(&mut self, reported: &'a Reported, seen: Option<Timestamp>) {
        let word = self.0.entry(&reported.device).or_default();
        (word.reported, word.seen) = (Some(reported), seen.or(word.seen));
    }

    /// Whether a device is connected; it was `seen` by that, unless nobody knows when it said so.
    pub(super) fn presence(&mut self, id: &'a DeviceId, online: bool, seen: Option<Timestamp>) {
        let word = self.0.entry(id).or_default();
        (word.online, word.seen) = (Some(online), seen.or(word.seen));
    }

    /// Writes them. A device that was revoked is never online.
    pub(super) async fn write(self, tx: &mut Transaction<'static, Any>) -> Result<()> {
        const REPORTED: OverRows = OverRows {
            head: "WITH said (id, reported, generation, agent_version, seen_at) AS (",
            columns: 5,
            tail: ") UPDATE devices SET reported = said.reported, reported_generation = said.generation, \
                   agent_version = said.agent_version, seen_at = coalesce(said.seen_at, devices.seen_at) \
                   FROM said WHERE devices.id = said.id",
        };
        const PRESENCE: OverRows = OverRows {
            head: "WITH said (id, online, seen_at) AS (",
            columns: 3,
            tail: ") UPDATE devices SET online = said.online, seen_at = coalesce(said.seen_at, devices.seen_at) \
                   FROM said WHERE devices.id = said.id AND devices.revoked_at IS NULL",
        };
        let reported = self.0.values().filter_map(|word| Some((word.reported?, word.seen)));
        let reported: Vec<_> =
            reported.map(|(reported, seen)| Ok((reported, json(reported)?, seen))).collect::<Result<_>>()?;
        let statements =
            REPORTED.statements(many::dialect(tx), &reported, |query, (reported, text, seen)| {
                query
                    .bind(reported.device.to_string())
                    .bind(text.clone())
                    .bind(number(reported.generation))
                    .bind(plain(&reported.agent_version))
                    .bind(seen.map(time))
            });
        many::run(tx, statements).await?;
        let present = self.0.iter().filter_map(|(id, word)| Some((*id, word.online?, word.seen)));
        let statements = PRESENCE.statements(
            many::dialect(tx),
            &present.collect::<Vec<_>>(),
            |query, (id, online, seen)| {
                query.bind(id.to_string()).bind(i64::from(*online)).bind(seen.map(time))
            },
        );
        many::run(tx, statements).await
    }
}

impl Store {
    /// One device.
    pub async fn device(&self, id: &DeviceId) -> Result<Option<Device>> {
        let row = sqlx::query("SELECT * FROM devices WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// Those of some devices that there are, by id.
    pub async fn devices_of(&self, ids: &[DeviceId]) -> Result<Vec<Device>> {
        let these = many::among(self.dialect(), "id", 1);
        let sql = format!("SELECT * FROM devices WHERE {these} ORDER BY id");
        let rows =
            sqlx::query(sqlx::AssertSqlSafe(sql)).bind(many::list(ids)?).fetch_all(&self.readers).await?;
        rows.iter().map(read).collect()
    }

    /// Devices by id, of those that the filter names.
    pub async fn devices(&self, filter: &DeviceFilter, page: &Page) -> Result<Vec<Device>> {
        let mut filtered = filter::Filtered::new("SELECT d.* FROM devices d WHERE d.id > $1", page.after());
        filtered.narrow(filter, self.dialect())?;
        let rows = filtered.query("ORDER BY d.id LIMIT", page.sql_limit()).fetch_all(&self.readers).await?;
        rows.iter().map(read).collect()
    }

    /// All devices; for the planner, which has to see the whole fleet.
    pub async fn fleet(&self) -> Result<Vec<Device>> {
        let rows = sqlx::query("SELECT * FROM devices ORDER BY id").fetch_all(&self.readers).await?;
        rows.iter().map(read).collect()
    }

    /// Replaces a device's labels; `false` if there is no such device.
    pub async fn set_labels(&self, id: &DeviceId, labels: &BTreeMap<String, String>) -> Result<bool> {
        let mut tx = self.begin().await?;
        let done = sqlx::query("UPDATE devices SET labels = $1 WHERE id = $2")
            .bind(json(labels)?)
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query("DELETE FROM device_labels WHERE device = $1")
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?;
        for (key, value) in labels {
            sqlx::query("INSERT INTO device_labels (device, key, value) VALUES ($1, $2, $3)")
                .bind(id.as_str())
                .bind(key)
                .bind(value)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Revokes a device and all its certificates; `false` if there is no such device.
    pub async fn revoke_device(&self, id: &DeviceId, now: Timestamp) -> Result<bool> {
        let mut tx = self.begin().await?;
        let done =
            sqlx::query("UPDATE devices SET revoked_at = coalesce(revoked_at, $1), online = 0 WHERE id = $2")
                .bind(time(now))
                .bind(id.as_str())
                .execute(&mut *tx)
                .await?;
        sqlx::query("UPDATE certificates SET revoked_at = coalesce(revoked_at, $1) WHERE device = $2")
            .bind(time(now))
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Devices that were revoked.
    pub async fn revoked_devices(&self) -> Result<Vec<DeviceId>> {
        let rows = sqlx::query("SELECT id FROM devices WHERE revoked_at IS NOT NULL ORDER BY id")
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| Reader::new("devices", row).parse("id", "device id")).collect()
    }

    /// What a device said of itself.
    #[cfg(test)]
    pub(crate) async fn set_reported(&self, reported: &Reported, seen: Option<Timestamp>) -> Result<()> {
        let mut tx = self.begin_as_leader().await?;
        let mut words = Words::default();
        words.reported(reported, seen);
        words.write(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    /// Whether a device is connected.
    #[cfg(test)]
    pub(crate) async fn set_online(
        &self,
        id: &DeviceId,
        online: bool,
        seen: Option<Timestamp>,
    ) -> Result<()> {
        let mut tx = self.begin_as_leader().await?;
        let mut words = Words::default();
        words.presence(id, online, seen);
        words.write(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    /// Makes a device run `assignments`, without a rollout.
    #[cfg(test)]
    pub(crate) async fn assign(
        &self,
        id: &DeviceId,
        assignments: &[shared::wire::Assignment],
        chunk_bytes: u32,
    ) {
        let mut tx = self.begin().await.unwrap();
        sqlx::query("UPDATE devices SET assignments = $1, chunk_bytes = $2, generation = 1 WHERE id = $3")
            .bind(json(&assignments).unwrap())
            .bind(i64::from(chunk_bytes))
            .bind(id.as_str())
            .execute(&mut *tx)
            .await
            .unwrap();
        for assignment in assignments {
            write_slot(&mut tx, id, &assignment.slot, Some(assignment.version_id)).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    /// To a server that begins to act nobody is connected until they say so.
    pub async fn set_all_offline(&self) -> Result<()> {
        let mut tx = self.begin_as_leader().await?;
        sqlx::query("UPDATE devices SET online = 0 WHERE online <> 0").execute(&mut *tx).await?;
        Ok(tx.commit().await?)
    }

    /// Events of one device or of all, the last that came first: a device's clock and ids say nothing of the order.
    pub async fn device_events(&self, id: Option<&DeviceId>, page: &Page) -> Result<Vec<DeviceEvent>> {
        page.key(uuid::Uuid::nil())?;
        // Of an event that has gone since, older ones have gone before it.
        const BEFORE: &str = "number < CASE WHEN $1 = '' THEN 9223372036854775807 \
                              ELSE (SELECT number FROM events WHERE id = $1) END ORDER BY number DESC LIMIT $2";
        let sql = match id {
            Some(_) => format!("SELECT * FROM events WHERE device = $3 AND {BEFORE}"),
            None => format!("SELECT * FROM events WHERE {BEFORE}"),
        };
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(page.after()).bind(page.sql_limit());
        if let Some(id) = id {
            query = query.bind(id.as_str());
        }
        let rows = query.fetch_all(&self.readers).await?;
        rows.iter().map(read_event).collect()
    }

    /// Devices in all, and those online.
    pub async fn count_devices(&self) -> Result<(u64, u64)> {
        let row = sqlx::query(
            "SELECT count(*) AS total, CAST(coalesce(sum(online), 0) AS BIGINT) AS online FROM devices",
        )
        .fetch_one(&self.readers)
        .await?;
        let row = Reader::new("devices", &row);
        Ok((row.number("total")?, row.number("online")?))
    }
}

/// Notes which version a device shall run in a slot; none takes the slot from it.
pub(super) async fn write_slot(
    tx: &mut Transaction<'static, Any>,
    device: &DeviceId,
    slot: &SlotName,
    version: Option<ModelVersionId>,
) -> Result<()> {
    let query = match version {
        Some(version) => sqlx::query(
            "INSERT INTO device_slots (device, slot, version) VALUES ($1, $2, $3) \
             ON CONFLICT (device, slot) DO UPDATE SET version = excluded.version",
        )
        .bind(device.as_str())
        .bind(slot.as_str())
        .bind(version.to_string()),
        None => sqlx::query("DELETE FROM device_slots WHERE device = $1 AND slot = $2")
            .bind(device.as_str())
            .bind(slot.as_str()),
    };
    query.execute(&mut **tx).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
