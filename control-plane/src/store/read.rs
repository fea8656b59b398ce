//! Reading rows: each error names the table and the column.

use super::{Error, Result};
use serde::de::DeserializeOwned;
use shared::Timestamp;
use sqlx::{Row, any::AnyRow};
use std::str::FromStr;

/// Reads columns of one row with errors that name them.
pub(super) struct Reader<'a> {
    table: &'static str,
    row: &'a AnyRow,
}

impl<'a> Reader<'a> {
    pub(super) fn new(table: &'static str, row: &'a AnyRow) -> Self {
        Self { table, row }
    }

    /// Reads each of some rows of one table.
    pub(super) fn each<T, C: FromIterator<T>>(
        table: &'static str,
        rows: &'a [AnyRow],
        mut read: impl FnMut(Self) -> Result<T>,
    ) -> Result<C> {
        rows.iter().map(|row| read(Self::new(table, row))).collect()
    }

    pub(super) fn corrupt(&self, column: &str, expected: &'static str, reason: impl ToString) -> Error {
        Error::Corrupt { table: self.table, column: column.to_owned(), expected, reason: reason.to_string() }
    }

    pub(super) fn text(&self, column: &str) -> Result<String> {
        Ok(self.row.try_get(column)?)
    }

    pub(super) fn text_option(&self, column: &str) -> Result<Option<String>> {
        Ok(self.row.try_get(column)?)
    }

    pub(super) fn number(&self, column: &str) -> Result<u64> {
        let value: i64 = self.row.try_get(column)?;
        u64::try_from(value).map_err(|error| self.corrupt(column, "count", error))
    }

    pub(super) fn number_option(&self, column: &str) -> Result<Option<u64>> {
        let value: Option<i64> = self.row.try_get(column)?;
        value
            .map(|value| u64::try_from(value).map_err(|error| self.corrupt(column, "count", error)))
            .transpose()
    }

    pub(super) fn small(&self, column: &str) -> Result<u32> {
        u32::try_from(self.number(column)?).map_err(|error| self.corrupt(column, "count of 32 bits", error))
    }

    pub(super) fn flag(&self, column: &str) -> Result<bool> {
        Ok(self.number(column)? != 0)
    }

    pub(super) fn time(&self, column: &str) -> Result<Timestamp> {
        Ok(Timestamp(self.number(column)?))
    }

    pub(super) fn time_option(&self, column: &str) -> Result<Option<Timestamp>> {
        Ok(self.number_option(column)?.map(Timestamp))
    }

    pub(super) fn parse<T: FromStr<Err: ToString>>(&self, column: &str, expected: &'static str) -> Result<T> {
        self.text(column)?.parse().map_err(|error: T::Err| self.corrupt(column, expected, error.to_string()))
    }

    pub(super) fn parse_option<T: FromStr<Err: ToString>>(
        &self,
        column: &str,
        expected: &'static str,
    ) -> Result<Option<T>> {
        let text = self.text_option(column)?;
        text.map(|text| {
            text.parse().map_err(|error: T::Err| self.corrupt(column, expected, error.to_string()))
        })
        .transpose()
    }

    pub(super) fn json<T: DeserializeOwned>(&self, column: &str, expected: &'static str) -> Result<T> {
        serde_json::from_str(&self.text(column)?).map_err(|error| self.corrupt(column, expected, error))
    }

    pub(super) fn json_option<T: DeserializeOwned>(
        &self,
        column: &str,
        expected: &'static str,
    ) -> Result<Option<T>> {
        let text = self.text_option(column)?;
        text.map(|text| serde_json::from_str(&text).map_err(|error| self.corrupt(column, expected, error)))
            .transpose()
    }

    /// Reads an enum of unit variants.
    pub(super) fn word<T: DeserializeOwned>(&self, column: &str, expected: &'static str) -> Result<T> {
        let text = serde_json::Value::String(self.text(column)?);
        serde_json::from_value(text).map_err(|error| self.corrupt(column, expected, error))
    }
}
