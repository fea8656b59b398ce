//! `edgewright model verify` and `edgewright model lineage`: who signed a model, and how it came to be.

use super::{
    Failure, Global, Outcome,
    client::Client,
    output::{ago, facts, show, table},
};
use crate::app::{
    chain,
    versions::{UNSIGNED_NAMES, VersionLineage, VersionName},
};
use clap::Args;
use serde::Serialize;
use shared::{
    Digest, digest, limits,
    manifest::{LINEAGE_FILE, SIGNATURE_FILE},
    read,
    signing::Keyring,
};
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use trust::{
    lineage::{self, Artefact, Step},
    oms::{ModelPublicKey, Resource, Signature},
};

/// Largest keyring file in bytes.
const KEYRING_BYTES_MAX: usize = 64 * 1024;

/// What `model verify` is given.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The model: a folder, or a single file
    model: PathBuf,
    /// The signature; in the folder it is model.sig
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// The signer's public key, P-256 in PEM
    #[arg(long, value_name = "FILE")]
    public_key: PathBuf,
}

/// What `model lineage` is given.
#[derive(Debug, Args)]
pub struct LineageArgs {
    /// A version on the server, named as in mnist@v1.0 or by its id
    #[arg(required_unless_present = "dir", conflicts_with = "dir")]
    version: Option<VersionName>,
    /// A folder with an exported version, in place of the server
    #[arg(long, requires = "keyring")]
    dir: Option<PathBuf>,
    /// The public keys that are trusted, as `model export` writes them
    #[arg(long, value_name = "FILE", requires = "dir")]
    keyring: Option<PathBuf>,
}

/// What was verified.
#[derive(Debug, Serialize)]
struct Verified {
    model: String,
    root: Digest,
    key: Digest,
    files: Vec<VerifiedFile>,
}

#[derive(Debug, Serialize)]
struct VerifiedFile {
    name: String,
    sha256: Digest,
}

pub(super) fn verify(args: &VerifyArgs, json: bool) -> Outcome {
    let signature_path = match (&args.signature, args.model.is_dir()) {
        (Some(path), _) => path.clone(),
        (None, true) => args.model.join(SIGNATURE_FILE),
        (None, false) => {
            return Err(Failure::Usage(format!(
                "{} is no folder with a {SIGNATURE_FILE}; name the signature with --signature",
                args.model.display()
            )));
        }
    };
    let key_file = read_file(&args.public_key, limits::PUBLIC_KEY_BYTES_MAX)?;
    let key = ModelPublicKey::from_pem(&String::from_utf8_lossy(&key_file))
        .map_err(|error| Failure::Usage(format!("{}: {error}", args.public_key.display())))?;
    let failed = |error| Failure::Failed(format!("{}: {}", signature_path.display(), chain(&error)));
    let signature = read_file(&signature_path, limits::MODEL_SIGNATURE_BYTES_MAX)?;
    let signed = Signature::parse(&signature).and_then(|signature| signature.verify(&key)).map_err(failed)?;
    let own = signature_path.canonicalize().ok();
    let left_out =
        |path: &Path, name: &str| signed.ignores(name) || (own.is_some() && path.canonicalize().ok() == own);
    signed.check(&hash_files(&args.model, &left_out)?).map_err(failed)?;
    let files = signed.resources().iter();
    let verified = Verified {
        model: signed.name().to_owned(),
        root: signed.root(),
        key: key.hint(),
        files: files.map(|file| VerifiedFile { name: file.name.clone(), sha256: file.digest }).collect(),
    };
    show(json, &verified, |verified| {
        facts(&[
            ("verified", args.model.display().to_string()),
            ("signed as", verified.model.clone()),
            ("files", verified.files.len().to_string()),
            ("root", verified.root.to_string()),
            ("key", verified.key.to_string()),
        ])
    })
}

pub(super) fn lineage(args: &LineageArgs, global: &Global) -> Outcome {
    match (&args.version, &args.dir, &args.keyring) {
        (Some(version), _, _) => {
            let client = Client::new(global)?;
            let path = format!("/versions/{}/lineage", String::from(version.clone()));
            let shown: Vec<VersionLineage> = client.get(&path)?;
            show(client.json, &shown, |shown| {
                shown.iter().map(describe).collect::<Vec<_>>().join("\n\nfrom ")
            })
        }
        (None, Some(dir), Some(keyring)) => {
            let steps = local_steps(dir, keyring)?;
            show(global.json, &steps, |steps| {
                let parent = steps.iter().find_map(|step| step.parent.as_ref());
                let parent = parent.map(|parent| format!("\n\nfrom {} {}", parent.version, parent.bundle));
                steps_table(steps) + &parent.unwrap_or_default()
            })
        }
        (None, _, _) => {
            Err(Failure::Usage("name a version, or a folder with --dir and --keyring".to_owned()))
        }
    }
}

