//! One worker a job folder: two of them would write over each other's checkpoints.

use super::Error;
use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

const LOCK_FILE: &str = "lock";
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Takes the folder until the file is dropped, at the latest when the process ends, however it ends. Waits at most
/// `wait` for another worker that is just being ended. `None` if there is no such folder.
///
/// # Errors
/// [`Error::Busy`] if another worker keeps the folder; [`Error::Input`] if it cannot be locked.
pub(super) fn take(dir: &Path, wait: Duration) -> Result<Option<File>, Error> {
    let failed = |error: io::Error| Error::Input(format!("{}: cannot be locked: {error}", dir.display()));
    let file = match File::create(dir.join(LOCK_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if start.elapsed() < wait => thread::sleep(LOOK_EVERY),
            Err(TryLockError::WouldBlock) => return Err(Error::Busy { dir: dir.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_worker_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = take(folder.path(), Duration::ZERO).unwrap();
        assert!(matches!(take(folder.path(), Duration::ZERO), Err(Error::Busy { .. })));
        drop(first);
        assert!(take(folder.path(), Duration::ZERO).unwrap().is_some());
        assert!(take(&folder.path().join("none"), Duration::ZERO).unwrap().is_none());
    }
}
