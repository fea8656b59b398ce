//! `edgewright trust`: keys that need not be on a server, and what they sign.

mod rotate;

pub(super) use rotate::settle;

use super::{
    Failure, Global, Outcome,
    client::Client,
    output::{facts, show, table},
};
use crate::{
    app::{
        chain, now,
        trust::{Metadata, NewMetadata, TrustStatus, found, vouching},
        versions::VersionName,
    },
    repository::{Folder, KeyFolder, OfflineRole, Repository, sign_all},
    serve,
    signer::Signer,
};
use clap::{Args, Subcommand};
use control_core::entity::Version;
use serde::{Deserialize, Serialize};
use shared::{TeamName, signing::PublicKey};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use trust::author::{Delegation, Document, Keys, Target};

/// Trust.
#[derive(Debug, Subcommand)]
pub enum TrustCommand {
    /// What is in force, and what should be done
    Status,
    /// Found the model repository of a new data folder, with keys in a folder of their own
    Init(InitArgs),
    /// Vouch for versions, or withdraw them
    #[command(after_help = "\
Examples:
  edgewright trust sign --keys /media/stick/keys mnist@v1.1
  edgewright trust sign --keys /media/stick/keys --withdraw mnist@v1.1
  edgewright trust sign mnist@v1.1 --out draft.json          # to be signed on a machine without a network")]
    Sign(SignArgs),
    /// Hand signed metadata to the server
    Send {
        /// What `trust sign --out` wrote
        document: PathBuf,
    },
    /// Make a key of a role and print its public half
    Key {
        /// root, targets, or the name of a team
        role: OfflineRole,
        /// Folder of the offline keys
        #[arg(long, value_name = "DIR")]
        keys: PathBuf,
    },
    /// Replace the keys of a role; the server has to be stopped for that moment
    Rotate(rotate::RotateArgs),
    /// Write all metadata to a folder, for devices that no network reaches
    Export {
        /// Folder that it goes to
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// How a repository is founded.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Data folder of the server that will be started
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder that the offline keys are made in, or are in already
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    /// Keys of each offline role
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    count: u32,
    /// How many of them have to sign
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    threshold: u32,
}

/// What is signed.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// Versions to vouch for, as in mnist@v1.0
    versions: Vec<VersionName>,
    /// Versions to vouch for no more
    #[arg(long, value_name = "VERSION")]
    withdraw: Vec<VersionName>,
    /// Who signs: targets, a team, or root (to give it another year)
    #[arg(long, default_value = "targets")]
    role: OfflineRole,
    /// Let a team sign models: its name
    #[arg(long, value_name = "TEAM", requires = "team_key")]
    delegate: Option<TeamName>,
    /// Public key of that team, as `trust key` prints it
    #[arg(long, value_name = "KEY", requires = "delegate")]
    team_key: Vec<String>,
    /// Paths that the team signs
    #[arg(long, value_name = "PATTERN", requires = "delegate")]
    paths: Vec<String>,
    /// Folder of the offline keys; without it nothing is signed yet
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// Add signatures to this file, in place of asking the server what there is
    #[arg(long, value_name = "FILE", conflicts_with_all = ["versions", "withdraw", "delegate"])]
    document: Option<PathBuf>,
    /// Write the metadata here, in place of handing it to the server
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Metadata on its way between machines.
#[derive(Debug, Serialize, Deserialize)]
struct Draft {
    role: String,
    document: serde_json::Value,
}

pub(super) fn run(command: &TrustCommand, global: &Global) -> Outcome {
    let (json, client) = (global.json, || Client::new(global));
    match command {
        TrustCommand::Init(args) => init(args, json),
        TrustCommand::Key { role, keys } => {
            let key = KeyFolder::at(keys).make(role).map_err(|error| usage(&error))?;
            let made = serde_json::json!({ "role": role.to_string(), "key": String::from(key.clone()) });
            show(json, &made, |_| String::from(key))
        }
        TrustCommand::Rotate(args) => rotate::run(args, json),
        TrustCommand::Status => {
            let status: TrustStatus = client()?.get("/trust")?;
            show(json, &status, describe)
        }
        // A file that goes to a file: the offline keys' machine knows no server.
        TrustCommand::Sign(args) if args.document.is_some() && args.out.is_some() => {
            finish(args, draft_of(args, None)?, None, json)
        }
        TrustCommand::Sign(args) => {
            let client = client()?;
            finish(args, draft_of(args, Some(&client))?, Some(&client), json)
        }
        TrustCommand::Send { document } => send(&client()?, read_draft(document)?, json),
        TrustCommand::Export { out } => {
            let folder = Folder::at(out);
            folder.write(&repository(&client()?)?).map_err(|error| failed(&error))?;
            let written = serde_json::json!({ "folder": out });
            show(json, &written, |_| {
                format!(
                    "the metadata is in {0}; on the device: edgewright-agent trust --data DIR --import {0}",
                    out.display()
                )
            })
        }
    }
}

fn init(args: &InitArgs, json: bool) -> Outcome {
    if args.threshold > args.count {
        return Err(Failure::Usage(format!(
            "--threshold {} is over --count {}: nothing could ever be signed",
            args.threshold, args.count
        )));
    }
    let _lock = locked(&args.data)?;
    let folder = Folder::at(args.data.join("trust"));
    if folder.read().map_err(|error| usage(&error))?.is_some() {
        return Err(Failure::Usage(format!(
            "{} has a model repository already; see `edgewright trust rotate`",
            args.data.display()
        )));
    }
    let signer = open_signer(&args.data)?;
    let keys = KeyFolder::at(&args.keys);
    let repository = found(&keys, args.count as usize, args.threshold, &signer, now())
        .map_err(|error| Failure::Failed(error.to_string()))?;
    folder.write(&repository).map_err(|error| failed(&error))?;
    let made = serde_json::json!({
        "data": args.data, "keys": args.keys, "count": args.count, "threshold": args.threshold
    });
    show(json, &made, |_| {
        format!(
            "founded in {}; the keys in {} vouch for every model: keep them away from the server",
            args.data.display(),
            args.keys.display()
        )
    })
}

/// What is to be signed: what is in the file, or the next version of what the server has.
fn draft_of(args: &SignArgs, client: Option<&Client>) -> Result<Draft, Failure> {
    if let Some(path) = &args.document {
        return read_draft(path);
    }
    let client = client.ok_or_else(|| Failure::Usage("without --document a server is asked".to_owned()))?;
    let repository = repository(client)?;
    if args.role == OfflineRole::Root {
        let root = repository.next_root(now()).map_err(|error| failed(&error))?;
        return draft(&args.role, &Document::of_root(&root));
    }
    let mut add = BTreeMap::new();
    for name in &args.versions {
        let version: Version = client.get(&format!("/versions/{}", String::from(name.clone())))?;
        let wanted = vouching(&version);
        add.insert(wanted.path, Target { length: wanted.length, sha256: wanted.sha256, custom: None });
    }
    let mut remove = Vec::new();
    for name in &args.withdraw {
        let version: Version = client.get(&format!("/versions/{}", String::from(name.clone())))?;
        remove.push(vouching(&version).path);
    }
    let mut targets =
        repository.next_targets(&args.role, add, &remove, now()).map_err(|error| failed(&error))?;
    if let Some(name) = &args.delegate {
        let keys = args.team_key.iter().map(|key| PublicKey::try_from(key.clone()));
        let keys = keys.collect::<Result<Vec<_>, _>>().map_err(|error| usage(&error))?;
        targets.delegations.retain(|has| has.name != *name);
        targets.delegations.push(Delegation {
            name: name.clone(),
            keys: Keys { threshold: 1, keys },
            paths: if args.paths.is_empty() {
                vec![format!("models/{name}-*/*")]
            } else {
                args.paths.clone()
            },
            terminating: false,
        });
    }
    draft(&args.role, &Document::of_targets(&targets))
}

/// Signs the draft where there are keys, and writes it or hands it over.
fn finish(args: &SignArgs, mut draft: Draft, client: Option<&Client>, json: bool) -> Outcome {
    if let Some(folder) = &args.keys {
        let role: OfflineRole = draft.role.parse().map_err(Failure::Usage)?;
        let mut document = document_of(&draft)?;
        sign_with(&mut document, &KeyFolder::at(folder), &role)?;
        draft.document = parsed(&document.to_bytes())?;
    }
    match (&args.out, client) {
        (Some(out), _) => {
            let text = serde_json::to_vec_pretty(&draft).map_err(|error| failed(&error))?;
            fs::write(out, text).map_err(|error| Failure::Failed(format!("{}: {error}", out.display())))?;
            let written = serde_json::json!({ "role": draft.role, "document": out });
            show(json, &written, |_| format!("{} is in {}", draft.role, out.display()))
        }
        (None, Some(client)) => send(client, draft, json),
        (None, None) => Err(Failure::Usage("give --out FILE, or a server".to_owned())),
    }
}

fn send(client: &Client, draft: Draft, json: bool) -> Outcome {
    let new = NewMetadata { role: draft.role, document: draft.document };
    let status: TrustStatus = client.post("/trust/metadata", &new)?;
    show(json, &status, describe)
}

/// Adds the signatures of the offline keys in `folder`.
fn sign_with(document: &mut Document, folder: &KeyFolder, role: &OfflineRole) -> Outcome {
    let keys = folder.keys(role).map_err(|error| usage(&error))?;
    if keys.is_empty() {
        return Err(Failure::Usage(format!("{} has no key {role}-1.pk8", folder.path().display())));
    }
    sign_all(document, &keys, "offline").map_err(|error| failed(&error))
}

fn locked(data: &Path) -> Result<fs::File, Failure> {
    let mut folder = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut folder, 0o700);
    folder
        .recursive(true)
        .create(data)
        .map_err(|error| Failure::Usage(format!("{}: {error}", data.display())))?;
    serve::lock(data).map_err(|error| Failure::Usage(format!("{error:#}")))
}

