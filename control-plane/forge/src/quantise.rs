//! Static post-training quantisation: run the f32 network over calibration samples, look at every activation,
//! choose its range, write the INT8 model.
//!
//! Ranges follow one of three rules ([`Calibrator`]); by default all three models are built and the one whose
//! answers are closest to the f32 network's is kept. See Nagel et al., "A White Paper on Neural Network
//! Quantization" (2021), sections 2 and 3.

mod encoding;
mod observe;
#[cfg(test)]
mod tests;

pub use encoding::{Affine, Encoding, WeightEncoding};

use crate::{
    graph::{Graph, ValueId},
    onnx,
};
use observe::Observer;
use runtime::{LoadOptions, Ort, Probe, Runtime, golden::argmax};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Most calibration samples that are looked at; more change nothing.
pub const SAMPLES_MAX: usize = 4096;
/// Samples of one run over the network.
const BATCH: usize = 16;

/// Why a graph was not quantised.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The calibration samples cannot be used.
    #[error("the calibration samples are not usable: {0}")]
    Samples(String),
    /// NaN or infinity inside the network.
    #[error("the network gives a value that is not finite at {tensor}: training diverged")]
    NotFinite {
        /// Where.
        tensor: String,
    },
    /// No ONNX could be written.
    #[error("writing the model failed")]
    Onnx(#[from] onnx::Error),
    /// ONNX Runtime refused the network or failed on it.
    #[error("running the model for calibration failed")]
    Run(#[from] runtime::Error),
}

/// How an activation's range is chosen from what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Calibrator {
    /// From the smallest to the largest value.
    MinMax,
    /// Without the outermost 0.01 % on either side.
    Percentile,
    /// The range with the least expected squared error.
    Mse,
}

impl Calibrator {
    /// Every rule.
    pub const ALL: [Self; 3] = [Self::MinMax, Self::Percentile, Self::Mse];
}

impl fmt::Display for Calibrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MinMax => "min-max",
            Self::Percentile => "percentile",
            Self::Mse => "mse",
        })
    }
}

/// How to quantise.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The rule; `None` tries all and keeps the best.
    pub calibrator: Option<Calibrator>,
    /// 7-bit weights, for x86 without VNNI, whose u8 x s8 sums saturate in 16 bits.
    pub reduce_range: bool,
}

/// One activation in the INT8 model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorReport {
    /// `input`, or node index and operation.
    pub name: String,
    /// Smallest value that the integers can hold.
    pub low: f32,
    /// Largest value that the integers can hold.
    pub high: f32,
    /// Value of one integer step.
    pub scale: f32,
    /// The integer that stands for zero.
    pub zero_point: u8,
    /// Signal to quantisation noise over the calibration samples, in decibels; at most 200.
    pub sqnr_db: f64,
}

/// How close an INT8 model is to the f32 one over the calibration samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Closeness {
    /// Signal to noise of the probabilities, in decibels; at most 200.
    pub sqnr_db: f64,
    /// Share of samples with the same top class.
    pub agreement: f64,
    /// Largest difference of a probability.
    pub difference_max: f32,
}

/// A quantised network.
#[derive(Clone, Debug)]
pub struct Quantised {
    /// The INT8 model.
    pub onnx_int8: Vec<u8>,
    /// The f32 model that it stands for.
    pub onnx_fp32: Vec<u8>,
    /// The rule that was kept.
    pub calibrator: Calibrator,
    /// The kept model against the f32 one.
    pub closeness: Closeness,
    /// Every rule that was tried.
    pub tried: Vec<(Calibrator, Closeness)>,
    /// One row an activation that is quantised, in the order of the network.
    pub tensors: Vec<TensorReport>,
}

/// Quantises `graph` with the ranges seen over `calibration` (samples of the graph's input shape, one after
/// another; the first [`SAMPLES_MAX`] are used).
///
/// # Errors
/// Samples that are none, ragged or not finite; activations that are not finite; an incomplete graph; a failure of
/// ONNX Runtime.
pub fn quantise(
    graph: &Graph,
    calibration: &[f32],
    ort: &Ort,
    options: &Options,
) -> Result<Quantised, Error> {
    let samples = check_samples(graph, calibration)?;
    let onnx_fp32 = onnx::write_f32(graph)?;
    let observers = observe_all(graph, samples, ort)?;
    let reference = answers(ort, &onnx_fp32, samples)?;
    let rules = options.calibrator.map_or_else(|| Calibrator::ALL.to_vec(), |rule| vec![rule]);
    let mut tried = Vec::new();
    let mut best: Option<(Calibrator, Closeness, Encoding, Vec<u8>)> = None;
    for rule in rules {
        let ranges: Vec<(f32, f32)> = observers.iter().map(|observer| observer.range(rule)).collect();
        let encoding = Encoding::from_ranges(graph, &ranges, options.reduce_range)?;
        let bytes = onnx::write_qdq(graph, &encoding)?;
        let closeness = compare(&reference, &answers(ort, &bytes, samples)?, graph.classes()?);
        tried.push((rule, closeness));
        if best.as_ref().is_none_or(|(_, least, _, _)| closeness.sqnr_db > least.sqnr_db) {
            best = Some((rule, closeness, encoding, bytes));
        }
    }
    let (calibrator, closeness, encoding, onnx_int8) =
        best.ok_or_else(|| Error::Samples("no rule was given".into()))?;
    let tensors = report(graph, &encoding, &observers);
    Ok(Quantised { onnx_int8, onnx_fp32, calibrator, closeness, tried, tensors })
}

