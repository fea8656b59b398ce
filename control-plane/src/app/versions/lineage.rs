//! How a version came to be: the steps that are signed with it, and reading them back with those of its parents.

use super::{App, Error, Packing, Result, VersionName, chain, file_error, off_the_loop};
use control_core::entity::{Dataset, Job, JobTask, Version};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::{
    Digest, ModelVersionId, Timestamp, digest,
    job::{ARCH_FILE, ImportReport, JobReport, MODEL_FP32_FILE, WEIGHTS_FILE},
    limits,
    manifest::{FileEntry, LINEAGE_FILE, SIGNATURE_FILE},
    read,
};
use std::{collections::BTreeMap, fs::File, io, path::Path};
use trust::lineage::{self, Artefact, Parent, Step, StepKind};

/// The steps of one version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct VersionLineage {
    /// As in `mnist@v1.0`.
    pub version: String,
    pub id: ModelVersionId,
    /// In the order in which they were done; each is signed by the release key, and they are a chain.
    pub steps: Vec<Step>,
    /// Why there are no steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
}

/// Where the files of a version that is packed come from.
pub(super) enum Origin<'a> {
    Job(Box<JobOrigin<'a>>),
    /// This server's forge made them of a model from elsewhere.
    Import(&'a JobReport, &'a ImportReport),
    /// They were uploaded.
    Elsewhere,
}

/// A job that made a version's files.
pub(super) struct JobOrigin<'a> {
    job: &'a Job,
    dataset: &'a Dataset,
    report: &'a JobReport,
    arch: Digest,
    weights: Digest,
    model_fp32: Digest,
    /// What a retraining went on from.
    ancestor: Option<Ancestor>,
}

struct Ancestor {
    parent: Parent,
    arch: Digest,
    weights: Digest,
}

impl App {
    /// The steps of a version and beneath it those of its parent, and so on.
    pub async fn lineage(&self, name: &VersionName) -> Result<Vec<VersionLineage>> {
        let version = self.version(name).await?;
        let steps = self.steps_of(&version).await?.ok_or_else(|| {
            Error::NotFound(format!("{} has no lineage: its bundle lacks {LINEAGE_FILE}", version.name))
        })?;
        let mut shown = vec![VersionLineage { version: version.name, id: version.id, steps, remark: None }];
        while let Some(child) = shown.last()
            && shown.len() < limits::LINEAGE_PARENTS_MAX
            && let Some(parent) = child.steps.iter().find_map(|step| step.parent.clone())
        {
            let found = match self.store.version(parent.id).await? {
                Some(version) if version.bundle == parent.bundle => self.steps_of(&version).await?,
                Some(_) | None => None,
            };
            if let Some(steps) = &found {
                lineage::follows(&child.steps, steps).map_err(|error| damaged(&child.version, &error))?;
            }
            shown.push(VersionLineage {
                version: parent.version,
                id: parent.id,
                remark: found.is_none().then(|| "its lineage is not known here".to_owned()),
                steps: found.unwrap_or_default(),
            });
        }
        Ok(shown)
    }

    /// The signed steps of a version; `None` where its bundle holds none.
    async fn steps_of(&self, version: &Version) -> Result<Option<Vec<Step>>> {
        let Some(entry) = version.files.iter().find(|file| file.name == LINEAGE_FILE) else {
            return Ok(None);
        };
        let path = self.store.blobs.path(&entry.digest);
        let file = off_the_loop(move || {
            File::open(path)
                .and_then(|file| read::at_most(file, limits::LINEAGE_BYTES_MAX as u64))
                .map_err(|error| file_error(LINEAGE_FILE, &error))
        })
        .await?;
        let steps = lineage::read(&file, &self.signer.keyring_to_read(), &signed_files(&version.files));
        steps.map(Some).map_err(|error| damaged(&version.name, &error))
    }

