//! The `result/` folder.

use super::Error;
use crate::{
    checkpoint::{self, Named},
    finish::Exported,
    folder,
    genotype::{self, Architecture},
    history::History,
    network::Network,
    picture, plot,
    search::{self, Point},
};
use shared::{
    job::{self, FrontEntry, FrontFile, FrontPoint, JobReport},
    limits,
    manifest::{GOLDEN_FILE, MODEL_FILE},
};
use std::{fs, path::Path};

/// Labels that an error lists.
const LABELS_SHOWN: usize = 20;

/// Writes everything that a finished job gives; nothing of it stays where that fails. Of what lies at its place only a
/// folder without a report comes here: what somebody else left.
pub(super) fn write(
    dir: &Path,
    net: &Network,
    exported: &Exported,
    report: &JobReport,
    history: &History,
    front: &[Point],
) -> Result<(), Error> {
    let architecture = net.architecture();
    let mut named = net.params.named();
    named.extend(net.stats.named());
    let text = |error: String| Error::Input(format!("the result cannot be encoded: {error}"));
    let weights = checkpoint::encode(&named, None).map_err(text)?;
    let golden = exported.golden.write().map_err(|error| text(error.to_string()))?;
    let report = serde_json::to_vec_pretty(report).map_err(|error| text(error.to_string()))?;
    let plot = plot::loss(history).map_err(text)?;
    let alpha = history.alpha.as_ref().map(plot::alpha).transpose().map_err(text)?;
    let points = search::points(front, architecture);
    let pareto = (!points.is_empty()).then(|| plot::pareto(&points)).transpose().map_err(text)?;
    let front = serde_json::to_vec_pretty(&FrontFile { points }).map_err(|error| text(error.to_string()))?;
    let history = serde_json::to_vec(history).map_err(|error| text(error.to_string()))?;
    let (arch, cell) = (architecture.to_json(), picture::cell(architecture));
    let mut files: Vec<(&str, &[u8])> = vec![
        (MODEL_FILE, &exported.onnx_int8),
        (job::MODEL_FP32_FILE, &exported.onnx_fp32),
        (GOLDEN_FILE, &golden),
        (job::WEIGHTS_FILE, &weights),
        (job::ARCH_FILE, arch.as_bytes()),
        (job::CELL_FILE, cell.as_bytes()),
        (job::HISTORY_FILE, &history),
        (job::LOSS_PLOT_FILE, plot.as_bytes()),
        (job::REPORT_FILE, &report),
    ];
    files.extend(alpha.as_ref().map(|alpha| (job::ALPHA_PLOT_FILE, alpha.as_bytes())));
    if let Some(pareto) = &pareto {
        files.extend([(job::FRONT_FILE, front.as_slice()), (job::FRONT_PLOT_FILE, pareto.as_bytes())]);
    }
    Ok(folder::write(&dir.join(job::RESULT_DIR), &files)?)
}

/// What a report says of the points: those of the front, and what was trained.
pub(super) fn shown(points: Vec<FrontEntry>) -> Vec<FrontPoint> {
    let points = points.into_iter().map(|entry| entry.point);
    points.filter(|point| point.on_front || point.chosen).collect()
}

/// Architecture and weights of an earlier result.
pub(super) fn read_parent(from: &Path) -> Result<(Architecture, Named), Error> {
    let architecture =
        read_architecture(&from.join(job::ARCH_FILE), "`from` must name a job's result folder")?;
    let (_, weights) =
        checkpoint::read(&from.join(job::WEIGHTS_FILE)).map_err(|error| Error::Input(one_line(&error)))?;
    Ok((architecture, weights))
}

/// The architecture in a file; `hint` says what to do where it cannot be read.
pub(super) fn read_architecture(path: &Path, hint: &str) -> Result<Architecture, Error> {
    let text = read_text(path, genotype::FILE_BYTES_MAX, hint)?;
    Architecture::from_json(&text).map_err(|message| Error::Input(format!("{}: {message}", path.display())))
}

/// The report of an earlier result.
pub(super) fn read_report(from: &Path) -> Result<JobReport, Error> {
    let path = from.join(job::REPORT_FILE);
    let text = read_text(&path, limits::REPORT_BYTES_MAX as u64, "`from` must name a job's result folder")?;
    serde_json::from_str(&text)
        .map_err(|error| Error::Input(format!("{}: no report of a job: {error}", path.display())))
}

/// Refuses to go on from a model whose classes are others than the data set's, or in another order.
pub(super) fn check_labels(from: &Path, parent: &[String], found: &[String]) -> Result<(), Error> {
    if parent == found {
        return Ok(());
    }
    let shown = |labels: &[String]| labels.iter().take(LABELS_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    Err(Error::Input(format!(
        "{}: the model knows the classes {}, the data set has {}: a retraining needs the same in the same order",
        from.display(),
        shown(parent),
        shown(found)
    )))
}

fn read_text(path: &Path, limit: u64, hint: &str) -> Result<String, Error> {
    let input = |message: String| Error::Input(format!("{}: {message}", path.display()));
    let size = fs::metadata(path).map_err(|error| input(format!("cannot be read: {error}; {hint}")))?.len();
    if size > limit {
        return Err(input(format!("{size} bytes, at most {limit} are read")));
    }
    fs::read_to_string(path).map_err(|error| input(format!("cannot be read: {error}")))
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
