//! From a trained network to measured files: fold, quantise, check on both runtimes, time.

use crate::{
    data::{Dataset, Split},
    graph::Graph,
    network::Network,
    onnx,
    params::{channels_last, to_vec},
    quantise::{self, quantise},
    seeds::{self, Purpose},
};
use runtime::{Golden, LoadOptions, Mismatch, Ort, Runnable, Runtime, Tract, measure_us};
use shared::{
    board::Board,
    job::{LatencyTable, ModelReport},
};
use std::{path::Path, sync::Arc};
use tch::Tensor;

/// Golden samples in a result.
pub const GOLDEN_SAMPLES: usize = 16;
/// How far the best class of a golden sample is ahead of the next, so that rounding cannot change the answer.
const GOLDEN_MARGIN: f32 = 0.3;
/// Training samples that ranges are taken from.
const CALIBRATION_SAMPLES: usize = 512;
/// Samples of one run in an accuracy test.
const ACCURACY_BATCH: usize = 50;
/// Largest difference that folding and another runtime may make to an f32 probability.
const FP32_DIFFERENCE_MAX: f32 = 2e-3;
/// Largest difference that 8 bits may make to a golden probability.
const INT8_DIFFERENCE_MAX: f32 = 0.25;
/// Least tolerance that a manifest gets: other processors round otherwise.
const TOLERANCE_MIN: f32 = 0.05;
/// What `check` allows where no report names a tolerance.
pub const TOLERANCE_DEFAULT: f32 = INT8_DIFFERENCE_MAX;

