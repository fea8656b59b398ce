//! Which database: SQLite in the data folder, or PostgreSQL at an address. Opening it and bringing it up to date.

use super::{Error, Result, read::Reader};
use sqlx::{
    AnyPool, Executor,
    any::{AnyConnectOptions, AnyPoolOptions},
    migrate::{MigrateError, Migrator},
};
use std::{
    fmt::{self, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
    str::FromStr,
    time::Duration,
};

/// Where the database is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Database {
    /// SQLite, in a file of the data folder.
    #[default]
    Folder,
    /// PostgreSQL.
    Address(Address),
}

/// Which SQL it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

/// The address of a PostgreSQL database, as in `postgres://user@host/name`. What is shown of it has no password.
#[derive(Clone)]
pub struct Address(AnyConnectOptions);

/// The file of SQLite in the data folder.
pub(super) const FILE: &str = "edgewright.db";
/// Whoever holds this lock of PostgreSQL writes; the number is of no other meaning.
pub(super) const WRITE_LOCK: i64 = 0x6564_6765;
const READERS: u32 = 4;
/// A server that has asked so long for a connection is told that there is none.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// Of SQLite, where waiting is for one's own turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);
const SQLITE_SETTINGS: &str = "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                               PRAGMA foreign_keys = ON";
/// A server that freezes in a transaction loses it, and with it the right to write. Compiling a statement takes longer than any of
/// ours runs.
const POSTGRES_SETTINGS: &str = "SET idle_in_transaction_session_timeout = '30s'; SET client_min_messages = warning; \
                                 SET jit = off";

static SQLITE_FORMS: Migrator = sqlx::migrate!("./migrations/sqlite");
static POSTGRES_FORMS: Migrator = sqlx::migrate!("./migrations/postgres");

/// Connections to one database.
pub(super) struct Pools {
    pub(super) readers: AnyPool,
    pub(super) writer: AnyPool,
}

impl Database {
    pub(super) fn dialect(&self) -> Dialect {
        match self {
            Self::Folder => Dialect::Sqlite,
            Self::Address(_) => Dialect::Postgres,
        }
    }

    /// Can several servers work on it?
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Address(_))
    }
}

impl Dialect {
    /// The database's own clock in milliseconds, as an expression.
    pub(super) fn now_ms(self) -> &'static str {
        match self {
            Self::Sqlite => "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
            Self::Postgres => "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
        }
    }

    fn settings(self) -> &'static str {
        match self {
            Self::Sqlite => SQLITE_SETTINGS,
            Self::Postgres => POSTGRES_SETTINGS,
        }
    }

    fn forms(self) -> &'static Migrator {
        match self {
            Self::Sqlite => &SQLITE_FORMS,
            Self::Postgres => &POSTGRES_FORMS,
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let expected = "expected an address as in postgres://user@host/name";
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(expected.to_owned());
        }
        let options = text.parse::<AnyConnectOptions>().map_err(|error| format!("{expected}: {error}"))?;
        if options.database_url.query_pairs().any(|(key, _)| key == "password") {
            return Err("a password does not belong behind the `?`; see --database-password-file".to_owned());
        }
        Ok(Self(options))
    }
}

impl Address {
    /// The same address with a password in place of the one that it may have.
    pub fn with_password(mut self, password: &str) -> std::result::Result<Self, String> {
        self.0
            .database_url
            .set_password(Some(password))
            .map_err(|()| format!("{self} takes no password: it names no host"))?;
        Ok(self)
    }

    /// Its password, for programs of PostgreSQL, which take it from their environment.
    pub(super) fn password(&self) -> Option<Vec<u8>> {
        self.0.database_url.password().map(decoded)
    }

    /// Without its password, as programs of PostgreSQL take it.
    pub(super) fn without_password(&self) -> String {
        let mut url = self.0.database_url.clone();
        // One that has none needs none taken away.
        let _ = url.set_password(None);
        url.to_string()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.0.database_url.clone();
        // One that has none needs none taken away.
        let _ = url.set_password(None);
        url.set_query(None);
        write!(f, "{url}")
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        self.0.database_url == other.0.database_url
    }
}

impl Eq for Address {}

