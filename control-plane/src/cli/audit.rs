//! `edgewright audit`: who changed what, and what was refused.

use super::{
    Outcome, PageArgs,
    client::Client,
    output::{moment, show, table},
    query::Query,
    when::When,
};
use crate::api::List;
use clap::{Args, Subcommand};
use control_core::access::AuditEntry;

/// The audit log.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// List requests that changed something or wanted to, the newest first
    #[command(after_help = "\
Examples:
  edgewright audit list --since 24h
  edgewright audit list --user anna --operation create_rollout
  edgewright audit list --since 2026-01-01 --until 2026-02-01 --json")]
    List(AuditArgs),
}

/// Which of them.
#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(flatten)]
    page: PageArgs,
    /// Only by this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Only of this kind, as the API's document names it: create_rollout, revoke_device
    #[arg(long, value_name = "OPERATION")]
    operation: Option<String>,
    /// Only from then on: 24h for so long ago, or a date
    #[arg(long, value_name = "TIME")]
    since: Option<When>,
    /// Only before then
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
}

pub(super) fn run(command: &AuditCommand, client: &Client) -> Outcome {
    let AuditCommand::List(args) = command;
    let list: List<AuditEntry> = args.page.list(client, "/audit", args.query())?;
    show(client.json, &list, |list| {
        let rows = list.items.iter().map(|entry| {
            vec![
                moment(entry.at),
                entry.user.clone(),
                entry.operation.clone(),
                entry.target.clone(),
                outcome(entry.status),
                entry.from.clone(),
                entry.detail.clone(),
            ]
        });
        table(&["when", "user", "operation", "of", "outcome", "from", "detail"], rows)
    })
}

impl AuditArgs {
    fn query(&self) -> Query {
        Query::default()
            .with("user", self.user.as_ref())
            .with("operation", self.operation.as_ref())
            .with("since", self.since.map(When::ms))
            .with("until", self.until.map(When::ms))
    }
}

fn outcome(status: u16) -> String {
    match status {
        0 => "no answer".to_owned(),
        200..300 => "done".to_owned(),
        401 | 403 => format!("refused ({status})"),
        _ => format!("failed ({status})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_words() {
        assert_eq!(outcome(201), "done");
        assert_eq!(outcome(403), "refused (403)");
        assert_eq!(outcome(409), "failed (409)");
        assert_eq!(outcome(0), "no answer");
    }
}
