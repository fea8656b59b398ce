//! A model from elsewhere: taken in, quantised, checked and measured on both runtimes, and packed as a result folder.

mod samples;

use crate::{
    checkpoint,
    finish::{self, TOLERANCE_MIN, where_int8_does_not_pay},
    folder,
};
use quantiser::{
    Closeness, Options, Samples, answers,
    form::Wishes,
    import::{self as take, Imported},
};
use runtime::{Golden, LoadOptions, Mismatch, Ort, Runnable, Runtime, Tract, measure_us};
use samples::Calibration;
use shared::{
    Digest,
    board::{Board, RuntimeName},
    job::{
        self, ClosenessReport, ImportReport, JobReport, KeptReport, LatencyTable, ModelForm, ModelReport,
        TriedReport,
    },
    limits,
    manifest::{GOLDEN_FILE, MODEL_FILE},
    read,
    wire::one_line,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

/// Least signal to noise of an INT8 model where nobody names another, in decibels: a hundredth of the signal's power.
pub const SQNR_MIN_DB: f64 = 20.0;
/// Least share of samples on which the same class stays ahead, where the output is a choice of one.
const AGREEMENT_MIN: f64 = 0.99;
/// Largest tolerance that a manifest allows.
const TOLERANCE_MAX: f32 = 1.0;
/// Largest difference that another runtime may make to an f32 answer, as a share of the largest.
const FP32_DIFFERENCE_SHARE: f32 = 2e-3;
/// Largest file of labels.
const LABELS_BYTES_MAX: u64 = 4 << 20;
/// Axes of the input of an image, without the batch.
const IMAGE_AXES: usize = 3;

/// Why a model was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or option cannot be used; a person has to change something.
    #[error("{0}")]
    Input(String),
    /// The samples cannot be used.
    #[error(transparent)]
    Data(#[from] crate::data::Error),
    /// The model cannot be used.
    #[error("{}", path.display())]
    Model {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: take::Error,
    },
    /// A runtime failed.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// The INT8 model does not give on ONNX Runtime what it gave while it was made.
    #[error("the INT8 model disagrees with the f32 model and is refused")]
    Disagrees(#[source] Mismatch),
    /// The board's limits are broken.
    #[error(transparent)]
    Finish(#[from] finish::Error),
    /// The result cannot be written.
    #[error(transparent)]
    Write(#[from] checkpoint::Error),
}

impl Error {
    /// Whether a person has to change the input; exit code 2.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Input(_) | Self::Data(_) | Self::Model { .. } => true,
            Self::Finish(error) => {
                matches!(error, finish::Error::TooLarge { .. } | finish::Error::TooSlow { .. })
            }
            Self::Runtime(_) | Self::Disagrees(_) | Self::Write(_) => false,
        }
    }
}

/// What to take in.
#[derive(Clone, Debug)]
pub struct Import<'a> {
    /// The ONNX file.
    pub model: &'a Path,
    /// Samples: a folder of `.npy` files, or a data set.
    pub calibrate: &'a Path,
    /// The board whose limits the model shall keep; this machine where none is given.
    pub board: Option<&'a Board>,
    /// A file with a class name a line.
    pub labels: Option<&'a Path>,
    /// Which output, and what the other inputs are.
    pub wishes: Wishes,
    /// Least signal to noise of the INT8 model, in decibels.
    pub sqnr_min_db: f64,
    /// Of the order of the samples.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The INT8 model.
    pub onnx_int8: Vec<u8>,
    /// The f32 model in the form of devices.
    pub onnx_fp32: Vec<u8>,
    /// Inputs, and the f32 model's answers to them.
    pub golden: Golden,
    /// What was measured.
    pub report: JobReport,
}

impl Outcome {
    /// Writes the result folder, whole or not at all.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, place: &Path) -> Result<(), Error> {
        let text =
            |error: &dyn std::fmt::Display| Error::Input(format!("the result cannot be encoded: {error}"));
        let golden = self.golden.write().map_err(|error| text(&error))?;
        let report = serde_json::to_vec_pretty(&self.report).map_err(|error| text(&error))?;
        let files: [(&str, &[u8]); 4] = [
            (MODEL_FILE, &self.onnx_int8),
            (job::MODEL_FP32_FILE, &self.onnx_fp32),
            (GOLDEN_FILE, &golden),
            (job::REPORT_FILE, &report),
        ];
        Ok(folder::write(place, &files)?)
    }
}

