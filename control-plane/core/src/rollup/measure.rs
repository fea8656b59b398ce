//! What is measured. The numbers are those of the store and stay as they are.

use serde::{Deserialize, Serialize};
use shared::wire::EventKind;

/// Something that roll-ups hold a statistic of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Measure(u8);

/// What can be asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "MetricKind"))]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Amounts that add up.
    Counter,
    /// Values of which there is a distribution.
    Gauge,
}

/// A measure as the API names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Metric {
    pub name: String,
    pub unit: String,
    pub kind: Kind,
}

struct Definition {
    measure: Measure,
    name: &'static str,
    unit: &'static str,
    kind: Kind,
}

const fn counter(measure: Measure, name: &'static str, unit: &'static str) -> Definition {
    Definition { measure, name, unit, kind: Kind::Counter }
}

const fn gauge(measure: Measure, name: &'static str, unit: &'static str) -> Definition {
    Definition { measure, name, unit, kind: Kind::Gauge }
}

const DEFINITIONS: &[Definition] = &[
    counter(Measure::REQUESTS, "requests", "requests"),
    counter(Measure::FAILED, "failed", "requests"),
    gauge(Measure::LATENCY_P50, "latency_p50_us", "us"),
    gauge(Measure::LATENCY_P99, "latency_p99_us", "us"),
    gauge(Measure::RSS, "rss_bytes", "bytes"),
    counter(Measure::IMPRESSIONS, "impressions", "impressions"),
    counter(Measure::CLICKS, "clicks", "clicks"),
    counter(Measure::CONVERSIONS, "conversions", "conversions"),
    counter(Measure::CORRECTIONS, "corrections", "corrections"),
    gauge(Measure::DWELL, "dwell_ms", "ms"),
    counter(Measure::CONVERSION_VALUE, "conversion_value", "value"),
];

/// Events begin at this number.
const EVENTS_FROM: u8 = 64;
/// Each kind of event in the order of its number, with its metric.
const EVENTS: &[(EventKind, &str)] = &[
    (EventKind::Unknown, "events_unknown"),
    (EventKind::AgentStarted, "events_agent_started"),
    (EventKind::DesiredRefused, "events_desired_refused"),
    (EventKind::DownloadStarted, "events_download_started"),
    (EventKind::DownloadResumed, "events_download_resumed"),
    (EventKind::BundleRefused, "events_bundle_refused"),
    (EventKind::BundleStaged, "events_bundle_staged"),
    (EventKind::VersionActivated, "events_version_activated"),
    (EventKind::TrialPassed, "events_trial_passed"),
    (EventKind::TrialFailed, "events_trial_failed"),
    (EventKind::RolledBack, "events_rolled_back"),
    (EventKind::DiskFull, "events_disk_full"),
    (EventKind::SlotEmptied, "events_slot_emptied"),
    (EventKind::TrustRefused, "events_trust_refused"),
    (EventKind::TrustUpdated, "events_trust_updated"),
    (EventKind::DeltaRefused, "events_delta_refused"),
    (EventKind::BudgetSpent, "events_budget_spent"),
    (EventKind::CertificateRenewed, "events_certificate_renewed"),
    (EventKind::CertificateExpired, "events_certificate_expired"),
];

impl Measure {
    /// Requests that were served, in a window of telemetry.
    pub const REQUESTS: Self = Self(0);
    /// Requests that failed.
    pub const FAILED: Self = Self(1);
    /// Median latency of a window, in microseconds.
    pub const LATENCY_P50: Self = Self(2);
    /// 99th percentile of a window's latency, in microseconds.
    pub const LATENCY_P99: Self = Self(3);
    /// Memory of the agent.
    pub const RSS: Self = Self(4);
    /// Answers that a user saw.
    pub const IMPRESSIONS: Self = Self(5);
    /// Answers that a user followed.
    pub const CLICKS: Self = Self(6);
    /// Answers that led to what was hoped for.
    pub const CONVERSIONS: Self = Self(7);
    /// Answers that a user put right.
    pub const CORRECTIONS: Self = Self(8);
    /// How long users stayed, in milliseconds.
    pub const DWELL: Self = Self(9);
    /// What conversions were worth.
    pub const CONVERSION_VALUE: Self = Self(10);

    /// That an event of a kind happened.
    pub fn of_event(kind: EventKind) -> Self {
        let at = EVENTS.iter().position(|(known, _)| *known == kind).unwrap_or_default();
        // The table is shorter than the numbers that are left.
        Self(EVENTS_FROM + u8::try_from(at).unwrap_or_default())
    }

    /// The measure of that name; the error says which there are.
    pub fn named(name: &str) -> Result<Self, String> {
        let known = DEFINITIONS.iter().find(|known| known.name == name).map(|known| known.measure);
        let event = || {
            let event = EVENTS.iter().find(|(_, event)| *event == name);
            event.map(|(kind, _)| Self::of_event(*kind))
        };
        known.or_else(event).ok_or_else(|| {
            let names: Vec<String> = Self::all().into_iter().map(|metric| metric.name).collect();
            format!("metric {name:?} is not known; known are {}", names.join(", "))
        })
    }

    /// All that can be asked for.
    pub fn all() -> Vec<Metric> {
        let defined = DEFINITIONS.iter().map(|known| known.measure.metric());
        defined.chain(EVENTS.iter().map(|(kind, _)| Self::of_event(*kind).metric())).collect()
    }

    /// How the API names it.
    pub fn metric(self) -> Metric {
        let (name, unit, kind) = match DEFINITIONS.iter().find(|known| known.measure == self) {
            Some(known) => (known.name, known.unit, known.kind),
            None => {
                let at = usize::from(self.0.saturating_sub(EVENTS_FROM));
                (EVENTS.get(at).map_or("events_unknown", |(_, name)| name), "events", Kind::Counter)
            }
        };
        Metric { name: name.to_owned(), unit: unit.to_owned(), kind }
    }

    /// Is there a distribution of it?
    pub fn is_gauge(self) -> bool {
        DEFINITIONS.iter().any(|known| known.measure == self && known.kind == Kind::Gauge)
    }

    pub(super) fn code(self) -> u8 {
        self.0
    }

    pub(super) fn of_code(code: u8) -> Self {
        Self(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_metric_is_found_by_its_name_and_has_one_of_its_own() {
        let all = Measure::all();
        let names: BTreeSet<&str> = all.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(names.len(), all.len());
        for metric in &all {
            assert_eq!(&Measure::named(&metric.name).unwrap().metric(), metric);
        }
        assert!(Measure::named("latency").unwrap_err().contains("latency_p99_us"));
    }

    #[test]
    fn an_event_is_counted_under_the_word_of_the_wire() {
        for (kind, name) in EVENTS {
            let word = serde_json::to_value(kind).unwrap();
            assert_eq!(*name, format!("events_{}", word.as_str().unwrap()));
        }
    }
}
