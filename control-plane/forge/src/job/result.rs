//! The `result/` folder: written beside its place, made durable, moved there whole.

use super::Error;
use crate::{
    checkpoint::{self, Named},
    finish::Exported,
    genotype::{self, Architecture},
    network::Network,
    picture,
};
use shared::{
    job::{self, JobReport},
    manifest::{GOLDEN_FILE, MODEL_FILE},
};
use std::{fs, path::Path};

/// Writes everything that a finished job gives.
pub(super) fn write(dir: &Path, net: &Network, exported: &Exported, report: &JobReport) -> Result<(), Error> {
    let folder = dir.join("result.tmp");
    let failed = |path: &Path, action: &'static str| {
        let path = path.to_owned();
        move |source| checkpoint::Error::Io { path, action, source }
    };
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(failed(&folder, "removed"))?;
    }
    fs::create_dir_all(&folder).map_err(failed(&folder, "made"))?;
    let architecture = net.architecture();
    let mut named = net.params.named();
    named.extend(net.stats.named());
    let text = |error: String| Error::Input(format!("the result cannot be encoded: {error}"));
    let weights = checkpoint::encode(&named, None).map_err(text)?;
    let golden = exported.golden.write().map_err(|error| text(error.to_string()))?;
    let report = serde_json::to_vec_pretty(report).map_err(|error| text(error.to_string()))?;
    for (name, bytes) in [
        (MODEL_FILE, exported.onnx_int8.as_slice()),
        (job::MODEL_FP32_FILE, &exported.onnx_fp32),
        (GOLDEN_FILE, &golden),
        (job::WEIGHTS_FILE, &weights),
        (job::ARCH_FILE, architecture.to_json().as_bytes()),
        (job::CELL_FILE, picture::cell(architecture).as_bytes()),
        (job::REPORT_FILE, &report),
    ] {
        checkpoint::write_whole(&folder.join(name), bytes)?;
    }
    let place = dir.join(job::RESULT_DIR);
    if place.exists() {
        // Only a folder without a report comes here: what somebody else left.
        fs::remove_dir_all(&place).map_err(failed(&place, "removed"))?;
    }
    fs::rename(&folder, &place).map_err(failed(&place, "written"))?;
    checkpoint::sync_parent(&place).map_err(failed(dir, "written"))?;
    Ok(())
}

/// Architecture and weights of an earlier result.
pub(super) fn read_parent(from: &Path) -> Result<(Architecture, Named), Error> {
    let path = from.join(job::ARCH_FILE);
    let input = |message: String| Error::Input(format!("{}: {message}", path.display()));
    let size = fs::metadata(&path)
        .map_err(|error| input(format!("cannot be read: {error}; `from` must name a job's result folder")))?
        .len();
    if size > genotype::FILE_BYTES_MAX {
        return Err(input(format!("{size} bytes, at most {} are read", genotype::FILE_BYTES_MAX)));
    }
    let text = fs::read_to_string(&path).map_err(|error| input(format!("cannot be read: {error}")))?;
    let architecture = Architecture::from_json(&text).map_err(input)?;
    let (_, weights) =
        checkpoint::read(&from.join(job::WEIGHTS_FILE)).map_err(|error| Error::Input(one_line(&error)))?;
    Ok((architecture, weights))
}

/// An error with its sources.
fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