/// Why a trained network gave no files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The graph is not possible; the weights are not finite.
    #[error(transparent)]
    Graph(#[from] crate::graph::Error),
    /// ONNX could not be written.
    #[error(transparent)]
    Onnx(#[from] onnx::Error),
    /// Quantisation failed.
    #[error(transparent)]
    Quantise(#[from] quantise::Error),
    /// A runtime failed.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// A model disagrees with the trained network.
    #[error("{file} on {runtime} disagrees with the trained network and is refused")]
    Disagrees {
        /// The exported file.
        file: &'static str,
        /// Where it ran.
        runtime: &'static str,
        /// How.
        #[source]
        source: Mismatch,
    },
    /// No golden samples could be made.
    #[error("no golden samples")]
    Golden(#[source] Mismatch),
}

/// The exported files with what was measured on them.
#[derive(Clone, Debug)]
pub struct Exported {
    pub onnx_int8: Vec<u8>,
    pub onnx_fp32: Vec<u8>,
    /// Inputs, and the trained network's answers to them.
    pub golden: Golden,
    pub report: ModelReport,
}

/// Exports `net` for `board` and measures it on the test split.
///
/// # Errors
/// A model that disagrees with the network on either runtime, and whatever stands in the way of finding out.
pub fn export(net: &Network, set: &Dataset, board: &Board, seed: u64) -> Result<Exported, Error> {
    let graph = net.to_graph()?;
    let ort = Ort::open(None)?;
    let reduce_range = board.target.starts_with("x86_64") && !board.cpu.int8_dot;
    let options = quantise::Options { calibrator: None, reduce_range };
    let quantised = quantise(&graph, &calibration(&set.train, &graph, seed), &ort, &options)?;
    let golden = golden(net, set, seed).map_err(Error::Golden)?;

    let mut remarks = vec![format!(
        "calibrated by {}, {:.1} dB over {} training samples",
        quantised.calibrator,
        quantised.closeness.sqnr_db,
        set.train.len().min(CALIBRATION_SAMPLES)
    )];
    let runtimes: [&dyn Runtime; 2] = [&Tract, &ort];
    let mut difference_max = 0f32;
    let mut load =
        |file: &'static str, bytes: &[u8], tolerance: f32| -> Result<[Arc<dyn Runnable>; 2], Error> {
            let mut models = Vec::with_capacity(2);
            for runtime in runtimes {
                let model = runtime.load(bytes, &LoadOptions::default())?;
                let report = golden.check(model.as_ref(), tolerance).map_err(|source| Error::Disagrees {
                    file,
                    runtime: runtime.name(),
                    source,
                })?;
                difference_max = difference_max.max(report.difference_max);
                models.push(model);
            }
            let [tract, ort] = [0, 1].map(|index| Arc::clone(&models[index]));
            Ok([tract, ort])
        };
    let [tract_fp32, ort_fp32] = load("model-fp32.onnx", &quantised.onnx_fp32, FP32_DIFFERENCE_MAX)?;
    let [tract_int8, ort_int8] = load("model.onnx", &quantised.onnx_int8, INT8_DIFFERENCE_MAX)?;

    let us = |model: &Arc<dyn Runnable>| measure_us(model.as_ref(), golden.input());
    let us_per_inference = LatencyTable {
        tract_fp32: us(&tract_fp32)?,
        tract_int8: us(&tract_int8)?,
        ort_fp32: us(&ort_fp32)?,
        ort_int8: us(&ort_int8)?,
    };
    for (name, fp32, int8) in [
        ("tract", us_per_inference.tract_fp32, us_per_inference.tract_int8),
        ("ONNX Runtime", us_per_inference.ort_fp32, us_per_inference.ort_int8),
    ] {
        if int8 >= fp32 {
            remarks
                .push(format!("INT8 is not faster than FP32 on {name} here: {int8:.0} against {fp32:.0} us"));
        }
    }
    let report = ModelReport {
        parameters: graph.parameters() as u64,
        macs: graph.macs(),
        activation_bytes: graph.peak_activation_bytes() as u64,
        accuracy_fp32: accuracy(ort_fp32.as_ref(), &set.test)?,
        accuracy_int8: accuracy(ort_int8.as_ref(), &set.test)?,
        accuracy_int8_tract: accuracy(tract_int8.as_ref(), &set.test)?,
        bytes_fp32_onnx: quantised.onnx_fp32.len() as u64,
        bytes_int8_onnx: quantised.onnx_int8.len() as u64,
        us_per_inference,
        golden_difference_max: difference_max,
        golden_tolerance: (difference_max * 2.0).clamp(TOLERANCE_MIN, INT8_DIFFERENCE_MAX),
        remarks,
    };
    Ok(Exported { onnx_int8: quantised.onnx_int8, onnx_fp32: quantised.onnx_fp32, golden, report })
}

/// Values of random training samples, one sample after another.
fn calibration(train: &Split, graph: &Graph, seed: u64) -> Vec<f32> {
    let each = graph.input_shape().elements();
    let mut order: Vec<usize> = (0..train.len()).collect();
    seeds::shuffle(&mut order, &mut seeds::stream(seed, Purpose::Samples, 0));
    order
        .iter()
        .take(CALIBRATION_SAMPLES)
        .flat_map(|index| &train.samples[index * each..][..each])
        .copied()
        .collect()
}

/// Random test samples that the network is sure of (the surest, where too few are), with its answers.
fn golden(net: &Network, set: &Dataset, seed: u64) -> Result<Golden, Mismatch> {
    let shape = &set.schema.shape;
    let each: usize = shape.iter().product();
    let mut order: Vec<usize> = (0..set.test.len()).collect();
    seeds::shuffle(&mut order, &mut seeds::stream(seed, Purpose::Samples, 1));
    order.truncate(GOLDEN_SAMPLES * 16);
    let input: Vec<f32> =
        order.iter().flat_map(|index| &set.test.samples[index * each..][..each]).copied().collect();
    let (c, rest) = (shape[0] as i64, &shape[1..]);
    let (h, w) = match *rest {
        [h, w] => (h as i64, w as i64),
        _ => (1, (each / shape[0].max(1)) as i64),
    };
    let x = channels_last(&Tensor::from_slice(&input).reshape([-1, c, h, w]));
    let output = to_vec(&net.probabilities(&x));
    let classes = set.schema.labels.len();
    let margin = |row: &[f32]| {
        let (mut best, mut next) = (0f32, 0f32);
        for value in row {
            if *value > best {
                (best, next) = (*value, best);
            } else {
                next = next.max(*value);
            }
        }
        best - next
    };
    let mut rows: Vec<(f32, usize)> =
        output.chunks_exact(classes).map(margin).enumerate().map(|(row, margin)| (margin, row)).collect();
    // Stable: among the sure ones the random order stays.
    rows.sort_by(|a, b| b.0.min(GOLDEN_MARGIN).total_cmp(&a.0.min(GOLDEN_MARGIN)));
    rows.truncate(GOLDEN_SAMPLES);
    let pick = |values: &[f32], each: usize| -> Vec<f32> {
        rows.iter().flat_map(|(_, row)| &values[row * each..][..each]).copied().collect()
    };
    Golden::new(shape.clone(), pick(&input, each), pick(&output, classes))
}

/// Share of right answers on a split.
///
/// # Errors
/// The runtime failed.
pub fn accuracy(model: &dyn Runnable, split: &Split) -> Result<f64, runtime::Error> {
    let (each, classes) = (model.input().elements(), model.output().elements());
    let (mut right, mut answers) = (0usize, Vec::new());
    for (samples, labels) in
        split.samples.chunks(ACCURACY_BATCH * each).zip(split.labels.chunks(ACCURACY_BATCH))
    {
        model.run_into(samples, labels.len(), &mut answers)?;
        for (answer, label) in answers.chunks_exact(classes).zip(labels) {
            right += usize::from(runtime::golden::argmax(answer) as i64 == *label);
        }
    }
    Ok(right as f64 / split.len().max(1) as f64)
}

/// One runtime's answer to `check`.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    pub runtime: &'static str,
    /// Largest difference from a golden output.
    pub difference_max: f32,
}

/// Why a folder does not pass [`check`].
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A file is missing or cannot be read.
    #[error("{0}")]
    Input(String),
    /// A model is wrong.
    #[error("{0}")]
    Wrong(String),
}

