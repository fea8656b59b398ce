//! Questions about roll-ups: which period answers them, at which points, and what a point is.

use super::{Measure, Period, Stat, Stats};
use crate::retention::Retention;
use serde::{Deserialize, Serialize};
use shared::Timestamp;
use std::{collections::BTreeMap, fmt, str::FromStr};

/// Most points of one line.
pub const POINTS_MAX: u64 = 2000;
/// Most lines of one answer.
pub const SERIES_MAX: usize = 20;
/// `auto` takes the shortest step that gives no more than this.
const AUTO_POINTS_MAX: u64 = 300;
/// Times are before the year 2100.
const TIME_MAX: Timestamp = Timestamp(4_102_444_800_000);
/// Roll-ups are still there for a while after their time.
const GRACE_MS: u64 = 24 * 60 * 60 * 1000;
/// What `auto` chooses from, in milliseconds.
const STEPS: [u64; 12] = [
    60_000,
    300_000,
    600_000,
    1_800_000,
    3_600_000,
    10_800_000,
    21_600_000,
    43_200_000,
    86_400_000,
    604_800_000,
    2_592_000_000,
    31_536_000_000,
];

/// Time from one point to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Step {
    /// As fits the range.
    #[default]
    Auto,
    Ms(u64),
}

impl FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let wrong = || format!("step {text:?} is none: take auto, or as in 60s, 5m, 1h, 1d");
        let unit = text.chars().last().ok_or_else(wrong)?;
        let unit_ms = match unit {
            's' => 1000,
            'm' => 60_000,
            'h' => 3_600_000,
            'd' => 86_400_000,
            _ => return Err(wrong()),
        };
        let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
        number.checked_mul(unit_ms).map(Self::Ms).ok_or_else(wrong)
    }
}

impl TryFrom<String> for Step {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Step> for String {
    fn from(step: Step) -> Self {
        step.to_string()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Auto => f.write_str("auto"),
            Self::Ms(ms) => f.write_str(&named(ms)),
        }
    }
}

/// A step in its largest whole unit.
fn named(ms: u64) -> String {
    for (unit_ms, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m")] {
        if ms.is_multiple_of(unit_ms) && ms > 0 {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    format!("{}s", ms / 1000)
}

/// How the values of a point become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    Avg,
    Min,
    Max,
    Sum,
    /// How many values there were.
    Count,
    /// The newest.
    Last,
    /// The sum for each second; of counters.
    Rate,
    /// Percentiles of the values, within 5 % of themselves; of gauges.
    P50,
    P95,
    P99,
}

impl Aggregation {
    /// What is usual for a measure.
    pub fn usual(measure: Measure) -> Self {
        if measure.is_gauge() { Self::Avg } else { Self::Sum }
    }

    /// May it be asked of the measure? The error says what may.
    pub fn check(self, measure: Measure) -> Result<(), String> {
        let name = measure.metric().name;
        match (self, measure.is_gauge()) {
            (Self::Rate, true) => {
                Err(format!("{name} is a gauge and has no rate; take avg, min, max, last, p50, p95 or p99"))
            }
            (Self::P50 | Self::P95 | Self::P99, false) => {
                Err(format!("{name} is a counter and has no percentiles; take sum, rate, avg, min or max"))
            }
            _ => Ok(()),
        }
    }

    fn of(self, stat: &Stat, step_ms: u64) -> Option<f64> {
        match self {
            Self::Avg => (stat.count() > 0).then(|| stat.sum() / stat.count() as f64),
            Self::Min => Some(stat.min()),
            Self::Max => Some(stat.max()),
            Self::Sum => Some(stat.sum()),
            Self::Count => Some(stat.count() as f64),
            Self::Last => Some(stat.last()),
            Self::Rate => Some(stat.sum() * 1000.0 / step_ms as f64),
            Self::P50 => stat.quantile(0.5),
            Self::P95 => stat.quantile(0.95),
            Self::P99 => stat.quantile(0.99),
        }
    }
}

/// What is read to answer: roll-ups of `period` that begin in `from..to`, `step_ms` of them to a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub period: Period,
    pub from: Timestamp,
    pub to: Timestamp,
    pub step_ms: u64,
}

impl Span {
    /// Points of a line.
    pub fn points(&self) -> usize {
        usize::try_from(self.to.since_ms(self.from) / self.step_ms).unwrap_or(usize::MAX)
    }

    /// Roll-ups of one thing that it reads.
    pub fn periods(&self) -> u64 {
        self.to.since_ms(self.from) / self.period.ms()
    }

    /// When the roll-ups that it reads begin.
    pub fn starts(&self) -> impl Iterator<Item = Timestamp> + '_ {
        (0..self.periods()).map(|at| self.from.plus_ms(at * self.period.ms()))
    }
}

