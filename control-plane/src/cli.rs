//! The command line: `serve`, and everything else as a client of a server's API.

mod access;
mod audit;
mod authorities;
mod auto;
mod backup;
mod boards;
mod broker;
mod client;
mod completion;
mod compression;
mod config;
mod context;
mod database;
mod datasets;
mod devices;
mod groups;
mod incidents;
mod login;
mod looks;
mod models;
mod openapi;
mod output;
mod overview;
mod provenance;
mod query;
mod retention;
mod rollouts;
mod searches;
mod secret;
mod serve;
mod status;
mod target;
mod telemetry;
mod tokens;
mod trust;
mod users;
mod watch;
mod when;

use crate::api::List;
use clap::{Args, Parser, Subcommand};
use client::{Changes, Client};
use query::Query;
use serde::de::DeserializeOwned;
use std::{path::PathBuf, process::ExitCode, time::Duration};

const EXAMPLES: &str = "\
Examples:
  edgewright serve --data fleet
  edgewright context add home --file fleet/context.json
  edgewright overview --watch
  edgewright device list --offline --json

Which server is meant is said by the first of these that there is: the options above, EDGEWRIGHT_CONTEXT and
EDGEWRIGHT_TOKEN, the context that `edgewright context use` chose.
Exit codes: 0 done, 1 failed or refused, 2 wrong usage or input.";

/// Makes models for edge devices and looks after them there.
#[derive(Debug, Parser)]
#[command(name = "edgewright", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// A context's name, or a file with a server's address, CA and token, as the server writes it into its data folder
    #[arg(long, global = true, env = "EDGEWRIGHT_CONTEXT", value_name = "NAME|FILE")]
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
    /// Look again and again, when something changes and every so often, until it has ended or Ctrl-C; of commands that
    /// list or show. It stands behind what it is of. With --json, a line for each change
    #[arg(long, global = true, value_name = "SECONDS", num_args = 0..=1, default_missing_value = watch::SECONDS_DEFAULT,
        value_parser = watch::seconds)]
    pub watch: Option<u32>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the control plane
    #[command(after_help = "\
Examples:
  edgewright serve --data fleet
  edgewright serve --data fleet --api 0.0.0.0:8443 --mqtt 0.0.0.0:8883 --public-host fleet.example

Everything is kept in the folder; its context.json is what `edgewright context add NAME --file` takes.")]
    Serve(Box<serve::ServeArgs>),
    /// From a data set to the best model for a board in the time given, by itself
    #[command(after_help = "\
Example:
  edgewright auto --data data/mnist --board x86-64 --budget 30m")]
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
    /// Boards that models can be made for
    #[command(subcommand)]
    Board(boards::BoardCommand),
    /// Devices and the tokens with which they enrol
    #[command(subcommand)]
    Device(devices::DeviceCommand),
    /// Groups of devices
    #[command(subcommand)]
    Group(groups::GroupCommand),
    /// Rollouts of versions to devices
    #[command(subcommand)]
    Rollout(rollouts::RolloutCommand),
    /// The fleet at a glance
    Overview,
    /// The control plane at a glance
    Status,
    /// What somebody should look at
    #[command(subcommand)]
    Incident(incidents::IncidentCommand),
    /// What devices measured
    #[command(subcommand)]
    Telemetry(telemetry::TelemetryCommand),
    /// What users did with answers
    #[command(subcommand)]
    Feedback(telemetry::FeedbackCommand),
    /// How long what devices say is kept
    #[command(subcommand)]
    Retention(retention::RetentionCommand),
    /// Who vouches for models: TUF metadata and its keys
    #[command(subcommand)]
    Trust(trust::TrustCommand),
    /// The fleet's certificate authorities
    #[command(subcommand)]
    Ca(authorities::CaCommand),
    /// A broker of your own in place of the server's
    #[command(subcommand)]
    Broker(broker::BrokerCommand),
    /// Who may log in
    #[command(subcommand)]
    User(users::UserCommand),
    /// Tokens for programs that use the API
    #[command(subcommand)]
    Token(tokens::ApiTokenCommand),
    /// Who changed what
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Begin a session, which is kept in the context
    #[command(after_help = "\
Examples:
  edgewright login --user anna                        # the password is asked for
  edgewright --context shop login --user ci --password-file ci.password

The user `admin` is always there; its password is the token in context.json of the server's data folder.")]
    Login(login::LoginArgs),
    /// End the session
    Logout,
    /// Say who you are to the server, and what you may do
    Whoami,
    /// Servers by name
    #[command(subcommand)]
    Context(context::ContextCommand),
    /// Write a backup of a server's data folder and database into one file, while the server runs
    #[command(after_help = "\
