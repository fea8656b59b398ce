//! `edgewright status`.

use super::{
    Outcome,
    client::Client,
    output::{ago, bytes, facts, show},
};
use crate::app::{Leader, Status};

pub(super) fn run(client: &Client) -> Outcome {
    let status: Status = client.get("/status")?;
    show(client.json, &status, |status| {
        facts(&[
            ("version", status.version.clone()),
            ("started", ago(status.started_at)),
            ("broker", describe(status)),
            ("acts", status.leader.as_ref().map(acting).unwrap_or_default()),
            ("devices", format!("{} online of {}", status.devices.online, status.devices.total)),
            ("rollouts", format!("{} under way", status.open_rollouts)),
            ("jobs", format!("{} under way", status.open_jobs)),
            (
                "ingest",
                format!(
                    "{} events, {} feedback, {} telemetry, {} came again, {} refused",
                    status.ingest.events,
                    status.ingest.feedback,
                    status.ingest.telemetry,
                    status.ingest.redelivered,
                    status.ingest.refused
                ),
            ),
            (
                "delivery",
                format!(
                    "{} in {} chunks to all and {} to one",
                    bytes(status.delivery.bytes_published),
                    status.delivery.chunks_broadcast,
                    status.delivery.chunks_unicast
                ),
            ),
        ])
    })
}

fn describe(status: &Status) -> String {
    let broker = &status.broker;
    let place = if broker.external { "of your own" } else { "in the server" };
    let standing = match (&broker.trouble, broker.connected) {
        (_, true) => "connected".to_owned(),
        (Some(trouble), false) => format!("not connected: {trouble}"),
        (None, false) => "not connected".to_owned(),
    };
    format!("{} {place}, {standing}", status.mqtt)
}

/// Which of several servers acts.
fn acting(leader: &Leader) -> String {
    let Leader { name, epoch, here, alive } = leader;
    let place = if *here { ", this one" } else { "" };
    let standing = if *alive { "" } else { "; not heard of for a while" };
    format!("server {name}{place}, the {epoch}. to do so{standing}")
}