/// Works out what to read for a range of time. The error says what is wrong and what is allowed.
pub fn ask(
    from: Timestamp,
    to: Timestamp,
    step: Step,
    retention: &Retention,
    now: Timestamp,
) -> Result<Span, String> {
    for (name, at) in [("from", from), ("to", to)] {
        if at > TIME_MAX {
            return Err(format!(
                "{name} is {}: times are milliseconds since 1970, before the year 2100",
                at.0
            ));
        }
    }
    if from >= to {
        return Err(format!("from is {}, to is {}: from has to be before to", from.0, to.0));
    }
    let kept = |period: Period| {
        let kept_ms = retention.kept_ms(period).saturating_add(GRACE_MS);
        period == Period::Day || now.since_ms(from) <= kept_ms
    };
    let step_ms = match step {
        Step::Ms(ms) => explicit(ms, from, to, kept)?,
        Step::Auto => STEPS
            .into_iter()
            .find(|&ms| kept(dividing(ms)) && counted(from, to, ms) <= AUTO_POINTS_MAX)
            .ok_or_else(|| "the range is too long".to_owned())?,
    };
    let period = dividing(step_ms);
    if !kept(period) {
        let longer = STEPS.into_iter().find(|&ms| ms > step_ms && kept(dividing(ms)));
        return Err(format!(
            "{} are kept for {} days; take a later from, or a step of {}",
            period.plural(),
            retention.kept_ms(period) / Period::Day.ms(),
            longer.map_or("auto".to_owned(), named)
        ));
    }
    Ok(Span {
        period,
        from: Timestamp(from.0 / step_ms * step_ms),
        to: Timestamp(to.0.div_ceil(step_ms).saturating_mul(step_ms)),
        step_ms,
    })
}

fn explicit(ms: u64, from: Timestamp, to: Timestamp, kept: impl Fn(Period) -> bool) -> Result<u64, String> {
    if ms == 0 || !ms.is_multiple_of(Period::Minute.ms()) || ms > STEPS[STEPS.len() - 1] {
        return Err(format!("step is {}: it has to be whole minutes, from 60s to 365d, or auto", named(ms)));
    }
    let points = counted(from, to, ms);
    if points > POINTS_MAX {
        let longer = STEPS.into_iter().find(|&ms| kept(dividing(ms)) && counted(from, to, ms) <= POINTS_MAX);
        return Err(format!(
            "a step of {} would give {points} points, at most {POINTS_MAX}: take a shorter range, or a step of {}",
            named(ms),
            longer.map_or("auto".to_owned(), named)
        ));
    }
    Ok(ms)
}

/// Points of a line, with both ends.
fn counted(from: Timestamp, to: Timestamp, step_ms: u64) -> u64 {
    to.0.div_ceil(step_ms).saturating_sub(from.0 / step_ms)
}

/// The longest period that a step is made of.
fn dividing(step_ms: u64) -> Period {
    Period::ALL.into_iter().rev().find(|period| step_ms.is_multiple_of(period.ms())).unwrap_or(Period::Minute)
}

/// When, in milliseconds since 1970, and what; nothing where nothing is known.
pub type Point = (u64, Option<f64>);

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Line {
    /// What it is of.
    pub labels: BTreeMap<String, String>,
    pub points: Vec<Point>,
}

/// The answer to a question about roll-ups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Series {
    pub metric: String,
    pub unit: String,
    pub step_ms: u64,
    /// At most 20.
    pub series: Vec<Line>,
}

/// A share of two counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    pub hits: Measure,
    pub of: Measure,
}

/// The points of one line while its roll-ups come in, in any order.
#[derive(Clone, Debug)]
pub struct Drawing {
    span: Span,
    points: Vec<Stats>,
}

impl Drawing {
    pub fn new(span: Span) -> Self {
        Self { span, points: vec![Stats::default(); span.points()] }
    }

    /// Adds of a roll-up what the line needs; one outside of its span changes nothing.
    pub fn add(&mut self, at: Timestamp, stats: &Stats, measures: &[Measure]) {
        let point = at.0.checked_sub(self.span.from.0).map(|after| after / self.span.step_ms);
        let point = point.and_then(|point| self.points.get_mut(usize::try_from(point).ok()?));
        if let Some(point) = point {
            point.merge_some(stats, measures);
        }
    }

    fn draw(&self, of: impl Fn(&Stats) -> Option<f64>) -> Vec<Point> {
        let at = |point: usize| self.span.from.plus_ms(self.span.step_ms.saturating_mul(point as u64)).0;
        self.points.iter().enumerate().map(|(point, stats)| (at(point), of(stats))).collect()
    }
}

/// A line of one measure.
pub fn drawn(drawing: &Drawing, measure: Measure, aggregation: Aggregation) -> Vec<Point> {
    let step_ms = drawing.span.step_ms;
    drawing.draw(|stats| stats.get(measure).and_then(|stat| aggregation.of(stat, step_ms)))
}

