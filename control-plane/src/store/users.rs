//! Users: people and programs that use the API.

use super::{Error, Page, Reader, Result, Store, number, time, word};
use control_core::access::{Role, User};
use shared::{Timestamp, UserName, limits::USERS_MAX};
use sqlx::any::AnyRow;

const COLUMNS: &str = "name, role, created_at, disabled, last_login_at";

fn read(row: &AnyRow) -> Result<User> {
    let row = Reader::new("users", row);
    Ok(User {
        name: row.parse("name", "user name")?,
        role: row.word("role", "role")?,
        created_at: row.time("created_at")?,
        disabled: row.flag("disabled")?,
        last_login_at: row.time_option("last_login_at")?,
    })
}

/// What is to change of a user. What is none stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct UserChange<'a> {
    pub role: Option<Role>,
    /// As argon2 writes it.
    pub password: Option<&'a str>,
    pub disabled: Option<bool>,
}

impl Store {
    /// Users by name.
    pub async fn users(&self, page: &Page) -> Result<Vec<User>> {
        let sql = format!("SELECT {COLUMNS} FROM users WHERE name > $1 ORDER BY name LIMIT $2");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(page.after())
            .bind(page.sql_limit())
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(read).collect()
    }

    /// One user.
    pub async fn user(&self, name: &UserName) -> Result<Option<User>> {
        let sql = format!("SELECT {COLUMNS} FROM users WHERE name = $1");
        let row =
            sqlx::query(sqlx::AssertSqlSafe(sql)).bind(name.as_str()).fetch_optional(&self.readers).await?;
        row.as_ref().map(read).transpose()
    }

    /// A user's password as argon2 writes it, unless there is none or the user is disabled.
    pub async fn password(&self, name: &UserName) -> Result<Option<String>> {
        let row = sqlx::query("SELECT password FROM users WHERE name = $1 AND disabled = 0")
            .bind(name.as_str())
            .fetch_optional(&self.readers)
            .await?;
        row.map_or(Ok(None), |row| Reader::new("users", &row).text_option("password"))
    }

    /// Adds a user. The name must be free.
    pub async fn add_user(&self, user: &User, password: &str) -> Result<()> {
        let mut tx = self.begin().await?;
        let count = sqlx::query("SELECT count(*) AS n FROM users").fetch_one(&mut *tx).await?;
        if Reader::new("users", &count).number("n")? >= USERS_MAX {
            return Err(Error::Conflict(format!(
                "there are {USERS_MAX} users, which is the most there may be"
            )));
        }
        let added = sqlx::query(
            "INSERT INTO users (name, role, password, created_at, disabled) VALUES ($1, $2, $3, $4, 0) \
             ON CONFLICT DO NOTHING",
        )
        .bind(user.name.as_str())
        .bind(word(&user.role)?)
        .bind(password)
        .bind(time(user.created_at))
        .execute(&mut *tx)
        .await?;
        if added.rows_affected() == 0 {
            return Err(Error::Conflict(format!("there is a user {} already", user.name)));
        }
        tx.commit().await?;
        Ok(())
    }

    /// Changes a user; gives whether there is one. Another password or being disabled ends the user's sessions.
    pub async fn change_user(&self, name: &UserName, change: UserChange<'_>) -> Result<bool> {
        let mut tx = self.begin().await?;
        let role = change.role.as_ref().map(word).transpose()?;
        let changed = sqlx::query(
            "UPDATE users SET role = COALESCE($1, role), password = COALESCE($2, password), \
             disabled = COALESCE($3, disabled) WHERE name = $4",
        )
        .bind(role)
        .bind(change.password)
        .bind(change.disabled.map(i64::from))
        .bind(name.as_str())
        .execute(&mut *tx)
        .await?;
        if changed.rows_affected() > 0 && (change.password.is_some() || change.disabled == Some(true)) {
            sqlx::query("DELETE FROM sessions WHERE owner = $1")
                .bind(name.as_str())
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(changed.rows_affected() > 0)
    }

    /// Removes a user with sessions and tokens; gives whether there was one.
    pub async fn delete_user(&self, name: &UserName) -> Result<bool> {
        let mut tx = self.begin().await?;
        for table in ["sessions", "api_tokens", "idempotency"] {
            let sql = format!("DELETE FROM {table} WHERE owner = $1");
            sqlx::query(sqlx::AssertSqlSafe(sql)).bind(name.as_str()).execute(&mut *tx).await?;
        }
        let gone =
            sqlx::query("DELETE FROM users WHERE name = $1").bind(name.as_str()).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(gone.rows_affected() > 0)
    }

    /// Notes that a user has logged in, and adds the session; the oldest ones end where there would be too many, and
    /// so do those that have expired.
    pub async fn add_session(
        &self,
        user: &UserName,
        hash: &shared::Digest,
        now: Timestamp,
        expires_at: Timestamp,
        at_most: u32,
    ) -> Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM sessions WHERE expires_at <= $1").bind(time(now)).execute(&mut *tx).await?;
        sqlx::query(
            "DELETE FROM sessions WHERE owner = $1 AND hash NOT IN (SELECT hash FROM sessions WHERE owner = $1 \
             ORDER BY created_at DESC, hash LIMIT $2)",
        )
        .bind(user.as_str())
        .bind(number(u64::from(at_most.saturating_sub(1))))
        .execute(&mut *tx)
        .await?;
        sqlx::query("INSERT INTO sessions (hash, owner, created_at, expires_at) VALUES ($1, $2, $3, $4)")
            .bind(hash.to_string())
            .bind(user.as_str())
            .bind(time(now))
            .bind(time(expires_at))
            .execute(&mut *tx)
            .await?;
        sqlx::query("UPDATE users SET last_login_at = $1 WHERE name = $2")
            .bind(time(now))
            .bind(user.as_str())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }
}
