//! How raw values become the input of a model, on the device as in training.

use super::TensorSpec;
use crate::{limits, text::TextPreprocess};
use serde::{Deserialize, Serialize};

/// How raw values become the model's input: `x * scale + offset`.
///
/// A request of f32 values carries the model's input as it is; a request of bytes (UINT8) carries raw values
/// and the device applies this. A request of text (BYTES) is for models with `text`. A model with `columns` takes rows of a
/// table as they are, in either kind of numbers, and the device standardises them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    pub scale: f32,
    pub offset: f32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextPreprocess>,
    /// Of a table, in their order; empty for everything else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<Column>,
}

/// A column of a table, and how a number of it becomes one of the model's input: `x * scale + offset`, at most
/// [`Column::LIMIT`] from zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Column {
    pub name: String,
    pub scale: f32,
    pub offset: f32,
}

impl Column {
    /// The largest absolute value that a standardised number keeps: what lies beyond is as far out as it needs to be, and
    /// eight bits have a range to share.
    pub const LIMIT: f32 = 8.0;
    /// Longest name in bytes.
    pub const NAME_BYTES_MAX: usize = 64;

    /// The model's input for a number of this column.
    pub fn standardised(&self, value: f32) -> f32 {
        (value * self.scale + self.offset).clamp(-Self::LIMIT, Self::LIMIT)
    }
}

/// Standardises rows of `columns` in place; without columns nothing changes.
pub fn standardise(columns: &[Column], rows: &mut [f32]) {
    if columns.is_empty() {
        return;
    }
    for row in rows.chunks_exact_mut(columns.len()) {
        for (value, column) in row.iter_mut().zip(columns) {
            *value = column.standardised(*value);
        }
    }
}

impl Preprocess {
    /// Of numbers.
    pub const fn linear(scale: f32, offset: f32) -> Self {
        Self { scale, offset, text: None, columns: Vec::new() }
    }

    /// Of text.
    pub const fn of_text(text: TextPreprocess) -> Self {
        Self { scale: 1.0, offset: 0.0, text: Some(text), columns: Vec::new() }
    }

    /// Of the rows of a table.
    pub const fn of_columns(columns: Vec<Column>) -> Self {
        Self { scale: 1.0, offset: 0.0, text: None, columns }
    }

    /// That its numbers are numbers, and that its columns are those of `input`.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub(super) fn check(&self, input: &TensorSpec) -> Result<(), String> {
        if !self.scale.is_finite() || !self.offset.is_finite() {
            return Err("preprocess has a scale or offset that is no finite number".to_owned());
        }
        if self.columns.is_empty() {
            return Ok(());
        }
        let count = self.columns.len();
        if self.text.is_some() || count > limits::COLUMNS_MAX || input.shape != [count, 1] {
            return Err(format!(
                "preprocess.columns has {count} entries (at most {}), input.shape is {:?}: a row has the shape [columns, 1] \
                 and no text",
                limits::COLUMNS_MAX,
                input.shape
            ));
        }
        for Column { name, scale, offset } in &self.columns {
            if name.is_empty() || name.len() > Column::NAME_BYTES_MAX {
                return Err(format!(
                    "a name in preprocess.columns has 1 to {} bytes",
                    Column::NAME_BYTES_MAX
                ));
            }
            if !scale.is_finite() || !offset.is_finite() {
                return Err(format!(
                    "preprocess.columns: {name:?} has a scale or offset that is no finite number"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_standardised_column_by_column_and_kept_within_the_limit() {
        let column = |scale, offset| Column { name: "c".to_owned(), scale, offset };
        let columns = [column(0.5, -1.0), column(100.0, 0.0)];
        let mut rows = [4.0, 0.01, 0.0, -3.0];
        standardise(&columns, &mut rows);
        assert_eq!(rows, [1.0, 1.0, -1.0, -Column::LIMIT]);
        standardise(&[], &mut rows);
        assert_eq!(rows[0], 1.0);
    }
}
