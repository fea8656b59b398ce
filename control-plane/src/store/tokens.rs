//! One-time tokens and the certificates that were given for them.

use super::{Page, Reader, Result, Store, time};
use control_core::entity::Token;
use shared::{BoardId, DeviceId, Digest, Timestamp};
use sqlx::sqlite::SqliteRow;

fn read(row: &SqliteRow) -> Result<Token> {
    let row = Reader::new("tokens", row);
    Ok(Token {
        id: row.parse("id", "token id")?,
        device: row.parse_option("device", "device id")?,
        created_at: row.time("created_at")?,
        expires_at: row.time("expires_at")?,
        used_at: row.time_option("used_at")?,
        used_by: row.parse_option("used_by", "device id")?,
    })
}

/// Why a token did not enrol a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRefused {
    Unknown,
    Used,
    Expired,
    /// The device has been revoked.
    Revoked,
    /// A device of that name is enrolled, and the token does not replace it.
    Taken,
}

/// A certificate that was made for a device.
#[derive(Clone, Debug)]
pub struct Issued {
    pub device: DeviceId,
    pub board: BoardId,
    pub agent_version: String,
    /// Hexadecimal, lower case, without leading zeros.
    pub serial: String,
    pub expires_at: Timestamp,
}

impl Store {
    /// Adds a token of which only the hash is kept.
    pub async fn add_token(&self, token: &Token, hash: &Digest) -> Result<()> {
        sqlx::query("INSERT INTO tokens (id, hash, device, created_at, expires_at) VALUES (?, ?, ?, ?, ?)")
            .bind(token.id.to_string())
            .bind(hash.to_string())
            .bind(token.device.as_ref().map(DeviceId::as_str))
            .bind(time(token.created_at))
            .bind(time(token.expires_at))
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Tokens, the newest first.
    pub async fn tokens(&self, page: Page) -> Result<Vec<Token>> {
        let rows = sqlx::query("SELECT * FROM tokens ORDER BY id DESC LIMIT ? OFFSET ?")
            .bind(page.sql_limit())
            .bind(page.sql_offset())
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(read).collect()
    }

    /// The token of a hash, if it may be used now.
    pub async fn usable_token(
        &self,
        hash: &Digest,
        now: Timestamp,
    ) -> Result<std::result::Result<Token, TokenRefused>> {
        let row = sqlx::query("SELECT * FROM tokens WHERE hash = ?")
            .bind(hash.to_string())
            .fetch_optional(&self.readers)
            .await?;
        let Some(token) = row.as_ref().map(read).transpose()? else { return Ok(Err(TokenRefused::Unknown)) };
        Ok(if token.used_at.is_some() {
            Err(TokenRefused::Used)
        } else if token.expires_at <= now {
            Err(TokenRefused::Expired)
        } else {
            Ok(token)
        })
    }

    /// Uses a token up, and adds the device with its certificate, all or nothing. Of two that use the same token, or
    /// ask for the same name, at once one is refused. With `may_replace` a device that is there gets the certificate,
    /// and those that it had before are good no more.
    pub async fn enrol(
        &self,
        hash: &Digest,
        issued: &Issued,
        may_replace: bool,
        now: Timestamp,
    ) -> Result<std::result::Result<(), TokenRefused>> {
        let mut tx = self.begin().await?;
        let used = sqlx::query(
            "UPDATE tokens SET used_at = ?1, used_by = ?2 WHERE hash = ?3 AND used_at IS NULL AND expires_at > ?1",
        )
        .bind(time(now))
        .bind(issued.device.as_str())
        .bind(hash.to_string())
        .execute(&mut *tx)
        .await?;
        if used.rows_affected() == 0 {
            return Ok(Err(TokenRefused::Used));
        }
        let added = sqlx::query(
            "INSERT INTO devices (id, board, agent_version, labels, online, enrolled_at, generation, assignments) \
             VALUES (?, ?, ?, '{}', 0, ?, 0, '[]') \
             ON CONFLICT (id) DO UPDATE SET board = excluded.board, agent_version = excluded.agent_version \
             WHERE revoked_at IS NULL AND ?",
        )
        .bind(issued.device.as_str())
        .bind(issued.board.as_str())
        .bind(&issued.agent_version)
        .bind(time(now))
        .bind(may_replace)
        .execute(&mut *tx)
        .await?;
        if added.rows_affected() == 0 {
            return Ok(Err(if may_replace { TokenRefused::Revoked } else { TokenRefused::Taken }));
        }
        sqlx::query("UPDATE certificates SET revoked_at = ? WHERE device = ? AND revoked_at IS NULL")
            .bind(time(now))
            .bind(issued.device.as_str())
            .execute(&mut *tx)
            .await?;
        sqlx::query("INSERT INTO certificates (serial, device, issued_at, expires_at) VALUES (?, ?, ?, ?)")
            .bind(&issued.serial)
            .bind(issued.device.as_str())
            .bind(time(now))
            .bind(time(issued.expires_at))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(Ok(()))
    }

    /// Is `serial` a certificate of `device` that was issued here and not revoked?
    pub async fn certificate_is_good(&self, device: &DeviceId, serial: &str) -> Result<bool> {
        let row = sqlx::query(
            "SELECT 1 FROM certificates c JOIN devices d ON d.id = c.device \
             WHERE c.serial = ? AND c.device = ? AND c.revoked_at IS NULL AND d.revoked_at IS NULL",
        )
        .bind(serial)
        .bind(device.as_str())
        .fetch_optional(&self.readers)
        .await?;
        Ok(row.is_some())
    }
}