/// Runs the golden inputs of a result or bundle folder on tract and ONNX Runtime.
///
/// # Errors
/// Files that are missing, and a model that disagrees on either runtime.
pub fn check(folder: &Path, tolerance: Option<f32>) -> Result<Vec<Checked>, CheckError> {
    let read = |name: &str, limit: usize| {
        let path = folder.join(name);
        let text =
            |error: std::io::Error| CheckError::Input(format!("{}: cannot be read: {error}", path.display()));
        let size = std::fs::metadata(&path).map_err(text)?.len();
        if size > limit as u64 {
            return Err(CheckError::Input(format!(
                "{}: {size} bytes, at most {limit} are read",
                path.display()
            )));
        }
        std::fs::read(&path).map_err(text)
    };
    let model = read(shared::manifest::MODEL_FILE, runtime::MODEL_BYTES_MAX)?;
    let golden = read(shared::manifest::GOLDEN_FILE, runtime::golden::GOLDEN_BYTES_MAX)?;
    let named = |name: &str, error: &dyn std::fmt::Display| {
        CheckError::Wrong(format!("{}: {error}", folder.join(name).display()))
    };
    onnx::inspect(&model).map_err(|error| named(shared::manifest::MODEL_FILE, &error))?;
    let golden = Golden::read(&golden).map_err(|error| named(shared::manifest::GOLDEN_FILE, &error))?;
    let reported = || -> Option<f32> {
        let text = std::fs::read(folder.join(shared::job::REPORT_FILE)).ok()?;
        let report: shared::job::JobReport = serde_json::from_slice(&text).ok()?;
        Some(report.model.golden_tolerance)
    };
    let tolerance = tolerance.or_else(reported).unwrap_or(TOLERANCE_DEFAULT);
    let ort = Ort::open(None).map_err(|error| CheckError::Input(error.to_string()))?;
    let runtimes: [&dyn Runtime; 2] = [&Tract, &ort];
    let mut passed = Vec::new();
    for runtime in runtimes {
        let wrong = |error: &dyn std::fmt::Display| {
            let text = format!("on {}: {error}", runtime.name());
            named(shared::manifest::MODEL_FILE, &text)
        };
        let loaded = runtime.load(&model, &LoadOptions::default()).map_err(|error| wrong(&error))?;
        let report = golden.check(loaded.as_ref(), tolerance).map_err(|error| wrong(&error))?;
        passed.push(Checked { runtime: runtime.name(), difference_max: report.difference_max });
    }
    Ok(passed)
}
