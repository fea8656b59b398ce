//! The store: SQLite for what is known, a folder for blobs. One file per kind of thing; all SQL is here.

pub mod blobs;
pub mod certificates;
pub mod datasets;
pub mod deltas;
mod devices;
mod evidence;
mod facts;
mod groups;
mod incidents;
pub mod ingest;
pub mod jobs;
mod many;
mod profiles;
pub mod rollouts;
mod rollups;
pub mod tokens;
pub mod versions;

pub use facts::{OfBoard, OfVersion};
pub use groups::{GROUPS_MAX, Labelled};
pub use profiles::PROFILES_MAX;
pub use rollups::{Asked, Found, READ_MAX};

use serde::{Serialize, de::DeserializeOwned};
use shared::{Timestamp, limits};
use sqlx::{
    Row, Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};
use std::{
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be opened.
    #[error("the database {} cannot be opened", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: sqlx::Error,
    },
    /// The database is of a form that this program cannot bring up to date.
    #[error("the database {} cannot be brought up to date", path.display())]
    Migrate {
        path: PathBuf,
        #[source]
        source: sqlx::migrate::MigrateError,
    },
    /// No room on the disk.
    #[error("the disk is full; free some space under the data folder")]
    Full,
    /// A name that is taken, or a state that does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// A stored value that this program does not understand.
    #[error("{table}.{column} holds what is no {expected}: {reason}")]
    Corrupt { table: &'static str, column: String, expected: &'static str, reason: String },
    /// Any other failure of the database.
    #[error("the database failed")]
    Database(#[source] sqlx::Error),
    /// A file of the blob store.
    #[error("{} failed", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// The store's result.
pub type Result<T> = std::result::Result<T, Error>;

/// SQLite's primary code for a full disk.
const SQLITE_FULL: &str = "13";
const READERS: u32 = 4;
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned));
        match code.as_deref() {
            Some(SQLITE_FULL) => Self::Full,
            Some(_) | None => Self::Database(error),
        }
    }
}

/// The database and the blobs of one data folder.
#[derive(Clone, Debug)]
pub struct Store {
    readers: SqlitePool,
    /// One connection: writers wait for each other here and not in SQLite.
    writer: SqlitePool,
    /// The blobs.
    pub blobs: blobs::Blobs,
}

/// A page of a list.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    pub limit: u32,
    pub offset: u64,
}

impl Default for Page {
    fn default() -> Self {
        Self { limit: limits::PAGE_DEFAULT, offset: 0 }
    }
}

impl Page {
    /// One more than asked for, so that the caller sees whether there is more.
    fn sql_limit(self) -> i64 {
        i64::from(self.limit.min(limits::PAGE_MAX)) + 1
    }

    fn sql_offset(self) -> i64 {
        i64::try_from(self.offset).unwrap_or(i64::MAX)
    }
}

impl Store {
    /// Opens the store in `folder` and brings the database up to date.
    pub async fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("edgewright.db");
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let open = |source| Error::Open { path: path.clone(), source };
        let writer =
            SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await.map_err(open)?;
        sqlx::migrate!("./migrations")
            .run(&writer)
            .await
            .map_err(|source| Error::Migrate { path: path.clone(), source })?;
        let readers =
            SqlitePoolOptions::new().max_connections(READERS).connect_with(options).await.map_err(open)?;
        let blobs = blobs::Blobs::open(&folder.join("blobs"))?;
        Ok(Self { readers, writer, blobs })
    }

    /// Ends all connections; what was committed is on the disk.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }
}

/// Writes a value as JSON text.
fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|error| Error::Conflict(format!("a value has no JSON form: {error}")))
}

/// Writes an enum of unit variants as its JSON word, without the quotes.
fn word<T: Serialize>(value: &T) -> Result<String> {
    Ok(json(value)?.trim_matches('"').to_owned())
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn time(at: Timestamp) -> i64 {
    number(at.0)
}

/// Reads columns of one row with errors that name them.
struct Reader<'a> {
    table: &'static str,
    row: &'a SqliteRow,
}

impl<'a> Reader<'a> {
    fn new(table: &'static str, row: &'a SqliteRow) -> Self {
        Self { table, row }
    }

    fn corrupt(&self, column: &str, expected: &'static str, reason: impl ToString) -> Error {
        Error::Corrupt { table: self.table, column: column.to_owned(), expected, reason: reason.to_string() }
    }

    fn text(&self, column: &str) -> Result<String> {
        Ok(self.row.try_get(column)?)
    }

    fn text_option(&self, column: &str) -> Result<Option<String>> {
        Ok(self.row.try_get(column)?)
    }

    fn number(&self, column: &str) -> Result<u64> {
        let value: i64 = self.row.try_get(column)?;
        u64::try_from(value).map_err(|error| self.corrupt(column, "count", error))
    }

    fn number_option(&self, column: &str) -> Result<Option<u64>> {
        let value: Option<i64> = self.row.try_get(column)?;
        value
            .map(|value| u64::try_from(value).map_err(|error| self.corrupt(column, "count", error)))
            .transpose()
    }

    fn small(&self, column: &str) -> Result<u32> {
        u32::try_from(self.number(column)?).map_err(|error| self.corrupt(column, "count of 32 bits", error))
    }

    fn flag(&self, column: &str) -> Result<bool> {
        Ok(self.number(column)? != 0)
    }

    fn time(&self, column: &str) -> Result<Timestamp> {
        Ok(Timestamp(self.number(column)?))
    }

    fn time_option(&self, column: &str) -> Result<Option<Timestamp>> {
        Ok(self.number_option(column)?.map(Timestamp))
    }

    fn parse<T: FromStr<Err: ToString>>(&self, column: &str, expected: &'static str) -> Result<T> {
        self.text(column)?.parse().map_err(|error: T::Err| self.corrupt(column, expected, error.to_string()))
    }

    fn parse_option<T: FromStr<Err: ToString>>(
        &self,
        column: &str,
        expected: &'static str,
    ) -> Result<Option<T>> {
        let text = self.text_option(column)?;
        text.map(|text| {
            text.parse().map_err(|error: T::Err| self.corrupt(column, expected, error.to_string()))
        })
        .transpose()
    }

    fn json<T: DeserializeOwned>(&self, column: &str, expected: &'static str) -> Result<T> {
        serde_json::from_str(&self.text(column)?).map_err(|error| self.corrupt(column, expected, error))
    }

    fn json_option<T: DeserializeOwned>(&self, column: &str, expected: &'static str) -> Result<Option<T>> {
        let text = self.text_option(column)?;
        text.map(|text| serde_json::from_str(&text).map_err(|error| self.corrupt(column, expected, error)))
            .transpose()
    }

    /// Reads an enum of unit variants.
    fn word<T: DeserializeOwned>(&self, column: &str, expected: &'static str) -> Result<T> {
        let text = serde_json::Value::String(self.text(column)?);
        serde_json::from_value(text).map_err(|error| self.corrupt(column, expected, error))
    }
}

#[cfg(test)]
mod tests;
