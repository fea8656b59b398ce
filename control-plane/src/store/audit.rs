//! Who changed what, and answers that are given again where a request comes twice.

use super::{Page, Reader, Result, Store, number, plain, time, word};
use control_core::access::{AuditEntry, Role};
use shared::{
    Digest, Timestamp, UserName,
    limits::{IDEMPOTENCY_MS, IDEMPOTENCY_RUNNING_MS},
};
use sqlx::{
    Any,
    any::{AnyArguments, AnyRow},
    query::Query,
};
use uuid::Uuid;

/// Which entries of the audit log are asked for. What is none asks for all.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    pub user: Option<String>,
    pub operation: Option<String>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// What is known of a request with an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Earlier {
    /// It did not come before, and has begun.
    None,
    /// The key came with another request.
    Other,
    /// The same request came, and has not ended.
    Running,
    /// The same request came and was answered; the answer is not kept where it holds a secret.
    Answered { status: u16, answer: Option<String> },
}

/// Something to write to the audit log.
#[derive(Clone, Debug)]
pub enum AuditWrite {
    Begin(AuditEntry),
    /// How the request of an entry was answered.
    End {
        id: Uuid,
        status: u16,
        target: String,
        detail: String,
    },
}

fn add(entry: &AuditEntry) -> Result<Query<'_, Any, AnyArguments>> {
    let role = entry.role.as_ref().map(word).transpose()?;
    Ok(sqlx::query(
        "INSERT INTO audit (id, at, actor, role, operation, target, status, peer, detail) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(entry.id.to_string())
    .bind(time(entry.at))
    .bind(plain(&entry.user))
    .bind(role)
    .bind(&entry.operation)
    .bind(plain(&entry.target))
    .bind(i64::from(entry.status))
    .bind(&entry.from)
    .bind(plain(&entry.detail)))
}

fn read(row: &AnyRow) -> Result<AuditEntry> {
    let row = Reader::new("audit", row);
    let role = row.text_option("role")?;
    Ok(AuditEntry {
        id: row.parse("id", "id")?,
        at: row.time("at")?,
        user: row.text("actor")?,
        role: role
            .map(|role| role.parse::<Role>().map_err(|error| row.corrupt("role", "role", error)))
            .transpose()?,
        operation: row.text("operation")?,
        target: row.text("target")?,
        status: u16::try_from(row.number("status")?)
            .map_err(|error| row.corrupt("status", "status", error))?,
        from: row.text("peer")?,
        detail: row.text("detail")?,
    })
}

impl Store {
    /// Writes to the audit log, all or nothing.
    pub async fn write_audit(&self, writes: &[AuditWrite]) -> Result<()> {
        let mut tx = self.begin().await?;
        for write in writes {
            match write {
                AuditWrite::Begin(entry) => add(entry)?.execute(&mut *tx).await?,
                AuditWrite::End { id, status, target, detail } => {
                    sqlx::query("UPDATE audit SET status = $1, target = $2, detail = $3 WHERE id = $4")
                        .bind(i64::from(*status))
                        .bind(plain(target))
                        .bind(plain(detail))
                        .bind(id.to_string())
                        .execute(&mut *tx)
                        .await?
                }
            };
        }
        tx.commit().await?;
        Ok(())
    }

    /// The audit log, the newest first.
    pub async fn audit(&self, filter: &AuditFilter, page: &Page) -> Result<Vec<AuditEntry>> {
        let rows = sqlx::query(
            "SELECT * FROM audit WHERE id < $1 AND ($2 = '' OR actor = $2) \
             AND ($3 = '' OR operation = $3) AND at >= $4 AND at <= $5 ORDER BY id DESC LIMIT $6",
        )
        .bind(page.before())
        .bind(plain(filter.user.as_deref().unwrap_or_default()))
        .bind(plain(filter.operation.as_deref().unwrap_or_default()))
        .bind(time(filter.since.unwrap_or_default()))
        .bind(time(filter.until.unwrap_or(Timestamp(u64::MAX))))
        .bind(page.sql_limit())
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(read).collect()
    }

    /// Removes entries from before `before`; gives how many there were.
    pub async fn delete_audit(&self, before: Timestamp) -> Result<u64> {
        let gone =
            sqlx::query("DELETE FROM audit WHERE at < $1").bind(time(before)).execute(&self.writer).await?;
        Ok(gone.rows_affected())
    }

    /// Begins the request `request` of `user` under `key`, unless the key was there. Of two at one time one begins.
    pub async fn begin_idempotent(
        &self,
        user: &UserName,
        key: &str,
        request: &Digest,
        now: Timestamp,
    ) -> Result<Earlier> {
        let mut tx = self.begin().await?;
        let past = |ms: u64| number(now.0.saturating_sub(ms));
        sqlx::query("DELETE FROM idempotency WHERE created_at < $1 OR (status IS NULL AND created_at < $2)")
            .bind(past(IDEMPOTENCY_MS))
            .bind(past(IDEMPOTENCY_RUNNING_MS))
            .execute(&mut *tx)
            .await?;
        let begun = sqlx::query(
            "INSERT INTO idempotency (owner, idem_key, request, created_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT DO NOTHING",
        )
        .bind(user.as_str())
        .bind(key)
        .bind(request.to_string())
        .bind(time(now))
        .execute(&mut *tx)
        .await?;
        if begun.rows_affected() > 0 {
            tx.commit().await?;
            return Ok(Earlier::None);
        }
        let row =
            sqlx::query("SELECT request, status, answer FROM idempotency WHERE owner = $1 AND idem_key = $2")
                .bind(user.as_str())
                .bind(key)
                .fetch_one(&mut *tx)
                .await?;
        let row = Reader::new("idempotency", &row);
        let earlier: Digest = row.parse("request", "digest")?;
        Ok(match row.number_option("status")? {
            _ if earlier != *request => Earlier::Other,
            None => Earlier::Running,
            Some(status) => Earlier::Answered {
                status: u16::try_from(status).map_err(|error| row.corrupt("status", "status", error))?,
                answer: row.text_option("answer")?,
            },
        })
    }

    /// Keeps how a request under `key` was answered.
    pub async fn end_idempotent(
        &self,
        user: &UserName,
        key: &str,
        status: u16,
        answer: Option<&str>,
    ) -> Result<()> {
        sqlx::query("UPDATE idempotency SET status = $1, answer = $2 WHERE owner = $3 AND idem_key = $4")
            .bind(i64::from(status))
            .bind(answer.map(plain))
            .bind(user.as_str())
            .bind(key)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Forgets a key whose request came to nothing, so that it can come again.
    pub async fn forget_idempotent(&self, user: &UserName, key: &str) -> Result<()> {
        sqlx::query("DELETE FROM idempotency WHERE owner = $1 AND idem_key = $2")
            .bind(user.as_str())
            .bind(key)
            .execute(&self.writer)
            .await?;
        Ok(())
    }
}
