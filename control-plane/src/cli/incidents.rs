//! `edgewright incident`: what somebody should look at.

use super::{
    Outcome, PageArgs,
    client::Client,
    output::{ago, ends, facts, show, table, word},
    query::Query,
};
use crate::api::List;
use clap::{Args, Subcommand};
use control_core::incident::Incident;
use uuid::Uuid;

/// Incidents.
#[derive(Debug, Subcommand)]
pub enum IncidentCommand {
    /// List them, the newest first
    #[command(after_help = "\
Examples:
  edgewright incident list --open --watch
  edgewright incident show ID && edgewright incident acknowledge ID")]
    List(ListArgs),
    /// Show one with its evidence
    Show { id: Uuid },
    /// Say that you look at it
    Acknowledge { id: Uuid },
    /// Close it; it opens again when its cause goes and comes back
    Resolve { id: Uuid },
}

/// Which of them.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    page: PageArgs,
    /// Only those that are open
    #[arg(long, conflicts_with = "closed")]
    open: bool,
    /// Only those that are not
    #[arg(long)]
    closed: bool,
}

pub(super) fn run(command: &IncidentCommand, client: &Client) -> Outcome {
    match command {
        IncidentCommand::List(args) => {
            let open = (args.open || args.closed).then_some(args.open);
            let query = Query::default().with("open", open);
            let list: List<Incident> = args.page.list(client, "/incidents", query)?;
            show(client.json, &list, |list| {
                let rows = list.items.iter().map(|incident| {
                    vec![
                        incident.id.to_string(),
                        word(&incident.severity),
                        standing(incident).to_owned(),
                        incident.title.clone(),
                        incident.subject.clone(),
                        incident.count.to_string(),
                        ago(incident.opened_at),
                    ]
                });
                table(&["incident", "severity", "state", "what", "of", "count", "opened"], rows)
            })
        }
        IncidentCommand::Show { id } => {
            let incident: Incident = client.get(&format!("/incidents/{id}"))?;
            ends(incident.resolved_at.is_some());
            show(client.json, &incident, describe)
        }
        IncidentCommand::Acknowledge { id } => order(client, *id, "acknowledge"),
        IncidentCommand::Resolve { id } => order(client, *id, "resolve"),
    }
}

fn order(client: &Client, id: Uuid, order: &str) -> Outcome {
    let incident: Incident = client.post(&format!("/incidents/{id}/{order}"), &())?;
    show(client.json, &incident, describe)
}

fn standing(incident: &Incident) -> &'static str {
    match (incident.resolved_at, incident.acknowledged_at) {
        (Some(_), _) => "closed",
        (None, Some(_)) => "looked at",
        (None, None) => "open",
    }
}

fn describe(incident: &Incident) -> String {
    let mut text = facts(&[
        ("incident", incident.id.to_string()),
        ("what", incident.title.clone()),
        ("kind", word(&incident.kind)),
        ("severity", word(&incident.severity)),
        ("state", standing(incident).to_owned()),
        ("of", incident.subject.clone()),
        ("count", incident.count.to_string()),
        ("opened", ago(incident.opened_at)),
        ("changed", ago(incident.updated_at)),
        ("looked at", incident.acknowledged_at.map(ago).unwrap_or_default()),
        ("closed", incident.resolved_at.map(ago).unwrap_or_default()),
    ]);
    let rows = incident.evidence.iter().map(|evidence| {
        vec![ago(evidence.at), evidence.text.clone(), evidence.link.clone().unwrap_or_default()]
    });
    text.push_str(&table(&["when", "evidence", "more"], rows));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incident() -> Incident {
        serde_json::from_value(serde_json::json!({
            "id": "01890a5d-ac96-774b-bcce-b302099a8057",
            "kind": "rollout_stopped",
            "severity": "critical",
            "title": "a rollout was stopped",
            "subject": "mnist@v1.1",
            "opened_at": 1,
            "updated_at": 2,
            "acknowledged_at": null,
            "resolved_at": null,
            "count": 1,
            "evidence": [{ "at": 1, "text": "3 of 10 failed", "link": "/rollouts/x" }],
        }))
        .unwrap()
    }

    #[test]
    fn an_incident_is_shown_with_its_evidence() {
        let text = describe(&incident());
        for part in ["rollout_stopped", "critical", "3 of 10 failed", "/rollouts/x", "mnist@v1.1"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn what_is_closed_was_not_only_looked_at() {
        let mut incident = incident();
        assert_eq!(standing(&incident), "open");
        incident.acknowledged_at = Some(shared::Timestamp(3));
        assert_eq!(standing(&incident), "looked at");
        incident.resolved_at = Some(shared::Timestamp(4));
        assert_eq!(standing(&incident), "closed");
    }
}
