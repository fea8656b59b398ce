//! The file operations of a program, one a line.

use anyhow::{Context, Result};
use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

/// An operation on a file, as it was about to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The system call, as in `pwrite64`.
    pub call: String,
    /// Below the folder that is watched; empty where the call names no file.
    pub path: String,
    /// Bytes to be written; zero where it is no write.
    pub size_bytes: u64,
    /// Where a write at a place goes; none for others.
    pub offset: Option<u64>,
    /// The disk was full for it.
    pub refused: bool,
}

impl Operation {
    /// For people, as in `pwrite64 blobs/ab12.partial`.
    pub fn describe(&self) -> String {
        format!("{} {}", self.call, self.path)
    }

    fn to_line(&self) -> String {
        let Self { call, path, size_bytes, offset, refused } = self;
        let offset = offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
        let refused = if *refused { "full" } else { "-" };
        format!("{call}\t{size_bytes}\t{offset}\t{refused}\t{path}\n")
    }

    fn from_line(line: &str) -> Option<Self> {
        let mut parts = line.splitn(5, '\t');
        let mut next = || parts.next();
        let (call, size_bytes, offset, refused, path) = (next()?, next()?, next()?, next()?, next()?);
        let offset = if offset == "-" { None } else { Some(offset.parse().ok()?) };
        Some(Self {
            call: call.to_owned(),
            path: path.to_owned(),
            size_bytes: size_bytes.parse().ok()?,
            offset,
            refused: refused == "full",
        })
    }
}

/// What a program did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The program's process.
    pub process: u32,
    pub operations: Vec<Operation>,
}

impl Record {
    /// What is there of a record; a line that is not whole yet does not count.
    ///
    /// # Errors
    /// The file is not there.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        let process = lines.next().and_then(|line| line.parse().ok()).unwrap_or(0);
        Ok(Self { process, operations: lines.filter_map(Operation::from_line).collect() })
    }

    /// How many there are of each call.
    pub fn by_call(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for operation in &self.operations {
            *counts.entry(operation.call.clone()).or_default() += 1;
        }
        counts
    }
}

/// Writes a record while the program runs.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    file: File,
    /// Operations so far.
    pub(super) count: u64,
}

impl Writer {
    pub(super) fn create(path: &Path, process: u32) -> Result<Self> {
        let mut file = File::create(path).with_context(|| format!("making {}", path.display()))?;
        writeln!(file, "{process}").with_context(|| format!("writing {}", path.display()))?;
        Ok(Self { path: path.to_path_buf(), file, count: 0 })
    }

    pub(super) fn push(&mut self, operation: &Operation) -> Result<()> {
        self.count += 1;
        self.file
            .write_all(operation.to_line().as_bytes())
            .with_context(|| format!("writing {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_a_half_line_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        let write = Operation {
            call: "pwrite64".to_owned(),
            path: "blobs/a b".to_owned(),
            size_bytes: 4096,
            offset: Some(8192),
            refused: true,
        };
        let sync = Operation {
            call: "fsync".to_owned(),
            path: String::new(),
            size_bytes: 0,
            offset: None,
            refused: false,
        };
        let mut writer = Writer::create(&path, 42).unwrap();
        for operation in [&write, &sync, &sync] {
            writer.push(operation).unwrap();
        }
        let record = Record::read(&path).unwrap();
        assert_eq!(
            record,
            Record { process: 42, operations: vec![write.clone(), sync.clone(), sync.clone()] }
        );
        assert_eq!(record.by_call(), BTreeMap::from([("fsync".to_owned(), 2), ("pwrite64".to_owned(), 1)]));
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(Record::read(&path).unwrap().operations, [write, sync]);
    }
}
