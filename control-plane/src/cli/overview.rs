//! `edgewright overview`: the fleet at a glance.

use super::{
    Outcome,
    client::Client,
    output::{facts, show, table},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What is shown of an overview; the rest goes through to `--json`.
#[derive(Debug, Serialize, Deserialize)]
struct Overview {
    devices: Devices,
    versions: Vec<OfVersion>,
    boards: Vec<OfBoard>,
    rollouts: Vec<OpenRollout>,
    incidents: Incidents,
    jobs: Jobs,
    ingest: Ingest,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Devices {
    total: u64,
    online: u64,
    offline: u64,
    revoked: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct OfVersion {
    version: String,
    slot: String,
    devices: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct OfBoard {
    board: String,
    devices: u64,
}

/// A rollout under way.
#[derive(Debug, Serialize, Deserialize)]
struct OpenRollout {
    id: String,
    version: String,
    state: String,
    /// From 0.
    wave: u64,
    waves: u64,
    /// Devices by what has become of them.
    counts: Map<String, Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Incidents {
    open: u64,
    critical: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Jobs {
    running: u64,
    queued: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Ingest {
    events: u64,
    feedback: u64,
    telemetry: u64,
    per_s: f64,
}

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
                "{} online, {} offline, {} revoked, {} in all",
                devices.online, devices.offline, devices.revoked, devices.total
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
    let boards = overview.boards.iter().map(|of| vec![of.board.clone(), of.devices.to_string()]);
    let versions =
        overview.versions.iter().map(|of| vec![of.version.clone(), of.slot.clone(), of.devices.to_string()]);
    let rollouts = overview.rollouts.iter().map(|rollout| {
        vec![
            rollout.id.clone(),
            rollout.version.clone(),
            rollout.state.clone(),
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

fn counts(counts: &Map<String, Value>) -> String {
    let some = counts.iter().filter(|(_, count)| count.as_u64() != Some(0));
    some.map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overview() -> Value {
        serde_json::json!({
            "devices": { "total": 12, "online": 9, "offline": 2, "revoked": 1 },
            "versions": [{ "version": "mnist@v1.1", "slot": "default", "devices": 9 }],
            "boards": [{ "board": "x86-64", "devices": 12 }],
            "rollouts": [{
                "id": "01890a5d-ac96-774b-bcce-b302099a8057", "version": "mnist@v1.1", "state": "running",
                "wave": 0, "waves": 2, "counts": { "committed": 3, "failed": 0 }, "why": "kept",
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

    #[test]
    fn nothing_is_lost_on_the_way_to_a_program() {
        let parsed: Overview = serde_json::from_value(overview()).unwrap();
        assert_eq!(serde_json::to_value(parsed).unwrap(), overview());
    }
}
