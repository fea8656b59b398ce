//! What each run measured, in a small file of its own: all runs take many hours, which need not be of one sitting, nor of one
//! machine that keeps them all.

use super::job::Done;
use crate::harness::{read_if_there, root, write_whole};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use shared::Digest;
use std::{fs, path::PathBuf, process::Command};

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Stands for what was asked.
    pub task: Digest,
    /// What `arch.json` held; the hand-made network is laid out as ours was.
    pub architecture: Option<String>,
    pub done: Done,
}

/// Where they are kept, if anywhere.
#[derive(Clone, Debug, Default)]
pub struct Records(Option<PathBuf>);

impl Records {
    /// Those in a folder, which is made with the first of them.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self(folder)
    }

    /// The record of this name.
    ///
    /// # Errors
    /// There is one that cannot be read.
    pub fn find(&self, name: &str) -> Result<Option<Record>> {
        let Some(file) = self.file(name) else { return Ok(None) };
        let Some(text) = read_if_there(&file)? else { return Ok(None) };
        let record = serde_json::from_slice(&text);
        record.with_context(|| format!("{} is no record of a run: remove it to run it again", file.display()))
    }

    /// Keeps one in place of what has its name.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(&self, name: &str, record: Record) -> Result<()> {
        let Some((folder, file)) = self.0.as_ref().zip(self.file(name)) else { return Ok(()) };
        let mut text = serde_json::to_string_pretty(&record)?;
        text.push('\n');
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        write_whole(&file, text.as_bytes())
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        self.0.as_ref().map(|folder| folder.join(format!("{name}.json")))
    }
}

/// The commit of the checkout.
pub fn commit() -> Option<String> {
    let said =
        Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).current_dir(root()).output().ok()?;
    let commit = String::from_utf8(said.stdout).ok()?;
    said.status.success().then(|| commit.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_found_again_and_a_file_that_was_cut_short_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(Some(folder.path().join("measured")));
        assert!(records.find("mnist-1-ours").unwrap().is_none());
        let done = Done { seed: 1, int8: 0.9943, ..Done::default() };
        let record = Record { task: Digest::of(b"asked"), architecture: Some("{}".to_owned()), done };
        records.keep("mnist-1-ours", record.clone()).unwrap();
        let found = records.find("mnist-1-ours").unwrap().unwrap();
        assert_eq!(
            (found.task, found.architecture, found.done.int8),
            (record.task, record.architecture, 0.9943)
        );
        fs::write(folder.path().join("measured/mnist-1-ours.json"), "{\"task\"").unwrap();
        let error = records.find("mnist-1-ours").unwrap_err().to_string();
        assert!(
            error.ends_with("mnist-1-ours.json is no record of a run: remove it to run it again"),
            "{error}"
        );
    }

    #[test]
    fn without_a_folder_nothing_is_kept() {
        let record = Record { task: Digest::of(b"asked"), architecture: None, done: Done::default() };
        Records::default().keep("mnist-1-ours", record).unwrap();
        assert!(Records::default().find("mnist-1-ours").unwrap().is_none());
    }
}
