//! A copy of the database as it is at one moment, while servers work on it, and a database made of such a copy.

use super::{
    Error, Result, Store,
    database::{Address, Database, FILE, sqlite_pool},
};
use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What the copy is called in a backup.
pub fn file_name(database: &Database) -> &'static str {
    match database {
        Database::Folder => FILE,
        Database::Address(_) => "postgres.dump",
    }
}

/// Copies the database of the data folder `folder` into the file `to`, which is not there yet.
///
/// # Errors
/// There is no database, it cannot be read, or PostgreSQL's `pg_dump` is not installed here.
pub async fn copy(folder: &Path, database: &Database, to: &Path) -> Result<()> {
    match database {
        Database::Folder => {
            let path = folder.join(FILE);
            if !path.is_file() {
                return Err(Error::Conflict(format!(
                    "{} is not there: no server has run on it",
                    path.display()
                )));
            }
            let to = to.to_str().ok_or_else(|| Error::Conflict(format!("{} is not UTF-8", to.display())))?;
            let pool = sqlite_pool(&path).await?;
            // One read transaction: what is committed meanwhile is not in it.
            sqlx::query("VACUUM INTO $1").bind(to).execute(&pool).await?;
            pool.close().await;
            Ok(())
        }
        Database::Address(address) => run(
            address,
            "pg_dump",
            &["--format=custom".into(), "--no-owner".into(), with("--file=", to), dbname(address)],
        ),
    }
}

/// Makes a database of the copy `from`: in the data folder `folder`, or in an empty database of PostgreSQL.
///
/// # Errors
/// There is something in the database, the copy is none, or `pg_restore` is not installed here.
pub async fn restore(folder: &Path, database: &Database, from: &Path) -> Result<()> {
    match database {
        Database::Folder => {
            let to = folder.join(FILE);
            if from != to {
                std::fs::rename(from, &to).map_err(|source| Error::File { path: to, source })?;
            }
        }
        Database::Address(address) => {
            if !super::database::is_empty(address).await? {
                return Err(Error::Conflict(format!(
                    "the database {address} is not empty; make another one and restore into that"
                )));
            }
            run(
                address,
                "pg_restore",
                &[
                    "--single-transaction".into(),
                    "--exit-on-error".into(),
                    "--no-owner".into(),
                    dbname(address),
                    from.into(),
                ],
            )?;
        }
    }
    // Brings it up to date, and shows that it is one.
    Store::connect(folder, database).await?.close().await;
    Ok(())
}

fn with(option: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(option);
    argument.push(path);
    argument
}

fn dbname(address: &Address) -> OsString {
    format!("--dbname={}", address.without_password()).into()
}

fn run(address: &Address, program: &str, arguments: &[OsString]) -> Result<()> {
    let path = find(program).ok_or_else(|| {
        Error::Conflict(format!(
            "{program} is not installed; it comes with PostgreSQL's client programs (Debian: apt-get install postgresql-client)"
        ))
    })?;
    let mut command = Command::new(path);
    command.args(arguments).stdin(Stdio::null());
    if let Some(password) = address.password() {
        command.env("PGPASSWORD", OsString::from_vec(password));
    }
    let failed = |reason: String| Error::Conflict(format!("{program} failed: {reason}"));
    let output = command.output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(said.lines().map(str::trim).collect::<Vec<_>>().join(" ")))
}

/// By PATH, and where Debian keeps the programs of each version of PostgreSQL: the newest.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    versions.sort();
    let newest_first = versions.into_iter().rev();
    newest_first
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        DeviceFilter, Page,
        testing::{self, databases},
        tests::{enrol, id},
    };

    #[tokio::test]
    async fn a_copy_that_was_made_under_a_running_server_becomes_the_same_store() {
        let fresh = databases().await;
        for (database, empty) in databases().await.iter().zip(&fresh) {
            let (folder, store) = testing::open(database).await;
            enrol(&store, "cam-01").await;
            let copy_at = folder.path().join(file_name(database));
            let copy_at = copy_at.with_extension("copy");
            copy(folder.path(), database, &copy_at).await.unwrap();
            enrol(&store, "cam-02").await;
            let other = tempfile::tempdir().unwrap();
            restore(other.path(), empty, &copy_at).await.unwrap();
            let again = testing::open_again(other.path(), empty).await;
            let devices = again.devices(&DeviceFilter::default(), &Page::default()).await.unwrap();
            let ids: Vec<_> = devices.into_iter().map(|device| device.id).collect();
            assert_eq!(ids, [id("cam-01")]);
            assert!(again.use_certificate(&id("cam-01"), "5ecam-01", shared::Timestamp(1)).await.unwrap());
            if empty.is_shared() {
                let full = restore(other.path(), empty, &copy_at).await.unwrap_err();
                assert!(full.to_string().contains("is not empty"), "{full}");
            }
        }
    }

    #[tokio::test]
    async fn without_a_database_there_is_nothing_to_copy() {
        let folder = tempfile::tempdir().unwrap();
        let error = copy(folder.path(), &Database::Folder, &folder.path().join("x")).await.unwrap_err();
        assert!(error.to_string().contains("no server has run on it"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