    /// Takes the digests of what the job made, and of what it went on from.
    pub(super) async fn origin<'a>(&self, packing: &'a Packing<'_>) -> Result<Origin<'a>> {
        if let Some(report) = packing.report.as_ref().filter(|_| packing.imported_here)
            && let Some(import) = &report.import
        {
            return Ok(Origin::Import(report, import));
        }
        let (Some(job), Some(dataset), Some(report)) = (packing.job, packing.dataset, &packing.report) else {
            return Ok(Origin::Elsewhere);
        };
        let folder = packing.folder.to_path_buf();
        let (arch, weights, model_fp32) = off_the_loop(move || {
            let digest = |name| digest_of(&folder, name);
            Ok((digest(ARCH_FILE)?, digest(WEIGHTS_FILE)?, digest(MODEL_FP32_FILE)?))
        })
        .await?;
        let ancestor = match packing.parent {
            Some(parent) => Some(self.ancestor(parent).await?),
            None => None,
        };
        let origin = JobOrigin { job, dataset, report, arch, weights, model_fp32, ancestor };
        Ok(Origin::Job(Box::new(origin)))
    }

    async fn ancestor(&self, parent: ModelVersionId) -> Result<Ancestor> {
        let version = self.version(&VersionName::Id(parent)).await?;
        let job = version.job.ok_or_else(|| Error::Conflict(format!("{} has no weights", version.name)))?;
        let folder = self.result_folder(job);
        let (arch, weights) =
            off_the_loop(move || Ok((digest_of(&folder, ARCH_FILE)?, digest_of(&folder, WEIGHTS_FILE)?)))
                .await?;
        let parent = Parent { version: version.name, id: version.id, bundle: version.bundle };
        Ok(Ancestor { parent, arch, weights })
    }
}

fn damaged(version: &str, error: &lineage::Error) -> Error {
    Error::Internal(format!("the lineage of {version} does not hold: {}", chain(error)))
}

/// The files in which a lineage ends: the bundle's, but for the lineage itself and what signs it.
fn signed_files(files: &[FileEntry]) -> Vec<Artefact> {
    let signed = files.iter().filter(|file| file.name != LINEAGE_FILE && file.name != SIGNATURE_FILE);
    signed.map(|file| Artefact::new(&file.name, file.digest)).collect()
}

fn digest_of(folder: &Path, name: &str) -> Result<Digest> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Error::Forge(format!("the result of the job has no {name}")),
        _ => file_error(name, &error),
    };
    File::open(folder.join(name)).and_then(digest::of_reader).map_err(failed)
}

/// The steps that led to `files`, the last of which signs them as the version `name`.
pub(super) fn steps(
    packing: &Packing<'_>,
    origin: Origin<'_>,
    files: &[FileEntry],
    name: &str,
    release_key: Digest,
    at: Timestamp,
) -> Vec<Step> {
    let files = signed_files(files);
    let mut steps = match origin {
        Origin::Job(origin) => origin.steps(&files, at),
        Origin::Import(report, import) => import_steps(report, import, &files, at),
        Origin::Elsewhere => vec![Step {
            step: StepKind::Import,
            subjects: files.clone(),
            materials: Vec::new(),
            at,
            by: this_server(),
            parent: None,
            details: details([("golden_outputs_checked", json!(!packing.check_skipped))]),
        }],
    };
    steps.push(Step {
        step: StepKind::Signing,
        subjects: files.clone(),
        materials: files,
        at,
        by: format!("release key {}", release_key.short()),
        parent: None,
        details: details([
            ("version", json!(name)),
            ("board", json!(packing.board)),
            ("release_key", json!(release_key)),
        ]),
    });
    steps
}

/// The steps from a model from elsewhere and its calibration samples to `files`.
fn import_steps(report: &JobReport, import: &ImportReport, files: &[Artefact], at: Timestamp) -> Vec<Step> {
    let brought = vec![
        Artefact::new(&import.source, import.source_digest),
        Artefact::new("calibration", report.dataset.digest),
    ];
    let by_forge = |step, materials, subjects, details| Step {
        step,
        subjects,
        materials,
        at,
        by: this_server(),
        parent: None,
        details,
    };
    let samples = details([
        ("format", json!(report.dataset.format)),
        ("shape", json!(report.dataset.shape)),
        ("samples", json!(report.dataset.train_count)),
    ]);
    let compressed = details([
        ("seconds", json!(report.quantise_seconds)),
        ("way", json!(import.way)),
        ("sqnr_db", json!(import.closeness.sqnr_db)),
        ("agreement", json!(import.closeness.agreement)),
        ("accuracy", json!(report.model.accuracy_int8)),
        ("kept_f32", json!(import.kept_f32.len())),
        ("size_bytes", json!(report.model.bytes_int8_onnx)),
        ("golden_tolerance", json!(report.model.golden_tolerance)),
    ]);
    vec![
        by_forge(StepKind::Import, Vec::new(), brought.clone(), samples),
        by_forge(StepKind::Compression, brought, files.to_vec(), compressed),
    ]
}

