//! How long requests of the API take: counted in buckets, without a lock.

use super::{App, Result};
use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Upper bounds of the buckets, in milliseconds; one more has no bound.
const BOUNDS_MS: [u64; 11] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 5000];
/// What requests are told apart by.
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "other"];
const CLASSES: usize = 5;

#[derive(Debug, Default)]
struct Durations {
    buckets: [AtomicU64; BOUNDS_MS.len() + 1],
    sum_us: AtomicU64,
    /// By the first digit of the status, from 1.
    classes: [AtomicU64; CLASSES],
}

/// Requests since the start.
#[derive(Debug, Default)]
pub struct Traffic {
    methods: [Durations; METHODS.len()],
}

impl Traffic {
    /// Counts a request that was answered.
    pub fn add(&self, method: &str, status: u16, took: Duration) {
        let last = METHODS.len() - 1;
        let durations = &self.methods[METHODS.iter().position(|known| *known == method).unwrap_or(last)];
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MS.iter().position(|bound| took_us <= bound * 1000).unwrap_or(BOUNDS_MS.len());
        durations.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        durations.sum_us.fetch_add(took_us, Ordering::Relaxed);
        let class = usize::from(status / 100).clamp(1, CLASSES);
        durations.classes[class - 1].fetch_add(1, Ordering::Relaxed);
    }

    /// In the text format of Prometheus.
    pub fn write(&self, text: &mut String) {
        // Writing to a string cannot fail.
        let name = "edgewright_http_request_duration_seconds";
        let _ = writeln!(text, "# HELP {name} Time until a request was answered.\n# TYPE {name} histogram");
        for (method, durations) in METHODS.iter().zip(&self.methods) {
            let mut count = 0;
            for (at, bucket) in durations.buckets.iter().enumerate() {
                count += bucket.load(Ordering::Relaxed);
                let bound =
                    BOUNDS_MS.get(at).map_or("+Inf".to_owned(), |ms| (*ms as f64 / 1000.0).to_string());
                let _ = writeln!(text, "{name}_bucket{{method=\"{method}\",le=\"{bound}\"}} {count}");
            }
            let sum = durations.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
            let _ = writeln!(text, "{name}_sum{{method=\"{method}\"}} {sum}");
            let _ = writeln!(text, "{name}_count{{method=\"{method}\"}} {count}");
        }
        let name = "edgewright_http_requests_total";
        let _ = writeln!(text, "# HELP {name} Requests by the class of their answer.\n# TYPE {name} counter");
        for (method, durations) in METHODS.iter().zip(&self.methods) {
            for (class, count) in durations.classes.iter().enumerate() {
                let count = count.load(Ordering::Relaxed);
                let _ = writeln!(text, "{name}{{method=\"{method}\",class=\"{}xx\"}} {count}", class + 1);
            }
        }
    }
}

/// What waits at this moment, and what was done since the start.
#[derive(Clone, Copy, Debug)]
pub struct Depths {
    /// Messages that wait for their commit.
    pub queued: u64,
    /// Records that wait to be taken apart.
    pub waiting: u64,
    pub commits: u64,
    pub messages: u64,
    pub incidents_open: u64,
    pub incidents_critical: u64,
}

impl App {
    /// What waits at this moment.
    pub async fn depths(&self) -> Result<Depths> {
        let (incidents_open, incidents_critical) = self.store.count_incidents().await?;
        let intake = &self.numbers.intake;
        Ok(Depths {
            queued: intake.queued() as u64,
            waiting: intake.waiting(),
            commits: intake.commits(),
            messages: intake.taken().messages,
            incidents_open,
            incidents_critical,
        })
    }

    /// Records that were taken in since the start, by kind.
    pub fn records_taken(&self) -> [(&'static str, u64); 3] {
        let taken = self.numbers.intake.taken();
        [("event", taken.events), ("feedback", taken.feedback), ("telemetry", taken.telemetry)]
    }

    /// How long requests took, in the text format of Prometheus.
    pub fn write_traffic(&self, text: &mut String) {
        self.numbers.traffic.write(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up_as_prometheus_wants_them() {
        let traffic = Traffic::default();
        for (method, status, ms) in
            [("GET", 200, 1), ("GET", 404, 30), ("GET", 503, 60_000), ("BREW", 418, 1)]
        {
            traffic.add(method, status, Duration::from_millis(ms));
        }
        let mut text = String::new();
        traffic.write(&mut text);
        for line in [
            "edgewright_http_request_duration_seconds_bucket{method=\"GET\",le=\"0.001\"} 1",
            "edgewright_http_request_duration_seconds_bucket{method=\"GET\",le=\"0.05\"} 2",
            "edgewright_http_request_duration_seconds_bucket{method=\"GET\",le=\"+Inf\"} 3",
            "edgewright_http_request_duration_seconds_sum{method=\"GET\"} 60.031",
            "edgewright_http_request_duration_seconds_count{method=\"other\"} 1",
            "edgewright_http_requests_total{method=\"GET\",class=\"5xx\"} 1",
        ] {
            assert!(text.lines().any(|there| there == line), "{line} is not in\n{text}");
        }
    }
}
