//! Pages of lists: `?limit=` and `?cursor=`, and `next_cursor` in the answer while there is more.

use super::problem::Problem;
use crate::app::{Keyed, Page};
use axum::http::StatusCode;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use shared::limits;

/// Where a page begins and how long it is.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Paging {
    #[serde(default)]
    pub limit: Option<u32>,
    /// As the page before gave it.
    #[serde(default)]
    pub cursor: Option<String>,
}

/// No key of a list is longer.
const CURSOR_BYTES_MAX: usize = 1024;

impl Paging {
    pub(super) fn page(self) -> Result<Page, Problem> {
        let limit = self.limit.unwrap_or(limits::PAGE_DEFAULT);
        if !(1..=limits::PAGE_MAX).contains(&limit) {
            let detail = format!("limit is {limit}, allowed are 1 to {}", limits::PAGE_MAX);
            return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
        }
        let after = self.cursor.as_deref().map(key_of).transpose()?;
        Ok(Page { limit, after })
    }
}

/// The key that a cursor stands for.
fn key_of(cursor: &str) -> Result<String, Problem> {
    let wrong = || {
        let detail = "the cursor is none that this server has given; take `next_cursor` of the page before";
        Problem::new(StatusCode::BAD_REQUEST, detail)
    };
    if cursor.is_empty() || cursor.len() > CURSOR_BYTES_MAX {
        return Err(wrong());
    }
    let key = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| wrong())?;
    let key = String::from_utf8(key).map_err(|_| wrong())?;
    // PostgreSQL has no such texts.
    if key.contains('\0') { Err(wrong()) } else { Ok(key) }
}

/// A page of a list.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "{T}List")]
pub struct List<T> {
    pub items: Vec<T>,
    /// The cursor of the next page; none on the last.
    pub next_cursor: Option<String>,
}

impl<T> List<T> {
    /// Takes what the store gave: up to one more than asked for, to see whether there is more.
    pub fn new(mut items: Vec<T>, page: &Page) -> Self
    where
        T: Keyed,
    {
        let more = items.len() > page.limit as usize;
        items.truncate(page.limit as usize);
        let last = items.last().filter(|_| more);
        let next_cursor = last.map(|last| URL_SAFE_NO_PAD.encode(last.key()));
        Self { items, next_cursor }
    }

    /// A list that is whole.
    pub fn whole(items: Vec<T>) -> Self {
        Self { items, next_cursor: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_that_nobody_gave_is_a_bad_request() {
        for cursor in ["", "!", "%00", "AA", "gA", "-1", "A".repeat(CURSOR_BYTES_MAX + 4).as_str()] {
            let paging = Paging { limit: None, cursor: Some(cursor.to_owned()) };
            let problem = paging.page().unwrap_err();
            assert_eq!(problem.status, 400, "{cursor:?}");
        }
        let cursor = URL_SAFE_NO_PAD.encode("cam-01");
        let page = Paging { limit: Some(7), cursor: Some(cursor) }.page().unwrap();
        assert_eq!(page, Page { limit: 7, after: Some("cam-01".to_owned()) });
    }
}
