//! Versions of models: packing a result into a signed bundle, publishing one from elsewhere, finding them.

mod import;
mod lineage;

use super::{App, Error, Page, Result, chain, changes::ChangeKind, now, unknown};
use crate::{jobs as worker, signer, store::blobs::Blobs};
use control_core::entity::{Dataset, Job, JobTask, Version, VersionState};
use serde::{Deserialize, Serialize};
use shared::{
    BoardId, DatasetId, JobId, ModelName, ModelVersionId, Timestamp, VersionLabel,
    job::{DataFormat, DatasetSchema, JobReport},
    limits,
    manifest::{
        self, FileEntry, GOLDEN_FILE, Head, LINEAGE_FILE, Lineage, MODEL_FILE, Manifest, Preprocess,
        SIGNATURE_FILE, Task, TensorSpec,
    },
    space::Dim,
};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};
use trust::oms::Resource;
use uuid::Uuid;

pub use import::{LABELS_FILE, NewImport, SOURCE_FILE};
pub use lineage::VersionLineage;

/// The name under which a bundle's signed manifest is fetched.
pub const BUNDLE_NAME: &str = "bundle";
/// In an exported folder: the public key of the model's signature.
pub const MODEL_KEY_NAME: &str = "model.pub";
/// In an exported folder: the public keys of manifests and lineages.
pub const KEYRING_NAME: &str = "keyring.json";
/// What lies beside a bundle's files in an exported folder, or is the signature, and so is not signed by it.
pub const UNSIGNED_NAMES: [&str; 4] = [BUNDLE_NAME, KEYRING_NAME, MODEL_KEY_NAME, SIGNATURE_FILE];

/// How far a golden output may be off where nobody measured it.
const GOLDEN_TOLERANCE_DEFAULT: f32 = 0.02;
/// An upload that nobody has added to for so long is over.
const UPLOAD_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Names of files that an upload may have.
const UPLOAD_FILES: [&str; 5] = [MODEL_FILE, GOLDEN_FILE, shared::job::REPORT_FILE, SOURCE_FILE, LABELS_FILE];

/// How people name a version: `mnist@v1.0`, or its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum VersionName {
    Label(ModelName, VersionLabel),
    Id(ModelVersionId),
}

shared::text_schema!(VersionName, "VersionName", {
    "description": "MODEL@vMAJOR.MINOR, or the version's id.",
    "pattern": r"^[a-z0-9][a-z0-9._-]{0,63}@v(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})$|^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
});

impl FromStr for VersionName {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if let Some((model, label)) = text.split_once('@') {
            let model = model.parse().map_err(|error| format!("{error}"))?;
            return Ok(Self::Label(model, label.parse().map_err(|error| format!("{error}"))?));
        }
        let quoted: String = text.chars().take(80).collect();
        text.parse()
            .map(Self::Id)
            .map_err(|_| format!("version {quoted:?} is not valid: write MODEL@vMAJOR.MINOR or its id"))
    }
}

impl TryFrom<String> for VersionName {
    type Error = String;
    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse()
    }
}

impl From<VersionName> for String {
    fn from(name: VersionName) -> Self {
        match name {
            VersionName::Label(model, label) => format!("{model}@{label}"),
            VersionName::Id(id) => id.to_string(),
        }
    }
}

/// A version to publish from files that were uploaded.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewVersion {
    pub upload: Uuid,
    pub board: BoardId,
    #[serde(default)]
    pub dataset: Option<DatasetId>,
    /// Signs without running the golden inputs. The version says so for ever.
    #[serde(default)]
    pub unsafe_skip_check: bool,
}

/// What is packed.
struct Packing<'a> {
    folder: &'a Path,
    model: ModelName,
    board: BoardId,
    dataset: Option<&'a Dataset>,
    schema: DatasetSchema,
    report: Option<JobReport>,
    job: Option<&'a Job>,
    parent: Option<ModelVersionId>,
    check_skipped: bool,
    /// The files are what this server's forge made of a model from elsewhere.
    imported_here: bool,
}

impl App {
    /// One version; the error names those that are near.
    pub async fn version(&self, name: &VersionName) -> Result<Version> {
        let found = match name {
            VersionName::Id(id) => self.store.version(*id).await?,
            VersionName::Label(model, label) => self.store.version_labelled(model, *label).await?,
        };
        match found {
            Some(version) => Ok(version),
            None => {
                let known = self.store.versions(None, &Page::first(limits::PAGE_MAX)).await?;
                let known = known.iter().map(|version| version.name.as_str());
                let name = String::from(name.clone());
                Err(Error::NotFound(unknown("version", &name, known, "edgewright model list")))
            }
        }
    }

