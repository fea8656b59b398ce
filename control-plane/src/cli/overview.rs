//! `edgewright overview`: the fleet at a glance.

use super::{
    Outcome,
    client::Client,
    output::{facts, show, table, word},
};
use crate::app::overview::Overview;
use std::collections::BTreeMap;

pub(super) fn run(client: &Client) -> Outcome {
    let overview: Overview = client.get("/overview")?;
    show(client.json, &overview, describe)
}

fn describe(overview: &Overview) -> String {
    let Overview { devices, incidents, jobs, ingest, .. } = overview;
    let mut text = facts(&[
        (
            "devices",
            format!(
                "{} online, {} offline, {} in all, {} more revoked",
                devices.online, devices.offline, devices.total, devices.revoked
            ),
        ),
        ("incidents", format!("{} open, {} of them critical", incidents.open, incidents.critical)),
        ("jobs", format!("{} running, {} queued", jobs.running, jobs.queued)),
        (
            "ingest",
            format!(
                "{} events, {} feedback, {} telemetry, {:.1} a second",
                ingest.events, ingest.feedback, ingest.telemetry, ingest.per_s
            ),
        ),
    ]);
    let boards = overview.boards.iter().map(|of| vec![of.board.to_string(), of.devices.to_string()]);
    let versions =
        overview.versions.iter().map(|of| vec![of.version.clone(), of.slot.clone(), of.devices.to_string()]);
    let rollouts = overview.rollouts.iter().map(|rollout| {
        vec![
            rollout.id.to_string(),
            rollout.version.clone(),
            word(&rollout.state),
            format!("{} of {}", rollout.wave + 1, rollout.waves),
            counts(&rollout.counts),
        ]
    });
    for part in [
        table(&["board", "devices"], boards),
        table(&["version", "slot", "devices"], versions),
        table(&["rollout", "version", "state", "wave", "devices"], rollouts),
    ] {
        if part != "none" {
            text.extend(["\n", part.as_str(), "\n"]);
        }
    }
    text
}

fn counts(counts: &BTreeMap<String, u64>) -> String {
    let some = counts.iter().filter(|(_, count)| **count > 0);
    some.map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overview() -> serde_json::Value {
        serde_json::json!({
            "devices": { "total": 11, "online": 9, "offline": 2, "revoked": 1 },
            "versions": [{ "version": "mnist@v1.1", "slot": "default", "devices": 9 }],
            "boards": [{ "board": "x86-64", "devices": 12 }],
            "rollouts": [{
                "id": "01890a5d-ac96-774b-bcce-b302099a8057", "version": "mnist@v1.1", "state": "running",
                "wave": 0, "waves": 2, "counts": { "committed": 3, "failed": 0 },
            }],
            "incidents": { "open": 2, "critical": 1 },
            "jobs": { "running": 1, "queued": 0 },
            "ingest": { "events": 1, "feedback": 2, "telemetry": 3, "per_s": 4.25 },
            "at": 5,
        })
    }

    #[test]
    fn an_overview_is_lines_and_tables() {
        let text = describe(&serde_json::from_value(overview()).unwrap());
        for part in ["9 online", "2 open, 1 of them critical", "1 of 2", "3 committed", "x86-64", "4.2"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains("0 failed"), "{text}");
    }
}
