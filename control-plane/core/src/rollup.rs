//! Roll-ups: what devices say, added up by minute, hour and day.
//!
//! A roll-up is of a device (or of the whole fleet), a slot, a version and a period, and holds a [`Stat`] for each
//! [`Measure`]. Adding and merging are exact and do not care for order: sums are whole numbers of millionths, so that what
//! comes in any order, in any parts, gives the same roll-ups, and the minutes of an hour give that hour.

mod measure;
mod placing;
mod query;
mod sketch;
mod stat;

pub use measure::{Kind, Measure, Metric};
pub use placing::{AHEAD_MS_MAX, LATE_MS_MAX, placed};
pub use query::{
    Aggregation, Drawing, Line, POINTS_MAX, Point, Ratio, SERIES_MAX, Series, Span, Step, ask, divided, drawn,
};
pub use sketch::Sketch;
pub use stat::{Damaged, Stat, Stats};

use serde::{Deserialize, Serialize};
use shared::{
    DeviceId, ModelVersionId, SlotName, Timestamp,
    wire::{Event, Feedback, FeedbackKind, Telemetry},
};
use std::collections::{BTreeMap, HashMap};

/// How long a roll-up is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    Minute,
    Hour,
    /// Of UTC.
    Day,
}

impl Period {
    /// The shortest first.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// Its length in milliseconds.
    pub fn ms(self) -> u64 {
        match self {
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
        }
    }

    /// The number that the store keeps it under.
    pub fn code(self) -> u8 {
        match self {
            Self::Minute => 0,
            Self::Hour => 1,
            Self::Day => 2,
        }
    }

    /// Its name in the plural, for people.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Minute => "minutes",
            Self::Hour => "hours",
            Self::Day => "days",
        }
    }

    /// When the one began that `at` lies in.
    pub fn start(self, at: Timestamp) -> Timestamp {
        Timestamp(at.0 - at.0 % self.ms())
    }
}

/// What a roll-up is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub period: Period,
    /// When it begins.
    pub at: Timestamp,
    /// None is the whole fleet.
    pub device: Option<DeviceId>,
    /// None where a record names none.
    pub slot: Option<SlotName>,
    pub version: Option<ModelVersionId>,
}

/// Whose record is added, and when it came.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub device: &'a DeviceId,
    pub received: Timestamp,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Minute {
    at: Timestamp,
    device: DeviceId,
    slot: Option<SlotName>,
    version: Option<ModelVersionId>,
}

/// Roll-ups in the making: records go in, increments come out.
#[derive(Debug, Default)]
pub struct Rollups {
    minutes: HashMap<Minute, Stats>,
}

impl Rollups {
    /// Adds one window of telemetry.
    pub fn telemetry(&mut self, source: Source<'_>, record: &Telemetry) {
        let at = placed(record.at, source.received);
        let stats = self.minute(source, at, Some(&record.slot), Some(record.version_id));
        stats.add_whole(Measure::REQUESTS, record.requests, at);
        stats.add_whole(Measure::FAILED, record.failed, at);
        for (measure, value) in [
            (Measure::LATENCY_P50, record.latency_p50_us),
            (Measure::LATENCY_P99, record.latency_p99_us),
            (Measure::RSS, record.rss_bytes),
        ] {
            if let Some(value) = value {
                stats.add_whole(measure, value, at);
            }
        }
    }

    /// Adds what a user did.
    pub fn feedback(&mut self, source: Source<'_>, record: &Feedback) {
        let at = placed(record.at, source.received);
        let stats = self.minute(source, at, Some(&record.slot), Some(record.version_id));
        match record.kind {
            FeedbackKind::Impression => stats.add_whole(Measure::IMPRESSIONS, 1, at),
            FeedbackKind::Click => stats.add_whole(Measure::CLICKS, 1, at),
            FeedbackKind::Correction => stats.add_whole(Measure::CORRECTIONS, 1, at),
            FeedbackKind::Conversion => {
                stats.add_whole(Measure::CONVERSIONS, 1, at);
                if let Some(value) = record.value {
                    stats.add(Measure::CONVERSION_VALUE, value, at);
                }
            }
            FeedbackKind::Dwell => {
                if let Some(value) = record.value {
                    stats.add(Measure::DWELL, value, at);
                }
            }
        }
    }

    /// Adds that something happened.
    pub fn event(&mut self, source: Source<'_>, record: &Event) {
        let at = placed(record.at, source.received);
        let stats = self.minute(source, at, record.slot.as_ref(), None);
        stats.add_whole(Measure::of_event(record.kind), 1, at);
    }

    fn minute(
        &mut self,
        source: Source<'_>,
        at: Timestamp,
        slot: Option<&SlotName>,
        version: Option<ModelVersionId>,
    ) -> &mut Stats {
        let at = Period::Minute.start(at);
        let minute = Minute { at, device: source.device.clone(), slot: slot.cloned(), version };
        self.minutes.entry(minute).or_default()
    }

    /// Nothing has been added.
    pub fn is_empty(&self) -> bool {
        self.minutes.is_empty()
    }

    /// What there is to merge into the roll-ups that are kept: of each device and of the fleet, for every period, in the
    /// order of their keys.
    pub fn increments(self) -> BTreeMap<Key, Stats> {
        let mut increments: BTreeMap<Key, Stats> = BTreeMap::new();
        for (minute, stats) in self.minutes {
            for period in Period::ALL {
                for device in [None, Some(&minute.device)] {
                    let key = Key {
                        period,
                        at: period.start(minute.at),
                        device: device.cloned(),
                        slot: minute.slot.clone(),
                        version: minute.version,
                    };
                    increments.entry(key).or_default().merge(&stats);
                }
            }
        }
        increments
    }
}

#[cfg(test)]
mod tests;