Examples:
  edgewright backup --data fleet --out fleet.tar.zst
  edgewright restore fleet.tar.zst --data fleet-again")]
    Backup(backup::BackupArgs),
    /// Make a data folder and a database of a backup
    Restore(backup::RestoreArgs),
    /// The document of the server's API (OpenAPI 3.1)
    Openapi(openapi::OpenapiArgs),
    /// Print a script that has a shell complete commands and options
    #[command(after_help = "\
Examples:
  edgewright completion bash > ~/.local/share/bash-completion/completions/edgewright
  edgewright completion zsh > ~/.zfunc/_edgewright        # a folder of $fpath
  edgewright completion fish > ~/.config/fish/completions/edgewright.fish")]
    Completion(completion::CompletionArgs),
}

/// Why a command ended without success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// What was given cannot be used: exit code 2.
    Usage(String),
    /// It was tried and failed: exit code 1.
    Failed(String),
    /// The server does not let whoever asks do it: exit code 1. Asking again does not help.
    Refused(String),
}

type Outcome = Result<(), Failure>;

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let (text, code) = match watched(&cli.command, &cli.global) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(text)) => (text, 2),
        Err(Failure::Failed(text) | Failure::Refused(text)) => (text, 1),
    };
    eprintln!("error: {}", output::plain(&text, false));
    ExitCode::from(code)
}

/// Runs the command once, or for as long as it is watched.
fn watched(command: &Command, global: &Global) -> Outcome {
    let Some(seconds) = global.watch else { return run(command, global) };
    let Some(kinds) = command.looks() else {
        return Err(Failure::Usage(
            "--watch is for commands that list or show; this one is done once".to_owned(),
        ));
    };
    let changes = if kinds.is_empty() { Changes::polled() } else { Client::new(global)?.changes(kinds) };
    watch::run(Duration::from_secs(seconds.into()), changes, global.json, || run(command, global))
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
        Command::Board(command) => boards::run(command, &client()?),
        Command::Device(command) => devices::run(command, &client()?),
        Command::Group(command) => groups::run(command, &client()?),
        Command::Rollout(command) => rollouts::run(command, &client()?),
        Command::Overview => overview::run(&client()?),
        Command::Status => status::run(&client()?),
        Command::Incident(command) => incidents::run(command, &client()?),
        Command::Telemetry(command) => telemetry::run(command, &client()?),
        Command::Feedback(command) => telemetry::run_feedback(command, &client()?),
        Command::Retention(command) => retention::run(command, &client()?),
        Command::Trust(command) => trust::run(command, global),
        Command::Ca(command) => authorities::run(command, &client()?),
        Command::Broker(command) => broker::run(command, &client()?),
        Command::User(command) => users::run(command, &client()?),
        Command::Token(command) => tokens::run(command, &client()?),
        Command::Audit(command) => audit::run(command, &client()?),
        Command::Login(args) => login::login(args, global),
        Command::Logout => login::logout(global),
        Command::Whoami => login::whoami(&client()?),
        Command::Context(command) => context::run(command, global),
        Command::Backup(args) => backup::back_up(args, global.json),
        Command::Restore(args) => backup::restore(args, global.json),
        Command::Openapi(args) => openapi::run(args),
        Command::Completion(args) => completion::run(args),
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
    /// The page of the list at `path`, or all of it; `query` is what else is asked.
    fn list<T: DeserializeOwned>(
        &self,
        client: &Client,
        path: &str,
        query: Query,
    ) -> Result<List<T>, Failure> {
        if self.all {
            return Ok(List::whole(all(client, path, &query)?));
        }
        let query = query.with("limit", Some(self.limit)).with("cursor", self.cursor.as_ref());
        let page: List<T> = client.get(&format!("{path}{query}"))?;
        if let Some(next) = page.next_cursor.as_ref().filter(|_| !client.json) {
            output::remark(&format!("there are more: --cursor {next}, or --all"));
        }
        Ok(page)
    }
}

/// Everything in a list, page by page.
fn all<T: DeserializeOwned>(client: &Client, path: &str, query: &Query) -> Result<Vec<T>, Failure> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let query = query.clone().with("limit", Some(shared::limits::PAGE_MAX)).with("cursor", cursor);
        let page: List<T> = client.get(&format!("{path}{query}"))?;
        all.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(all);
        }
    }
}

#[cfg(test)]
mod tests;
