//! One step as a signed statement.

use crate::in_toto::{Artefact, PAYLOAD_TYPE, STATEMENT_TYPE};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{
    Digest, ModelVersionId, Timestamp, limits,
    signing::{Payload, Role},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Longest name of an artefact, a maker or a version, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// What a step did, in the order in which steps come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// A data set was registered.
    Data,
    /// A model was brought from elsewhere; what was before is not known.
    Import,
    /// An architecture was found on it.
    Search,
    /// The architecture's weights were trained.
    Training,
    /// The trained network, or the model from elsewhere, was quantised and exported.
    Compression,
    /// The model's files were signed as a version.
    Signing,
}

impl StepKind {
    const ALL: [Self; 6] =
        [Self::Data, Self::Import, Self::Search, Self::Training, Self::Compression, Self::Signing];

    /// The in-toto predicate type.
    fn predicate_type(self) -> &'static str {
        match self {
            Self::Data => "https://edgewright.dev/lineage/data/v1",
            Self::Search => "https://edgewright.dev/lineage/search/v1",
            Self::Training => "https://edgewright.dev/lineage/training/v1",
            Self::Compression => "https://edgewright.dev/lineage/compression/v1",
            Self::Import => "https://edgewright.dev/lineage/import/v1",
            Self::Signing => "https://edgewright.dev/lineage/signing/v1",
        }
    }

    /// Does a chain begin with it?
    pub(super) fn is_origin(self) -> bool {
        match self {
            Self::Data | Self::Import => true,
            Self::Search | Self::Training | Self::Compression | Self::Signing => false,
        }
    }
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Data => "data",
            Self::Search => "search",
            Self::Training => "training",
            Self::Compression => "compression",
            Self::Import => "import",
            Self::Signing => "signing",
        })
    }
}

/// The version that a training went on from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Parent {
    /// As in `mnist@v1.0`.
    pub version: String,
    pub id: ModelVersionId,
    /// SHA-256 of its signed manifest.
    pub bundle: Digest,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Step {
    pub step: StepKind,
    /// What it gave.
    pub subjects: Vec<Artefact>,
    /// What it took in.
    pub materials: Vec<Artefact>,
    /// When it was put on record.
    pub at: Timestamp,
    /// Who or what did it; for people.
    pub by: String,
    /// The version that a training went on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// What else is known; for programs.
    #[serde(default)]
    pub details: BTreeMap<String, Value>,
}

/// A step as it is signed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    #[serde(rename = "_type")]
    statement_type: String,
    subject: Vec<Artefact>,
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Predicate {
    materials: Vec<Artefact>,
    at: Timestamp,
    by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<Parent>,
    #[serde(default)]
    details: BTreeMap<String, Value>,
}

impl From<Step> for Statement {
    fn from(step: Step) -> Self {
        Self {
            statement_type: STATEMENT_TYPE.to_owned(),
            subject: step.subjects,
            predicate_type: step.step.predicate_type().to_owned(),
            predicate: Predicate {
                materials: step.materials,
                at: step.at,
                by: step.by,
                parent: step.parent,
                details: step.details,
            },
        }
    }
}

impl Statement {
    fn kind(&self) -> Option<StepKind> {
        StepKind::ALL.into_iter().find(|kind| kind.predicate_type() == self.predicate_type)
    }

    /// The step, where the statement is about one.
    pub(super) fn into_step(self) -> Option<Step> {
        let step = self.kind()?;
        let Predicate { materials, at, by, parent, details } = self.predicate;
        Some(Step { step, subjects: self.subject, materials, at, by, parent, details })
    }
}

impl Payload for Statement {
    const TYPE: &'static str = PAYLOAD_TYPE;
    const ROLE: Role = Role::Release;

    fn validate(&self) -> Result<(), String> {
        if self.statement_type != STATEMENT_TYPE {
            return Err(format!("_type is not {STATEMENT_TYPE:?}"));
        }
        let Some(kind) = self.kind() else {
            let got: String = self.predicate_type.chars().take(120).collect();
            return Err(format!("predicateType {got:?} is no step of a lineage"));
        };
        if self.subject.is_empty() {
            return Err("subject is empty".to_owned());
        }
        check_artefacts("subject", &self.subject)?;
        check_artefacts("materials", &self.predicate.materials)?;
        if self.predicate.by.len() > NAME_BYTES_MAX {
            return Err(format!("by has over {NAME_BYTES_MAX} bytes"));
        }
        match &self.predicate.parent {
            None => Ok(()),
            Some(_) if kind != StepKind::Training => Err(format!("a {kind} has no parent")),
            Some(parent) if parent.version.is_empty() || parent.version.len() > NAME_BYTES_MAX => {
                Err(format!("parent.version has 1 to {NAME_BYTES_MAX} bytes"))
            }
            Some(_) => Ok(()),
        }
    }
}

fn check_artefacts(field: &str, artefacts: &[Artefact]) -> Result<(), String> {
    if artefacts.len() > limits::LINEAGE_ARTEFACTS_MAX {
        return Err(format!("{field} has over {} entries", limits::LINEAGE_ARTEFACTS_MAX));
    }
    let mut names = BTreeSet::new();
    for artefact in artefacts {
        if artefact.name.is_empty() || artefact.name.len() > NAME_BYTES_MAX {
            return Err(format!("{field} has a name that is not of 1 to {NAME_BYTES_MAX} bytes"));
        }
        if !names.insert(artefact.name.as_str()) {
            return Err(format!("{field} names {:?} twice", artefact.name));
        }
    }
    Ok(())
}
