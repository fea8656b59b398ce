//! `edgewright ca`.

use super::{
    Outcome,
    client::Client,
    output::{show, table},
};
use crate::{
    api::List,
    app::{
        Status,
        authorities::{AuthorityStatus, Retirement},
    },
};
use clap::Subcommand;

/// The fleet's CAs.
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// List them, the oldest first
    List,
    /// Add one that issues to devices from now on; the old ones stay trusted
    Rotate,
    /// Trust the newest alone, once all devices have certificates of it
    Retire {
        /// Also where that shuts devices out
        #[arg(long)]
        force: bool,
    },
}

pub(super) fn run(command: &CaCommand, client: &Client) -> Outcome {
    let list: List<AuthorityStatus> = match command {
        CaCommand::List => client.get("/authorities")?,
        CaCommand::Rotate => client.create("/authorities", &())?,
        CaCommand::Retire { force } => client.post("/authorities/retire", &Retirement { force: *force })?,
    };
    if !matches!(command, CaCommand::List) && client.get::<Status>("/status")?.broker.external {
        eprintln!(
            "the broker has to trust the same CAs: give it what `edgewright broker files` writes, and start it again"
        );
    }
    show(client.json, &list, |list| {
        let rows = list.items.iter().map(|authority| {
            let tasks = [(authority.info.issues, "devices"), (authority.info.serves, "server")];
            let tasks: Vec<_> = tasks.into_iter().filter_map(|(is, task)| is.then_some(task)).collect();
            let days = authority.info.not_after.since_ms(crate::app::now()) / 86_400_000;
            let name: String = authority.info.digest.to_string().chars().take(16).collect();
            vec![name, tasks.join(", "), authority.devices.to_string(), format!("{days} d")]
        });
        table(&["CA", "issues to", "devices", "lives on for"], rows)
    })
}
