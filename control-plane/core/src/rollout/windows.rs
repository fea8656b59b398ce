//! Maintenance windows: when a device may be asked, in its own time zone.

use jiff::{
    civil::{self, Weekday},
    tz::{TimeZone, TimeZoneDatabase},
};
use serde::{Deserialize, Serialize};
use shared::Timestamp;
use std::{collections::BTreeMap, fmt, sync::LazyLock};

/// Most windows of one policy.
pub(super) const WINDOWS_MAX: usize = 32;
/// A window comes again within a week, or a week later where a change of the clock leaves it out.
const DAYS_AHEAD: i64 = 15;

/// The zones as they are built in: no file is read.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// Times of the week in which devices may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// On which it begins; every day where none is named.
    #[serde(default = "Day::all")]
    pub days: Vec<Day>,
    pub from: Time,
    /// On the next day where it is not after `from`.
    pub to: Time,
    /// IANA name, as in `Europe/Berlin`.
    #[serde(default = "utc")]
    pub zone: String,
    /// A device with this label is in the zone that the label names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone_label: Option<String>,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    fn all() -> Vec<Self> {
        vec![Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun]
    }

    fn is(self, day: Weekday) -> bool {
        let own = match self {
            Self::Mon => Weekday::Monday,
            Self::Tue => Weekday::Tuesday,
            Self::Wed => Weekday::Wednesday,
            Self::Thu => Weekday::Thursday,
            Self::Fri => Weekday::Friday,
            Self::Sat => Weekday::Saturday,
            Self::Sun => Weekday::Sunday,
        };
        own == day
    }
}

/// A time of day, written as `22:30`; `24:00` is the end of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Time {
    hour: i8,
    minute: i8,
}

#[cfg(feature = "schema")]
shared::text_schema!(Time, "Time", { "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$" });

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bad = || format!("{text:?} is no time of day: write 00:00 to 24:00");
        let (hour, minute) = text.split_once(':').ok_or_else(bad)?;
        let part = |text: &str, max: i8| {
            let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|number| digits && (0..=max).contains(number))
        };
        let (Some(hour), Some(minute)) = (part(hour, 24), part(minute, 59)) else { return Err(bad()) };
        if hour == 24 && minute > 0 {
            return Err(bad());
        }
        Ok(Self { hour, minute })
    }
}

impl From<Time> for String {
    fn from(time: Time) -> Self {
        time.to_string()
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.hour, self.minute)
    }
}

impl Window {
    /// Names what is wrong.
    pub(super) fn validate(&self, at: usize) -> Result<(), String> {
        if self.days.is_empty() {
            return Err(format!(
                "policy.windows[{at}].days is empty, so that it never opens; leave it out for every day"
            ));
        }
        if zone(&self.zone).is_none() {
            return Err(format!(
                "policy.windows[{at}].zone {:?} is not known; write an IANA name as Europe/Berlin",
                self.zone
            ));
        }
        if self.from.hour == 24 {
            return Err(format!("policy.windows[{at}].from is 24:00; write 00:00 of the next day"));
        }
        Ok(())
    }

    /// Its beginning and end on the day in the zone.
    fn span(&self, day: civil::Date, zone: &TimeZone) -> Option<(jiff::Timestamp, jiff::Timestamp)> {
        let moment = |day: civil::Date, time: Time| {
            let day = if time.hour == 24 { day.tomorrow().ok()? } else { day };
            // A time that the clock leaves out is taken as much later, one that comes twice as the first.
            zone.to_timestamp(day.at(time.hour % 24, time.minute, 0, 0)).ok()
        };
        let last = if self.to > self.from { day } else { day.tomorrow().ok()? };
        Some((moment(day, self.from)?, moment(last, self.to)?))
    }
}

fn zone(name: &str) -> Option<TimeZone> {
    ZONES.get(name).ok()
}

/// Is there a zone of this name?
pub(super) fn is_zone(name: &str) -> bool {
    zone(name).is_some()
}

/// Whether a device may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    Open,
    /// Until then, where that can be told.
    Closed(Option<Timestamp>),
}

/// The windows of a policy at one time.
pub(super) struct Calendar<'a> {
    windows: &'a [Window],
    now: Timestamp,
    /// What was found for the zones that devices name.
    known: BTreeMap<Vec<Option<String>>, Opening>,
}

impl<'a> Calendar<'a> {
    pub(super) fn new(windows: &'a [Window], now: Timestamp) -> Self {
        Self { windows, now, known: BTreeMap::new() }
    }

    /// May a device with these labels be asked?
    pub(super) fn opening(&mut self, labels: &BTreeMap<String, String>) -> Opening {
        if self.windows.is_empty() {
            return Opening::Open;
        }
        let named = |window: &Window| window.zone_label.as_ref().and_then(|key| labels.get(key)).cloned();
        let zones: Vec<Option<String>> = self.windows.iter().map(named).collect();
        if let Some(known) = self.known.get(&zones) {
            return *known;
        }
        let opening = self.find(&zones);
        self.known.insert(zones, opening);
        opening
    }

