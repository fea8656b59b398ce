//! What the fuzz targets share: the keys of the golden files, a folder to work in, and a cap on memory, which each target
//! gets by naming this crate.

mod memory;
mod set;

pub use set::{again_as_text, assert_sound, open};

use shared::signing::{Keyring, Role, SigningKey, TrustedKey};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

/// Signs desired states in the golden files, as PKCS#8.
pub const DIRECTOR: &[u8] = include_bytes!("../../shared/tests/keys/director.pk8");
/// Signs manifests in the golden files, as PKCS#8.
pub const RELEASE: &[u8] = include_bytes!("../../shared/tests/keys/release.pk8");

/// The keys of the golden files.
pub fn keyring() -> &'static Keyring {
    static KEYRING: LazyLock<Keyring> = LazyLock::new(|| {
        let trusted = |role, bytes| {
            let key = SigningKey::from_pkcs8(bytes).expect("a key of the golden files");
            TrustedKey { role, key: key.public().clone() }
        };
        Keyring::new([trusted(Role::Director, DIRECTOR), trusted(Role::Release, RELEASE)])
    });
    &KEYRING
}

/// An empty folder of this process alone.
pub fn folder() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = std::env::temp_dir().join(format!("edgewright-fuzz-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder to work in");
        folder
    });
    &FOLDER
}

/// Errors for people are one line without control characters, whatever the bytes were.
pub fn assert_one_line(error: &dyn std::error::Error) {
    let text = error.to_string();
    assert!(!text.chars().any(char::is_control), "an error with control characters: {text:?}");
    assert!(text.len() < 4096, "an error of {} bytes", text.len());
}

/// Cuts `bytes` into `N` parts; a length of two bytes stands before each but the last.
pub fn parts<const N: usize>(bytes: &[u8]) -> [&[u8]; N] {
    let mut rest = bytes;
    std::array::from_fn(|index| {
        if index + 1 == N {
            return rest;
        }
        let Some((length, after)) = rest.split_first_chunk::<2>() else { return std::mem::take(&mut rest) };
        let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
        let (part, after) = after.split_at(length);
        rest = after;
        part
    })
}