fn this_server() -> String {
    format!("edgewright {}", env!("CARGO_PKG_VERSION"))
}

impl JobOrigin<'_> {
    /// The steps from the data to `files`.
    fn steps(self, files: &[Artefact], at: Timestamp) -> Vec<Step> {
        let (job, report) = (self.job, self.report);
        let data = Artefact::new(self.dataset.id.as_str(), report.dataset.digest);
        let arch = Artefact::new(ARCH_FILE, self.arch);
        let weights = Artefact::new(WEIGHTS_FILE, self.weights);
        let model_fp32 = Artefact::new(MODEL_FP32_FILE, self.model_fp32);
        let by_job = |step, materials, subjects, details| Step {
            step,
            subjects,
            materials,
            at,
            by: format!("job {}", job.id),
            parent: None,
            details,
        };
        let registered = details([
            ("format", json!(report.dataset.format)),
            ("shape", json!(report.dataset.shape)),
            ("train_count", json!(report.dataset.train_count)),
            ("test_count", json!(report.dataset.test_count)),
        ]);
        let mut steps = vec![Step {
            at: self.dataset.registered_at,
            by: this_server(),
            ..by_job(StepKind::Data, Vec::new(), vec![data.clone()], registered)
        }];
        if job.task == JobTask::Search {
            let search = report.search.as_ref();
            let found = details([
                ("seed", json!(job.seed)),
                ("budget", json!(job.budget)),
                ("method", json!(job.method)),
                ("space", json!(search.and_then(|search| search.space.as_ref()))),
                ("board", json!(job.board)),
                ("cell", json!(search.map(|search| &search.cell))),
                ("arch_steps", json!(search.map(|search| search.arch_steps))),
                ("seconds", json!(search.map(|search| search.seconds))),
            ]);
            steps.push(by_job(StepKind::Search, vec![data.clone()], vec![arch.clone()], found));
        }
        // The search that judged it gave the architecture, though it trained another one.
        if let Some(point) = job.point {
            let found = details([("judged_as", json!(point.index))]);
            let step = by_job(StepKind::Search, vec![data.clone()], vec![arch.clone()], found);
            steps.push(Step { by: format!("job {}", point.search), ..step });
        }
        let trained = details([
            ("seed", json!(job.seed)),
            ("epochs", json!(report.train_epochs)),
            ("seconds", json!(report.train_seconds)),
            ("accuracy", json!(report.model.accuracy_fp32)),
        ]);
        let (mut taken, mut given) = (vec![data.clone()], vec![weights.clone(), model_fp32.clone()]);
        let parent = match self.ancestor {
            None => {
                taken.push(arch);
                None
            }
            Some(ancestor) => {
                taken.push(Artefact::new(ARCH_FILE, ancestor.arch));
                taken.push(Artefact::new(WEIGHTS_FILE, ancestor.weights));
                // The architecture passes through, for whoever goes on from this version.
                given.push(arch);
                Some(ancestor.parent)
            }
        };
        steps.push(Step { parent, ..by_job(StepKind::Training, taken, given, trained) });
        let compressed = details([
            ("seconds", json!(report.quantise_seconds)),
            ("accuracy", json!(report.model.accuracy_int8)),
            ("size_bytes", json!(report.model.bytes_int8_onnx)),
            ("golden_tolerance", json!(report.model.golden_tolerance)),
        ]);
        let taken = vec![weights, model_fp32, data];
        steps.push(by_job(StepKind::Compression, taken, files.to_vec(), compressed));
        steps
    }
}

fn details<const N: usize>(entries: [(&str, Value); N]) -> BTreeMap<String, Value> {
    let known = entries.into_iter().filter(|(_, value)| !value.is_null());
    known.map(|(key, value)| (key.to_owned(), value)).collect()
}
