//! One-time tokens.

use super::{Page, Reader, Result, Store, certificates::Issued, time};
use control_core::entity::{BOARD_UNKNOWN, Token};
use shared::{DeviceId, Digest, Timestamp};
use sqlx::any::AnyRow;

fn read(row: &AnyRow) -> Result<Token> {
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

impl Store {
    /// Adds a token of which only the hash is kept.
    pub async fn add_token(&self, token: &Token, hash: &Digest) -> Result<()> {
        sqlx::query(
            "INSERT INTO tokens (id, hash, device, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)",
        )
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
    pub async fn tokens(&self, page: &Page) -> Result<Vec<Token>> {
        let rows = sqlx::query("SELECT * FROM tokens WHERE id < $1 ORDER BY id DESC LIMIT $2")
            .bind(page.before())
            .bind(page.sql_limit())
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(read).collect()
    }

    /// The token of a hash, if it may be used now for the public key of digest `key`: the key that used it may use it
    /// again, so that an answer that was lost can be had once more.
    pub async fn usable_token(
        &self,
        hash: &Digest,
        key: &Digest,
        now: Timestamp,
    ) -> Result<std::result::Result<Token, TokenRefused>> {
        let row = sqlx::query("SELECT * FROM tokens WHERE hash = $1")
            .bind(hash.to_string())
            .fetch_optional(&self.readers)
            .await?;
        let Some(row) = row else { return Ok(Err(TokenRefused::Unknown)) };
        let token = read(&row)?;
        let used_key: Option<Digest> = Reader::new("tokens", &row).parse_option("used_key", "digest")?;
        Ok(if token.used_at.is_some() && used_key.as_ref() != Some(key) {
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
    /// Where the key that used the token comes again it gets another certificate in place of the lost one.
    pub async fn enrol(
        &self,
        hash: &Digest,
        issued: &Issued,
        may_replace: bool,
        now: Timestamp,
    ) -> Result<std::result::Result<(), TokenRefused>> {
        let mut tx = self.begin().await?;
        let used = sqlx::query(
            "UPDATE tokens SET used_at = $1, used_by = $2, used_key = $4 WHERE hash = $3 AND expires_at > $1 \
             AND (used_at IS NULL OR (used_by = $2 AND used_key = $4))",
        )
        .bind(time(now))
        .bind(issued.device.as_str())
        .bind(hash.to_string())
        .bind(issued.key.to_string())
        .execute(&mut *tx)
        .await?;
        if used.rows_affected() == 0 {
            return Ok(Err(TokenRefused::Used));
        }
        let added = sqlx::query(
            "INSERT INTO devices (id, board, agent_version, labels, online, enrolled_at, generation, assignments) \
             VALUES ($1, $2, '', '{}', 0, $3, 0, '[]') \
             ON CONFLICT (id) DO UPDATE SET id = excluded.id WHERE devices.revoked_at IS NULL AND $4 = 1",
        )
        .bind(issued.device.as_str())
        .bind(BOARD_UNKNOWN)
        .bind(time(now))
        .bind(i64::from(may_replace))
        .execute(&mut *tx)
        .await?;
        if added.rows_affected() == 0 {
            return Ok(Err(if may_replace { TokenRefused::Revoked } else { TokenRefused::Taken }));
        }
        sqlx::query("UPDATE certificates SET revoked_at = $1 WHERE device = $2 AND revoked_at IS NULL")
            .bind(time(now))
            .bind(issued.device.as_str())
            .execute(&mut *tx)
            .await?;
        issued.insert(now).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(Ok(()))
    }
}