impl From<crate::graph::Error> for Error {
    fn from(error: crate::graph::Error) -> Self {
        Self::Onnx(error.into())
    }
}

fn check_samples<'a>(graph: &Graph, calibration: &'a [f32]) -> Result<&'a [f32], Error> {
    let each = graph.input_shape().elements();
    if calibration.is_empty() || !calibration.len().is_multiple_of(each) {
        let len = calibration.len();
        return Err(Error::Samples(format!("{len} values are no whole number of samples of {each}")));
    }
    let samples = &calibration[..calibration.len().min(each.saturating_mul(SAMPLES_MAX))];
    if let Some(index) = samples.iter().position(|value| !value.is_finite()) {
        return Err(Error::Samples(format!("sample {} holds a value that is not finite", index / each)));
    }
    Ok(samples)
}

/// Two passes: the first finds each value's extent, the second fills its histogram.
fn observe_all(graph: &Graph, samples: &[f32], ort: &Ort) -> Result<Vec<Observer>, Error> {
    let mut probe = Probe::load(ort, &onnx::write_probe(graph)?)?;
    let each = graph.input_shape().elements();
    let mut observers = vec![Observer::default(); graph.nodes().len() + 1];
    for counting in [false, true] {
        for batch in samples.chunks(BATCH * each) {
            let mut shape = vec![batch.len() / each];
            shape.extend(graph.input_shape().axes());
            let mut see = |index: usize, values: &[f32]| {
                if let Some(observer) = observers.get_mut(index) {
                    if counting { observer.count(values) } else { observer.extend(values) }
                }
            };
            see(0, batch);
            probe.run(batch, &shape, |index, values| see(index + 1, values))?;
        }
    }
    if let Some(index) = observers.iter().position(|observer| !observer.is_finite()) {
        return Err(Error::NotFinite { tensor: name(graph, index) });
    }
    Ok(observers)
}

fn answers(ort: &Ort, model: &[u8], samples: &[f32]) -> Result<Vec<f32>, Error> {
    let model = ort.load(model, &LoadOptions::default())?;
    let mut all = Vec::new();
    let mut some = Vec::new();
    let each = model.input().elements();
    for batch in samples.chunks(BATCH * each) {
        model.run_into(batch, batch.len() / each, &mut some)?;
        all.extend_from_slice(&some);
    }
    Ok(all)
}

/// Most decibels that are reported: no noise at all.
const DECIBELS_MAX: f64 = 200.0;

fn decibels(signal: f64, noise: f64) -> f64 {
    if noise <= 0.0 {
        DECIBELS_MAX
    } else {
        (10.0 * (signal / noise).log10()).clamp(-DECIBELS_MAX, DECIBELS_MAX)
    }
}

fn compare(reference: &[f32], found: &[f32], classes: usize) -> Closeness {
    let (mut signal, mut noise, mut same, mut rows) = (0f64, 0f64, 0usize, 0usize);
    let mut difference_max = 0f32;
    for (expected, got) in reference.chunks_exact(classes).zip(found.chunks_exact(classes)) {
        rows += 1;
        same += usize::from(argmax(expected) == argmax(got));
        for (a, b) in expected.iter().zip(got) {
            signal += f64::from(*a).powi(2);
            noise += f64::from(a - b).powi(2);
            // A NaN must not pass as no difference.
            difference_max = if (a - b).is_nan() { f32::INFINITY } else { difference_max.max((a - b).abs()) };
        }
    }
    if noise.is_nan() {
        noise = f64::INFINITY;
    }
    #[expect(clippy::cast_precision_loss)]
    let agreement = same as f64 / rows.max(1) as f64;
    Closeness { sqnr_db: decibels(signal, noise), agreement, difference_max }
}

fn report(graph: &Graph, encoding: &Encoding, observers: &[Observer]) -> Vec<TensorReport> {
    let ids = std::iter::once(ValueId::INPUT).chain((0..graph.nodes().len()).map(ValueId::of_node));
    ids.zip(observers)
        .filter_map(|(id, observer)| {
            let affine = encoding.value(id)?;
            let (signal, noise) = observer.signal_and_noise(affine);
            Some(TensorReport {
                name: name(graph, id.index()),
                low: affine.low(),
                high: affine.high(),
                scale: affine.scale,
                zero_point: affine.zero_point,
                sqnr_db: decibels(signal, noise),
            })
        })
        .collect()
}

fn name(graph: &Graph, value: usize) -> String {
    match value.checked_sub(1).and_then(|index| graph.nodes().get(index)) {
        Some(node) => format!("{} {}", value - 1, node.op().name()),
        None => onnx::INPUT.to_owned(),
    }
}
