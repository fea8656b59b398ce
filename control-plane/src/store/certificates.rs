//! Certificates of devices: which are good, which of them are in use, who issued them.

use super::{Reader, Result, Store, many, plain, time};
use shared::{BoardId, DeviceId, Digest, Timestamp};
use sqlx::{
    Any,
    any::{AnyArguments, AnyRow},
    query::Query,
};

/// Certificates of one device that are good at one time. A renewal beyond that revokes the oldest: answers that were
/// lost leave some that nobody has.
pub const CERTIFICATES_PER_DEVICE_MAX: u32 = 8;

/// A certificate that was made for a device.
#[derive(Clone, Debug)]
pub struct Issued {
    pub device: DeviceId,
    /// Hexadecimal, lower case, without leading zeros.
    pub serial: String,
    pub expires_at: Timestamp,
    /// Of the CA's certificate.
    pub authority: Digest,
    /// Of the public key.
    pub key: Digest,
}

/// A certificate that was revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    pub serial: String,
    /// Of the CA's certificate.
    pub authority: Option<Digest>,
    pub revoked_at: Timestamp,
}

const DAY_MS: i64 = 86_400_000;

impl Issued {
    pub(super) fn insert(&self, now: Timestamp) -> Query<'_, Any, AnyArguments> {
        sqlx::query(
            "INSERT INTO certificates (serial, device, issued_at, expires_at, authority) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(&self.serial)
        .bind(self.device.as_str())
        .bind(time(now))
        .bind(time(self.expires_at))
        .bind(self.authority.to_string())
    }
}

/// The certificate `serial` of `device` with when it was first used, if neither was revoked.
fn good<'a>(device: &'a DeviceId, serial: &'a str) -> Query<'a, Any, AnyArguments> {
    sqlx::query(
        "SELECT c.used_at FROM certificates c JOIN devices d ON d.id = c.device \
         WHERE c.serial = $1 AND c.device = $2 AND c.revoked_at IS NULL AND d.revoked_at IS NULL",
    )
    .bind(serial)
    .bind(device.as_str())
}

impl Store {
    /// Is `serial` a certificate of `device` that was issued here and not revoked? Remembers that it is in use.
    pub async fn use_certificate(&self, device: &DeviceId, serial: &str, now: Timestamp) -> Result<bool> {
        let Some(row) = good(device, serial).fetch_optional(&self.readers).await? else { return Ok(false) };
        if Reader::new("certificates", &row).time_option("used_at")?.is_none() {
            sqlx::query("UPDATE certificates SET used_at = $1 WHERE serial = $2")
                .bind(time(now))
                .bind(serial)
                .execute(&self.writer)
                .await?;
        }
        Ok(true)
    }

