//! The in-toto statement about a model.

use super::{Differences, Error, PREDICATE_TYPE, Resource, bundle::expect};
use crate::in_toto::{Artefact, STATEMENT_TYPE};
use serde::{Deserialize, Serialize};
use shared::{Digest, digest::Hasher, limits};
use std::collections::BTreeSet;

const METHOD: &str = "files";
const HASH: &str = "sha256";
/// The name of a model that is one file.
const ONE_FILE: &str = ".";

/// What says of which kind a statement is; read before the rest.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(rename = "_type")]
    statement_type: String,
    predicate_type: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    statement_type: String,
    subject: Vec<Artefact>,
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Debug, Serialize, Deserialize)]
struct Predicate {
    serialization: Serialization,
    resources: Vec<Descriptor>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Serialization {
    method: String,
    hash_type: String,
    #[serde(default)]
    allow_symlinks: bool,
    #[serde(default)]
    ignore_paths: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Descriptor {
    name: String,
    algorithm: String,
    digest: String,
}

/// A model as it was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedModel {
    name: String,
    root: Digest,
    resources: Vec<Resource>,
    ignore_paths: Vec<String>,
}

impl SignedModel {
    /// What the signer called it; for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 over the files' digests: one name for all of the content.
    pub fn root(&self) -> Digest {
        self.root
    }

    /// Its files, in the order of the statement.
    pub fn resources(&self) -> &[Resource] {
        &self.resources
    }

    /// Did the signer leave out the path, or a folder that it lies in?
    pub fn ignores(&self, path: &str) -> bool {
        self.ignore_paths.iter().any(|ignored| is_at_or_below(path, ignored))
    }

    /// Accepts files that are exactly those that were signed; what the signer left out does not count.
    pub fn check(&self, found: &[Resource]) -> Result<(), Error> {
        let found = found.iter().filter(|resource| !self.ignores(&resource.name));
        let differences = Differences::between(pairs(&self.resources), pairs(found));
        if differences.is_empty() { Ok(()) } else { Err(Error::Differs(differences)) }
    }
}

fn pairs<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> impl Iterator<Item = (&'a str, Digest)> {
    resources.into_iter().map(|resource| (resource.name.as_str(), resource.digest))
}

/// The statement's JSON.
pub(super) fn write(name: &str, resources: &[Resource], ignore_paths: &[&str]) -> Result<Vec<u8>, Error> {
    check_resources(resources)?;
    let ignored =
        |resource: &&Resource| ignore_paths.iter().any(|ignored| is_at_or_below(&resource.name, ignored));
    if let Some(resource) = resources.iter().find(ignored) {
        return Err(Error::Invalid(format!("{:?} cannot be both signed and left out", resource.name)));
    }
    let mut sorted: Vec<&Resource> = resources.iter().collect();
    sorted.sort_by(|a, b| a.name.split('/').cmp(b.name.split('/')));
    let statement = Statement {
        statement_type: STATEMENT_TYPE.to_owned(),
        subject: vec![Artefact::new(name, root_of(sorted.iter().copied()))],
        predicate_type: PREDICATE_TYPE.to_owned(),
        predicate: Predicate {
            serialization: Serialization {
                method: METHOD.to_owned(),
                hash_type: HASH.to_owned(),
                allow_symlinks: false,
                ignore_paths: ignore_paths.iter().map(|path| (*path).to_owned()).collect(),
            },
            resources: sorted
                .into_iter()
                .map(|resource| Descriptor {
                    name: resource.name.clone(),
                    algorithm: HASH.to_owned(),
                    digest: resource.digest.to_string(),
                })
                .collect(),
        },
    };
    serde_json::to_vec(&statement).map_err(Error::Statement)
}

/// Reads a statement that was signed.
pub(super) fn read(payload: &[u8]) -> Result<SignedModel, Error> {
    let head: Head = serde_json::from_slice(payload).map_err(Error::Statement)?;
    expect("statement", STATEMENT_TYPE, &head.statement_type)?;
    expect("predicate", PREDICATE_TYPE, &head.predicate_type)?;
    let statement: Statement = serde_json::from_slice(payload).map_err(Error::Statement)?;
    let Ok([subject]) = <[Artefact; 1]>::try_from(statement.subject) else {
        return Err(Error::Invalid("the statement has not exactly one subject".to_owned()));
    };
    let Predicate { serialization, resources } = statement.predicate;
    expect("method of serialization", METHOD, &serialization.method)?;
    expect("hash of the files", HASH, &serialization.hash_type)?;
    let resources = resources.into_iter().map(resource).collect::<Result<Vec<_>, Error>>()?;
    check_resources(&resources)?;
    let (root, signed) = (root_of(&resources), subject.digest());
    if root != signed {
        return Err(Error::Invalid(format!(
            "the statement contradicts itself: its files have the root {}, its subject says {}",
            root.short(),
            signed.short()
        )));
    }
    Ok(SignedModel { name: subject.name, root, resources, ignore_paths: serialization.ignore_paths })
}

fn resource(descriptor: Descriptor) -> Result<Resource, Error> {
    expect("hash of a file", HASH, &descriptor.algorithm)?;
    let digest = descriptor
        .digest
        .parse()
        .map_err(|error| Error::Invalid(format!("{}: {error}", quoted(&descriptor.name))))?;
    Ok(Resource { name: descriptor.name, digest })
}

fn check_resources(resources: &[Resource]) -> Result<(), Error> {
    if resources.is_empty() || resources.len() > limits::MODEL_RESOURCES_MAX {
        return Err(Error::Invalid(format!(
            "a signature covers 1 to {} files, not {}",
            limits::MODEL_RESOURCES_MAX,
            resources.len()
        )));
    }
    let mut names = BTreeSet::new();
    for resource in resources {
        if !is_inside(&resource.name) && resource.name != ONE_FILE {
            return Err(Error::Invalid(format!(
                "{} is no path inside a model's folder",
                quoted(&resource.name)
            )));
        }
        if !names.insert(resource.name.as_str()) {
            return Err(Error::Invalid(format!("{} is named twice", quoted(&resource.name))));
        }
    }
    Ok(())
}

fn quoted(name: &str) -> String {
    format!("{:?}", name.chars().take(80).collect::<String>())
}

fn root_of<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> Digest {
    let mut hasher = Hasher::new();
    for resource in resources {
        hasher.update(resource.digest.as_bytes());
    }
    hasher.finish()
}

/// Is it a path that stays below the folder it is joined to?
fn is_inside(path: &str) -> bool {
    path.len() <= limits::MODEL_PATH_BYTES_MAX
        && !path.contains('\0')
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Is `path` the ignored one, or does it lie below it? A path that leads out of the model's folder ignores nothing.
fn is_at_or_below(path: &str, ignored: &str) -> bool {
    let ignored = ignored.trim_start_matches("./").trim_end_matches('/');
    is_inside(ignored)
        && path.strip_prefix(ignored).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
