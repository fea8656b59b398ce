//! `/metrics` in the text format of Prometheus.

use super::{
    operation::{Routes, get},
    problem::Problem,
};
use crate::app::App;
use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use std::{fmt::Write, sync::Arc};

pub(super) fn routes() -> Routes {
    Routes::of("Server").add(
        get("/metrics", "show_metrics", "Numbers for Prometheus")
            .at_root()
            .gives_other("text/plain; version=0.0.4"),
        metrics,
    )
}

async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let status = app.status().await?;
    let rows = [
        ("edgewright_devices", "gauge", "Enrolled devices", status.devices.total),
        ("edgewright_devices_online", "gauge", "Connected devices", status.devices.online),
        ("edgewright_mqtt_connections", "gauge", "Connections to the broker", status.connections),
        (
            "edgewright_broker_connected",
            "gauge",
            "Whether the broker is reached",
            u64::from(status.broker.connected),
        ),
        ("edgewright_rollouts_open", "gauge", "Rollouts under way", status.open_rollouts),
        ("edgewright_jobs_open", "gauge", "Jobs under way or waiting", status.open_jobs),
        ("edgewright_events_total", "counter", "Events stored", status.ingest.events),
        ("edgewright_feedback_total", "counter", "Feedback records stored", status.ingest.feedback),
        ("edgewright_telemetry_total", "counter", "Telemetry records stored", status.ingest.telemetry),
        ("edgewright_redelivered_total", "counter", "Records that came again", status.ingest.redelivered),
        ("edgewright_refused_total", "counter", "Messages and connections refused", status.ingest.refused),
        (
            "edgewright_blob_bytes_published_total",
            "counter",
            "Payload bytes of chunks",
            status.delivery.bytes_published,
        ),
        (
            "edgewright_blob_chunks_broadcast_total",
            "counter",
            "Chunks to everybody",
            status.delivery.chunks_broadcast,
        ),
        (
            "edgewright_blob_chunks_unicast_total",
            "counter",
            "Chunks to one device",
            status.delivery.chunks_unicast,
        ),
        ("edgewright_blob_chunks_waiting", "gauge", "Chunks that wait", status.delivery.chunks_waiting),
    ];
    let depths = app.depths().await?;
    let depths = [
        ("edgewright_intake_messages_waiting", "gauge", "Messages that wait for their commit", depths.queued),
        ("edgewright_intake_records_waiting", "gauge", "Records that wait to be taken apart", depths.waiting),
        ("edgewright_intake_commits_total", "counter", "Commits of messages", depths.commits),
        ("edgewright_intake_messages_total", "counter", "Messages that were kept", depths.messages),
        ("edgewright_incidents_open", "gauge", "Incidents that are open", depths.incidents_open),
        (
            "edgewright_incidents_critical",
            "gauge",
            "Critical incidents that are open",
            depths.incidents_critical,
        ),
    ];
    let mut text = String::new();
    for (name, kind, help, value) in rows.into_iter().chain(depths) {
        // Writing to a string cannot fail.
        let _ = write!(text, "# HELP {name} {help}.\n# TYPE {name} {kind}\n{name} {value}\n");
    }
    let name = "edgewright_intake_records_total";
    let _ = writeln!(text, "# HELP {name} Records that were taken in, again or not.\n# TYPE {name} counter");
    for (kind, records) in app.records_taken() {
        let _ = writeln!(text, "{name}{{kind=\"{kind}\"}} {records}");
    }
    app.write_traffic(&mut text);
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}