fn local_steps(dir: &Path, keyring_path: &Path) -> Result<Vec<Step>, Failure> {
    let keyring: Keyring = serde_json::from_slice(&read_file(keyring_path, KEYRING_BYTES_MAX)?)
        .map_err(|error| Failure::Usage(format!("{} is no keyring: {error}", keyring_path.display())))?;
    let path = dir.join(LINEAGE_FILE);
    let file = read_file(&path, limits::LINEAGE_BYTES_MAX)?;
    let left_out = |_: &Path, name: &str| name == LINEAGE_FILE || UNSIGNED_NAMES.contains(&name);
    let found = hash_files(dir, &left_out)?;
    let found: Vec<Artefact> =
        found.into_iter().map(|resource| Artefact::new(resource.name, resource.digest)).collect();
    lineage::read(&file, &keyring, &found)
        .map_err(|error| Failure::Failed(format!("{}: {}", path.display(), chain(&error))))
}

fn describe(shown: &VersionLineage) -> String {
    match &shown.remark {
        Some(remark) => format!("{}: {remark}", shown.version),
        None => format!("{}\n{}", shown.version, steps_table(&shown.steps)),
    }
}

fn steps_table(steps: &[Step]) -> String {
    let rows = steps.iter().flat_map(|step| {
        step.subjects.iter().enumerate().map(move |(index, subject)| {
            let of_step = |text: String| if index == 0 { text } else { String::new() };
            vec![
                of_step(step.step.to_string()),
                subject.name.clone(),
                subject.digest().short(),
                of_step(ago(step.at)),
                of_step(step.by.clone()),
            ]
        })
    });
    table(&["step", "what", "digest", "when", "by"], rows)
}

/// The files of the model, by their paths below it. Links are refused: what they lead to is not part of the model.
fn hash_files(model: &Path, left_out: &dyn Fn(&Path, &str) -> bool) -> Result<Vec<Resource>, Failure> {
    let unreadable = |path: &Path, error: &io::Error| {
        Failure::Usage(format!("{} cannot be read: {error}", path.display()))
    };
    if model.is_file() {
        return Ok(vec![Resource {
            name: ".".to_owned(),
            digest: hash(model).map_err(|e| unreadable(model, &e))?,
        }]);
    }
    let mut found = Vec::new();
    let mut folders = vec![(model.to_path_buf(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| unreadable(&folder, &error))? {
            let entry = entry.map_err(|error| unreadable(&folder, &error))?;
            let path = entry.path();
            let file_name = entry.file_name();
            let Some(name) = file_name.to_str().map(|name| format!("{prefix}{name}")) else {
                return Err(Failure::Failed(format!("the name of {} is not UTF-8", path.display())));
            };
            if left_out(&path, &name) {
                continue;
            }
            let kind = entry.file_type().map_err(|error| unreadable(&path, &error))?;
            if kind.is_dir() {
                folders.push((path, format!("{name}/")));
            } else if kind.is_file() {
                let digest = hash(&path).map_err(|error| unreadable(&path, &error))?;
                found.push(Resource { name, digest });
            } else {
                return Err(Failure::Failed(format!(
                    "{} is neither a file nor a folder, and so not part of a signed model",
                    path.display()
                )));
            }
            if found.len() + folders.len() > limits::MODEL_RESOURCES_MAX {
                return Err(Failure::Failed(format!(
                    "{} holds over {} files, more than a signature covers",
                    model.display(),
                    limits::MODEL_RESOURCES_MAX
                )));
            }
        }
    }
    Ok(found)
}

fn hash(path: &Path) -> io::Result<Digest> {
    digest::of_reader(fs::File::open(path)?)
}

/// A file of at most `limit_bytes`.
fn read_file(path: &Path, limit_bytes: usize) -> Result<Vec<u8>, Failure> {
    fs::File::open(path)
        .and_then(|file| read::at_most(file, limit_bytes as u64))
        .map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", path.display())))
}

#[cfg(test)]
mod tests;