    /// Versions by model, the newest first; all models or one.
    pub async fn versions(&self, model: Option<&ModelName>, page: &Page) -> Result<Vec<Version>> {
        Ok(self.store.versions(model, page).await?)
    }

    /// Where a file of a bundle is kept. `bundle` names the signed manifest.
    pub async fn version_file(&self, name: &VersionName, file: &str) -> Result<PathBuf> {
        let version = self.version(name).await?;
        let digest = if file == BUNDLE_NAME {
            Some(version.bundle)
        } else {
            version.files.iter().find(|entry| entry.name == file).map(|entry| entry.digest)
        };
        let digest = digest.ok_or_else(|| {
            let names: Vec<&str> = version.files.iter().map(|entry| entry.name.as_str()).collect();
            Error::NotFound(format!(
                "{} has no file {file:?}; it has {BUNDLE_NAME}, {}",
                version.name,
                names.join(", ")
            ))
        })?;
        Ok(self.store.blobs.path(&digest))
    }

    /// The version of a finished job, made from its result folder. Asked again it gives the same one.
    pub(super) async fn version_of(
        &self,
        job: &Job,
        dataset: &Dataset,
        report: JobReport,
    ) -> Result<Version> {
        if let Some(version) = self.store.version_of_job(job.id).await? {
            return Ok(version);
        }
        let folder = self.result_folder(job.id);
        self.pack(Packing {
            folder: &folder,
            model: job.model.clone(),
            board: job.board.clone(),
            dataset: Some(dataset),
            schema: report.dataset.clone(),
            report: Some(report),
            job: Some(job),
            parent: job.parent,
            check_skipped: false,
            imported_here: false,
        })
        .await
    }

    /// The folder where a job leaves its result.
    pub fn result_folder(&self, job: JobId) -> PathBuf {
        self.job_folder(job).join(shared::job::RESULT_DIR)
    }

    /// A folder for files that a version is published from.
    pub fn begin_upload(&self) -> Result<Uuid> {
        let id = Uuid::now_v7();
        fs::create_dir_all(self.upload_folder(id))
            .map_err(|error| file_error("the upload folder", &error))?;
        Ok(id)
    }

    /// Where an uploaded file goes; refuses names that have no business there.
    pub fn upload_path(&self, upload: Uuid, name: &str) -> Result<PathBuf> {
        if !UPLOAD_FILES.contains(&name) {
            return Err(Error::Invalid(format!(
                "file {name:?} is not taken; allowed are {}",
                UPLOAD_FILES.join(", ")
            )));
        }
        let folder = self.upload_folder(upload);
        if !folder.is_dir() {
            return Err(Error::NotFound(format!("upload {upload} is not known; begin another")));
        }
        Ok(folder.join(name))
    }

    fn upload_folder(&self, upload: Uuid) -> PathBuf {
        self.settings.data.join("uploads").join(upload.to_string())
    }

