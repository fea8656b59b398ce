//! Many rows in few statements, and many values in one.

use super::{Dialect, Result, json};
use sqlx::{Any, AssertSqlSafe, Database as _, Transaction, any::AnyArguments, query::Query};

/// Rows of one statement: few lengths, so that few statements are prepared, and no more values than either database takes.
const LENGTHS: [usize; 3] = [256, 16, 1];
/// Most values of one list.
pub(super) const LIST_MAX: usize = 10_000;

/// A statement to which values are bound.
pub(super) type Bound = Query<'static, Any, AnyArguments>;

/// A statement over rows.
pub(super) struct OverRows {
    /// As in `INSERT INTO devices (id, board)`.
    pub(super) head: &'static str,
    pub(super) columns: usize,
    /// What follows the rows.
    pub(super) tail: &'static str,
}

impl OverRows {
    /// SQLite looks the name of each value up among those of all others, which was 40 % of a busy server's time: there values have
    /// no names.
    fn sql(&self, dialect: Dialect, rows: usize) -> String {
        let mut sql = format!("{} VALUES ", self.head);
        for row in 0..rows {
            let place = |column: usize| match dialect {
                Dialect::Sqlite => "?".to_owned(),
                Dialect::Postgres => format!("${}", row * self.columns + column),
            };
            let places: Vec<String> = (1..=self.columns).map(place).collect();
            sql.push_str(if row == 0 { "(" } else { ", (" });
            sql.push_str(&places.join(", "));
            sql.push(')');
        }
        format!("{sql} {}", self.tail)
    }

    /// The statements over all rows; `bind` binds the columns of one.
    pub(super) fn statements<T>(
        &self,
        dialect: Dialect,
        rows: &[T],
        bind: impl Fn(Bound, &T) -> Bound,
    ) -> Vec<Bound> {
        let (mut rest, mut statements) = (rows, Vec::new());
        for length in LENGTHS {
            let sql = (rest.len() >= length).then(|| self.sql(dialect, length));
            while let Some(sql) = sql.as_ref().filter(|_| rest.len() >= length) {
                let (these, later) = rest.split_at(length);
                let query: Bound = sqlx::query(AssertSqlSafe(sql.clone()));
                statements.push(these.iter().fold(query, &bind));
                rest = later;
            }
        }
        statements
    }
}

/// What the database of a transaction understands.
pub(super) fn dialect(tx: &Transaction<'static, Any>) -> Dialect {
    if tx.backend_name() == sqlx::Postgres::NAME { Dialect::Postgres } else { Dialect::Sqlite }
}

/// Runs statements one after another.
pub(super) async fn run(tx: &mut Transaction<'static, Any>, statements: Vec<Bound>) -> Result<()> {
    for statement in statements {
        statement.execute(&mut **tx).await?;
    }
    Ok(())
}

/// That a column of texts has a value of the list that is bound as `$place`, see [`list`]. PostgreSQL makes an array of the list once:
/// as a subquery it is taken apart again for each row, where a plan was made when the table was small.
pub(super) fn among(dialect: Dialect, column: &str, place: usize) -> String {
    match dialect {
        Dialect::Sqlite => format!("{column} IN (SELECT value FROM json_each(${place}))"),
        Dialect::Postgres => {
            format!("{column} = ANY (ARRAY (SELECT json_array_elements_text(CAST(${place} AS json))))")
        }
    }
}

/// [`among`] for a column of numbers.
pub(super) fn among_numbers(dialect: Dialect, column: &str, place: usize) -> String {
    match dialect {
        Dialect::Sqlite => format!("{column} IN (SELECT CAST(value AS BIGINT) FROM json_each(${place}))"),
        Dialect::Postgres => format!(
            "{column} = ANY (ARRAY (SELECT CAST(json_array_elements_text(CAST(${place} AS json)) AS BIGINT)))"
        ),
    }
}

/// Texts as one value.
pub(super) fn list<T: serde::Serialize>(texts: &[T]) -> Result<String> {
    json(&texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_a_place_of_its_own() {
        let insert = OverRows { head: "INSERT INTO t (a, b)", columns: 2, tail: "ON CONFLICT DO NOTHING" };
        let of = |dialect| insert.sql(dialect, 2);
        assert_eq!(
            of(Dialect::Postgres),
            "INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4) ON CONFLICT DO NOTHING"
        );
        assert_eq!(of(Dialect::Sqlite), "INSERT INTO t (a, b) VALUES (?, ?), (?, ?) ON CONFLICT DO NOTHING");
    }

    #[test]
    fn every_row_is_in_one_statement() {
        let insert = OverRows { head: "INSERT INTO t (a)", columns: 1, tail: "" };
        for (rows, statements) in [(0, 0), (1, 1), (17, 2), (256, 1), (600, 2 + 5 + 8)] {
            let rows = vec![7i64; rows];
            assert_eq!(
                insert.statements(Dialect::Sqlite, &rows, |query, row| query.bind(*row)).len(),
                statements,
                "{}",
                rows.len()
            );
        }
    }
}
