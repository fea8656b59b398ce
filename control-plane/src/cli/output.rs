//! What commands print: JSON, or tables for people.

use super::Failure;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::{
    cell::RefCell,
    io::{self, Write},
};

/// What one look of `--watch` gave.
#[derive(Debug, Default)]
pub(super) struct Frame {
    pub(super) text: String,
    /// What was looked at will not change any more.
    pub(super) ended: bool,
}

thread_local! {
    /// Where what is shown goes while [`framed`] runs.
    static FRAME: RefCell<Option<Frame>> = const { RefCell::new(None) };
}

/// Runs `make` with what it shows gathered in place of printed. JSON takes one line a value.
pub(super) fn framed(make: impl FnOnce() -> Result<(), Failure>) -> Result<Frame, Failure> {
    FRAME.set(Some(Frame::default()));
    let made = make();
    let frame = FRAME.take().unwrap_or_default();
    made.map(|()| frame)
}

/// Tells `--watch` whether what is shown will change any more.
pub(super) fn ends(ended: bool) {
    FRAME.with_borrow_mut(|frame| frame.iter_mut().for_each(|frame| frame.ended |= ended));
}

/// Prints JSON, or what `table` makes of the value.
pub(super) fn show<T: Serialize>(
    json: bool,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    let text = if json {
        let framed = FRAME.with_borrow(Option::is_some);
        let text = if framed { serde_json::to_string(value) } else { serde_json::to_string_pretty(value) };
        text.map_err(|error| Failure::Failed(format!("no JSON: {error}")))?
    } else {
        plain(&table(value), true)
    };
    print(text.trim_end())
}

/// Prints lines.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let gathered = FRAME.with_borrow_mut(|frame| {
        frame.iter_mut().for_each(|frame| frame.text.extend([text, "\n"]));
        frame.is_some()
    });
    if gathered { Ok(()) } else { put(&format!("{text}\n")).map(drop) }
}

/// Says something beside what is shown, to a person who is not busy watching.
pub(super) fn remark(text: &str) {
    if FRAME.with_borrow(Option::is_none) {
        eprintln!("{}", plain(text, false));
    }
}

/// Writes to standard output at once. False where nobody reads it any more.
pub(super) fn put(text: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::Failed(format!("nothing can be printed: {error}"))),
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
        table.add_row(row.iter().map(|cell| plain(cell, false)));
    }
    if empty { "none".to_owned() } else { table.to_string() }
}

/// Names and values, one a line.
pub(super) fn facts(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name:width$}  {}\n", plain(value, false)))
        .collect()
}

/// Text without characters that move the cursor, change the terminal or turn the direction of writing: what devices
/// say is printed, not obeyed.
pub(super) fn plain(text: &str, keeps_lines: bool) -> String {
    let obeyed = |c: char| {
        (c.is_control() && !(keeps_lines && c == '\n'))
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if obeyed(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
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

/// A time as a date, in UTC.
pub(super) fn moment(at: shared::Timestamp) -> String {
    let at = i64::try_from(at.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| "never".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_holds_what_is_shown_and_json_as_lines() {
        let looked = |json: bool, ended: bool| {
            framed(|| {
                ends(ended);
                show(json, &vec![1, 2], |_| "table\n".to_owned())
            })
        };
        let frame = looked(true, false).unwrap();
        assert_eq!((frame.text.as_str(), frame.ended), ("[1,2]\n", false));
        let frame = looked(false, true).unwrap();
        assert_eq!((frame.text.as_str(), frame.ended), ("table\n", true));
        assert!(framed(|| Err(Failure::Failed("lost".to_owned()))).is_err());
        assert!(FRAME.with_borrow(Option::is_none));
    }

    #[test]
    fn what_a_device_says_does_not_reach_the_terminal_as_an_order() {
        let hostile = "\u{1b}[2J\u{9b}31mgood\r\nsecond \u{202e}line";
        let printed = facts(&[("agent", hostile.to_owned())]) + &table(&["why"], [vec![hostile.to_owned()]]);
        assert!(printed.contains("good") && printed.contains("line"));
        assert!(!printed.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{printed:?}");
        assert_eq!(facts(&[("agent", hostile.to_owned())]).lines().count(), 1);
        assert_eq!(plain("a\nb", true), "a\nb");
    }
}
