//! `edgewright group`: devices by a name for their labels.

use super::{
    Failure, Outcome, PageArgs,
    client::Client,
    devices::pair,
    output::{ago, facts, show, table},
    query::{Query, escaped},
};
use crate::{
    api::List,
    app::groups::{ChangeGroup, NewGroup},
};
use clap::{Args, Subcommand};
use control_core::entity::{Group, Selector};
use serde_json::json;
use shared::DeviceId;

/// Groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List them
    List(#[command(flatten)] PageArgs),
    /// Show one
    Show { name: String },
    /// Give devices a name: those with all of the labels, and only those of them that are named, where some are
    #[command(after_help = "\
Examples:
  edgewright group add pilots --label ring=1 --label site=berlin
  edgewright rollout create --version mnist@v1.1 --group pilots
  edgewright device list --group pilots")]
    Add(SelectArgs),
    /// Put other devices in place of a group's; a rollout under way keeps those that it began with
    Change(SelectArgs),
    /// Remove one; its devices stay
    Remove { name: String },
}

/// Which devices.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub struct SelectArgs {
    name: String,
    /// Devices with this label; may be given again
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair, group = "what")]
    labels: Vec<(String, String)>,
    /// This device; may be given again
    #[arg(long = "device", value_name = "ID", group = "what")]
    devices: Vec<DeviceId>,
}

impl SelectArgs {
    fn selector(&self) -> Selector {
        Selector { devices: self.devices.clone(), labels: self.labels.iter().cloned().collect() }
    }
}

/// The devices of the group `name`.
pub(super) fn selector_of(client: &Client, name: &str) -> Result<Selector, Failure> {
    client.get::<Group>(&path(name)).map(|group| group.selector)
}

pub(super) fn run(command: &GroupCommand, client: &Client) -> Outcome {
    match command {
        GroupCommand::List(page) => {
            let list: List<Group> = page.list(client, "/groups", Query::default())?;
            show(client.json, &list, |list| {
                let rows = list.items.iter().map(|group| {
                    vec![
                        group.name.clone(),
                        devices(&group.selector),
                        group.devices.to_string(),
                        ago(group.created_at),
                    ]
                });
                table(&["group", "of", "devices", "added"], rows)
            })
        }
        GroupCommand::Show { name } => {
            let group: Group = client.get(&path(name))?;
            show(client.json, &group, describe)
        }
        GroupCommand::Add(args) => {
            let new = NewGroup { name: args.name.clone(), selector: args.selector() };
            let group: Group = client.create("/groups", &new)?;
            show(client.json, &group, describe)
        }
        GroupCommand::Change(args) => {
            let group: Group = client.put(&path(&args.name), &ChangeGroup { selector: args.selector() })?;
            show(client.json, &group, describe)
        }
        GroupCommand::Remove { name } => {
            client.delete(&path(name))?;
            show(client.json, &json!({ "removed": name }), |_| format!("group {name} is removed"))
        }
    }
}

fn path(name: &str) -> String {
    format!("/groups/{}", escaped(name))
}

fn devices(selector: &Selector) -> String {
    let labels = selector.labels.iter().map(|(key, value)| format!("{key}={value}"));
    labels.chain(selector.devices.iter().map(ToString::to_string)).collect::<Vec<_>>().join(" ")
}

fn describe(group: &Group) -> String {
    facts(&[
        ("group", group.name.clone()),
        ("of", devices(&group.selector)),
        ("devices", group.devices.to_string()),
        ("added", ago(group.created_at)),
    ])
}
