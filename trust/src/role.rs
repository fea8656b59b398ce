//! Names of delegated roles.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The roles that every repository has; no delegated role may be named like one.
pub const TOP_LEVEL: [&str; 4] = ["root", "targets", "snapshot", "timestamp"];
/// Longest name in bytes.
const NAME_BYTES_MAX: usize = 64;

/// The name of a delegated role: 1 to 64 of `a-z 0-9 . _ -`, beginning with a letter or digit, and none of
/// [`TOP_LEVEL`]. It is a file name on every system and needs no quoting in an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RoleName(String);

/// The text is no name of a delegated role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a delegated role is named with 1 to 64 of a-z 0-9 . _ -, beginning with a letter or digit, and not root, \
     targets, snapshot or timestamp"
)]
pub struct NotARoleName;

impl RoleName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RoleName {
    type Err = NotARoleName;
    fn from_str(text: &str) -> Result<Self, NotARoleName> {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        let first = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let good = text.len() <= NAME_BYTES_MAX
            && text.as_bytes().first().is_some_and(first)
            && text.bytes().all(inner)
            && !TOP_LEVEL.contains(&text);
        if good { Ok(Self(text.to_owned())) } else { Err(NotARoleName) }
    }
}

impl TryFrom<String> for RoleName {
    type Error = NotARoleName;
    fn try_from(text: String) -> Result<Self, NotARoleName> {
        text.parse()
    }
}

impl From<RoleName> for String {
    fn from(name: RoleName) -> Self {
        name.0
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn takes_plain_names_and_refuses_what_needs_quoting() {
        for good in ["team", "0", "a.b_c-d", "1.root", &"x".repeat(64)] {
            assert_eq!(good.parse::<RoleName>().unwrap().as_str(), good);
        }
        let bad =
            ["", ".", "..", "-a", "_a", "../a", "a/b", "a b", "A", "å", "a%2f", "a\0", "root", "targets"];
        for bad in bad.into_iter().chain([&*"x".repeat(65)]) {
            assert!(bad.parse::<RoleName>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_name_that_is_taken_is_one_path_segment(text in "\\PC{0,70}") {
            if let Ok(name) = text.parse::<RoleName>() {
                prop_assert_eq!(name.to_string(), text.clone());
                prop_assert_eq!(std::path::Path::new(&text).components().count(), 1);
                prop_assert_ne!(text, "..");
            }
        }
    }
}