/// In a folder that is [`locked`].
fn open_signer(data: &Path) -> Result<Signer, Failure> {
    rotate::settle(data)?;
    Signer::open(&data.join("keys"), &[], now()).map_err(|error| failed(&error))
}

fn repository(client: &Client) -> Result<Repository, Failure> {
    let metadata: Metadata = client.get("/trust/metadata")?;
    let files = metadata.files.into_iter().map(|(name, value)| Ok((name, serde_json::to_vec(&value)?)));
    let files: BTreeMap<String, Vec<u8>> =
        files.collect::<Result<_, serde_json::Error>>().map_err(|error| failed(&error))?;
    Repository::from_files(&files).map_err(|error| failed(&error))
}

fn draft(role: &OfflineRole, document: &Document) -> Result<Draft, Failure> {
    Ok(Draft { role: role.to_string(), document: parsed(&document.to_bytes())? })
}

fn document_of(draft: &Draft) -> Result<Document, Failure> {
    let bytes = serde_json::to_vec(&draft.document).map_err(|error| failed(&error))?;
    Document::parse(&bytes).map_err(|error| usage(&error))
}

fn parsed(bytes: &[u8]) -> Result<serde_json::Value, Failure> {
    serde_json::from_slice(bytes).map_err(|error| failed(&error))
}