/// A line of a share; nothing where there was nothing to have a share of.
pub fn divided(drawing: &Drawing, ratio: Ratio) -> Vec<Point> {
    drawing.draw(|stats| {
        let of = stats.get(ratio.of).map(Stat::sum).filter(|of| *of > 0.0)?;
        Some(stats.get(ratio.hits).map_or(0.0, Stat::sum) / of)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_790_000_000_000);
    const HOUR: u64 = 3_600_000;
    const DAY: u64 = 24 * HOUR;

    fn asked(back_ms: u64, step: &str) -> Result<Span, String> {
        let from = Timestamp(NOW.0 - back_ms);
        ask(from, NOW, step.parse()?, &Retention::default(), NOW)
    }

    #[test]
    fn the_period_is_the_longest_that_the_step_is_made_of() {
        assert_eq!(asked(HOUR, "5m").unwrap().period, Period::Minute);
        assert_eq!(asked(DAY, "90m").unwrap().period, Period::Minute);
        assert_eq!(asked(DAY, "3h").unwrap().period, Period::Hour);
        assert_eq!(asked(30 * DAY, "2d").unwrap().period, Period::Day);
    }

    #[test]
    fn auto_takes_the_shortest_step_that_fits_and_is_still_kept() {
        assert_eq!(asked(HOUR, "auto").unwrap().step_ms, 60_000);
        assert_eq!(asked(DAY, "auto").unwrap().step_ms, 300_000);
        assert_eq!(asked(20 * DAY, "auto").unwrap().period, Period::Hour);
        assert_eq!(asked(300 * DAY, "auto").unwrap().period, Period::Day);
        assert!(ask(Timestamp(0), NOW, Step::Auto, &Retention::default(), NOW).is_ok());
    }

    #[test]
    fn what_cannot_be_answered_is_refused_with_what_can() {
        for (back_ms, step, says) in [
            (0, "60s", "from has to be before to"),
            (2 * DAY, "60s", "a step of 5m"),
            (300 * DAY, "1h", "a step of 1d"),
            (60 * DAY, "1h", ""),
            (HOUR, "90s", "whole minutes"),
            (HOUR, "0m", "whole minutes"),
            (HOUR, "1w", "as in 60s"),
            (HOUR, "", "as in 60s"),
            (HOUR, "99999999999999999999d", "as in 60s"),
            (HOUR, "ä", "as in 60s"),
        ] {
            match asked(back_ms, step) {
                Ok(_) => assert_eq!(says, "", "{step}"),
                Err(error) => assert!(!says.is_empty() && error.contains(says), "{step}: {error}"),
            }
        }
        let far = ask(NOW, Timestamp(u64::MAX), Step::Auto, &Retention::default(), NOW);
        assert!(far.unwrap_err().contains("before the year 2100"));
    }

    #[test]
    fn counters_have_no_percentiles_and_gauges_no_rate() {
        assert!(Aggregation::P95.check(Measure::REQUESTS).unwrap_err().contains("sum, rate"));
        assert!(Aggregation::Rate.check(Measure::RSS).unwrap_err().contains("p99"));
        assert!(Aggregation::Rate.check(Measure::CLICKS).is_ok());
    }

    #[test]
    fn a_share_is_of_what_there_was() {
        let span =
            Span { period: Period::Minute, from: Timestamp(0), to: Timestamp(180_000), step_ms: 60_000 };
        let mut drawing = Drawing::new(span);
        let mut stats = Stats::default();
        for _ in 0..4 {
            stats.add_whole(Measure::IMPRESSIONS, 1, Timestamp(0));
        }
        let both = [Measure::IMPRESSIONS, Measure::CLICKS];
        drawing.add(Timestamp(120_000), &stats, &both);
        stats.add_whole(Measure::CLICKS, 1, Timestamp(0));
        drawing.add(Timestamp(0), &stats, &both);
        drawing.add(Timestamp(180_000), &stats, &both);
        let ratio = Ratio { hits: Measure::CLICKS, of: Measure::IMPRESSIONS };
        assert_eq!(divided(&drawing, ratio), [(0, Some(0.25)), (60_000, None), (120_000, Some(0.0))]);
        let rate = drawn(&drawing, Measure::IMPRESSIONS, Aggregation::Rate);
        assert_eq!(rate[0], (0, Some(4.0 / 60.0)));
    }

    proptest! {
        #[test]
        fn a_span_covers_its_range_in_whole_steps(from in 0u64..2_000_000_000_000, long in 1u64..400 * DAY) {
            let (from, to) = (Timestamp(from), Timestamp(from + long));
            let span = ask(from, to, Step::Auto, &Retention::default(), to).unwrap();
            prop_assert!(span.from <= from && span.to >= to);
            prop_assert_eq!(span.step_ms % span.period.ms(), 0);
            prop_assert!(span.points() as u64 <= POINTS_MAX);
            prop_assert_eq!(span.points() as u64 * span.step_ms, span.to.since_ms(span.from));
            prop_assert_eq!(span.starts().count() as u64, span.periods());
        }
    }
}
