//! Pages of lists. A list is ordered by a unique key, and a page begins after the key of the last entry that was seen: what
//! comes and goes meanwhile neither hides an entry nor shows one twice.

use super::{Error, Result};
use shared::limits;

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub limit: u32,
    /// The key of the last entry that was seen, as text; the list's beginning without one.
    pub after: Option<String>,
}

impl Default for Page {
    fn default() -> Self {
        Self::first(limits::PAGE_DEFAULT)
    }
}

/// Sorts before every key.
const LEAST: &str = "";
/// Sorts behind every key: they are made of letters, digits and signs below it.
const GREATEST: &str = "~";

impl Page {
    /// The first page.
    pub fn first(limit: u32) -> Self {
        Self { limit, after: None }
    }

    /// One more than asked for, so that the caller sees whether there is more.
    pub(super) fn sql_limit(&self) -> i64 {
        i64::from(self.limit.min(limits::PAGE_MAX)) + 1
    }

    /// For a list by ascending text: entries are greater than this.
    pub(super) fn after(&self) -> &str {
        self.after.as_deref().unwrap_or(LEAST)
    }

    /// For a list by descending text: entries are less than this.
    pub(super) fn before(&self) -> &str {
        self.after.as_deref().unwrap_or(GREATEST)
    }

    /// For a list by descending number: entries are less than this.
    pub(super) fn before_number(&self) -> Result<i64> {
        self.key(i64::MAX)
    }

    /// For a list by ascending number: entries are greater than this.
    #[allow(dead_code, reason = "every way of listing has its key")]
    pub(super) fn after_number(&self) -> Result<i64> {
        self.key(i64::MIN)
    }

    /// The key read as something else than text.
    pub(super) fn key<T: std::str::FromStr>(&self, without: T) -> Result<T> {
        match &self.after {
            Some(key) => key.parse().map_err(|_| Error::Cursor(key.clone())),
            None => Ok(without),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_list_is_refused() {
        let page = Page { limit: 3, after: Some("cam-01".to_owned()) };
        assert!(matches!(page.before_number(), Err(Error::Cursor(key)) if key == "cam-01"));
        assert_eq!(page.after(), "cam-01");
        assert_eq!(Page::first(3).before_number().unwrap(), i64::MAX);
    }
}
