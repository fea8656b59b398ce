//! Files of a fleet: what a device had persisted, and how many may be open.

use crate::harness::{read_if_there, write_whole};
use agent_core::update::Saved;
use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::Path;

/// Of the process beside its connections.
pub const FILES_BESIDE: u64 = 512;

/// Raises the limit of open files as far as it goes; gives how many there may be.
pub fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // What is refused leaves the limit as it was.
    let raised =
        current == maximum || setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    (if raised { maximum } else { current }).unwrap_or(u64::MAX)
}

/// So many connections may be open at one time in one process: a connection is a file.
pub fn connections_max() -> usize {
    usize::try_from(raise_limit().saturating_sub(FILES_BESIDE)).unwrap_or(usize::MAX)
}

/// For `connections` connections at one time, here and in the servers that inherit the limit.
pub fn ensure_room_for(connections: usize) -> Result<()> {
    let most = connections_max();
    if connections > most {
        let wanted = connections as u64 + FILES_BESIDE;
        bail!(
            "{connections} devices need {wanted} open files; raise `ulimit -Hn`, which allows {most} devices"
        );
    }
    Ok(())
}

/// What a device had persisted; nothing where it never was.
pub fn read_state(path: &Path) -> Result<Saved> {
    let Some(bytes) = read_if_there(path)? else { return Ok(Saved::default()) };
    serde_json::from_slice(&bytes).with_context(|| format!("{} is no state of a device", path.display()))
}

/// Keeps it: the old file or the new one.
pub fn write_state(path: &Path, saved: &Saved) -> Result<()> {
    write_whole(path, &serde_json::to_vec(saved)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_state_is_read_as_it_was_written_and_none_is_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        assert_eq!(read_state(&path).unwrap(), Saved::default());
        write_state(&path, &Saved::default()).unwrap();
        assert_eq!(read_state(&path).unwrap(), Saved::default());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        fs::write(&path, "no").unwrap();
        assert!(read_state(&path).unwrap_err().to_string().contains("state.json"));
    }

    #[test]
    fn the_limit_of_files_is_that_of_connections() {
        let most = connections_max();
        ensure_room_for(most).unwrap();
        if most < usize::MAX {
            assert!(ensure_room_for(most + 1).unwrap_err().to_string().contains("ulimit -Hn"));
        }
    }
}