/// Takes a model in: the same files and options give the same model.
///
/// # Errors
/// [`Error`].
pub fn import(wanted: &Import<'_>, ort: &Ort) -> Result<Outcome, Error> {
    let start = Instant::now();
    let bytes = read_file(wanted.model, quantiser::file::FILE_BYTES_MAX as u64)?;
    let wrong = |source: take::Error| Error::Model { path: wanted.model.to_owned(), source };
    let axes = take::sample_axes(&bytes, &wanted.wishes).map_err(wrong)?;
    let calibration = samples::open(wanted.calibrate, axes, wanted.seed)?;
    let samples = Samples { shape: &calibration.shape, values: &calibration.values };
    let options = Options {
        reduce_range: wanted.board.map_or_else(this_machine_saturates, saturates),
        sqnr_min_db: wanted.sqnr_min_db,
        agreement_min: AGREEMENT_MIN,
    };
    let taken = take::import(&bytes, samples, &wanted.wishes, &options, ort).map_err(wrong)?;
    let labels = labels(wanted, &calibration, taken.outputs)?;
    let mut measured = measure(&taken, &calibration, &labels, wanted.board, ort)?;
    let quantised = &taken.quantised;
    let not_for_devices = not_for_devices(&taken, &labels, &measured, wanted.board);
    measured.report.remarks.extend(not_for_devices.clone());
    let import = ImportReport {
        source: wanted.model.file_name().map(|name| one_line(&name.to_string_lossy())).unwrap_or_default(),
        source_digest: Digest::of(&bytes),
        way: quantised.way.to_string(),
        closeness: closeness_report(quantised.closeness),
        tried: quantised
            .tried
            .iter()
            .map(|tried| TriedReport {
                way: tried.way.to_string(),
                closeness: closeness_report(tried.closeness),
            })
            .collect(),
        integer_nodes: quantised.integer_nodes as u64,
        kept_f32: quantised
            .kept
            .iter()
            .map(|kept| KeptReport { node: kept.node.clone(), alone_db: kept.alone_db })
            .collect(),
        not_for_devices,
    };
    let report = JobReport {
        job: None,
        seed: wanted.seed,
        dataset: calibration.schema(&taken.input.device_shape, labels),
        search: None,
        teachers: None,
        pretext: None,
        labelled: None,
        device: None,
        precision: None,
        alarm: None,
        train_seconds: 0.0,
        train_epochs: 0,
        quantise_seconds: start.elapsed().as_secs_f64(),
        compression: None,
        model: measured.report,
        estimate: None,
        import: Some(import),
    };
    Ok(Outcome {
        onnx_int8: taken.quantised.onnx,
        onnx_fp32: taken.onnx_fp32,
        golden: measured.golden,
        report,
    })
}

/// A report for people, a fact a line.
pub fn describe(report: &JobReport) -> String {
    let model = &report.model;
    let us = &model.us_per_inference;
    let pair = |pair: Option<(f64, f64)>| {
        pair.map_or_else(|| "not run".to_owned(), |(fp32, int8)| format!("{fp32:.0} FP32, {int8:.0} INT8"))
    };
    let mut lines = vec![
        report.quality(),
        format!(
            "{} bytes FP32, {} INT8; {} parameters",
            model.bytes_fp32_onnx, model.bytes_int8_onnx, model.parameters
        ),
        format!("us an inference on ONNX Runtime: {}", pair(Some((us.ort_fp32, us.ort_int8)))),
        format!("us an inference on tract: {}", pair(us.tract_fp32.zip(us.tract_int8))),
    ];
    lines.extend(report.import.iter().flat_map(|import| &import.tried).map(|tried| {
        format!(
            "tried {}: {:.1} dB, agreement {:.4}",
            tried.way, tried.closeness.sqnr_db, tried.closeness.agreement
        )
    }));
    lines.extend(model.remarks.iter().cloned());
    lines.join("\n")
}

/// Whether the fast kernels of the board's processor saturate with weights of 8 bits.
pub(crate) fn saturates(board: &Board) -> bool {
    board.target.starts_with("x86_64") && !board.cpu.int8_dot
}

fn this_machine_saturates() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        !std::arch::is_x86_feature_detected!("avx512vnni") && !std::arch::is_x86_feature_detected!("avxvnni")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

fn closeness_report(closeness: Closeness) -> ClosenessReport {
    let Closeness { sqnr_db, agreement, difference_max } = closeness;
    ClosenessReport { sqnr_db, agreement, difference_max }
}

