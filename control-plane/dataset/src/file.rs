//! Files that are read once from end to end: what passes goes into the data set's digest.

use super::{Error, FILE_BYTES_MAX, Place, STREAM_BYTES_MAX};
use shared::{digest::Hasher, read};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

/// Longest line of a text file in bytes.
const LINE_BYTES_MAX: u64 = 256 << 20;
/// What is read at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// A file on its way through a hash, with its name and length before it.
#[derive(Debug)]
pub(crate) struct Hashed<'a> {
    path: &'a Path,
    file: File,
    left: u64,
    hasher: &'a mut Hasher,
}

impl<'a> Hashed<'a> {
    /// Opens a file of at most [`STREAM_BYTES_MAX`].
    ///
    /// # Errors
    /// It cannot be opened, or is larger.
    pub(crate) fn open(path: &'a Path, hasher: &'a mut Hasher) -> Result<Self, Error> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let left = file.metadata().map_err(io)?.len();
        if left > STREAM_BYTES_MAX {
            return Err(too_large(path, STREAM_BYTES_MAX));
        }
        begin(path, left, hasher);
        Ok(Self { path, file, left, hasher })
    }

    /// Takes in what nobody has read.
    ///
    /// # Errors
    /// The file cannot be read, or became shorter meanwhile.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        let path = self.path;
        let copied = io::copy(&mut self, &mut io::sink());
        copied.map_err(|source| Error::Io { path: path.to_owned(), source })?;
        Ok(())
    }
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            let message = "it became shorter while it was read";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        self.left -= count as u64;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// The lines of a text file, one in memory at a time.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    path: &'a Path,
    source: BufReader<Hashed<'a>>,
    line: Vec<u8>,
    number: usize,
    /// Where the line begins.
    at: usize,
}

impl<'a> Lines<'a> {
    /// Of a file, whose bytes go into `hasher`.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn open(path: &'a Path, hasher: &'a mut Hasher) -> Result<Self, Error> {
        let source = BufReader::with_capacity(BUFFER_BYTES, Hashed::open(path, hasher)?);
        Ok(Self { path, source, line: Vec::new(), number: 0, at: 0 })
    }

    /// The next line without its end, and its number from 1; `None` behind the last.
    ///
    /// # Errors
    /// The file cannot be read, a line is too long, or it is no text.
    pub(crate) fn next(&mut self) -> Result<Option<(usize, &str)>, Error> {
        self.at += self.line.len();
        self.number += 1;
        self.line.clear();
        let read = self.source.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut self.line);
        if read.map_err(|source| Error::Io { path: self.path.to_owned(), source })? == 0 {
            return Ok(None);
        }
        if self.line.len() as u64 >= LINE_BYTES_MAX {
            let message = format!("the line is longer than {LINE_BYTES_MAX} bytes, the most that is read");
            return Err(Error::bad(self.path, Place::Line(self.number), message));
        }
        let text = std::str::from_utf8(&self.line).map_err(|error| {
            let byte = self.at + error.valid_up_to();
            Error::bad(self.path, Place::Byte(byte), "not text: expected lines of numbers")
        })?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        Ok(Some((self.number, text.strip_suffix('\r').unwrap_or(text))))
    }
}

/// Reads a file whole as it lies on the disk, under [`FILE_BYTES_MAX`]; its bytes go into the hash with its name.
pub(crate) fn read_file(path: &Path, hasher: &mut Hasher) -> Result<Vec<u8>, Error> {
    let raw = read_whole(path)?;
    begin(path, raw.len() as u64, hasher);
    hasher.update(&raw);
    Ok(raw)
}

/// Reads a file whole, under [`FILE_BYTES_MAX`].
pub(crate) fn read_whole(path: &Path) -> Result<Vec<u8>, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    read::at_most(file, FILE_BYTES_MAX).map_err(|source| match source.kind() {
        io::ErrorKind::FileTooLarge => too_large(path, FILE_BYTES_MAX),
        _ => io(source),
    })
}

fn too_large(path: &Path, limit: u64) -> Error {
    let message = format!("the file is larger than {limit} bytes, the most that is read");
    Error::bad(path, Place::File, message)
}

fn begin(path: &Path, bytes: u64, hasher: &mut Hasher) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    hasher.update(name.as_bytes());
    hasher.update(&[0]);
    hasher.update(&bytes.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn lines_come_one_by_one_and_a_file_has_one_digest_however_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tsv");
        fs::write(&path, "a\r\n\nb").unwrap();
        let mut hasher = Hasher::new();
        let mut lines = Lines::open(&path, &mut hasher).unwrap();
        let mut found = Vec::new();
        while let Some((number, text)) = lines.next().unwrap() {
            found.push((number, text.to_owned()));
        }
        assert_eq!(found, [(1, "a".to_owned()), (2, String::new()), (3, "b".to_owned())]);
        let [mut whole, mut unread] = [Hasher::new(), Hasher::new()];
        read_file(&path, &mut whole).unwrap();
        Hashed::open(&path, &mut unread).unwrap().finish().unwrap();
        let digest = hasher.finish();
        assert_eq!((whole.finish(), unread.finish()), (digest, digest));
        fs::write(&path, b"good\nab\xff\n").unwrap();
        let mut hasher = Hasher::new();
        let mut lines = Lines::open(&path, &mut hasher).unwrap();
        lines.next().unwrap();
        let message = lines.next().unwrap_err().to_string();
        assert!(message.ends_with("x.tsv, byte 7: not text: expected lines of numbers"), "{message}");
    }
}
