//! `edgewright model`.

use super::{
    Failure, Global, Outcome, PageArgs,
    client::Client,
    compression,
    output::{ago, bytes, facts, show, table, word},
    provenance::{self, LineageArgs, VerifyArgs},
    searches::{EffortArgs, finish},
};
use crate::{
    api::{Keys, List},
    app::{
        jobs::NewRetrain,
        versions::{
            BUNDLE_NAME, KEYRING_NAME, LABELS_FILE, MODEL_KEY_NAME, NewImport, NewVersion, SOURCE_FILE,
            VersionName,
        },
    },
};
use clap::Subcommand;
use control_core::entity::{Job, Version};
use serde::Deserialize;
use shared::{
    BoardId, DatasetId, ModelName,
    job::{ModelForm, REPORT_FILE},
    manifest::{GOLDEN_FILE, MODEL_FILE},
};
use std::{fs, io, path::PathBuf};
use uuid::Uuid;

/// Models.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// List versions
    List {
        /// Only of this model
        model: Option<ModelName>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show a version, named as in mnist@v1.0 or by its id
    Show { version: VersionName },
    /// Train a version's architecture on, from its weights
    Retrain {
        version: VersionName,
        #[arg(long)]
        dataset: DatasetId,
        #[command(flatten)]
        effort: EffortArgs,
    },
    /// Sign a result folder from elsewhere as a version
    Publish {
        /// Holds model.onnx and golden.safetensors, and report.json if there is one
        folder: PathBuf,
        #[arg(long)]
        model: ModelName,
        #[arg(long)]
        board: BoardId,
        /// Says shape and labels where there is no report.json
        #[arg(long)]
        dataset: Option<DatasetId>,
        /// Sign without running the golden inputs; devices refuse what is wrong
        #[arg(long)]
        unsafe_skip_check: bool,
    },
    /// Take in an ONNX model from elsewhere: quantise, check and measure it, and sign it as a version
    Import {
        /// The f32 model, opset 11 to 21
        file: PathBuf,
        #[arg(long)]
        model: ModelName,
        #[arg(long)]
        board: BoardId,
        /// Samples on the server's machine: a folder of .npy files, or a data set
        #[arg(long, value_name = "DIR")]
        calibrate: PathBuf,
        /// Class names, one a line
        #[arg(long, value_name = "FILE")]
        labels: Option<PathBuf>,
        /// The output to keep, where the model has several
        #[arg(long, value_name = "NAME")]
        output: Option<String>,
        /// An input that becomes a constant, of zeros or of NUMBER; any number of times
        #[arg(long, value_name = "NAME[=NUMBER]")]
        freeze: Vec<String>,
        /// Least signal to noise of the INT8 model in decibels; what costs too much stays f32
        #[arg(long, value_name = "DB")]
        sqnr_min: Option<f64>,
    },
    /// Fetch a version's files, its signatures, and the public keys to check them with
    #[command(visible_alias = "download")]
    Export {
        version: VersionName,
        /// Folder that they go to
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Check a folder against a signature by OpenSSF Model Signing; needs no server
    Verify(VerifyArgs),
    /// Show how a version came to be
    Lineage(LineageArgs),
}

#[derive(Deserialize)]
struct Upload {
    upload: Uuid,
}

pub(super) fn run(command: &ModelCommand, global: &Global) -> Outcome {
    let client = || Client::new(global);
    match command {
        ModelCommand::List { model, page } => {
            let client = client()?;
            let filter = model.as_ref().map(|model| format!("&model={model}")).unwrap_or_default();
            let list: List<Version> = page.list(&client, "/versions", &filter)?;
            show(client.json, &list, |list| {
                let rows = list.items.iter().map(|version| {
                    let accuracy = version.report.as_ref().and_then(|report| report.model.accuracy_int8);
                    vec![
                        version.name.clone(),
                        word(&version.state),
                        version.board.to_string(),
                        accuracy.map(|accuracy| format!("{accuracy:.4}")).unwrap_or_default(),
                        bytes(version.size_bytes),
                        ago(version.created_at),
                    ]
                });
                table(&["version", "state", "board", "accuracy", "size", "made"], rows)
            })
        }
        ModelCommand::Show { version } => {
            let client = client()?;
            let version: Version = client.get(&format!("/versions/{}", String::from(version.clone())))?;
            show(client.json, &version, describe)
        }
        ModelCommand::Retrain { version, dataset, effort } => {
            let new =
                NewRetrain { version: version.clone(), dataset: dataset.clone(), effort: effort.effort()? };
            let client = client()?;
            let job: Job = client.post("/retrains", &new)?;
            finish(&client, job, effort.wait)
        }
        ModelCommand::Publish { folder, model, board, dataset, unsafe_skip_check } => {
            let client = client()?;
            let upload = send_files(&client, folder)?;
            let new = NewVersion {
                upload,
                board: board.clone(),
                dataset: dataset.clone(),
                unsafe_skip_check: *unsafe_skip_check,
            };
            let version: Version = client.post(&format!("/models/{model}/versions"), &new)?;
            show(client.json, &version, describe)
        }
        ModelCommand::Import { file, model, board, calibrate, labels, output, freeze, sqnr_min } => {
            let client = client()?;
            let calibrate = std::path::absolute(calibrate)
                .map_err(|error| Failure::Usage(format!("{} is no path: {error}", calibrate.display())))?;
            let Upload { upload } = client.post("/uploads", &())?;
            client.upload(&format!("/uploads/{upload}/{SOURCE_FILE}"), file)?;
            if let Some(labels) = labels {
                client.upload(&format!("/uploads/{upload}/{LABELS_FILE}"), labels)?;
            }
            let new = NewImport {
                upload,
                board: board.clone(),
                calibrate,
                output: output.clone(),
                freeze: freeze.clone(),
                sqnr_min_db: *sqnr_min,
            };
            let version: Version = client.post(&format!("/models/{model}/imports"), &new)?;
            show(client.json, &version, describe)
        }
        ModelCommand::Export { version, out } => export(&client()?, version, out),
        ModelCommand::Verify(args) => provenance::verify(args, global.json),
        ModelCommand::Lineage(args) => provenance::lineage(args, global),
    }
}

fn send_files(client: &Client, folder: &std::path::Path) -> Result<Uuid, Failure> {
    for name in [MODEL_FILE, GOLDEN_FILE] {
        if !folder.join(name).is_file() {
            return Err(Failure::Usage(format!(
                "{} has no {name}; name a result folder of the forge",
                folder.display()
            )));
        }
    }
    let Upload { upload } = client.post("/uploads", &())?;
    for name in [MODEL_FILE, GOLDEN_FILE, REPORT_FILE] {
        let path = folder.join(name);
        if path.is_file() {
            client.upload(&format!("/uploads/{upload}/{name}"), &path)?;
        }
    }
    Ok(upload)
}

fn export(client: &Client, name: &VersionName, out: &std::path::Path) -> Outcome {
    let name = String::from(name.clone());
    let version: Version = client.get(&format!("/versions/{name}"))?;
    let failed = |error: io::Error| Failure::Failed(format!("{}: {error}", out.display()));
    fs::create_dir_all(out).map_err(failed)?;
    let bundle = (BUNDLE_NAME.to_owned(), version.bundle);
    let files = version.files.iter().map(|file| (file.name.clone(), file.digest)).chain([bundle]);
    for (file, digest) in files {
        let partial = out.join(format!("{file}.partial"));
        let mut source = shared::digest::LimitedDigestReader::new(
            client.download(&format!("/versions/{name}/files/{file}"))?,
            shared::limits::BUNDLE_FILE_BYTES_MAX,
        );
        let mut target = fs::File::create(&partial).map_err(failed)?;
        io::copy(&mut source, &mut target).and_then(|_| target.sync_all()).map_err(failed)?;
        if source.finish().0 != digest {
            // The damaged file is of no use to anybody.
            let _ = fs::remove_file(&partial);
            return Err(Failure::Failed(format!("{file} of {name} is damaged in the server's blob store")));
        }
        fs::rename(&partial, out.join(&file)).map_err(failed)?;
    }
    let keys: Keys = client.get("/keys")?;
    let keyring = serde_json::to_vec_pretty(&keys.keyring)
        .map_err(|error| Failure::Failed(format!("no JSON: {error}")))?;
    fs::write(out.join(KEYRING_NAME), keyring).map_err(failed)?;
    fs::write(out.join(MODEL_KEY_NAME), keys.model_key_pem).map_err(failed)?;
    show(client.json, &version, |version| format!("{} is in {}", version.name, out.display()))
}

fn describe(version: &Version) -> String {
    let files: Vec<String> =
        version.files.iter().map(|file| format!("{} {}", file.name, bytes(file.size_bytes))).collect();
    let mut rows = vec![
        ("version", version.name.clone()),
        ("id", version.id.to_string()),
        ("state", word(&version.state)),
        ("board", version.board.to_string()),
        ("data set", version.dataset.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("bundle", version.bundle.to_string()),
        ("files", files.join(", ")),
        ("job", version.job.map(|job| job.to_string()).unwrap_or_default()),
        ("made", ago(version.created_at)),
    ];
    if version.check_skipped {
        rows.push(("warning", "signed without the check of its golden outputs".to_owned()));
    }
    if let Some(report) = &version.report {
        let (model, us) = (&report.model, &report.model.us_per_inference);
        rows.push(("quality", report.quality()));
        let tract = us.tract_int8.map_or_else(|| "not".to_owned(), |us| format!("{us:.0}"));
        let label = if model.form == ModelForm::Int8 { "us, INT8" } else { "us, FP16" };
        rows.push((label, format!("{:.0} on ONNX Runtime, {tract} on tract", us.ort_int8)));
        rows.push(("remarks", model.remarks.join("; ")));
        rows.extend(report.dataset.remarks.iter().map(|remark| ("of the data", remark.clone())));
    }
    rows.retain(|(_, value)| !value.is_empty());
    let compression = version.report.as_ref().and_then(|report| report.compression.as_ref());
    facts(&rows) + &compression.map(compression::tables).unwrap_or_default()
}