    fn find(&self, zones: &[Option<String>]) -> Opening {
        let now = i64::try_from(self.now.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        let Some(now) = now else { return Opening::Closed(None) };
        let mut next: Option<jiff::Timestamp> = None;
        for (window, named) in self.windows.iter().zip(zones) {
            let named = named.as_deref().and_then(zone);
            let Some(zone) = named.or_else(|| zone(&window.zone)) else { continue };
            let today = zone.to_datetime(now).date();
            for ahead in -1..=DAYS_AHEAD {
                let Ok(day) = today.checked_add(jiff::Span::new().days(ahead)) else { continue };
                if !window.days.iter().any(|named| named.is(day.weekday())) {
                    continue;
                }
                let Some((from, to)) = window.span(day, &zone) else { continue };
                if to <= from {
                    continue;
                }
                if from <= now && now < to {
                    return Opening::Open;
                }
                if from > now {
                    next = Some(next.map_or(from, |next| next.min(from)));
                    break;
                }
            }
        }
        let next = next.and_then(|next| u64::try_from(next.as_millisecond()).ok());
        Opening::Closed(next.map(Timestamp))
    }
}

/// A time for people, in UTC.
pub(super) fn utc_text(at: Timestamp) -> String {
    let at = i64::try_from(at.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| "the end of time".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_millisecond().try_into().unwrap())
    }

    fn window(days: &[Day], from: &str, to: &str, zone: &str) -> Window {
        let time = |text: &str| Time::try_from(text.to_owned()).unwrap();
        let days = if days.is_empty() { Day::all() } else { days.to_vec() };
        Window {
            days,
            from: time(from),
            to: time(to),
            zone: zone.to_owned(),
            zone_label: Some("tz".to_owned()),
        }
    }

    fn opening(window: &Window, tz: Option<&str>, now: Timestamp) -> Opening {
        let labels = tz.map(|tz| ("tz".to_owned(), tz.to_owned())).into_iter().collect();
        Calendar::new(std::slice::from_ref(window), now).opening(&labels)
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let friday = window(&[Day::Fri], "22:00", "04:00", "Europe/Berlin");
        // 2026-07-03 is a Friday; Berlin is two hours ahead of UTC.
        let opens = Opening::Closed(Some(at("2026-07-03T20:00:00Z")));
        assert_eq!(opening(&friday, None, at("2026-07-03T19:59:59Z")), opens);
        assert_eq!(opening(&friday, None, at("2026-07-03T20:00:00Z")), Opening::Open);
        assert_eq!(opening(&friday, None, at("2026-07-04T01:59:59Z")), Opening::Open);
        let again = Opening::Closed(Some(at("2026-07-10T20:00:00Z")));
        assert_eq!(opening(&friday, None, at("2026-07-04T02:00:00Z")), again);
    }

    #[test]
    fn a_device_is_in_the_zone_that_its_label_names() {
        let night = window(&[], "01:00", "03:00", "UTC");
        let noon = at("2026-01-15T16:30:00Z");
        assert_eq!(opening(&night, Some("Asia/Tokyo"), noon), Opening::Open);
        assert_eq!(opening(&night, None, noon), Opening::Closed(Some(at("2026-01-16T01:00:00Z"))));
        assert_eq!(
            opening(&night, Some("Mars/Base"), noon),
            Opening::Closed(Some(at("2026-01-16T01:00:00Z")))
        );
    }

    #[test]
    fn days_on_which_the_clock_is_set_have_their_window() {
        // At 02:00 on 2026-03-29 Berlin's clocks go to 03:00, at 03:00 on 2026-10-25 back to 02:00.
        let spring = window(&[Day::Sun], "02:15", "02:45", "Europe/Berlin");
        assert_eq!(opening(&spring, None, at("2026-03-29T01:20:00Z")), Opening::Open);
        let autumn = window(&[Day::Sun], "01:30", "02:30", "Europe/Berlin");
        assert_eq!(opening(&autumn, None, at("2026-10-25T00:20:00Z")), Opening::Open);
        assert!(matches!(opening(&autumn, None, at("2026-10-25T00:40:00Z")), Opening::Closed(Some(_))));
    }

    #[test]
    fn times_of_day_are_written_in_one_way() {
        for bad in ["7:00", "24:01", "25:00", "12:60", "12", "", "-1:00", "12:00:00", "+1:00"] {
            assert!(Time::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
        assert_eq!(window(&[], "00:00", "24:00", "UTC").to.to_string(), "24:00");
    }

    #[test]
    fn a_clock_out_of_all_ranges_is_no_reason_to_fall() {
        let night = window(&[], "01:00", "03:00", "UTC");
        assert_eq!(opening(&night, None, Timestamp(u64::MAX)), Opening::Closed(None));
    }

    proptest! {
        #[test]
        fn a_closed_window_opens_when_it_says(
            start in 1_700_000_000_000u64..1_900_000_000_000,
            from in (0i8..24, 0i8..60), to in (0i8..24, 0i8..60), day in 0usize..7,
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
        ) {
            let text = |(hour, minute)| format!("{hour:02}:{minute:02}");
            let window = window(&[Day::all()[day]], &text(from), &text(to), zone);
            if let Opening::Closed(until) = opening(&window, None, Timestamp(start)) {
                let until = until.unwrap();
                prop_assert!(until.since_ms(Timestamp(start)) <= 15 * 86_400_000);
                prop_assert_eq!(opening(&window, None, until), Opening::Open);
                prop_assert!(opening(&window, None, Timestamp(until.0 - 1)) != Opening::Open);
            }
        }
    }
}
