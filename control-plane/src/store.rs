//! The store: a database for what is known, a folder for blobs. One file per kind of thing; all SQL is here.
//!
//! The database is SQLite in the data folder or PostgreSQL at an address, and a statement is one text for both (ADR 36).

mod access;
mod audit;
pub mod backup;
pub mod blobs;
pub mod certificates;
mod database;
pub mod datasets;
pub mod deltas;
mod devices;
mod evidence;
mod facts;
mod groups;
mod incidents;
pub mod ingest;
pub mod jobs;
pub mod leader;
mod many;
mod paging;
mod profiles;
mod read;
pub mod rollouts;
mod rollups;
#[cfg(test)]
pub(crate) mod testing;
pub mod tokens;
mod users;
pub mod versions;

pub use access::Holder;
pub use audit::{AuditFilter, AuditWrite, Earlier};
pub use database::{Address, Database};
pub use devices::DeviceFilter;
pub use facts::{OfBoard, OfVersion};
pub use groups::{GROUPS_MAX, Labelled};
pub use paging::Page;
pub use profiles::PROFILES_MAX;
pub use rollups::{Asked, Found, READ_MAX};
pub use users::UserChange;

use database::Dialect;
use leader::Fence;
use read::Reader;
use serde::Serialize;
use shared::Timestamp;
use sqlx::{
    Any, AnyPool, Transaction,
    any::AnyTypeInfo,
    encode::{Encode, IsNull},
    error::BoxDynError,
    types::Type,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be opened.
    #[error("the database {database} cannot be opened")]
    Open {
        database: String,
        #[source]
        source: sqlx::Error,
    },
    /// The database is of a form that this program cannot bring up to date.
    #[error("the database {database} cannot be brought up to date")]
    Migrate {
        database: String,
        #[source]
        source: sqlx::migrate::MigrateError,
    },
    /// A later program has changed the form of the database.
    #[error(
        "the database {database} is newer than this program: it has form {version}, which is not known here; run the program \
         that wrote it, or a newer one"
    )]
    Newer { database: String, version: i64 },
    /// No room on the disk.
    #[error("the disk is full; free some space under the data folder or where the database is")]
    Full,
    /// The database does not answer at this moment.
    #[error("the database cannot be reached")]
    Unreachable(#[source] sqlx::Error),
    /// Another server acts for the fleet, or none does yet: what was to be written is not.
    #[error("another server acts for this fleet")]
    NotLeader,
    /// A place in a list that is none of this list.
    #[error("the cursor {0:?} is none of this list; begin again without one")]
    Cursor(String),
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

/// Begins a transaction that writes: it waits for the lock here, and not in its first statement.
const BEGIN: &str = "BEGIN IMMEDIATE";
/// SQLite's primary code for a full disk, and PostgreSQL's.
const CODES_FULL: [&str; 2] = ["13", "53100"];
/// PostgreSQL ends or begins (57P), has no connection left (53300), or has lost one (08).
const CODES_UNREACHABLE: [&str; 3] = ["57P", "53300", "08"];

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(said) => match said.code().as_deref() {
                Some(code) if CODES_FULL.contains(&code) => Self::Full,
                Some(code) if CODES_UNREACHABLE.iter().any(|start| is_of(code, start)) => {
                    Self::Unreachable(error)
                }
                Some(_) | None => Self::Database(error),
            },
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unreachable(error),
            _ => Self::Database(error),
        }
    }
}

/// Is this a code of PostgreSQL (five letters and digits) of that class? SQLite's are numbers of other lengths.
fn is_of(code: &str, class: &str) -> bool {
    code.len() == 5 && code.starts_with(class)
}

/// The database and the blobs of one data folder.
#[derive(Clone, Debug)]
pub struct Store {
    readers: AnyPool,
    /// One connection: writers of one server wait for each other here and not in the database.
    writer: AnyPool,
    dialect: Dialect,
    fence: Arc<Fence>,
    /// The blobs.
    pub blobs: blobs::Blobs,
}

impl Store {
    /// Opens the store in `folder`, with SQLite, and brings the database up to date.
    pub async fn open(folder: &Path) -> Result<Self> {
        Self::connect(folder, &Database::Folder).await
    }

    /// Opens the store in `folder` with either database and brings that up to date.
    pub async fn connect(folder: &Path, database: &Database) -> Result<Self> {
        let database::Pools { readers, writer } = database::open(folder, database).await?;
        let dialect = database.dialect();
        let alone = dialect == Dialect::Sqlite;
        let blobs = blobs::Blobs::open(&folder.join("blobs"), alone)?;
        Ok(Self { readers, writer, dialect, fence: Arc::new(Fence::new(alone)), blobs })
    }

    /// Ends all connections; what was committed is on the disk.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Which of the two databases it is, for the few statements that differ.
    fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Begins a transaction that no other one that was begun here writes beside, on any server.
    async fn begin(&self) -> Result<Transaction<'static, Any>> {
        match self.dialect {
            Dialect::Sqlite => match self.writer.begin_with(BEGIN).await {
                // SQLite ended the last transaction by itself, as it does on a full disk, and the connection believes that it
                // goes on: with a new one all begins afresh.
                Err(sqlx::Error::InvalidSavePointStatement) => {
                    self.writer.acquire().await?.close().await?;
                    Ok(self.writer.begin_with(BEGIN).await?)
                }
                begun => Ok(begun?),
            },
            Dialect::Postgres => {
                let mut tx = self.writer.begin().await?;
                sqlx::query("SELECT pg_advisory_xact_lock($1)")
                    .bind(database::WRITE_LOCK)
                    .execute(&mut *tx)
                    .await?;
                Ok(tx)
            }
        }
    }
}

/// A number that may be missing, as the databases take it: what sqlx sends for a missing `f64` is typed as another number,
/// which PostgreSQL keeps for the statement.
#[derive(Clone, Copy, Debug)]
struct Real(Option<f64>);

impl Type<Any> for Real {
    fn type_info() -> AnyTypeInfo {
        <f64 as Type<Any>>::type_info()
    }
}

impl<'q> Encode<'q, Any> for Real {
    fn encode_by_ref(
        &self,
        buffer: &mut <Any as sqlx::Database>::ArgumentBuffer,
    ) -> std::result::Result<IsNull, BoxDynError> {
        match self.0 {
            Some(value) => <f64 as Encode<'q, Any>>::encode_by_ref(&value, buffer),
            None => <Option<f32> as Encode<'q, Any>>::encode_by_ref(&None, buffer),
        }
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

/// Text as both databases keep it: PostgreSQL has none with a zero in it.
fn plain(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn time(at: Timestamp) -> i64 {
    number(at.0)
}

#[cfg(test)]
mod tests;
