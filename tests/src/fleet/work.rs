//! What devices say while nothing is rolled out: telemetry, and what users did with the answers.

use super::character::unit;
use shared::{
    ModelVersionId, SlotName, Timestamp,
    backoff::Jitter,
    wire::{Feedback, FeedbackKind, Telemetry},
};
use std::time::Duration;
use uuid::Uuid;

/// How much each device says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Between two records of a device; none says nothing.
    pub period: Option<Duration>,
    /// Every second record is feedback.
    pub feedback: bool,
    /// A record that is due while the one before is under way is left out: as many go in as there are taken.
    pub held: bool,
}

impl Work {
    /// So many messages a second over a fleet of `devices`.
    pub fn of_rate(devices: usize, messages_per_s: f64) -> Self {
        #[expect(clippy::cast_precision_loss)]
        let period_s = devices as f64 / messages_per_s.max(f64::MIN_POSITIVE);
        let period =
            Duration::try_from_secs_f64(period_s).unwrap_or(PERIOD_MAX).clamp(PERIOD_MIN, PERIOD_MAX);
        Self { period: Some(period), feedback: false, held: true }
    }
}

/// No device says more than that.
const PERIOD_MIN: Duration = Duration::from_millis(1);
const PERIOD_MAX: Duration = Duration::from_secs(24 * 3600);

/// Requests that a device answers in a second.
const REQUESTS_PER_S: f64 = 5.0;
/// Requests in which one fails.
const FAILED_IN: u64 = 500;
/// Of one inference, in microseconds.
const LATENCY_US: u64 = 800;
const RSS_BYTES: u64 = 48 << 20;
/// Impressions that are clicked.
const CLICKED: f64 = 0.1;

/// Stands for no version, as in the agent.
pub const NOBODY: ModelVersionId = ModelVersionId(Uuid::nil());

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub slot: SlotName,
    pub version_id: ModelVersionId,
}

/// A window of `length` that began at `at`.
pub fn telemetry(subject: &Subject, at: Timestamp, length: Duration, lots: &mut Jitter) -> Telemetry {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let requests = (length.as_secs_f64() * REQUESTS_PER_S).ceil() as u64;
    let jitter_us = lots.next_u64() % LATENCY_US;
    let p50_us = LATENCY_US + jitter_us / 4;
    Telemetry {
        id: Uuid::now_v7(),
        at,
        duration_ms: u64::try_from(length.as_millis()).unwrap_or(u64::MAX).max(1),
        slot: subject.slot.clone(),
        version_id: subject.version_id,
        requests,
        failed: u64::from(lots.next_u64() % FAILED_IN < requests),
        latency_p50_us: Some(p50_us),
        latency_p99_us: Some(p50_us + jitter_us),
        rss_bytes: Some(RSS_BYTES + jitter_us * 4096),
    }
}

/// The `number`th of a device: an impression, and a click on some of them.
pub fn feedback(subject: &Subject, at: Timestamp, number: u64, lots: &mut Jitter) -> Feedback {
    let is_click = number % 2 == 1 && unit(lots) < 2.0 * CLICKED;
    Feedback {
        id: Uuid::now_v7(),
        at,
        slot: subject.slot.clone(),
        version_id: subject.version_id,
        // Each has a request of its own: of one request the same thing is said once.
        request_id: Some(format!("{:016x}", lots.next_u64())),
        kind: if is_click { FeedbackKind::Click } else { FeedbackKind::Impression },
        value: None,
        label: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_shared_by_the_fleet() {
        assert_eq!(Work::of_rate(20_000, 40_000.0).period, Some(Duration::from_millis(500)));
        assert_eq!(Work::of_rate(1, 1e9).period, Some(PERIOD_MIN));
        assert_eq!(Work::of_rate(10, 0.0).period, Some(PERIOD_MAX));
    }

    #[test]
    fn records_are_plausible_and_no_two_are_the_same() {
        let subject = Subject { slot: "default".parse().unwrap(), version_id: NOBODY };
        let mut lots = Jitter::new(1);
        let window = telemetry(&subject, Timestamp(5), Duration::from_secs(10), &mut lots);
        assert_eq!((window.requests, window.duration_ms), (50, 10_000));
        assert!(window.latency_p50_us < window.latency_p99_us && window.failed <= window.requests);
        let said: Vec<_> =
            (0..4000).map(|number| feedback(&subject, Timestamp(5), number, &mut lots)).collect();
        let clicks = said.iter().filter(|one| one.kind == FeedbackKind::Click).count();
        assert!((300..500).contains(&clicks), "{clicks}");
        let requests: std::collections::BTreeSet<_> = said.iter().map(|one| &one.request_id).collect();
        assert_eq!(requests.len(), said.len());
    }
}
