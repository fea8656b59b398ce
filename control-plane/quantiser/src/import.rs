//! A foreign model and some samples to an INT8 model that devices run.

use crate::{
    calibrate::{Samples, answers},
    closeness::{Closeness, compare},
    cost::{self, Cost},
    file,
    form::{self, Input, Wishes},
    net::Net,
    prepare,
    quantise::{self, Options, Quantised, quantise},
};
use runtime::{Ort, Probe};

/// Samples on which the model is compared with its prepared form.
const PARITY_SAMPLES: usize = 8;
/// Least signal to noise of the prepared form, in decibels: folding only rounds anew.
const PARITY_MIN_DB: f64 = 60.0;
/// Largest difference, as a share of the largest answer, that a second sample in a batch may make to the first.
const BATCH_DIFFERENCE_MAX: f32 = 1e-4;

/// Why a model was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is refused.
    #[error(transparent)]
    File(#[from] file::Error),
    /// It has not the form of devices, and cannot be given it.
    #[error(transparent)]
    Form(#[from] form::Error),
    /// It has no INT8 form.
    #[error(transparent)]
    Quantise(#[from] quantise::Error),
    /// ONNX Runtime does not run the model as it came.
    #[error("ONNX Runtime does not run the model")]
    Run(#[source] runtime::Error),
    /// Folding constants changed the answers.
    #[error(
        "folding the model's constants changed its answers: {:.0} dB are left; its f32 values are at the edge of their range",
        .0.sqnr_db
    )]
    Prepared(Closeness),
}

/// A model that was taken in.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The f32 model in the form of devices, its constants folded.
    pub onnx_fp32: Vec<u8>,
    /// Its INT8 form.
    pub quantised: Quantised,
    /// How a sample goes in.
    pub input: Input,
    /// Values of one answer.
    pub outputs: usize,
    /// What one sample costs.
    pub cost: Cost,
}

/// Takes a model in. `samples` have the shape that the model gives its input, without the batch; the same file, samples
/// and options give the same result.
///
/// # Errors
/// [`Error`].
pub fn import(
    bytes: &[u8],
    samples: Samples<'_>,
    wishes: &Wishes,
    options: &Options,
    ort: &Ort,
) -> Result<Imported, Error> {
    let mut net = Net::new(file::read(bytes)?);
    let mut input = form::shape_input(&mut net, samples.shape, wishes)?;
    let device_shape = input.device_shape.clone();
    let samples = Samples { shape: &device_shape, values: samples.values };
    let few = samples.first(PARITY_SAMPLES);
    let (_, shape) = answers(ort, &net.encode(), few.first(1)).map_err(Error::Run)?;
    let outputs = form::shape_output(&mut net, &shape, input.batch_free)?;
    let original = net.encode();
    let (reference, _) = answers(ort, &original, few).map_err(Error::Run)?;
    prepare::prepare(&mut net);
    let (found, _) = answers(ort, &net.encode(), few).map_err(Error::Run)?;
    let parity = compare(&reference, &found, outputs);
    if parity.sqnr_db < PARITY_MIN_DB {
        return Err(Error::Prepared(parity));
    }
    if input.batch_free && !is_independent(ort, &original, few, &reference, outputs) {
        form::fix_batch(&mut net, &mut input);
    }
    let cost = cost::cost(&net, samples, ort).map_err(Error::Run)?;
    // Only one row of values is a choice of a class.
    let chooses = shape.len() == 2 && outputs > 1;
    let options = Options { agreement_min: if chooses { options.agreement_min } else { 0.0 }, ..*options };
    let quantised = quantise(&net, samples, ort, &options)?;
    Ok(Imported { onnx_fp32: net.encode(), quantised, input, outputs, cost })
}

/// Axes of one sample without the batch, as the file says; `None` where it leaves that open.
///
/// # Errors
/// The file is refused, or it has not one input beside those that are frozen.
pub fn sample_axes(bytes: &[u8], wishes: &Wishes) -> Result<Option<usize>, Error> {
    Ok(form::input_axes(&Net::new(file::read(bytes)?), wishes)?)
}

/// Whether two samples at once give what each gives alone.
fn is_independent(ort: &Ort, model: &[u8], samples: Samples<'_>, alone: &[f32], width: usize) -> bool {
    let two = samples.first(2);
    let shape: Vec<usize> = std::iter::once(two.count()).chain(two.shape.iter().copied()).collect();
    let mut together = Vec::new();
    let ran = Probe::load(ort, model).and_then(|mut probe| {
        probe.run(two.values, &shape, |index, _, values| {
            if index == 0 {
                together.extend_from_slice(values);
            }
        })
    });
    let largest = alone.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= BATCH_DIFFERENCE_MAX * largest;
    ran.is_ok() && together.len() == width * two.count() && together.iter().zip(alone).all(near)
}

#[cfg(test)]
mod tests;
