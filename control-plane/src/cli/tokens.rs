//! `edgewright token`: tokens with which programs use the API.

use super::{
    Failure, Outcome, PageArgs, access,
    client::Client,
    output::{ago, facts, moment, show, table},
    query::Query,
};
use crate::{
    api::List,
    app::{
        access::{NewApiToken, NewTokenGiven},
        chain, now,
    },
    signer,
};
use clap::{Args, Subcommand};
use control_core::access::{ApiToken, Role};
use serde_json::json;
use shared::limits;
use std::path::PathBuf;
use uuid::Uuid;

/// Tokens for programs.
#[derive(Debug, Subcommand)]
pub enum ApiTokenCommand {
    /// Make one; its secret is shown only now
    #[command(after_help = "\
Examples:
  edgewright token create dashboards --role viewer --days 90 --out viewer.token
  EDGEWRIGHT_TOKEN=$(cat viewer.token) edgewright device list --json

Devices enrol with other ones: see `edgewright device token create`.")]
    Create(CreateArgs),
    /// List them
    List(#[command(flatten)] PageArgs),
    /// End one
    Revoke { id: Uuid },
}

/// What it is good for.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// What it is for, as it is listed
    name: String,
    /// What it may do; at most what you may
    #[arg(long, value_parser = access::role())]
    role: Role,
    /// Days that it lives
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = days())]
    days: u32,
    /// File for the secret, readable by its owner only; without it the secret is printed
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(limits::API_TOKEN_DAYS_MAX))
}

pub(super) fn run(command: &ApiTokenCommand, client: &Client) -> Outcome {
    match command {
        ApiTokenCommand::Create(args) => {
            let new = NewApiToken { name: args.name.clone(), role: args.role, days: args.days };
            let given: NewTokenGiven = client.create("/tokens", &new)?;
            let Some(out) = &args.out else {
                return show(client.json, &given, |given| {
                    describe(&given.token) + &facts(&[("secret", given.secret.reveal().to_owned())])
                });
            };
            signer::write(out, given.secret.reveal().as_bytes()).map_err(|error| {
                Failure::Failed(format!(
                    "{}; `edgewright token revoke {}` ends the token, whose secret is lost",
                    chain(&error),
                    given.token.id
                ))
            })?;
            show(client.json, &given.token, |token| {
                describe(token) + &facts(&[("secret in", out.display().to_string())])
            })
        }
        ApiTokenCommand::List(page) => {
            let list: List<ApiToken> = page.list(client, "/tokens", Query::default())?;
            show(client.json, &list, |list| {
                let rows = list.items.iter().map(|token| {
                    vec![
                        token.id.to_string(),
                        token.name.clone(),
                        token.user.to_string(),
                        token.role.to_string(),
                        ends(token),
                        token.used_at.map_or_else(|| "never".to_owned(), ago),
                    ]
                });
                table(&["token", "name", "user", "role", "until", "used"], rows)
            })
        }
        ApiTokenCommand::Revoke { id } => {
            client.delete(&format!("/tokens/{id}"))?;
            show(client.json, &json!({ "revoked": id }), |_| format!("{id} is good for nothing any more"))
        }
    }
}

fn ends(token: &ApiToken) -> String {
    if token.expires_at <= now() { "expired".to_owned() } else { moment(token.expires_at) }
}

fn describe(token: &ApiToken) -> String {
    facts(&[
        ("token", token.id.to_string()),
        ("name", token.name.clone()),
        ("user", token.user.to_string()),
        ("role", token.role.to_string()),
        ("until", ends(token)),
        ("used", token.used_at.map(ago).unwrap_or_default()),
    ])
}
