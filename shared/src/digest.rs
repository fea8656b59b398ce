//! SHA-256 digests, and the reader that computes one while it enforces a size limit.

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    io::{self, Read},
    str::FromStr,
};

/// A SHA-256 digest. Its text form is 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

#[cfg(feature = "schema")]
crate::text_schema!(Digest, "Digest", { "pattern": "^[0-9a-f]{64}$" });

/// The text is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 digest is 64 lower-case hexadecimal digits")]
pub struct NotADigest;

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The raw 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 12 digits, for people.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.short())
    }
}

impl FromStr for Digest {
    type Err = NotADigest;
    fn from_str(text: &str) -> Result<Self, NotADigest> {
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(NotADigest);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| NotADigest)?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = NotADigest;
    fn try_from(text: String) -> Result<Self, NotADigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// Computes a digest piece by piece.
#[derive(Clone)]
pub struct Hasher(Context);

impl Hasher {
    /// An empty hasher.
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Takes the next bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> Digest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.finish().as_ref());
        Digest(bytes)
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

/// Why content is not what was promised.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// More bytes than were promised or allowed.
    #[error("content is longer than the {limit_bytes} bytes promised")]
    TooLong { limit_bytes: u64 },
    /// Fewer bytes than were promised.
    #[error("content ends after {got_bytes} of {expected_bytes} bytes")]
    TooShort { got_bytes: u64, expected_bytes: u64 },
    /// All the bytes, but not these.
    #[error("content has SHA-256 {got}, promised was {expected}")]
    Mismatch { expected: Digest, got: Digest },
    /// The source could not be read.
    #[error("content could not be read")]
    Io(#[source] io::Error),
}

/// A reader that hashes what passes through it and fails once more than `limit_bytes` have passed.
#[derive(Debug)]
pub struct LimitedDigestReader<R> {
    inner: R,
    hasher: Hasher,
    limit_bytes: u64,
    seen_bytes: u64,
}

impl<R: Read> LimitedDigestReader<R> {
    /// Wraps `inner`; reading past `limit_bytes` fails with [`io::ErrorKind::FileTooLarge`].
    pub fn new(inner: R, limit_bytes: u64) -> Self {
        Self { inner, hasher: Hasher::new(), limit_bytes, seen_bytes: 0 }
    }

    /// The digest and the number of bytes that passed.
    pub fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.seen_bytes)
    }
}

impl<R: Read> Read for LimitedDigestReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.seen_bytes += count as u64;
        if self.seen_bytes > self.limit_bytes {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                Error::TooLong { limit_bytes: self.limit_bytes },
            ));
        }
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// The digest of all that `source` gives.
pub fn of_reader(source: impl Read) -> io::Result<Digest> {
    let mut reader = LimitedDigestReader::new(source, u64::MAX);
    io::copy(&mut reader, &mut io::sink())?;
    Ok(reader.finish().0)
}

/// Reads `source` to its end and checks that it is exactly `size_bytes` long and has digest `expected`.
/// Holds one buffer of 64 KiB, whatever the size.
pub fn verify(source: impl Read, expected: Digest, size_bytes: u64) -> Result<(), Error> {
    let mut reader = LimitedDigestReader::new(source, size_bytes);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                return Err(Error::TooLong { limit_bytes: size_bytes });
            }
            Err(error) => return Err(Error::Io(error)),
        }
    }
    let (got, got_bytes) = reader.finish();
    if got_bytes != size_bytes {
        return Err(Error::TooShort { got_bytes, expected_bytes: size_bytes });
    }
    if got != expected {
        return Err(Error::Mismatch { expected, got });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn agrees_with_the_published_vector() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(
            Digest::of(b"abc").to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn refuses_longer_shorter_and_other_content() {
        let digest = Digest::of(b"model");
        assert!(verify(&b"model"[..], digest, 5).is_ok());
        assert!(matches!(verify(&b"model!"[..], digest, 5), Err(Error::TooLong { .. })));
        assert!(matches!(verify(&b"mode"[..], digest, 5), Err(Error::TooShort { got_bytes: 4, .. })));
        assert!(matches!(verify(&b"modem"[..], digest, 5), Err(Error::Mismatch { .. })));
    }

    #[test]
    fn stops_reading_an_endless_source_at_the_limit() {
        assert!(matches!(verify(io::repeat(0), Digest::of(b""), 1000), Err(Error::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn text_round_trips_and_has_one_spelling(bytes: [u8; 32]) {
            let digest = Digest::from(bytes);
            prop_assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
            let upper = digest.to_string().to_uppercase();
            prop_assert!(upper == digest.to_string() || upper.parse::<Digest>().is_err());
        }

        #[test]
        fn pieces_give_the_digest_of_the_whole(bytes: Vec<u8>, cut in 0usize..100) {
            let cut = cut.min(bytes.len());
            let mut hasher = Hasher::new();
            hasher.update(&bytes[..cut]);
            hasher.update(&bytes[cut..]);
            prop_assert_eq!(hasher.finish(), Digest::of(&bytes));
        }
    }
}