fn read_draft(path: &Path) -> Result<Draft, Failure> {
    let text = fs::read(path).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
    serde_json::from_slice(&text).map_err(|error| {
        Failure::Usage(format!("{} is not what `trust sign --out` writes: {error}", path.display()))
    })
}

fn describe(status: &TrustStatus) -> String {
    let rows = status.roles.iter().map(|role| {
        let keys: Vec<String> = role.keys.iter().map(|key| key.id().short()).collect();
        vec![
            role.role.clone(),
            role.version.to_string(),
            in_days(role.expires),
            format!("{} of {}", role.threshold, role.keys.len()),
            keys.join(" "),
        ]
    });
    let mut text = table(&["role", "version", "ends", "signatures", "keys"], rows);
    text.push_str("\n\n");
    let signs =
        if status.automatic { "by itself" } else { "nothing; use `edgewright trust sign --keys DIR`" };
    text.push_str(&facts(&[("vouches for", status.targets.join(", ")), ("server signs", signs.to_owned())]));
    for warning in &status.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}

fn in_days(at: shared::Timestamp) -> String {
    match at.since_ms(now()) / 86_400_000 {
        0 if at < now() => "ended".to_owned(),
        days => format!("in {days} d"),
    }
}

fn usage(error: &dyn std::error::Error) -> Failure {
    Failure::Usage(chain(error))
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::Failed(chain(error))
}
