//! `edgewright device`.

use super::{
    Failure, Outcome, PageArgs,
    client::Client,
    output::{ago, facts, show, table, word},
    query::Query,
};
use crate::{
    api::List,
    app::{
        enrol::{CreatedToken, NewToken, TTL_S_DEFAULT},
        versions::VersionName,
    },
    signer,
};
use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use control_core::entity::{Device, DeviceEvent, DeviceState, SecurityEvent, Token};
use serde_json::json;
use shared::{BoardId, DeviceId, wire::Phase};
use std::{collections::BTreeMap, path::PathBuf};

/// Where the tokens are with which devices enrol; those for programs are elsewhere.
const ENROLMENT_TOKENS: &str = "/enrolment-tokens";

/// Devices.
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// One-time tokens with which devices enrol
    #[command(subcommand)]
    Token(TokenCommand),
    /// List devices: all, or those that match everything that is given
    #[command(after_help = "\
Examples:
  edgewright device list --offline --board raspberry-pi-4
  edgewright device list --search cam --label site=berlin --watch
  edgewright device list --version mnist@v1.1 --json")]
    List {
        #[command(flatten)]
        page: PageArgs,
        #[command(flatten)]
        filter: Box<DeviceFilter>,
    },
    /// Show one
    Show { id: DeviceId },
    /// What a device told, or all of them, the newest first
    Events {
        id: Option<DeviceId>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// What was refused of devices and of those that wanted to be some, the newest first
    Refused(#[command(flatten)] PageArgs),
    /// Refuse a device's certificates from now on
    Revoke { id: DeviceId },
    /// Replace a device's labels
    #[command(after_help = "\
Examples:
  edgewright device label cam-01 ring=1 site=berlin
  edgewright device label cam-01                     # takes all of them away")]
    Label {
        id: DeviceId,
        #[arg(value_name = "KEY=VALUE", value_parser = pair)]
        labels: Vec<(String, String)>,
    },
}

/// Which devices are listed.
#[derive(Debug, Args)]
pub struct DeviceFilter {
    /// Part of an id, or of a label's value
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// Of this board
    #[arg(long)]
    board: Option<BoardId>,
    /// Connected at the moment
    #[arg(long, conflicts_with = "offline")]
    online: bool,
    /// Not connected at the moment
    #[arg(long)]
    offline: bool,
    /// With this label; may be given again
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// That shall run this version, as in mnist@v1.0
    #[arg(long, value_name = "VERSION")]
    version: Option<VersionName>,
    /// Of this group, as `edgewright group list` names it
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Running what it shall, not yet, or kept out
    #[arg(long, value_parser = state_parser())]
    state: Option<DeviceState>,
}

impl DeviceFilter {
    fn query(&self) -> Query {
        Query::default()
            .with("search", self.search.as_ref())
            .with("board", self.board.as_ref())
            .with("online", (self.online || self.offline).then_some(self.online))
            .with_labels(&self.labels)
            .with("version", self.version.clone().map(String::from))
            .with("group", self.group.as_ref())
            .with("state", self.state.map(DeviceState::name))
    }
}

/// Tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make one; its secret is shown only now
    #[command(after_help = "\
Examples:
  edgewright device token create --device cam-01 --out cam-01.json
  edgewright device token create --ttl-s 86400 --out any.json          # for a device that names itself

On the device: edgewright-agent run --data DIR --enroll cam-01.json --board BOARD")]
    Create {
        /// Only for this device
        #[arg(long)]
        device: Option<DeviceId>,
        /// Seconds that it can be used
        #[arg(long, default_value_t = TTL_S_DEFAULT)]
        ttl_s: u64,
        /// File for the agent's --enroll; without it everything is printed
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List them
    List(#[command(flatten)] PageArgs),
}

fn state_parser() -> impl TypedValueParser<Value = DeviceState> {
    PossibleValuesParser::new(DeviceState::ALL.map(DeviceState::name))
        .try_map(|text| text.parse::<DeviceState>())
}

pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(super) fn run(command: &DeviceCommand, client: &Client) -> Outcome {
    match command {
        DeviceCommand::Token(command) => run_token(command, client),
        DeviceCommand::List { page, filter } => {
            let list: List<Device> = page.list(client, "/devices", filter.query())?;
            show(client.json, &list, |list| {
                let rows = list.items.iter().map(|device| {
                    vec![
                        device.id.to_string(),
                        state(device).to_owned(),
                        device.board.to_string(),
                        running(device),
                        labels(device),
                        device.seen_at.map(ago).unwrap_or_default(),
                    ]
                });
                table(&["device", "state", "board", "runs", "labels", "seen"], rows)
            })
        }
        DeviceCommand::Show { id } => {
            let device: Device = client.get(&format!("/devices/{id}"))?;
            show(client.json, &device, describe)
        }
        DeviceCommand::Events { id, page } => {
            let of = id.as_ref().map(|id| format!("/devices/{id}")).unwrap_or_default();
            let list: List<DeviceEvent> = page.list(client, &format!("{of}/events"), Query::default())?;
            show(client.json, &list, |list| {
                let rows = list.items.iter().map(|event| {
                    let slot = event.slot.as_ref().map(ToString::to_string).unwrap_or_default();
                    let device = event.device.to_string();
                    vec![ago(event.at), device, word(&event.kind), slot, event.detail.clone()]
                });
                table(&["when", "device", "event", "slot", "detail"], rows)
            })
        }
        DeviceCommand::Refused(page) => {
            let list: List<SecurityEvent> = page.list(client, "/security-events", Query::default())?;
            show(client.json, &list, |list| {
                let rows = list.items.iter().map(|event| {
                    vec![
                        ago(event.at),
                        event.subject.clone(),
                        event.kind.clone(),
                        event.count.to_string(),
                        event.detail.clone(),
                    ]
                });
                table(&["newest", "who", "what", "times", "detail"], rows)
            })
        }
        DeviceCommand::Revoke { id } => {
            let device: Device = client.post(&format!("/devices/{id}/revoke"), &())?;
            show(client.json, &device, describe)
        }
        DeviceCommand::Label { id, labels } => {
            let labels: BTreeMap<String, String> = labels.iter().cloned().collect();
            let device: Device = client.put(&format!("/devices/{id}/labels"), &labels)?;
            show(client.json, &device, describe)
        }
    }
}

fn run_token(command: &TokenCommand, client: &Client) -> Outcome {
    match command {
        TokenCommand::Create { device, ttl_s, out } => {
            let new = NewToken { device: device.clone(), ttl_s: Some(*ttl_s) };
            let created: CreatedToken = client.create(ENROLMENT_TOKENS, &new)?;
            let enrol = json!({
                "server": created.server,
                "ca_pem": created.ca_pem,
                "token": created.secret,
                "device": created.token.device,
            });
            let Some(out) = out else {
                return show(client.json, &enrol, |enrol| format!("{enrol:#}"));
            };
            let text =
                serde_json::to_vec_pretty(&enrol).map_err(|error| Failure::Failed(error.to_string()))?;
            signer::write(out, &text).map_err(|error| Failure::Failed(crate::app::chain(&error)))?;
            show(client.json, &created.token, |token| {
                format!(
                    "{} holds a token that can be used once within {ttl_s} s ({})",
                    out.display(),
                    token.id
                )
            })
        }
        TokenCommand::List(page) => {
            let list: List<Token> = page.list(client, ENROLMENT_TOKENS, Query::default())?;
            show(client.json, &list, |list| {
                let now = crate::app::now();
                let rows = list.items.iter().map(|token| {
                    let state = match &token.used_by {
                        Some(device) => format!("used by {device}"),
                        None if token.expires_at <= now => "expired".to_owned(),
                        None => "open".to_owned(),
                    };
                    let device = token.device.as_ref().map_or_else(|| "any".to_owned(), ToString::to_string);
                    vec![token.id.to_string(), device, state, ago(token.created_at)]
                });
                table(&["token", "for", "state", "made"], rows)
            })
        }
    }
}

fn state(device: &Device) -> &'static str {
    match (device.revoked_at, device.online) {
        (Some(_), _) => "revoked",
        (None, true) => "online",
        (None, false) => "offline",
    }
}

fn running(device: &Device) -> String {
    let slots = device.reported.as_ref().map(|reported| reported.slots.as_slice()).unwrap_or_default();
    let running = slots.iter().filter_map(|slot| {
        slot.active.as_ref().map(|active| format!("{}: {}@{}", slot.slot, active.model, active.version))
    });
    running.collect::<Vec<_>>().join(", ")
}

/// What slots wait for.
fn waiting(device: &Device) -> String {
    let slots = device.reported.as_ref().map(|reported| reported.slots.as_slice()).unwrap_or_default();
    let waiting = slots.iter().filter_map(|slot| match &slot.phase {
        Phase::Waiting { reason, .. } => Some(format!("{}: {reason}", slot.slot)),
        Phase::Idle | Phase::Fetching { .. } | Phase::Testing { .. } | Phase::Trial { .. } => None,
    });
    waiting.collect::<Vec<_>>().join(", ")
}

fn labels(device: &Device) -> String {
    device.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

fn describe(device: &Device) -> String {
    let reported = device.reported.as_ref();
    facts(&[
        ("device", device.id.to_string()),
        ("state", state(device).to_owned()),
        ("board", device.board.to_string()),
        ("agent", device.agent_version.clone()),
        ("labels", labels(device)),
        ("runs", running(device)),
        ("waits", waiting(device)),
        (
            "generation",
            format!(
                "{} wanted, {} accepted",
                device.generation,
                reported.map_or(0, |reported| reported.generation)
            ),
        ),
        ("local API", reported.and_then(|reported| reported.api.clone()).unwrap_or_default()),
        ("enrolled", ago(device.enrolled_at)),
        ("seen", device.seen_at.map(ago).unwrap_or_default()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_asked_of_the_server_and_only_those_that_are_given() {
        let nothing = DeviceFilter {
            search: None,
            board: None,
            online: false,
            offline: false,
            labels: Vec::new(),
            version: None,
            group: None,
            state: None,
        };
        assert_eq!(nothing.query().to_string(), "");
        let filter = DeviceFilter {
            search: Some("cam 1".to_owned()),
            offline: true,
            labels: vec![("ring".to_owned(), "1".to_owned())],
            version: Some("m@v1.0".parse().unwrap()),
            ..nothing
        };
        assert_eq!(
            filter.query().to_string(),
            "?search=cam%201&online=false&label=ring%3D1&version=m%40v1.0"
        );
    }
}
