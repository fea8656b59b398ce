//! Taking in a model from elsewhere: the forge quantises and checks it, and what it gives is signed as a version.

use super::{App, Error, Packing, Result, file_error, without_folder};
use crate::jobs::{self as worker, NewImport as Work};
use control_core::entity::Version;
use serde::{Deserialize, Serialize};
use shared::{BoardId, ModelName, job::JobReport};
use std::{
    fs,
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// In an upload: the model as it came.
pub const SOURCE_FILE: &str = "source.onnx";
/// In an upload: class names, one a line.
pub const LABELS_FILE: &str = "labels.txt";
/// In the upload's folder: the board, for the forge.
const BOARD_FILE: &str = "board.toml";
/// In the upload's folder: what the forge gives.
const RESULT_FOLDER: &str = "result";
/// Range of the bound, in decibels.
const SQNR_DB: std::ops::RangeInclusive<f64> = -200.0..=200.0;

/// A model to take in from an upload that holds [`SOURCE_FILE`], and [`LABELS_FILE`] where the classes have names.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewImport {
    pub upload: Uuid,
    pub board: BoardId,
    /// Samples on the machine of the control plane: a folder of `.npy` files or a data set.
    pub calibrate: PathBuf,
    /// The output to keep, where the model has several.
    #[serde(default)]
    pub output: Option<String>,
    /// Inputs that become constants, as `NAME` (zeros) or `NAME=NUMBER`.
    #[serde(default)]
    pub freeze: Vec<String>,
    /// Least signal to noise of the INT8 model, in decibels.
    #[serde(default)]
    pub sqnr_min_db: Option<f64>,
}

impl App {
    /// Has the forge take the uploaded model in and signs the result as a version. The upload is gone afterwards,
    /// whatever came of it.
    pub async fn import_version(&self, model: ModelName, new: NewImport) -> Result<Version> {
        let folder = self.upload_folder(new.upload);
        let imported = self.try_import(model, &new, &folder).await;
        self.end_upload(new.upload);
        imported
    }

    async fn try_import(&self, model: ModelName, new: &NewImport, folder: &Path) -> Result<Version> {
        let board = self.board(&new.board)?;
        if !new.calibrate.is_absolute() {
            return Err(Error::Invalid(format!("calibrate {} is not absolute", new.calibrate.display())));
        }
        if let Some(db) = new.sqnr_min_db.filter(|db| !SQNR_DB.contains(db)) {
            return Err(Error::Invalid(format!("sqnr_min_db is {db}, allowed are -200 to 200")));
        }
        let source = folder.join(SOURCE_FILE);
        if !source.is_file() {
            return Err(Error::Invalid(format!("the upload lacks {SOURCE_FILE}: the model as it came")));
        }
        let text = toml::to_string(board)
            .map_err(|error| Error::Internal(format!("the board cannot be written: {error}")))?;
        let board_file = folder.join(BOARD_FILE);
        fs::write(&board_file, text).map_err(|error| file_error(BOARD_FILE, &error))?;
        let (labels, out) = (folder.join(LABELS_FILE), folder.join(RESULT_FOLDER));
        let work = Work {
            model: &source,
            calibrate: &new.calibrate,
            board: &board_file,
            labels: labels.is_file().then_some(labels.as_path()),
            output: new.output.as_deref(),
            freeze: &new.freeze,
            sqnr_min_db: new.sqnr_min_db,
            out: &out,
        };
        self.forge.import(work).await.map_err(|error| without_folder(error.into(), folder))?;
        let report = worker::read_report(&out)?
            .ok_or_else(|| Error::Forge("edgewright-forge ended without a report".to_owned()))?;
        if let Some(reason) = not_for_devices(&report) {
            return Err(Error::Invalid(reason.to_owned()));
        }
        self.pack(Packing {
            folder: &out,
            model,
            board: new.board.clone(),
            dataset: None,
            schema: report.dataset.clone(),
            report: Some(report),
            job: None,
            parent: None,
            check_skipped: false,
            imported_here: true,
        })
        .await
    }
}

/// Why devices do not run what a report is of.
pub(super) fn not_for_devices(report: &JobReport) -> Option<&str> {
    report.import.as_ref()?.not_for_devices.as_deref()
}
