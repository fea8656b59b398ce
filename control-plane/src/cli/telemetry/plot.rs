//! Series as text: a small drawing for people, comma-separated values for programs.

use super::super::output::{facts, moment, plain, table};
use control_core::rollup::{Line, Series};
use shared::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// Most characters of a drawn line; more points are drawn together.
const COLUMNS_MAX: usize = 60;
/// Heights of a drawn point, the lowest first.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Where nothing is known.
const NOTHING: char = '·';

/// A row for each line: how it went, and its numbers. All are drawn on one scale.
pub(super) fn describe(series: &Series) -> String {
    let known = |line: &Line| line.points.iter().filter_map(|(_, value)| *value).collect::<Vec<f64>>();
    let all: Vec<f64> = series.series.iter().flat_map(known).filter(|value| value.is_finite()).collect();
    let low = all.iter().copied().fold(f64::INFINITY, f64::min);
    let high = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let times = || series.series.iter().flat_map(|line| line.points.iter().map(|(at, _)| *at));
    let range = match (times().min(), times().max()) {
        (Some(from), Some(to)) => {
            format!("{} to {}", moment(Timestamp(from)), moment(Timestamp(to.saturating_add(series.step_ms))))
        }
        _ => String::new(),
    };
    let mut text = facts(&[
        ("metric", series.metric.clone()),
        ("unit", series.unit.clone()),
        ("step", format!("{} s", series.step_ms / 1000)),
        ("range", range),
    ]);
    let rows = series.series.iter().map(|line| {
        let known = known(line);
        let of =
            |fold: fn(f64, f64) -> f64| known.iter().copied().reduce(fold).map(number).unwrap_or_default();
        vec![
            name(&line.labels),
            spark(line, low, high),
            of(f64::min),
            of(f64::max),
            known.last().copied().map(number).unwrap_or_default(),
        ]
    });
    text.push_str(&table(&["of", "", "least", "most", "newest"], rows));
    text
}

/// A column for the time and one for each line, by RFC 4180.
pub(super) fn csv(series: &Series) -> String {
    let head = series.series.iter().map(|line| field(&name(&line.labels)));
    let mut text = std::iter::once("time".to_owned()).chain(head).collect::<Vec<_>>().join(",") + "\n";
    let columns: Vec<BTreeMap<u64, Option<f64>>> =
        series.series.iter().map(|line| line.points.iter().copied().collect()).collect();
    let times: BTreeSet<u64> = columns.iter().flat_map(|column| column.keys().copied()).collect();
    for at in times {
        let values = columns.iter().map(|column| {
            column.get(&at).copied().flatten().map(|value| value.to_string()).unwrap_or_default()
        });
        text.push_str(&std::iter::once(stamp(at)).chain(values).collect::<Vec<_>>().join(","));
        text.push('\n');
    }
    text
}

/// A time as RFC 3339 says it.
fn stamp(at: u64) -> String {
    let instant = i64::try_from(at).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    instant.map_or_else(|| at.to_string(), |instant| instant.to_string())
}

fn field(text: &str) -> String {
    let text = plain(text, false);
    // A spreadsheet takes these for formulas.
    let safe = if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text };
    if safe.contains([',', '"']) { format!("\"{}\"", safe.replace('"', "\"\"")) } else { safe }
}

fn name(labels: &BTreeMap<String, String>) -> String {
    match labels.is_empty() {
        true => "all".to_owned(),
        false => labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" "),
    }
}

fn spark(line: &Line, low: f64, high: f64) -> String {
    let step = line.points.len().div_ceil(COLUMNS_MAX).max(1);
    line.points.chunks(step).map(|points| bar(points, low, high)).collect()
}

/// The highest of neighbours: a peak is not lost.
fn bar(points: &[(u64, Option<f64>)], low: f64, high: f64) -> char {
    let values = points.iter().filter_map(|(_, value)| *value).filter(|value| value.is_finite());
    let Some(value) = values.reduce(f64::max) else { return NOTHING };
    let share = if high > low { (value - low) / (high - low) } else { 0.0 };
    BARS[((share * BARS.len() as f64) as usize).min(BARS.len() - 1)]
}

/// Few digits, without an exponent where a person can do without.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        1e15.. => format!("{value:e}"),
        1000.0.. => format!("{value:.0}"),
        1.0.. => format!("{value:.2}"),
        0.001.. => format!("{value:.4}"),
        _ => format!("{value:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(label: &str, values: &[Option<f64>]) -> Line {
        Line {
            labels: BTreeMap::from([("version".to_owned(), label.to_owned())]),
            points: values.iter().enumerate().map(|(at, value)| (at as u64 * 60_000, *value)).collect(),
        }
    }

    fn series(lines: Vec<Line>) -> Series {
        Series { metric: "requests".to_owned(), unit: "requests".to_owned(), step_ms: 60_000, series: lines }
    }

    #[test]
    fn lines_are_drawn_on_one_scale_with_gaps_where_nothing_is_known() {
        let rising = line("m@v1.0", &[Some(0.0), None, Some(8.0)]);
        let flat = line("m@v1.1", &[Some(4.0), Some(4.0), Some(4.0)]);
        let text = describe(&series(vec![rising, flat]));
        assert!(text.contains("▁·█") && text.contains("▅▅▅"), "{text}");
        assert!(text.contains("1970-01-01 00:03:00 UTC"), "{text}");
    }

    #[test]
    fn a_long_line_keeps_its_peak_and_its_width() {
        let mut values = vec![Some(1.0); 2000];
        values[1234] = Some(9.0);
        let drawn = spark(&line("v", &values), 1.0, 9.0);
        assert!(drawn.chars().count() <= COLUMNS_MAX && drawn.contains('█'), "{drawn}");
    }

    #[test]
    fn nothing_known_and_nothing_asked_are_drawn_too() {
        let none = describe(&series(Vec::new()));
        assert!(none.contains("none"), "{none}");
        let unknown = describe(&series(vec![line("v", &[None, None])]));
        assert!(unknown.contains("··"), "{unknown}");
        let odd = describe(&series(vec![line("v", &[Some(f64::INFINITY), Some(f64::NAN), Some(1.0)])]));
        assert!(odd.contains("··▁"), "{odd}");
    }

    #[test]
    fn values_go_into_columns_by_time_and_cannot_be_formulas() {
        let first = line("a", &[Some(1.5), None]);
        let mut second = line("b,\"c\"", &[Some(2.0)]);
        second.points[0].0 = 60_000;
        second.labels = BTreeMap::from([("=x".to_owned(), "b,\"c\"".to_owned())]);
        let text = csv(&series(vec![first, second]));
        assert_eq!(
            text,
            "time,version=a,\"'=x=b,\"\"c\"\"\"\n1970-01-01T00:00:00Z,1.5,\n1970-01-01T00:01:00Z,,2\n"
        );
    }

    #[test]
    fn numbers_have_few_digits() {
        for (value, text) in
            [(0.0, "0"), (12345.6, "12346"), (1.0, "1.00"), (0.0123, "0.0123"), (-2.5, "-2.50")]
        {
            assert_eq!(number(value), text);
        }
    }
}
