//! Pages of lists: `?limit=` and `?offset=`, and `next_offset` in the answer while there is more.

use super::problem::Problem;
use crate::app::Page;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::limits;

/// Where a page begins and how long it is.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Paging {
    #[serde(default)]
    pub limit: Option<u32>,
    #[serde(default)]
    pub offset: Option<u64>,
}

impl Paging {
    pub(super) fn page(self) -> Result<Page, Problem> {
        let limit = self.limit.unwrap_or(limits::PAGE_DEFAULT);
        if !(1..=limits::PAGE_MAX).contains(&limit) {
            let detail = format!("limit is {limit}, allowed are 1 to {}", limits::PAGE_MAX);
            return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
        }
        Ok(Page { limit, offset: self.offset.unwrap_or(0) })
    }
}

/// A page of a list.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "{T}List")]
pub struct List<T> {
    pub items: Vec<T>,
    /// The offset of the next page; none on the last.
    pub next_offset: Option<u64>,
}

impl<T> List<T> {
    /// Takes what the store gave: up to one more than asked for, to see whether there is more.
    pub fn new(mut items: Vec<T>, page: Page) -> Self {
        let more = items.len() > page.limit as usize;
        items.truncate(page.limit as usize);
        Self { items, next_offset: more.then(|| page.offset + u64::from(page.limit)) }
    }

    /// A list that is whole.
    pub fn whole(items: Vec<T>) -> Self {
        Self { items, next_offset: None }
    }
}
