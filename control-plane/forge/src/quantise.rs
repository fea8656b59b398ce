//! Static post-training quantisation: run the f32 network over calibration samples, look at every activation,
//! choose its range, write the INT8 model.
//!
//! Ranges follow one of the rules of [`Calibrator`]; the models of all of them are built, the one whose answers are closest to
//! the f32 network's first. See Nagel et al., "A White Paper on Neural Network
//! Quantization" (2021), sections 2 and 3.

mod encoding;
#[cfg(test)]
mod tests;

pub(crate) use encoding::range_of;
pub use encoding::{Encoding, WeightEncoding, weight_bytes};
pub use quantiser::{Affine, Calibrator, Closeness};

use crate::{
    graph::{Graph, Node, Shape, ValueId},
    onnx,
};
use quantiser::{Observer, compare, decibels};
use runtime::{LoadOptions, Ort, Probe, Runtime};
use shared::job::TensorReport;

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

/// One way to quantise a network.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The INT8 model.
    pub onnx_int8: Vec<u8>,
    /// The rule of its ranges.
    pub calibrator: Calibrator,
    /// The model against the f32 one.
    pub closeness: Closeness,
    /// One row an activation that is quantised, in the order of the network.
    pub tensors: Vec<TensorReport>,
}

/// Quantises `graph` by every rule with the ranges seen over `calibration` (samples of the graph's input shape, one
/// after another; the first [`SAMPLES_MAX`] are used). The first candidate is the closest to `onnx_fp32`, the graph's
/// f32 form. `reduce_range` gives 7-bit weights, for x86 without VNNI, whose u8 x s8 sums saturate in 16 bits.
///
/// # Errors
/// Samples that are none, ragged or not finite; activations that are not finite; an incomplete graph; a failure of
/// ONNX Runtime.
pub fn quantise(
    graph: &Graph,
    onnx_fp32: &[u8],
    calibration: &[f32],
    ort: &Ort,
    reduce_range: bool,
) -> Result<Vec<Candidate>, Error> {
    let samples = check_samples(graph, calibration)?;
    let seen = look(graph, samples, ort)?;
    let reference = answers(ort, onnx_fp32, samples)?;
    let mut candidates = Vec::new();
    for calibrator in Calibrator::ALL {
        let encoding = Encoding::from_ranges(graph, &seen.ranges(calibrator), reduce_range)?;
        let onnx_int8 = onnx::write_qdq(graph, &encoding)?;
        let closeness = compare(&reference, &answers(ort, &onnx_int8, samples)?, graph.classes()?);
        let tensors = report(graph, &encoding, &seen);
        candidates.push(Candidate { onnx_int8, calibrator, closeness, tensors });
    }
    // Stable: of equals the earlier rule.
    candidates.sort_by(|a, b| b.closeness.sqnr_db.total_cmp(&a.closeness.sqnr_db));
    Ok(candidates)
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

/// What was seen of every value of a graph, the input first.
#[derive(Clone, Debug)]
pub struct Seen {
    observers: Vec<Observer>,
    /// Mean of each channel.
    means: Vec<Vec<f32>>,
}

impl Seen {
    /// The range that a rule gives each value.
    pub fn ranges(&self, calibrator: Calibrator) -> Vec<(f32, f32)> {
        self.observers.iter().map(|observer| observer.range(calibrator)).collect()
    }

    /// Mean of each channel of a value over samples and space.
    pub fn means(&self, id: ValueId) -> &[f32] {
        self.means.get(id.index()).map_or(&[], Vec::as_slice)
    }
}

/// Runs the graph over samples in two passes: the first finds each value's extent, the second fills its histogram.
///
/// # Errors
/// As [`quantise`].
pub fn look(graph: &Graph, calibration: &[f32], ort: &Ort) -> Result<Seen, Error> {
    let samples = check_samples(graph, calibration)?;
    let mut probe = Probe::load(ort, &onnx::write_probe(graph)?)?;
    let each = graph.input_shape().elements();
    let mut observers = vec![Observer::default(); graph.nodes().len() + 1];
    let shapes = std::iter::once(graph.input_shape()).chain(graph.nodes().iter().map(Node::output));
    let shapes: Vec<&Shape> = shapes.collect();
    let mut sums: Vec<Vec<f64>> = shapes.iter().map(|shape| vec![0.0; shape.channels]).collect();
    for counting in [false, true] {
        for batch in samples.chunks(BATCH * each) {
            let mut shape = vec![batch.len() / each];
            shape.extend(graph.input_shape().axes());
            let mut see = |index: usize, values: &[f32]| {
                if let Some(observer) = observers.get_mut(index) {
                    if counting { observer.count(values) } else { observer.extend(values) }
                }
                if let (false, Some(sums), Some(shape)) = (counting, sums.get_mut(index), shapes.get(index)) {
                    let channels = values.chunks_exact(shape.spatial_elements().max(1));
                    for (at, channel) in channels.enumerate() {
                        sums[at % shape.channels.max(1)] +=
                            channel.iter().map(|x| f64::from(*x)).sum::<f64>();
                    }
                }
            };
            see(0, batch);
            probe.run(batch, &shape, |index, _, values| see(index + 1, values))?;
        }
    }
    if let Some(index) = observers.iter().position(|observer| !observer.is_finite()) {
        return Err(Error::NotFinite { tensor: name(graph, index) });
    }
    let count = samples.len() / each;
    let means = sums.into_iter().zip(shapes).map(|(sums, shape)| {
        let seen = (count * shape.spatial_elements()).max(1) as f64;
        sums.into_iter().map(|sum| (sum / seen) as f32).collect()
    });
    Ok(Seen { observers, means: means.collect() })
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

/// One row an activation that is quantised, in the order of the network.
pub fn report(graph: &Graph, encoding: &Encoding, seen: &Seen) -> Vec<TensorReport> {
    let ids = std::iter::once(ValueId::INPUT).chain((0..graph.nodes().len()).map(ValueId::of_node));
    ids.zip(&seen.observers)
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