    /// Removes what uploads left behind; where other servers may be taking some in, nothing that is younger than a day.
    pub fn clear_uploads(&self) -> Result<()> {
        if self.store.is_shared() {
            return self.clear_old_uploads();
        }
        match fs::remove_dir_all(self.settings.data.join("uploads")) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(file_error("the upload folder", &error)),
        }
    }

    fn clear_old_uploads(&self) -> Result<()> {
        let uploads = match fs::read_dir(self.settings.data.join("uploads")) {
            Ok(uploads) => uploads,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(file_error("the upload folder", &error)),
        };
        for upload in uploads.flatten() {
            let changed = upload.metadata().and_then(|metadata| metadata.modified());
            let is_old = changed.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > UPLOAD_LIFE));
            // Another server may have done it.
            if is_old && let Err(error) = fs::remove_dir_all(upload.path()) {
                tracing::debug!("an old upload stays behind: {error}");
            }
        }
        Ok(())
    }

    /// Signs uploaded files as a version, after the forge has run the golden inputs on them. The upload is gone
    /// afterwards, whatever came of it.
    pub async fn publish_version(&self, model: ModelName, new: NewVersion) -> Result<Version> {
        let folder = self.upload_folder(new.upload);
        let published = self.try_publish(model, &new, &folder).await;
        self.end_upload(new.upload);
        published
    }

    fn end_upload(&self, upload: Uuid) {
        if let Err(error) = fs::remove_dir_all(self.upload_folder(upload))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("the upload {upload} stays behind: {error}");
        }
    }

    async fn try_publish(&self, model: ModelName, new: &NewVersion, folder: &Path) -> Result<Version> {
        self.board(&new.board)?;
        for name in [MODEL_FILE, GOLDEN_FILE] {
            if !folder.join(name).is_file() {
                return Err(Error::Invalid(format!(
                    "the bundle lacks {name}; a result folder of the forge has it"
                )));
            }
        }
        let report = worker::read_report(folder)?;
        if let Some(reason) = report.as_ref().and_then(import::not_for_devices) {
            return Err(Error::Invalid(reason.to_owned()));
        }
        let dataset = match &new.dataset {
            Some(id) => Some(self.dataset(id).await?),
            None => None,
        };
        let schema = match (&dataset, &report) {
            (Some(dataset), _) => dataset.schema.clone(),
            (None, Some(report)) => report.dataset.clone(),
            (None, None) => {
                return Err(Error::Invalid(format!(
                    "shape and labels are not known: name the data set with --dataset, or add {}",
                    shared::job::REPORT_FILE
                )));
            }
        };
        if new.unsafe_skip_check {
            tracing::warn!("a version of {model} is signed without the check of its golden outputs");
        } else {
            self.forge.check(folder).await.map_err(|error| without_folder(error.into(), folder))?;
        }
        self.pack(Packing {
            folder,
            model,
            board: new.board.clone(),
            dataset: dataset.as_ref(),
            schema,
            report,
            job: None,
            parent: None,
            check_skipped: new.unsafe_skip_check,
            imported_here: false,
        })
        .await
    }

    async fn pack(&self, packing: Packing<'_>) -> Result<Version> {
        let lineage = Lineage {
            dataset: packing.schema.digest,
            job: packing.job.map(|job| job.id),
            seed: packing
                .job
                .map(|job| job.seed)
                .or(packing.report.as_ref().map(|report| report.seed))
                .unwrap_or(0),
            parent: packing.parent,
        };
        let (blobs, folder) = (self.store.blobs.clone(), packing.folder.to_path_buf());
        let mut files = off_the_loop(move || put_files(&blobs, &folder)).await?;
        let origin = self.origin(&packing).await?;
        let _one_at_a_time = self.labels.lock().await;
        let label = self.next_label(&packing).await?;
        let id = ModelVersionId(Uuid::now_v7());
        let (name, at) = (format!("{}@{label}", packing.model), now());
        let steps = lineage::steps(&packing, origin, &files, &name, self.signer.release_id(), at);
        let described = self.signer.sign_lineage(steps).map_err(not_signed)?;
        files.push(self.put_small(LINEAGE_FILE, described).await?);
        let resources: Vec<Resource> =
            files.iter().map(|file| Resource { name: file.name.clone(), digest: file.digest }).collect();
        let signature = self.signer.sign_model(&name, &resources, &UNSIGNED_NAMES).map_err(not_signed)?;
        files.push(self.put_small(SIGNATURE_FILE, signature).await?);
        let manifest = describe(&packing, &lineage, label, id, at, files);
        let envelope = self.signer.sign_manifest(&manifest).map_err(not_signed)?;
        let blobs = self.store.blobs.clone();
        let (bundle, bundle_bytes) = off_the_loop(move || Ok(blobs.put(&envelope[..])?)).await?;
        let version = Version {
            id,
            name,
            model: packing.model,
            version: label,
            board: packing.board,
            dataset: packing.dataset.map(|dataset| dataset.id.clone()),
            state: VersionState::Draft,
            bundle,
            bundle_bytes,
            size_bytes: manifest.size_bytes(),
            job: packing.job.map(|job| job.id),
            parent: packing.parent,
            check_skipped: packing.check_skipped,
            report: packing.report,
            files: manifest.files,
            created_at: manifest.created_at,
        };
        self.store.add_version(&version).await?;
        self.tell(ChangeKind::Version, version.id, "published");
        Ok(version)
    }

    async fn put_small(&self, name: &str, content: Vec<u8>) -> Result<FileEntry> {
        let blobs = self.store.blobs.clone();
        let (digest, size_bytes) = off_the_loop(move || Ok(blobs.put(&content[..])?)).await?;
        Ok(FileEntry { name: name.to_owned(), digest, size_bytes })
    }

    /// A search gives the next major number; everything else the next minor one.
    async fn next_label(&self, packing: &Packing<'_>) -> Result<VersionLabel> {
        let newest = self.store.newest_label(&packing.model, None).await?;
        let Some(newest) = newest else { return Ok(VersionLabel { major: 1, minor: 0 }) };
        if packing.job.is_some_and(|job| job.task == JobTask::Search) {
            return Ok(VersionLabel { major: newest.major.saturating_add(1), minor: 0 });
        }
        let parent = match packing.parent {
            Some(id) => self.store.version(id).await?.filter(|parent| parent.model == packing.model),
            None => None,
        };
        let major = parent.map_or(newest.major, |parent| parent.version.major);
        let newest = self.store.newest_label(&packing.model, Some(major)).await?;
        Ok(VersionLabel { major, minor: newest.map_or(0, |newest| newest.minor.saturating_add(1)) })
    }
}

