//! Bounds on what stands in front of the reader of records, which keeps a whole record in memory.

use std::{fmt, io};

/// Longest line in bytes.
pub(super) const LINE_BYTES_MAX: u64 = 1 << 20;

/// Why reading ended early.
#[derive(Debug)]
pub(super) struct Fault {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// Passes bytes on as long as they are lines of limited length: a quoted field may not go over the end of its line. A line
/// ends with a line feed; a carriage return before it is left out.
pub(super) struct Guard<R> {
    inner: R,
    left_bytes: u64,
    line: usize,
    line_bytes: u64,
    quoted: bool,
}

impl<R: io::Read> Guard<R> {
    /// Of at most `limit_bytes` in all.
    pub(super) fn new(inner: R, limit_bytes: u64) -> Self {
        Self { inner, left_bytes: limit_bytes, line: 1, line_bytes: 0, quoted: false }
    }

    fn look(&mut self, bytes: &[u8]) -> Result<(), String> {
        for byte in bytes {
            self.line_bytes += 1;
            match byte {
                b'"' => self.quoted = !self.quoted,
                b'\n' | b'\r' if self.quoted => {
                    return Err("a quoted field goes over the end of its line".to_owned());
                }
                b'\n' => {
                    self.line += 1;
                    self.line_bytes = 0;
                }
                _ if self.line_bytes > LINE_BYTES_MAX => {
                    return Err(format!("a line of more than {LINE_BYTES_MAX} bytes"));
                }
                _ => {}
            }
        }
        self.left_bytes = self
            .left_bytes
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| "unpacked, the file is larger than what is read".to_owned())?;
        Ok(())
    }
}

impl<R: io::Read> io::Read for Guard<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.inner.read(into)?;
            self.look(&into[..count]).map_err(|message| {
                io::Error::new(io::ErrorKind::InvalidData, Fault { line: self.line, message })
            })?;
            let mut kept = 0;
            for at in 0..count {
                if into[at] != b'\r' {
                    into[kept] = into[at];
                    kept += 1;
                }
            }
            // Nothing but carriage returns is not the end.
            if kept > 0 || count == 0 {
                return Ok(kept);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn fault(bytes: &[u8], limit: u64) -> Option<(usize, String)> {
        let mut guard = Guard::new(bytes, limit);
        let error = guard.read_to_end(&mut Vec::new()).err()?;
        let fault = error.get_ref()?.downcast_ref::<Fault>()?;
        Some((fault.line, fault.message.clone()))
    }

    #[test]
    fn long_lines_open_quotes_and_large_files_end_with_their_line() {
        assert_eq!(fault(b"a,\"b \"\"c\"\"\"\n1,2\n", 100), None);
        assert_eq!(
            fault(b"a\n\"b\n", 100),
            Some((2, "a quoted field goes over the end of its line".to_owned()))
        );
        assert_eq!(fault(b"a\nb\nc", 4).unwrap().1, "unpacked, the file is larger than what is read");
        let mut kept = Vec::new();
        Guard::new(&b"1,2\r\n\r\n3,4\r\n"[..], 100).read_to_end(&mut kept).unwrap();
        assert_eq!(kept, b"1,2\n\n3,4\n");
        let long = [b"a\n".to_vec(), vec![b'1'; LINE_BYTES_MAX as usize + 1]].concat();
        assert_eq!(fault(&long, u64::MAX).unwrap().0, 2);
    }
}