/// One name a class, as many as the model gives values; none where they are too many for a bundle.
fn labels(wanted: &Import<'_>, calibration: &Calibration, outputs: usize) -> Result<Vec<String>, Error> {
    if let Some(path) = wanted.labels {
        let text = String::from_utf8(read_file(path, LABELS_BYTES_MAX)?)
            .map_err(|_| Error::Input(format!("{}: it is no text in UTF-8", path.display())))?;
        let labels: Vec<String> = text.lines().map(|line| one_line(line.trim())).collect();
        if labels.len() != outputs {
            return Err(Error::Input(format!(
                "{}: it has {} lines, the model gives {outputs} values: a class name a line",
                path.display(),
                labels.len()
            )));
        }
        return Ok(labels);
    }
    if let Some(labelled) = calibration.labelled.as_ref().filter(|labelled| labelled.labels.len() == outputs)
    {
        return Ok(labelled.labels.clone());
    }
    let named = outputs <= limits::LABELS_MAX;
    Ok((0..outputs).filter(|_| named).map(|index| index.to_string()).collect())
}

struct Measured {
    golden: Golden,
    report: ModelReport,
}

/// A model on one runtime.
struct Loaded {
    fp32: Arc<dyn Runnable>,
    int8: Arc<dyn Runnable>,
    /// Largest difference of the INT8 model from the golden outputs.
    difference_max: f32,
}

fn measure(
    taken: &Imported,
    calibration: &Calibration,
    labels: &[String],
    board: Option<&Board>,
    ort: &Ort,
) -> Result<Measured, Error> {
    let shape = &taken.input.device_shape;
    let some = Samples { shape, values: &calibration.values }.first(finish::GOLDEN_SAMPLES * 16);
    let (output, _) = answers(ort, &taken.onnx_fp32, some)?;
    let golden = finish::surest(shape, some.values, &output, taken.outputs, finish::margin)
        .map_err(Error::Disagrees)?;
    let on_ort = load(ort, taken, &golden).map_err(|reason| match reason {
        Unfit::Runs(error) => Error::Runtime(error),
        Unfit::Answers(mismatch) => Error::Disagrees(mismatch),
    })?;
    let on_tract = load(&Tract, taken, &golden);
    let us = |model: &Arc<dyn Runnable>| measure_us(model.as_ref(), golden.input());
    let mut remarks = remarks(taken, calibration);
    let mut table = LatencyTable {
        tract_fp32: None,
        tract_int8: None,
        ort_fp32: us(&on_ort.fp32)?,
        ort_int8: us(&on_ort.int8)?,
    };
    let mut difference_max = on_ort.difference_max;
    match &on_tract {
        Ok(loaded) => {
            table.tract_fp32 = Some(us(&loaded.fp32)?);
            table.tract_int8 = Some(us(&loaded.int8)?);
            difference_max = difference_max.max(loaded.difference_max);
        }
        Err(reason) => {
            remarks.push(format!("it runs on ONNX Runtime only; tract: {}", one_line(&reason.to_string())));
        }
    }
    remarks.extend(where_int8_does_not_pay(&table));
    let bytes = quantiser::constant_bytes(&taken.quantised.onnx);
    if let Some(board) = board {
        if bytes > board.limits.weight_bytes_max {
            let (board, allowed) = (board.id.to_string(), board.limits.weight_bytes_max);
            return Err(finish::Error::TooLarge { board, allowed, needed: bytes }.into());
        }
        remarks.extend(finish::judge_latency(&table, board)?);
        for (limit, allowed, needed) in [
            ("macs_max", board.limits.macs_max, taken.cost.macs),
            ("activation_bytes_max", board.limits.activation_bytes_max, taken.cost.activation_bytes),
        ] {
            if needed > allowed {
                remarks.push(format!(
                    "board {} allows limits.{limit} = {allowed}, the model needs {needed}",
                    board.id
                ));
            }
        }
    }
    let test = calibration.labelled.as_ref().filter(|labelled| labelled.labels == labels);
    let accuracy = |model: &Arc<dyn Runnable>| {
        test.map(|labelled| finish::accuracy(model.as_ref(), &labelled.test, taken.outputs)).transpose()
    };
    let report = ModelReport {
        form: ModelForm::Int8,
        parameters: taken.cost.parameters,
        macs: taken.cost.macs,
        activation_bytes: taken.cost.activation_bytes,
        accuracy_fp32: accuracy(&on_ort.fp32)?,
        accuracy_int8: accuracy(&on_ort.int8)?,
        accuracy_int8_tract: on_tract.ok().map(|loaded| accuracy(&loaded.int8)).transpose()?.flatten(),
        bytes_fp32_onnx: taken.onnx_fp32.len() as u64,
        bytes_int8_onnx: taken.quantised.onnx.len() as u64,
        us_per_inference: table,
        golden_difference_max: difference_max,
        golden_tolerance: (difference_max * 2.0).clamp(TOLERANCE_MIN, TOLERANCE_MAX),
        metrics: Vec::new(),
        tensors: taken.quantised.tensors.clone(),
        remarks,
    };
    if let Some(error) = test.and_then(|labelled| labelled.test.failure()) {
        return Err(error.into());
    }
    Ok(Measured { golden, report })
}

