//! Times and spans as a person writes them.

use jiff::{civil::DateTime, tz::TimeZone};
use shared::Timestamp;
use std::str::FromStr;

const MINUTE_S: u64 = 60;
const HOUR_S: u64 = 60 * MINUTE_S;
const DAY_S: u64 = 24 * HOUR_S;

/// A time as `30m` (so long ago), `now`, `2026-01-31`, `2026-01-31T12:00` (UTC), or with an offset as in RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// So many milliseconds before it is asked for.
    Ago(u64),
    At(Timestamp),
}

impl When {
    /// Milliseconds since 1970, as the API takes them.
    pub(super) fn ms(self) -> u64 {
        self.at(crate::app::now()).0
    }

    fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ago(ms) => Timestamp(now.0.saturating_sub(ms)),
            Self::At(at) => at,
        }
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "now" {
            return Ok(Self::Ago(0));
        }
        if let Some(seconds) = span(text) {
            return Ok(Self::Ago(seconds.saturating_mul(1000)));
        }
        let instant = text.parse::<jiff::Timestamp>().ok().or_else(|| {
            text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
        });
        let at = instant.and_then(|at| u64::try_from(at.as_millisecond()).ok());
        at.map(|at| Self::At(Timestamp(at))).ok_or_else(|| {
            format!(
                "{text:?} is no time: write 90s, 30m, 2h or 7d for so long ago, 2026-01-31, or 2026-01-31T12:00:00Z"
            )
        })
    }
}

/// Seconds of `90s`, `30m`, `2h`, `7d`.
fn span(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = match unit {
        "s" => 1,
        "m" => MINUTE_S,
        "h" => HOUR_S,
        "d" => DAY_S,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_764_547_200_000);

    #[test]
    fn spans_are_ago_and_dates_are_utc() {
        let ms = |text: &str| text.parse::<When>().unwrap().at(NOW).0;
        assert_eq!(ms("90s"), NOW.0 - 90_000);
        assert_eq!(ms("2h"), NOW.0 - 7_200_000);
        assert_eq!(ms("7d"), NOW.0 - 604_800_000);
        assert_eq!(ms("now"), NOW.0);
        assert_eq!(ms("2025-12-01"), NOW.0);
        assert_eq!(ms("2025-12-01T00:00:01"), NOW.0 + 1000);
        assert_eq!(ms("2025-12-01T01:00:00+01:00"), NOW.0);
    }

    #[test]
    fn what_is_no_time_is_told_how_to_write_one() {
        for bad in
            ["", "m", "5", "-5m", "5w", "yesterday", "2025-13-01", "1969-01-01", "99999999999999999999d", "ä"]
        {
            assert!(bad.parse::<When>().unwrap_err().contains("2026-01-31"), "{bad:?}");
        }
    }
}