    /// Adds a certificate to those of its device, if `serial` is a good one of it: of a renewal and a revocation at
    /// once, the one that comes second sees the other. The one that was shown stays good, for the answer may be lost.
    pub async fn renew(&self, serial: &str, issued: &Issued, now: Timestamp) -> Result<bool> {
        let mut tx = self.begin().await?;
        if good(&issued.device, serial).fetch_optional(&mut *tx).await?.is_none() {
            return Ok(false);
        }
        let device = issued.device.as_str();
        issued.insert(now).execute(&mut *tx).await?;
        sqlx::query("DELETE FROM certificates WHERE device = $1 AND expires_at <= $2 AND serial <> $3")
            .bind(device)
            .bind(time(now))
            .bind(serial)
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "UPDATE certificates SET revoked_at = $1 \
             WHERE device = $2 AND revoked_at IS NULL AND serial <> $3 AND serial NOT IN ( \
                 SELECT serial FROM certificates WHERE device = $2 AND revoked_at IS NULL AND serial <> $3 \
                 ORDER BY issued_at DESC, serial DESC LIMIT $4)",
        )
        .bind(time(now))
        .bind(device)
        .bind(serial)
        .bind(i64::from(CERTIFICATES_PER_DEVICE_MAX) - 1)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(true)
    }

    /// The CAs of the devices' certificates that were not revoked, as far as that is on record: whether they are over says
    /// the clock of whoever they are shown to. None for a device that was revoked.
    pub async fn authorities_of_devices(
        &self,
        devices: &[DeviceId],
    ) -> Result<Vec<(DeviceId, Option<Digest>)>> {
        let these = many::among(self.dialect(), "c.device", 1);
        let sql = format!(
            "SELECT DISTINCT c.device, c.authority FROM certificates c JOIN devices d ON d.id = c.device \
             WHERE {these} AND c.revoked_at IS NULL AND d.revoked_at IS NULL"
        );
        let mut found = Vec::new();
        for devices in devices.chunks(many::LIST_MAX) {
            let rows = sqlx::query(sqlx::AssertSqlSafe(sql.clone()))
                .bind(many::list(devices)?)
                .fetch_all(&self.readers)
                .await?;
            for row in &rows {
                let row = Reader::new("certificates", row);
                found.push((row.parse("device", "device id")?, authority(&row)?));
            }
        }
        Ok(found)
    }

    /// Revoked certificates that a clock that is a day behind would still take, by serial.
    pub async fn revoked_certificates(&self, now: Timestamp) -> Result<Vec<Revocation>> {
        let rows = sqlx::query(
            "SELECT serial, authority, revoked_at FROM certificates \
             WHERE revoked_at IS NOT NULL AND expires_at > $1 ORDER BY serial",
        )
        .bind(time(now).saturating_sub(DAY_MS))
        .fetch_all(&self.readers)
        .await?;
        let read = |row: &AnyRow| {
            let row = Reader::new("certificates", row);
            Ok(Revocation {
                serial: row.text("serial")?,
                authority: authority(&row)?,
                revoked_at: row.time("revoked_at")?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// What a device says of itself once it has a certificate.
    pub async fn set_board(&self, id: &DeviceId, board: &BoardId, agent_version: &str) -> Result<()> {
        sqlx::query("UPDATE devices SET board = $1, agent_version = $2 WHERE id = $3")
            .bind(board.as_str())
            .bind(plain(agent_version))
            .bind(id.as_str())
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// How many devices have shown a good certificate of `authority`.
    pub async fn count_devices_of_authority(&self, authority: &Digest, now: Timestamp) -> Result<u64> {
        let row = sqlx::query(
            "SELECT count(DISTINCT c.device) AS devices FROM certificates c JOIN devices d ON d.id = c.device \
             WHERE c.authority = $1 AND c.used_at IS NOT NULL AND c.revoked_at IS NULL AND d.revoked_at IS NULL \
             AND c.expires_at > $2",
        )
        .bind(authority.to_string())
        .bind(time(now))
        .fetch_one(&self.readers)
        .await?;
        Reader::new("certificates", &row).number("devices")
    }

    /// Devices that have good certificates and have not shown one of `authority`.
    pub async fn devices_without_authority(
        &self,
        authority: &Digest,
        now: Timestamp,
    ) -> Result<Vec<DeviceId>> {
        let rows = sqlx::query(
            "SELECT c.device FROM certificates c JOIN devices d ON d.id = c.device \
             WHERE c.revoked_at IS NULL AND d.revoked_at IS NULL AND c.expires_at > $2 GROUP BY c.device \
             HAVING max(CASE WHEN c.authority = $1 AND c.used_at IS NOT NULL THEN 1 ELSE 0 END) = 0 ORDER BY c.device",
        )
        .bind(authority.to_string())
        .bind(time(now))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| Reader::new("certificates", row).parse("device", "device id")).collect()
    }
}

/// Of a certificate that was issued before that was noted it is not known.
fn authority(row: &Reader<'_>) -> Result<Option<Digest>> {
    if row.text("authority")?.is_empty() { Ok(None) } else { row.parse("authority", "digest").map(Some) }
}

#[cfg(test)]
mod tests;
