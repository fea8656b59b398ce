//! Who may work on a data folder. With SQLite one server does; with PostgreSQL several may, each under its own name.

use anyhow::{Context, Result, bail};
use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    time::Duration,
};

/// Locked by a server that is alone with the folder, and shared by those that are not.
const LOCK_FILE: &str = "lock";
/// Locked by a server while it makes what all of them need.
const START_FILE: &str = "start.lock";
/// Folder with the lock and the context of each of several servers.
const SERVERS: &str = "servers";
/// How often a server looks whether another one has done with starting, and for how long.
const START_PERIOD: Duration = Duration::from_millis(20);
const START_LIMIT: Duration = Duration::from_secs(60);
/// Longest name of a server.
const NAME_BYTES_MAX: usize = 64;

/// Takes the folder for one alone.
///
/// # Errors
/// Somebody works on it.
pub(crate) fn lock(data: &Path) -> Result<File> {
    match try_lock(data)? {
        Some(lock) => Ok(lock),
        None => bail!(
            "{} is in use by another edgewright serve; stop that one, or choose another --data",
            data.display()
        ),
    }
}

/// The same; `None` where somebody works on it.
pub(crate) fn try_lock(data: &Path) -> Result<Option<File>> {
    let (path, file) = create(data.join(LOCK_FILE))?;
    taken(&path, file.try_lock()).map(|taken| taken.then_some(file))
}

/// Takes the folder together with other servers, and the name `name` among them.
pub(super) fn beside_others(data: &Path, name: &str) -> Result<Vec<File>> {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with('.') || !name.chars().all(fits) {
        bail!("--name {name:?} is not valid: 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' and '.'");
    }
    let (path, file) = create(data.join(LOCK_FILE))?;
    if !taken(&path, file.try_lock_shared())? {
        bail!(
            "{} is in use by an edgewright that has to be alone with it: a server without --database, or `trust rotate`",
            data.display()
        );
    }
    let servers = data.join(SERVERS);
    fs::create_dir_all(&servers).with_context(|| format!("{} cannot be made", servers.display()))?;
    let (path, own) = create(servers.join(format!("{name}.lock")))?;
    if !taken(&path, own.try_lock())? {
        bail!("a server of the name {name} runs on {} already; give this one another --name", data.display());
    }
    Ok(vec![file, own])
}

/// Waits for this server's turn to start.
pub(super) async fn turn(data: &Path) -> Result<File> {
    let (path, file) = create(data.join(START_FILE))?;
    let look = async {
        while !taken(&path, file.try_lock())? {
            tokio::time::sleep(START_PERIOD).await;
        }
        anyhow::Ok(())
    };
    match tokio::time::timeout(START_LIMIT, look).await {
        Ok(looked) => looked.map(|()| file),
        Err(_) => bail!("another server has been starting on {} for too long", data.display()),
    }
}

/// Where the context of one of several servers is written.
pub(super) fn context_of(data: &Path, name: &str) -> PathBuf {
    data.join(SERVERS).join(format!("{name}.json"))
}

fn create(path: PathBuf) -> Result<(PathBuf, File)> {
    let file = File::create(&path).with_context(|| format!("{} cannot be made", path.display()))?;
    Ok((path, file))
}

fn taken(path: &Path, tried: Result<(), TryLockError>) -> Result<bool> {
    match tried {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{} cannot be locked", path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_share_a_folder_under_names_of_their_own_and_not_with_one_that_is_alone() {
        let folder = tempfile::tempdir().unwrap();
        let one = beside_others(folder.path(), "one").unwrap();
        let two = beside_others(folder.path(), "two").unwrap();
        let twice = beside_others(folder.path(), "one").unwrap_err().to_string();
        assert!(twice.contains("--name"), "{twice}");
        assert!(try_lock(folder.path()).unwrap().is_none());
        drop((one, two));
        let alone = lock(folder.path()).unwrap();
        assert!(lock(folder.path()).unwrap_err().to_string().contains("in use by another edgewright serve"));
        assert!(beside_others(folder.path(), "one").is_err());
        drop(alone);
        assert!(beside_others(folder.path(), "../one").is_err());
    }
}
