//! Devices: what they shall run and what they said.

use super::{Page, Reader, Result, Store, json, time};
use control_core::entity::{Device, DeviceEvent};
use shared::{DeviceId, Timestamp, wire::Reported};
use sqlx::sqlite::SqliteRow;
use std::collections::BTreeMap;

pub(super) fn read(row: &SqliteRow) -> Result<Device> {
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

fn read_event(row: &SqliteRow) -> Result<DeviceEvent> {
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

impl Store {
    /// One device.
    pub async fn device(&self, id: &DeviceId) -> Result<Option<Device>> {
        let row = sqlx::query("SELECT * FROM devices WHERE id = ?")
            .bind(id.as_str())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// Devices by id.
    pub async fn devices(&self, page: Page) -> Result<Vec<Device>> {
        let rows = sqlx::query("SELECT * FROM devices ORDER BY id LIMIT ? OFFSET ?")
            .bind(page.sql_limit())
            .bind(page.sql_offset())
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(read).collect()
    }

    /// All devices; for the planner, which has to see the whole fleet.
    pub async fn fleet(&self) -> Result<Vec<Device>> {
        let rows = sqlx::query("SELECT * FROM devices ORDER BY id").fetch_all(&self.readers).await?;
        rows.iter().map(read).collect()
    }

    /// Replaces a device's labels; `false` if there is no such device.
    pub async fn set_labels(&self, id: &DeviceId, labels: &BTreeMap<String, String>) -> Result<bool> {
        let done = sqlx::query("UPDATE devices SET labels = ? WHERE id = ?")
            .bind(json(labels)?)
            .bind(id.as_str())
            .execute(&self.writer)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Revokes a device and all its certificates; `false` if there is no such device.
    pub async fn revoke_device(&self, id: &DeviceId, now: Timestamp) -> Result<bool> {
        let mut tx = self.begin().await?;
        let done =
            sqlx::query("UPDATE devices SET revoked_at = coalesce(revoked_at, ?), online = 0 WHERE id = ?")
                .bind(time(now))
                .bind(id.as_str())
                .execute(&mut *tx)
                .await?;
        sqlx::query("UPDATE certificates SET revoked_at = coalesce(revoked_at, ?) WHERE device = ?")
            .bind(time(now))
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// What a device said of itself; it was `seen` by that, unless nobody knows when it said so.
    pub async fn set_reported(&self, reported: &Reported, seen: Option<Timestamp>) -> Result<()> {
        sqlx::query(
            "UPDATE devices SET reported = ?, agent_version = ?, seen_at = coalesce(?, seen_at) WHERE id = ?",
        )
        .bind(json(reported)?)
        .bind(&reported.agent_version)
        .bind(seen.map(time))
        .bind(reported.device.as_str())
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// Whether a device is connected; it was `seen` by that, unless nobody knows when it said so.
    pub async fn set_online(&self, id: &DeviceId, online: bool, seen: Option<Timestamp>) -> Result<()> {
        sqlx::query(
            "UPDATE devices SET online = ?, seen_at = coalesce(?, seen_at) WHERE id = ? AND revoked_at IS NULL",
        )
            .bind(online)
            .bind(seen.map(time))
            .bind(id.as_str())
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Makes a device run `assignments`, without a rollout.
    #[cfg(test)]
    pub(crate) async fn assign(
        &self,
        id: &DeviceId,
        assignments: &[shared::wire::Assignment],
        chunk_bytes: u32,
    ) {
        sqlx::query("UPDATE devices SET assignments = ?, chunk_bytes = ?, generation = 1 WHERE id = ?")
            .bind(json(&assignments).unwrap())
            .bind(chunk_bytes)
            .bind(id.as_str())
            .execute(&self.writer)
            .await
            .unwrap();
    }

    /// After a start nobody is connected until they say so.
    pub async fn set_all_offline(&self) -> Result<()> {
        sqlx::query("UPDATE devices SET online = 0").execute(&self.writer).await?;
        Ok(())
    }

    /// Events of one device or of all, the last that came first: a device's clock and ids say nothing of the order.
    pub async fn device_events(&self, id: Option<&DeviceId>, page: Page) -> Result<Vec<DeviceEvent>> {
        let rows = match id {
            Some(id) => {
                sqlx::query("SELECT * FROM events WHERE device = ? ORDER BY rowid DESC LIMIT ? OFFSET ?")
                    .bind(id.as_str())
            }
            None => sqlx::query("SELECT * FROM events ORDER BY rowid DESC LIMIT ? OFFSET ?"),
        };
        let rows = rows.bind(page.sql_limit()).bind(page.sql_offset()).fetch_all(&self.readers).await?;
        rows.iter().map(read_event).collect()
    }

    /// Devices in all, and those online.
    pub async fn count_devices(&self) -> Result<(u64, u64)> {
        let row = sqlx::query("SELECT count(*) AS total, coalesce(sum(online), 0) AS online FROM devices")
            .fetch_one(&self.readers)
            .await?;
        let row = Reader::new("devices", &row);
        Ok((row.number("total")?, row.number("online")?))
    }
}