/// Opens the database and brings it up to date.
pub(super) async fn open(folder: &Path, database: &Database) -> Result<Pools> {
    sqlx::any::install_default_drivers();
    let name = match database {
        Database::Folder => folder.join(FILE).display().to_string(),
        Database::Address(address) => address.to_string(),
    };
    let opening = |source| Error::Open { database: name.clone(), source };
    let options = match database {
        Database::Folder => sqlite_url(&folder.join(FILE)).parse::<AnyConnectOptions>().map_err(opening)?,
        Database::Address(address) => address.0.clone(),
    };
    let dialect = database.dialect();
    let writer = pool(1, dialect).connect_with(options.clone()).await.map_err(opening)?;
    dialect.forms().run(&writer).await.map_err(|source| match source {
        MigrateError::VersionMissing(version) => Error::Newer { database: name.clone(), version },
        source => Error::Migrate { database: name.clone(), source },
    })?;
    let readers = pool(READERS, dialect).connect_with(options).await.map_err(opening)?;
    Ok(Pools { readers, writer })
}

/// One connection to the SQLite file `path`, which is there; its form is left as it is.
pub(super) async fn sqlite_pool(path: &Path) -> Result<AnyPool> {
    sqlx::any::install_default_drivers();
    let opening = |source| Error::Open { database: path.display().to_string(), source };
    let options = sqlite_url(path).parse::<AnyConnectOptions>().map_err(opening)?;
    pool(1, Dialect::Sqlite).connect_with(options).await.map_err(opening)
}

/// Has the database of PostgreSQL no table yet?
pub(super) async fn is_empty(address: &Address) -> Result<bool> {
    sqlx::any::install_default_drivers();
    let opening = |source| Error::Open { database: address.to_string(), source };
    let pool = pool(1, Dialect::Postgres).connect_with(address.0.clone()).await.map_err(opening)?;
    let row = sqlx::query("SELECT count(*) AS tables FROM pg_tables WHERE schemaname = current_schema()")
        .fetch_one(&pool)
        .await?;
    pool.close().await;
    Ok(Reader::new("pg_tables", &row).number("tables")? == 0)
}

/// Runs one statement outside of any transaction, as those that make databases have to be run.
#[cfg(test)]
pub(super) async fn run(address: &Address, sql: &str) -> std::result::Result<(), sqlx::Error> {
    sqlx::any::install_default_drivers();
    let pool = pool(1, Dialect::Postgres).connect_with(address.0.clone()).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&pool).await?;
    pool.close().await;
    Ok(())
}

fn pool(connections: u32, dialect: Dialect) -> AnyPoolOptions {
    let timeout = match dialect {
        Dialect::Sqlite => TURN_TIMEOUT,
        Dialect::Postgres => ACQUIRE_TIMEOUT,
    };
    AnyPoolOptions::new().max_connections(connections).acquire_timeout(timeout).after_connect(
        move |connection, _| {
            Box::pin(async move {
                connection.execute(dialect.settings()).await?;
                Ok(())
            })
        },
    )
}

/// A part of an address as it was before it was written there.
fn decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let code = (byte == b'%').then(|| behind.get(..2)).flatten();
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(code) => {
                decoded.push(code);
                rest = &behind[2..];
            }
            None => {
                decoded.push(byte);
                rest = behind;
            }
        }
    }
    decoded
}