/// Runs what copies and hashes large files where it holds up nobody.
async fn off_the_loop<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::Internal(format!("packing a version broke off: {error}"))))
}

fn not_signed(error: signer::Error) -> Error {
    match error {
        signer::Error::Sign(shared::signing::Error::Invalid { reason, .. }) => Error::Invalid(reason),
        error => Error::Internal(chain(&error)),
    }
}

fn put_files(blobs: &Blobs, folder: &Path) -> Result<Vec<FileEntry>> {
    let mut files = Vec::new();
    for name in [MODEL_FILE, GOLDEN_FILE] {
        let file = File::open(folder.join(name)).map_err(|error| file_error(name, &error))?;
        let size = file.metadata().map_err(|error| file_error(name, &error))?.len();
        if size == 0 || size > limits::BUNDLE_FILE_BYTES_MAX {
            return Err(Error::Invalid(format!(
                "{name} has {size} bytes, allowed are 1 to {}",
                limits::BUNDLE_FILE_BYTES_MAX
            )));
        }
        let (digest, size_bytes) = blobs.put(file)?;
        files.push(FileEntry { name: name.to_owned(), digest, size_bytes });
    }
    Ok(files)
}

fn describe(
    packing: &Packing<'_>,
    lineage: &Lineage,
    version: VersionLabel,
    version_id: ModelVersionId,
    created_at: Timestamp,
    files: Vec<FileEntry>,
) -> Manifest {
    let schema = &packing.schema;
    let outputs = schema.labels.len() + schema.heads.iter().map(Head::elements).sum::<usize>();
    Manifest {
        format: manifest::FORMAT,
        model: packing.model.clone(),
        version,
        version_id,
        task: schema.task,
        board: packing.board.clone(),
        created_at,
        input: TensorSpec { name: "input".to_owned(), shape: schema.shape.clone() },
        output: TensorSpec { name: "probabilities".to_owned(), shape: vec![outputs] },
        preprocess: preprocess(schema),
        labels: schema.labels.clone(),
        heads: schema.heads.clone(),
        alarm: packing.report.as_ref().and_then(|report| report.alarm),
        golden_tolerance: packing
            .report
            .as_ref()
            .map_or(GOLDEN_TOLERANCE_DEFAULT, |report| report.model.golden_tolerance),
        files,
        lineage: lineage.clone(),
    }
}

/// How a device makes samples of what is given to it.
fn preprocess(schema: &DatasetSchema) -> Preprocess {
    let image = match schema.task {
        Task::ImageClassification => true,
        Task::SeriesClassification | Task::IntentSlots | Task::TextGeneration => false,
        // Of images or of anything else.
        Task::AnomalyDetection => Dim::of_samples(&schema.shape) == Dim::Image,
    };
    match (&schema.text, schema.format) {
        (Some(text), _) => Preprocess::of_text(text.clone()),
        (None, DataFormat::Csv) => Preprocess::of_columns(schema.columns.clone()),
        // What those that calibrated it hold is what goes in.
        (None, DataFormat::Npy) => Preprocess::linear(1.0, 0.0),
        (None, _) if image => Preprocess::linear(1.0 / 255.0, 0.0),
        (None, _) => Preprocess::linear(1.0, 0.0),
    }
}

/// The folder of an upload means nothing to whoever sent the files.
fn without_folder(error: Error, folder: &Path) -> Error {
    match error {
        Error::Invalid(text) => Error::Invalid(text.replace(&format!("{}/", folder.display()), "")),
        error => error,
    }
}

fn file_error(what: &str, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full,
        _ => Error::Internal(format!("{what}: {error}")),
    }
}
