//! Which devices a list shows.

use super::super::{Dialect, Result, many};
use control_core::entity::{DeviceState, Selector};
use shared::{BoardId, ModelVersionId};
use sqlx::{Any, any::AnyArguments, query::Query};
use std::collections::BTreeMap;

/// Which devices a list shows: those for which everything holds that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceFilter {
    /// Is part of the id or of a label's value, whatever the case.
    pub search: Option<String>,
    pub board: Option<BoardId>,
    pub online: Option<bool>,
    /// With all these labels.
    pub labels: BTreeMap<String, String>,
    /// It shall run this version.
    pub version: Option<ModelVersionId>,
    pub state: Option<DeviceState>,
    /// Of a group: those that its selector names.
    pub group: Option<Selector>,
}

/// A query that grows with what is asked for. Every value is text.
pub(super) struct Filtered {
    sql: String,
    values: Vec<String>,
}

impl Filtered {
    /// Begins with a query whose `$1` is `first`.
    pub(super) fn new(sql: &str, first: &str) -> Self {
        Self { sql: sql.to_owned(), values: vec![first.to_owned()] }
    }

    fn value(&mut self, value: impl Into<String>) -> String {
        self.values.push(value.into());
        format!("${}", self.values.len())
    }

    fn and(&mut self, condition: &str) {
        self.sql.push_str(" AND ");
        self.sql.push_str(condition);
    }

    /// Leaves out the devices `d` that the filter does not name.
    pub(super) fn narrow(&mut self, filter: &DeviceFilter, dialect: Dialect) -> Result<()> {
        if let Some(search) = &filter.search {
            let part = self.value(format!("%{}%", escaped(&search.to_lowercase())));
            self.and(&format!(
                "(lower(d.id) LIKE {part} ESCAPE '\\' OR d.id IN \
                 (SELECT device FROM device_labels WHERE lower(value) LIKE {part} ESCAPE '\\'))"
            ));
        }
        if let Some(board) = &filter.board {
            let board = self.value(board.as_str());
            self.and(&format!("d.board = {board}"));
        }
        match filter.online {
            Some(true) => self.and("d.online = 1"),
            Some(false) => self.and("d.online = 0"),
            None => {}
        }
        let of_group = filter.group.iter().flat_map(|group| &group.labels);
        for (key, value) in filter.labels.iter().chain(of_group) {
            let (key, value) = (self.value(key.as_str()), self.value(value.as_str()));
            self.and(&format!(
                "d.id IN (SELECT device FROM device_labels WHERE key = {key} AND value = {value})"
            ));
        }
        if let Some(version) = filter.version {
            let version = self.value(version.to_string());
            self.and(&format!("d.id IN (SELECT device FROM device_slots WHERE version = {version})"));
        }
        if let Some(group) = filter.group.as_ref().filter(|group| !group.devices.is_empty()) {
            self.values.push(many::list(&group.devices)?);
            let these = many::among(dialect, "d.id", self.values.len());
            self.and(&these);
        }
        match filter.state {
            Some(DeviceState::Revoked) => self.and("d.revoked_at IS NOT NULL"),
            Some(DeviceState::Behind) => {
                self.and("d.revoked_at IS NULL AND coalesce(d.reported_generation, 0) < d.generation");
            }
            Some(DeviceState::Current) => {
                self.and("d.revoked_at IS NULL AND coalesce(d.reported_generation, 0) >= d.generation");
            }
            None => {}
        }
        Ok(())
    }

    /// The query, with an end that takes `limit`.
    pub(super) fn query(self, end: &str, limit: i64) -> Query<'static, Any, AnyArguments> {
        let sql = format!("{} {end} ${}", self.sql, self.values.len() + 1);
        let query = sqlx::query(sqlx::AssertSqlSafe(sql));
        self.values.into_iter().fold(query, sqlx::query::Query::bind).bind(limit)
    }
}

/// Text that is looked for as it is.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if matches!(letter, '%' | '_' | '\\') {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}
