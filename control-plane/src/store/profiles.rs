//! Latency profiles: one request and its answer a device.

use super::{Reader, Result, Store, json, number, time};
use control_core::profile::DeviceProfile;
use shared::{
    BoardId, DeviceId, Timestamp,
    profile::{ProfileReport, Workload},
};
use sqlx::any::AnyRow;

/// Most devices of one board whose answers count together.
pub const PROFILES_MAX: u32 = 32;

fn read(row: &AnyRow) -> Result<DeviceProfile> {
    let row = Reader::new("profiles", row);
    Ok(DeviceProfile {
        device: row.parse("device", "device id")?,
        generation: row.number("generation")?,
        asked_at: row.time("asked_at")?,
        workloads: row.json("workloads", "list of workloads")?,
        report: row.json_option("report", "profile report")?,
        received_at: row.time_option("received_at")?,
    })
}

impl Store {
    /// Asks devices of a board for `workloads`: each gets the next generation, and what it answered before is gone.
    pub async fn ask_profiles(
        &self,
        board: &BoardId,
        devices: &[DeviceId],
        workloads: &[Workload],
        now: Timestamp,
    ) -> Result<()> {
        let workloads = json(&workloads)?;
        let mut tx = self.begin().await?;
        for device in devices {
            sqlx::query(
                "INSERT INTO profiles (device, board, generation, asked_at, workloads) VALUES ($1, $2, 1, $3, $4) \
                 ON CONFLICT (device) DO UPDATE SET board = $2, generation = profiles.generation + 1, asked_at = $3, \
                 workloads = $4, report = NULL, received_at = NULL, complete = 0",
            )
            .bind(device.as_str())
            .bind(board.as_str())
            .bind(time(now))
            .bind(&workloads)
            .execute(&mut *tx)
            .await?;
        }
        Ok(tx.commit().await?)
    }

    /// Keeps a device's answer to its newest request; `false` for any other, and once that is complete.
    pub async fn set_profile_report(&self, report: &ProfileReport, now: Timestamp) -> Result<bool> {
        let mut tx = self.begin_as_leader().await?;
        let done = sqlx::query(
            "UPDATE profiles SET report = $1, received_at = $2, complete = $3 \
             WHERE device = $4 AND generation = $5 AND complete = 0",
        )
        .bind(json(report)?)
        .bind(time(now))
        .bind(i64::from(report.complete))
        .bind(report.device.as_str())
        .bind(number(report.generation))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// What devices of a board were asked and answered, by device: of more than [`PROFILES_MAX`] those that were asked
    /// last.
    pub async fn profiles_of(&self, board: &BoardId) -> Result<Vec<DeviceProfile>> {
        let rows =
            sqlx::query("SELECT * FROM profiles WHERE board = $1 ORDER BY asked_at DESC, device LIMIT $2")
                .bind(board.as_str())
                .bind(i64::from(PROFILES_MAX))
                .fetch_all(&self.readers)
                .await?;
        let mut profiles: Vec<_> = rows.iter().map(read).collect::<Result<_>>()?;
        profiles.sort_by(|a, b| a.device.cmp(&b.device));
        Ok(profiles)
    }

    /// The newest request to a device.
    pub async fn profile(&self, device: &DeviceId) -> Result<Option<DeviceProfile>> {
        let row = sqlx::query("SELECT * FROM profiles WHERE device = $1")
            .bind(device.as_str())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// Devices that are good and have not answered in full, with the generation that they were asked for.
    pub async fn open_profiles(&self) -> Result<Vec<(DeviceId, u64)>> {
        let rows = sqlx::query(
            "SELECT p.device AS device, p.generation AS generation FROM profiles p JOIN devices d ON d.id = p.device \
             WHERE p.complete = 0 AND d.revoked_at IS NULL ORDER BY p.device",
        )
        .fetch_all(&self.readers)
        .await?;
        Reader::each("profiles", &rows, |row| {
            Ok((row.parse("device", "device id")?, row.number("generation")?))
        })
    }
}

#[cfg(test)]
mod tests;
