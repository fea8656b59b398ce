//! Sessions and API tokens: of their secrets only hashes are kept.

use super::{Error, Page, Reader, Result, Store, time, word};
use control_core::access::{ApiToken, Role};
use shared::{Digest, Timestamp, UserName, limits::API_TOKENS_MAX};
use sqlx::any::AnyRow;
use uuid::Uuid;

/// Who shows a secret, and until when it is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub user: UserName,
    pub role: Role,
    pub expires_at: Timestamp,
    /// The API token, if it is none of a session.
    pub token: Option<Uuid>,
}

fn read(row: &AnyRow) -> Result<ApiToken> {
    let row = Reader::new("api_tokens", row);
    Ok(ApiToken {
        id: row.parse("id", "token id")?,
        name: row.text("name")?,
        user: row.parse("owner", "user name")?,
        role: row.word("role", "role")?,
        created_at: row.time("created_at")?,
        expires_at: row.time("expires_at")?,
        used_at: row.time_option("used_at")?,
    })
}

impl Store {
    /// Whose session or API token has this hash, unless it has expired or its user is disabled.
    pub async fn holder(&self, hash: &Digest, now: Timestamp) -> Result<Option<Holder>> {
        let row = sqlx::query(
            "SELECT s.owner AS owner, u.role AS role, s.expires_at AS expires_at FROM sessions s \
             JOIN users u ON u.name = s.owner WHERE s.hash = $1 AND s.expires_at > $2 AND u.disabled = 0",
        )
        .bind(hash.to_string())
        .bind(time(now))
        .fetch_optional(&self.readers)
        .await?;
        if let Some(row) = row {
            let row = Reader::new("sessions", &row);
            return Ok(Some(Holder {
                user: row.parse("owner", "user name")?,
                role: row.word("role", "role")?,
                expires_at: row.time("expires_at")?,
                token: None,
            }));
        }
        let row = sqlx::query(
            "SELECT t.id AS id, t.owner AS owner, t.role AS role, u.role AS user_role, t.expires_at AS expires_at \
             FROM api_tokens t JOIN users u ON u.name = t.owner \
             WHERE t.hash = $1 AND t.expires_at > $2 AND u.disabled = 0",
        )
        .bind(hash.to_string())
        .bind(time(now))
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let row = Reader::new("api_tokens", &row);
        let (of_token, of_user): (Role, Role) = (row.word("role", "role")?, row.word("user_role", "role")?);
        Ok(Some(Holder {
            user: row.parse("owner", "user name")?,
            role: of_token.min(of_user),
            expires_at: row.time("expires_at")?,
            token: Some(row.parse("id", "token id")?),
        }))
    }

    /// Ends a session.
    pub async fn delete_session(&self, hash: &Digest) -> Result<()> {
        sqlx::query("DELETE FROM sessions WHERE hash = $1")
            .bind(hash.to_string())
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Adds an API token of which only the hash is kept.
    pub async fn add_api_token(&self, token: &ApiToken, hash: &Digest) -> Result<()> {
        let mut tx = self.begin().await?;
        let count = sqlx::query("SELECT count(*) AS n FROM api_tokens").fetch_one(&mut *tx).await?;
        if Reader::new("api_tokens", &count).number("n")? >= API_TOKENS_MAX {
            let text =
                format!("there are {API_TOKENS_MAX} tokens, which is the most there may be; delete some");
            return Err(Error::Conflict(text));
        }
        sqlx::query(
            "INSERT INTO api_tokens (id, hash, name, owner, role, created_at, expires_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(token.id.to_string())
        .bind(hash.to_string())
        .bind(&token.name)
        .bind(token.user.as_str())
        .bind(word(&token.role)?)
        .bind(time(token.created_at))
        .bind(time(token.expires_at))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// API tokens, the newest first.
    pub async fn api_tokens(&self, page: &Page) -> Result<Vec<ApiToken>> {
        let rows = sqlx::query("SELECT * FROM api_tokens WHERE id < $1 ORDER BY id DESC LIMIT $2")
            .bind(page.before())
            .bind(page.sql_limit())
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(read).collect()
    }

    /// Removes an API token; gives whether there was one.
    pub async fn delete_api_token(&self, id: Uuid) -> Result<bool> {
        let gone = sqlx::query("DELETE FROM api_tokens WHERE id = $1")
            .bind(id.to_string())
            .execute(&self.writer)
            .await?;
        Ok(gone.rows_affected() > 0)
    }

    /// Notes when API tokens were used last.
    pub async fn note_token_uses(&self, uses: &[(Uuid, Timestamp)]) -> Result<()> {
        let mut tx = self.begin().await?;
        for (id, at) in uses {
            sqlx::query(
                "UPDATE api_tokens SET used_at = $1 WHERE id = $2 AND (used_at IS NULL OR used_at < $1)",
            )
            .bind(time(*at))
            .bind(id.to_string())
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Removes sessions and API tokens that ended before `before`.
    pub async fn delete_expired_access(&self, before: Timestamp) -> Result<()> {
        for table in ["sessions", "api_tokens"] {
            let sql = format!("DELETE FROM {table} WHERE expires_at < $1");
            sqlx::query(sqlx::AssertSqlSafe(sql)).bind(time(before)).execute(&self.writer).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
