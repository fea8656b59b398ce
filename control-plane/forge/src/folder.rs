//! A folder of finished files that appears whole or not at all.

use crate::checkpoint::{self, Error};
use std::{fs, path::Path};

/// Writes `files` beside `place`, makes them durable, and moves the folder there. What lies at `place` goes. Nothing
/// stays where that fails.
///
/// # Errors
/// A file or folder that cannot be written.
pub fn write(place: &Path, files: &[(&str, &[u8])]) -> Result<(), Error> {
    let beside = place.with_extension("tmp");
    write_beside(&beside, place, files).inspect_err(|_| {
        // The disk may be full: what could be written helps nobody.
        let _ = fs::remove_dir_all(&beside);
    })
}

fn write_beside(beside: &Path, place: &Path, files: &[(&str, &[u8])]) -> Result<(), Error> {
    let failed = |path: &Path, action: &'static str| {
        let path = path.to_owned();
        move |source| Error::Io { path, action, source }
    };
    if beside.exists() {
        fs::remove_dir_all(beside).map_err(failed(beside, "removed"))?;
    }
    fs::create_dir_all(beside).map_err(failed(beside, "made"))?;
    for (name, bytes) in files {
        checkpoint::write_whole(&beside.join(name), bytes)?;
    }
    if place.exists() {
        fs::remove_dir_all(place).map_err(failed(place, "removed"))?;
    }
    fs::rename(beside, place).map_err(failed(place, "written"))?;
    checkpoint::sync_parent(place).map_err(failed(place, "written"))
}
