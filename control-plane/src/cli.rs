//! The command line: `serve`, and everything else as a client of a server's API.

mod authorities;
mod auto;
mod backup;
mod boards;
mod broker;
mod client;
mod compression;
mod datasets;
mod devices;
mod models;
mod openapi;
mod output;
mod provenance;
mod rollouts;
mod searches;
mod serve;
mod status;
mod trust;

use crate::api::List;
use clap::{Args, Parser, Subcommand};
use client::Client;
use serde::de::DeserializeOwned;
use std::{path::PathBuf, process::ExitCode};

/// Makes models for edge devices and looks after them there.
#[derive(Debug, Parser)]
#[command(name = "edgewright", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// File with the server's address, CA and token, as the server writes it into its data folder
    #[arg(long, global = true, env = "EDGEWRIGHT_CONTEXT", value_name = "FILE")]
    pub context: Option<PathBuf>,
    /// Address of the server, in place of the context's
    #[arg(long, global = true, value_name = "URL")]
    pub server: Option<String>,
    /// CA of the server, in place of the context's
    #[arg(long, global = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Token, in place of the context's
    #[arg(long, global = true, env = "EDGEWRIGHT_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the control plane
    Serve(serve::ServeArgs),
    /// From a data set to the best model for a board in the time given, by itself
    Auto(auto::AutoArgs),
    /// Data sets
    #[command(subcommand)]
    Dataset(datasets::DatasetCommand),
    /// Searches for an architecture
    #[command(subcommand)]
    Search(searches::SearchCommand),
    /// Models and their versions
    #[command(subcommand)]
    Model(models::ModelCommand),
    /// The fleet's certificate authorities
    #[command(subcommand)]
    Ca(authorities::CaCommand),
    /// A broker of your own in place of the server's
    #[command(subcommand)]
    Broker(broker::BrokerCommand),
    /// Devices and their tokens
    #[command(subcommand)]
    Device(devices::DeviceCommand),
    /// Rollouts of versions to devices
    #[command(subcommand)]
    Rollout(rollouts::RolloutCommand),
    /// Who vouches for models: TUF metadata and its keys
    #[command(subcommand)]
    Trust(trust::TrustCommand),
    /// Boards that models can be made for
    #[command(subcommand)]
    Board(boards::BoardCommand),
    /// The document of the server's API (OpenAPI 3.1)
    Openapi(openapi::OpenapiArgs),
    /// Write a backup of a server's data folder and database into one file, while the server runs
    Backup(backup::BackupArgs),
    /// Make a data folder and a database of a backup
    Restore(backup::RestoreArgs),
    /// The control plane at a glance
    Status,
}

/// Why a command ended without success.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// What was given cannot be used: exit code 2.
    Usage(String),
    /// It was tried and failed: exit code 1.
    Failed(String),
}

type Outcome = Result<(), Failure>;

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = run(&cli.command, &cli.global);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(text)) => {
            eprintln!("error: {}", output::plain(&text, false));
            ExitCode::from(2)
        }
        Err(Failure::Failed(text)) => {
            eprintln!("error: {}", output::plain(&text, false));
            ExitCode::from(1)
        }
    }
}

fn run(command: &Command, global: &Global) -> Outcome {
    let client = || Client::new(global);
    match command {
        Command::Serve(args) => serve::run(args, global.json),
        Command::Auto(args) => auto::run(args, &client()?),
        Command::Dataset(command) => datasets::run(command, &client()?),
        Command::Search(searches::SearchCommand::Spaces { name }) => {
            searches::spaces(name.as_deref(), global.json)
        }
        Command::Search(command) => searches::run(command, &client()?),
        Command::Model(command) => models::run(command, global),
        Command::Ca(command) => authorities::run(command, &client()?),
        Command::Broker(command) => broker::run(command, &client()?),
        Command::Device(command) => devices::run(command, &client()?),
        Command::Rollout(command) => rollouts::run(command, &client()?),
        Command::Trust(command) => trust::run(command, global),
        Command::Board(command) => boards::run(command, &client()?),
        Command::Openapi(args) => openapi::run(args),
        Command::Backup(args) => backup::back_up(args, global.json),
        Command::Restore(args) => backup::restore(args, global.json),
        Command::Status => status::run(&client()?),
    }
}

/// Where a list begins and how long it is.
#[derive(Clone, Debug, Args)]
pub struct PageArgs {
    /// Most entries
    #[arg(long, default_value_t = shared::limits::PAGE_DEFAULT)]
    pub limit: u32,
    /// Begin where an earlier page ended: its next_cursor, as --json shows it
    #[arg(long)]
    pub cursor: Option<String>,
    /// All of them, however many there are
    #[arg(long, conflicts_with_all = ["limit", "cursor"])]
    pub all: bool,
}

impl PageArgs {
    /// The page of the list at `path`, or all of it; `filter` is what else is asked, as in `&model=m`.
    fn list<T: DeserializeOwned>(
        &self,
        client: &Client,
        path: &str,
        filter: &str,
    ) -> Result<List<T>, Failure> {
        if self.all {
            return Ok(List::whole(all(client, path, filter)?));
        }
        let cursor = self.cursor.as_ref().map(|cursor| format!("&cursor={}", word_of(cursor)));
        client.get(&format!("{path}?limit={}{}{filter}", self.limit, cursor.unwrap_or_default()))
    }
}

/// Everything in a list, page by page.
fn all<T: DeserializeOwned>(client: &Client, path: &str, filter: &str) -> Result<Vec<T>, Failure> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let query = format!("{path}?limit={}{cursor}{filter}", shared::limits::PAGE_MAX);
        let page: List<T> = client.get(&query)?;
        all.extend(page.items);
        match page.next_cursor {
            Some(next) => cursor = format!("&cursor={}", word_of(&next)),
            None => return Ok(all),
        }
    }
}

/// A value as a part of a query: everything that has a meaning there is written as a number.
fn word_of(text: &str) -> String {
    let mut word = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            word.push(byte.into());
        } else {
            word.push_str(&format!("%{byte:02X}"));
        }
    }
    word
}

#[cfg(test)]
mod tests;
