//! Reading what may be larger than it should be, or written wrongly.

use crate::wire::one_line;
use std::io::{self, Read};

/// All of `reader`, which has at most `limit_bytes`.
///
/// # Errors
/// [`io::ErrorKind::FileTooLarge`] where there is more, of which one byte was taken; or the reader's own error.
pub fn at_most(reader: impl Read, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit_bytes {
        let message = format!("over the limit of {limit_bytes} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// What is wrong with the TOML `text`, with the line, on one line.
pub fn toml_message(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().lines().collect::<Vec<_>>().join(" ");
    let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    one_line(&match line {
        Some(line) => format!("line {line}: {message}"),
        None => message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_read_whole_and_one_byte_more_is_refused() {
        assert_eq!(at_most(&b"abc"[..], 3).unwrap(), b"abc");
        assert_eq!(at_most(&b"abc"[..], u64::MAX).unwrap(), b"abc");
        assert_eq!(at_most(io::repeat(0), 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
