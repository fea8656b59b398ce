//! What sets a model apart from the one that was signed.

use shared::Digest;
use std::{collections::BTreeMap, fmt};

/// Files of each kind that an error names.
const NAMED_MAX: usize = 5;

/// Files by name that are not as they were signed. Its `Display` is one line that names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Files with other content.
    pub changed: Vec<String>,
    /// Files that were signed and are not there.
    pub missing: Vec<String>,
    /// Files that are there and were not signed.
    pub extra: Vec<String>,
}

impl Differences {
    /// Compares what was signed with what was found.
    pub fn between<'a>(
        signed: impl IntoIterator<Item = (&'a str, Digest)>,
        found: impl IntoIterator<Item = (&'a str, Digest)>,
    ) -> Self {
        let mut differences = Self::default();
        let mut found: BTreeMap<&str, Digest> = found.into_iter().collect();
        for (name, digest) in signed {
            match found.remove(name) {
                Some(other) if other == digest => {}
                Some(_) => differences.changed.push(name.to_owned()),
                None => differences.missing.push(name.to_owned()),
            }
        }
        differences.extra.extend(found.into_keys().map(str::to_owned));
        differences
    }

    /// Is everything as it was signed?
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.missing.is_empty() && self.extra.is_empty()
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (what, names) in
            [("changed", &self.changed), ("missing", &self.missing), ("not signed", &self.extra)]
        {
            if names.is_empty() {
                continue;
            }
            let shown: Vec<&str> = names.iter().take(NAMED_MAX).map(String::as_str).collect();
            write!(f, "{separator}{what}: {}", shown.join(", "))?;
            if names.len() > NAMED_MAX {
                write!(f, " and {} more", names.len() - NAMED_MAX)?;
            }
            separator = "; ";
        }
        Ok(())
    }
}
