//! `edgewright device`.

use super::{
    Failure, Outcome, PageArgs,
    client::Client,
    output::{ago, facts, show, table, word},
    word_of,
};
use crate::{
    api::List,
    app::{
        enrol::{CreatedToken, NewToken, TTL_S_DEFAULT},
        versions::VersionName,
    },
    signer,
};
use clap::{Args, Subcommand};
use control_core::entity::{Device, DeviceEvent, DeviceState, Token};
use serde_json::json;
use shared::{BoardId, DeviceId, wire::Phase};
use std::{collections::BTreeMap, path::PathBuf};

/// Devices.
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// One-time tokens with which devices enrol
    #[command(subcommand)]
    Token(TokenCommand),
    /// List devices
    List {
        #[command(flatten)]
        filter: FilterArgs,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show one
    Show { id: DeviceId },
    /// What a device told, the newest first
    Events {
        id: DeviceId,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Refuse a device's certificates from now on
    Revoke { id: DeviceId },
    /// Replace a device's labels
    Label {
        id: DeviceId,
        #[arg(value_name = "KEY=VALUE", value_parser = pair)]
        labels: Vec<(String, String)>,
    },
}

/// Which devices are listed: those for which everything holds that is given.
#[derive(Debug, Args)]
pub struct FilterArgs {
    /// Part of an id or of a label's value
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// Of this board
    #[arg(long)]
    board: Option<BoardId>,
    /// Only those that are connected, or with =false that are not
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    online: Option<bool>,
    /// With this label; may be given again
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// That shall run this version, as in mnist@v1.0
    #[arg(long)]
    version: Option<VersionName>,
    /// current, behind or revoked
    #[arg(long)]
    state: Option<DeviceState>,
}

impl FilterArgs {
    fn query(&self) -> String {
        let labels = self.labels.iter().map(|(key, value)| Some(("label", format!("{key}={value}"))));
        let online = self.online.map(|online| ("online", online.to_string()));
        let parts = [
            self.search.clone().map(|text| ("search", text)),
            self.board.as_ref().map(|board| ("board", board.to_string())),
            online,
            self.version.clone().map(|version| ("version", version.into())),
            self.state.map(|state| ("state", state.name().to_owned())),
        ];
        let parts = parts.into_iter().chain(labels).flatten();
        parts.map(|(key, value)| format!("&{key}={}", word_of(&value))).collect()
    }
}

/// Tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make one; its secret is shown only now
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

pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(super) fn run(command: &DeviceCommand, client: &Client) -> Outcome {
    match command {
        DeviceCommand::Token(command) => run_token(command, client),
        DeviceCommand::List { filter, page } => {
            let list: List<Device> = page.list(client, "/devices", &filter.query())?;
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
            let list: List<DeviceEvent> = page.list(client, &format!("/devices/{id}/events"), "")?;
            show(client.json, &list, |list| {
                let rows = list.items.iter().map(|event| {
                    let slot = event.slot.as_ref().map(ToString::to_string).unwrap_or_default();
                    vec![ago(event.at), word(&event.kind), slot, event.detail.clone()]
                });
                table(&["when", "event", "slot", "detail"], rows)
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
            let created: CreatedToken = client.post("/enrolment-tokens", &new)?;
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
            let list: List<Token> = page.list(client, "/enrolment-tokens", "")?;
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