/// Why a runtime does not run a model.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error(transparent)]
    Runs(#[from] runtime::Error),
    #[error(transparent)]
    Answers(#[from] Mismatch),
}

fn load(runtime: &dyn Runtime, taken: &Imported, golden: &Golden) -> Result<Loaded, Unfit> {
    let fp32 = runtime.load(&taken.onnx_fp32, &LoadOptions::default())?;
    let largest = golden.output().iter().fold(1f32, |largest, value| largest.max(value.abs()));
    golden.check(fp32.as_ref(), largest * FP32_DIFFERENCE_SHARE)?;
    let int8 = runtime.load(&taken.quantised.onnx, &LoadOptions::default())?;
    // How far it may be off was judged by its signal to noise; here only whether it is the same model.
    let difference_max = golden.check(int8.as_ref(), f32::MAX)?.difference_max;
    Ok(Loaded { fp32, int8, difference_max })
}

fn remarks(taken: &Imported, calibration: &Calibration) -> Vec<String> {
    let quantised = &taken.quantised;
    let mut remarks = vec![format!(
        "calibrated by {}, {:.1} dB over {} samples",
        quantised.way, quantised.closeness.sqnr_db, calibration.count
    )];
    if !quantised.kept.is_empty() {
        let nodes: Vec<&str> = quantised.kept.iter().map(|kept| kept.node.as_str()).collect();
        let all = quantised.kept.len() + quantised.integer_nodes;
        remarks.push(format!(
            "{} of {all} nodes stay f32, for they cost most: {}",
            nodes.len(),
            nodes.join(", ")
        ));
    }
    if !taken.input.batch_free {
        remarks.push("it takes one sample at a time".to_owned());
    }
    if taken.input.device_shape != taken.input.shape {
        let (from, to) = (&taken.input.shape, &taken.input.device_shape);
        remarks.push(format!("devices give its input of {from:?} as {to:?}"));
    }
    remarks
}

/// Why a bundle cannot hold the model.
fn not_for_devices(
    taken: &Imported,
    labels: &[String],
    measured: &Measured,
    board: Option<&Board>,
) -> Option<String> {
    let axes = taken.input.device_shape.len();
    if axes > IMAGE_AXES {
        return Some(format!(
            "devices do not run it: its input has {axes} axes behind the batch, allowed are 2 and 3"
        ));
    }
    if labels.len() != taken.outputs {
        return Some(format!(
            "devices do not run it: it gives {} values, a bundle has room for {}",
            taken.outputs,
            limits::LABELS_MAX
        ));
    }
    let off = measured.report.golden_difference_max;
    if off > TOLERANCE_MAX {
        return Some(format!(
            "devices do not run it: an INT8 answer is off by {off}, a bundle allows {TOLERANCE_MAX}: have the model give \
             probabilities"
        ));
    }
    let tract_only = board.is_some_and(|board| board.runtime.allowed == [RuntimeName::Tract]);
    let runs = measured.report.us_per_inference.tract_int8.is_some();
    (tract_only && !runs).then(|| "devices do not run it: the board allows tract only".to_owned())
}

fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let text = |error: std::io::Error| Error::Input(format!("{}: cannot be read: {error}", path.display()));
    if path.is_dir() {
        return Err(Error::Input(format!("{}: it is a folder, not a file", path.display())));
    }
    let file = std::fs::File::open(path).map_err(text)?;
    read::at_most(file, limit).map_err(|error| match error.kind() {
        std::io::ErrorKind::FileTooLarge => {
            Error::Input(format!("{}: it has more than {limit} bytes", path.display()))
        }
        _ => text(error),
    })
}

#[cfg(test)]
mod tests;