/// A path as an address: everything that has a meaning there is written as a number.
fn sqlite_url(path: &Path) -> String {
    let mut url = "sqlite:".to_owned();
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            url.push(byte.into());
        } else {
            // Writing to a string does not fail.
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url + "?mode=rwc"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{DeviceFilter, Page, Store, testing};

    #[test]
    fn what_is_shown_of_an_address_has_no_password() {
        let address: Address = "postgres://ew:secret@db.example:5433/fleet?sslmode=require".parse().unwrap();
        for shown in [address.to_string(), format!("{address:?}"), address.without_password()] {
            assert!(shown.contains("db.example:5433/fleet") && !shown.contains("secret"), "{shown}");
        }
        let address = address.with_password("from a file: 100 %").unwrap();
        assert_eq!(address.password().as_deref(), Some(&b"from a file: 100 %"[..]));
        assert!(!address.without_password().contains("from"));
        let error = "postgres://db.example/fleet?password=secret".parse::<Address>().unwrap_err();
        assert!(error.contains("--database-password-file") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn an_address_of_another_database_is_refused() {
        for bad in ["mysql://host/name", "fleet", "sqlite:fleet.db", ""] {
            assert!(bad.parse::<Address>().unwrap_err().contains("postgres://user@host/name"), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_folder_may_have_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("100% of what? #1 ä");
        std::fs::create_dir(&folder).unwrap();
        Store::open(&folder).await.unwrap().close().await;
        assert!(folder.join(FILE).is_file());
    }

    #[tokio::test]
    async fn a_database_that_a_later_program_wrote_is_refused() {
        for database in testing::databases().await {
            let (folder, store) = testing::open(&database).await;
            sqlx::query(
                "UPDATE _sqlx_migrations SET version = 9999 WHERE version = (SELECT max(version) FROM _sqlx_migrations)",
            )
            .execute(&store.writer)
            .await
            .unwrap();
            store.close().await;
            let error = Store::connect(folder.path(), &database).await.unwrap_err();
            assert!(matches!(error, Error::Newer { version: 9999, .. }), "{error}");
            assert!(error.to_string().contains("newer than this program"), "{error}");
        }
    }

    /// The newest form before that with columns for what queries ask of JSON.
    const EARLIER: i64 = 34;
    const EARLIER_ROWS: &str = r#"
        INSERT INTO devices (id, board, agent_version, labels, online, enrolled_at, generation, assignments, reported)
            VALUES ('a', 'x', '0', '{"ring": "1"}', 0, 1, 2, '[]', NULL),
                   ('b', 'x', '0', '{}', 0, 1, 1, '[{"slot": "s", "version_id": "00000000-0000-0000-0000-000000000007"}]', NULL);
        INSERT INTO events VALUES ('00000000-0000-0000-0000-000000000009', 'a', 1, 1, NULL, NULL, 'agent_started', 'first'),
            ('00000000-0000-0000-0000-000000000001', 'a', 1, 1, NULL, NULL, 'agent_started', 'second');
        INSERT INTO telemetry VALUES ('t', 'a', 1, 1, 'v',
            '{"slot": "s", "requests": 18446744073709551615, "failed": 3, "latency_p99_us": 7}');"#;

    #[tokio::test]
    async fn a_database_of_an_earlier_program_is_brought_up_to_date_with_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let pool = sqlite_pool(&folder.path().join(FILE)).await.unwrap();
        SQLITE_FORMS.run_to(EARLIER, &pool).await.unwrap();
        sqlx::raw_sql(EARLIER_ROWS).execute(&pool).await.unwrap();
        pool.close().await;
        let store = Store::open(folder.path()).await.unwrap();
        let events = store.device_events(None, &Page::default()).await.unwrap();
        assert_eq!(events.iter().map(|event| event.detail.as_str()).collect::<Vec<_>>(), ["second", "first"]);
        let filters = [
            DeviceFilter { search: Some("1".to_owned()), ..DeviceFilter::default() },
            DeviceFilter { labels: [("ring".to_owned(), "1".to_owned())].into(), ..DeviceFilter::default() },
        ];
        for filter in filters {
            let labelled = store.devices(&filter, &Page::default()).await.unwrap();
            assert_eq!(labelled.iter().map(|device| device.id.as_str()).collect::<Vec<_>>(), ["a"]);
        }
        let row = sqlx::query(
            "SELECT t.requests, t.failed, t.latency_p99_us, s.slot FROM telemetry t JOIN device_slots s ON s.slot = t.slot",
        );
        let row = row.fetch_one(&store.readers).await.unwrap();
        let row = Reader::new("telemetry", &row);
        let counts = ["requests", "failed", "latency_p99_us"].map(|column| row.number(column).unwrap());
        assert_eq!((counts, row.text("slot").unwrap().as_str()), ([1_000_000_000, 3, 7], "s"));
    }

    #[tokio::test]
    async fn a_database_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().display();
        let address = format!("postgres://ew:secret@localhost/fleet?host={socket}").parse().unwrap();
        let error = Store::connect(folder.path(), &Database::Address(address)).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("postgres://ew@localhost/fleet") && !text.contains("secret"), "{text}");
    }
}
