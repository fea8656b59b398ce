//! `GET /metrics` in the Prometheus text format, version 0.0.4.

use super::Api;
use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use std::{
    fmt::{Display, Write},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Upper bounds of the latency histogram in microseconds.
const BOUNDS_US: [u64; 14] =
    [50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000];

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], render(&api)).into_response()
}

fn render(api: &Api) -> String {
    let mut text = Text(String::with_capacity(4096));
    let slots = api.models.all();

    text.head("edgewright_requests_total", "counter", "Inference requests of a slot");
    for serving in slots.iter() {
        text.line("edgewright_requests_total", &[("slot", serving.slot.as_str())], serving.meter().requests);
    }
    text.head("edgewright_requests_failed_total", "counter", "Inference requests that the model failed");
    for serving in slots.iter() {
        text.line(
            "edgewright_requests_failed_total",
            &[("slot", serving.slot.as_str())],
            serving.meter().failed,
        );
    }
    text.head("edgewright_inference_us", "histogram", "Microseconds of one inference");
    for serving in slots.iter() {
        let slot = serving.slot.as_str();
        let meter = serving.meter();
        for bound_us in BOUNDS_US {
            let count = meter.latency.count_at_most(bound_us);
            text.line(
                "edgewright_inference_us_bucket",
                &[("slot", slot), ("le", &bound_us.to_string())],
                count,
            );
        }
        text.line("edgewright_inference_us_bucket", &[("slot", slot), ("le", "+Inf")], meter.latency.count());
        text.line("edgewright_inference_us_sum", &[("slot", slot)], meter.latency.sum_us());
        text.line("edgewright_inference_us_count", &[("slot", slot)], meter.latency.count());
    }
    text.head("edgewright_inference_seconds", "summary", "Seconds of one inference, to the nanosecond");
    for serving in slots.iter() {
        let labels = [("slot", serving.slot.as_str())];
        let meter = serving.meter();
        text.line("edgewright_inference_seconds_sum", &labels, seconds(meter.busy));
        text.line("edgewright_inference_seconds_count", &labels, meter.latency.count());
    }
    text.head("edgewright_inference_quantile_us", "gauge", "Microseconds of one inference at a quantile");
    for serving in slots.iter() {
        for (name, q) in [("0.5", 0.5), ("0.9", 0.9), ("0.99", 0.99)] {
            if let Some(value_us) = serving.meter().latency.quantile_us(q) {
                let labels = [("slot", serving.slot.as_str()), ("quantile", name)];
                text.line("edgewright_inference_quantile_us", &labels, value_us);
            }
        }
    }
    text.head("edgewright_swaps_total", "counter", "Times that another version began to answer");
    for serving in slots.iter() {
        text.line("edgewright_swaps_total", &[("slot", serving.slot.as_str())], serving.swaps());
    }
    text.head("edgewright_active_version_info", "gauge", "The version that answers, and its runtime");
    for serving in slots.iter() {
        let Some(loaded) = serving.current() else { continue };
        let version = &loaded.version;
        let labels = [
            ("slot", serving.slot.as_str()),
            ("model", version.model.as_str()),
            ("version", &version.version.to_string()),
            ("bundle", &version.bundle.to_string()),
            ("runtime", loaded.runnable.runtime()),
        ];
        text.line("edgewright_active_version_info", &labels, 1);
    }

    let depth = api.store.depth();
    text.head("edgewright_outbox_records", "gauge", "Records that wait for the broker");
    text.line("edgewright_outbox_records", &[("kind", "event")], depth.event);
    text.line("edgewright_outbox_records", &[("kind", "feedback")], depth.feedback);
    text.line("edgewright_outbox_records", &[("kind", "telemetry")], depth.telemetry);
    text.one(
        "edgewright_outbox_stored_total",
        "counter",
        "Records put into the outbox",
        api.store.stored_total(),
    );
    text.one(
        "edgewright_outbox_dropped_total",
        "counter",
        "Records given up for room",
        api.store.dropped_total(),
    );
    let takes_writes = u64::from(api.store.trouble().is_none());
    text.one("edgewright_store_up", "gauge", "1 while the database takes records", takes_writes);
    let shed = api.gate.shed.load(Ordering::Relaxed);
    text.one("edgewright_requests_shed_total", "counter", "Requests refused because too many waited", shed);
    let connected = u64::from(api.updater.connected());
    text.one("edgewright_mqtt_connected", "gauge", "1 while connected to the broker", connected);
    let ready_ms = api.start_to_ready_ms.load(Ordering::Relaxed);
    text.one("edgewright_start_to_ready_ms", "gauge", "From the start until a model answered", ready_ms);
    let uptime_s = api.started.elapsed().as_secs();
    text.one("edgewright_uptime_s", "gauge", "Seconds since the start", uptime_s);
    if let Some(rss_bytes) = crate::rss_bytes() {
        text.one("edgewright_rss_bytes", "gauge", "Resident memory of the process", rss_bytes);
    }
    text.0
}

/// All nine decimals of the clock, which a float would round after some hours.
fn seconds(time: Duration) -> String {
    format!("{}.{:09}", time.as_secs(), time.subsec_nanos())
}

struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.line(name, &[], value);
    }
}
