//! What commands print: JSON, or tables for people.

use super::Failure;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{self, Write};

/// Prints JSON, or what `table` makes of the value.
pub(super) fn show<T: Serialize>(
    json: bool,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    let text = if json {
        serde_json::to_string_pretty(value).map_err(|error| Failure::Failed(format!("no JSON: {error}")))?
    } else {
        table(value)
    };
    match writeln!(io::stdout().lock(), "{}", text.trim_end()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| Failure::Failed(format!("nothing can be printed: {error}"))),
    }
}

/// A table; says so when it is empty.
pub(super) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(head.to_vec());
    let mut empty = true;
    for row in rows {
        empty = false;
        table.add_row(row);
    }
    if empty { "none".to_owned() } else { table.to_string() }
}

/// Names and values, one a line.
pub(super) fn facts(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name:width$}  {value}\n"))
        .collect()
}

/// The wire's word for an enum of unit variants.
pub(super) fn word<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default().trim_matches('"').to_owned()
}

/// Bytes for people.
pub(super) fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{} KiB", count / 1024),
        _ => format!("{} MiB", count / 1_048_576),
    }
}

/// A time as so long ago.
pub(super) fn ago(at: shared::Timestamp) -> String {
    match crate::app::now().since_ms(at) / 1000 {
        s @ 0..120 => format!("{s} s ago"),
        s @ 120..7200 => format!("{} min ago", s / 60),
        s @ 7200..172_800 => format!("{} h ago", s / 3600),
        s => format!("{} d ago", s / 86_400),
    }
}
