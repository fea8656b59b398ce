//! Golden inputs and outputs: what a model must answer before it may answer anybody.

use crate::{Error, Runnable};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::fmt;

/// Largest golden file in bytes.
pub const GOLDEN_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most samples of a golden file.
pub const SAMPLES_MAX: usize = 1024;

/// Golden samples, one after another.
#[derive(Clone, Debug, PartialEq)]
pub struct Golden {
    samples: usize,
    input_shape: Vec<usize>,
    input: Vec<f32>,
    output: Vec<f32>,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GoldenReport {
    pub samples: usize,
    /// Largest difference of a value from its golden one.
    pub difference_max: f32,
}

/// Why a model is not right.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    /// The golden file is none.
    #[error("the golden file is damaged: {0}")]
    File(String),
    /// The model's shapes are not the golden file's.
    #[error("the golden file is for another model: {0}")]
    Shape(String),
    /// A top label is another.
    #[error("golden input {sample}: the model says class {got}, expected class {expected}")]
    Label { sample: usize, got: usize, expected: usize },
    /// A value is too far off.
    #[error("golden input {sample}: a value is off by {difference}, allowed is {tolerance}")]
    Value { sample: usize, difference: f32, tolerance: f32 },
    /// NaN or infinity came out.
    #[error("golden input {sample}: the model's answer is not a finite number")]
    NotFinite { sample: usize },
    /// The model did not run.
    #[error(transparent)]
    Run(#[from] Error),
}

impl Golden {
    /// Samples of `input_shape` each (without the batch) with their outputs.
    pub fn new(input_shape: Vec<usize>, input: Vec<f32>, output: Vec<f32>) -> Result<Self, Mismatch> {
        let file = |text: &str| Mismatch::File(text.to_owned());
        let each = input_shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        let each = each.filter(|&each| each > 0).ok_or_else(|| file("its input shape holds no value"))?;
        let samples = input.len() / each;
        if samples == 0 || samples > SAMPLES_MAX || input.len() != samples * each {
            return Err(Mismatch::File(format!("it holds 1 to {SAMPLES_MAX} whole samples")));
        }
        if output.is_empty() || !output.len().is_multiple_of(samples) {
            return Err(file("its outputs are not one for each input"));
        }
        if !input.iter().chain(&output).all(|value| value.is_finite()) {
            return Err(file("it holds a value that is not finite"));
        }
        Ok(Self { samples, input_shape, input, output })
    }

    /// Reads safetensors with f32 tensors `input` `[G, ...]` and `output` `[G, classes]`.
    pub fn read(bytes: &[u8]) -> Result<Self, Mismatch> {
        if bytes.len() > GOLDEN_BYTES_MAX {
            return Err(Mismatch::File(format!(
                "{} bytes are over the limit of {GOLDEN_BYTES_MAX}",
                bytes.len()
            )));
        }
        let file = |text: &dyn fmt::Display| Mismatch::File(text.to_string());
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| file(&error))?;
        let (input_shape, input) = floats(&tensors, "input")?;
        let (output_shape, output) = floats(&tensors, "output")?;
        if input_shape.first() != output_shape.first() || input_shape.len() < 2 || output_shape.len() != 2 {
            return Err(Mismatch::File(format!(
                "shapes {input_shape:?} and {output_shape:?} do not belong together"
            )));
        }
        Self::new(input_shape[1..].to_vec(), input, output)
    }

    /// The file's bytes.
    pub fn write(&self) -> Result<Vec<u8>, Mismatch> {
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let (input, output) = (bytes(&self.input), bytes(&self.output));
        let input_shape = std::iter::once(self.samples).chain(self.input_shape.iter().copied()).collect();
        let output_shape = vec![self.samples, self.classes()];
        let write = || {
            let tensors = [
                ("input", TensorView::new(Dtype::F32, input_shape, &input)?),
                ("output", TensorView::new(Dtype::F32, output_shape, &output)?),
            ];
            safetensors::serialize(tensors, None)
        };
        write().map_err(|error| Mismatch::File(error.to_string()))
    }

    /// Number of samples.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Values of one output.
    pub fn classes(&self) -> usize {
        self.output.len() / self.samples
    }

    /// The inputs, one after another.
    pub fn input(&self) -> &[f32] {
        &self.input
    }

    /// The outputs, one after another.
    pub fn output(&self) -> &[f32] {
        &self.output
    }

    /// Runs every golden input by itself. The top label must be the golden one (where the golden file itself does not
    /// hold two labels within `tolerance`), and every value within `tolerance`.
    pub fn check(&self, model: &dyn Runnable, tolerance: f32) -> Result<GoldenReport, Mismatch> {
        if model.input().shape != self.input_shape || model.output().elements() != self.classes() {
            return Err(Mismatch::Shape(format!(
                "inputs {:?} against {:?}, outputs {} against {}",
                model.input().shape,
                self.input_shape,
                model.output().elements(),
                self.classes()
            )));
        }
        let each = self.input.len() / self.samples;
        let mut answer = Vec::with_capacity(self.classes());
        let mut difference_max = 0f32;
        let rows = self.input.chunks_exact(each).zip(self.output.chunks_exact(self.classes()));
        for (sample, (input, golden)) in rows.enumerate() {
            model.run_into(input, 1, &mut answer)?;
            if !answer.iter().all(|value| value.is_finite()) {
                return Err(Mismatch::NotFinite { sample });
            }
            let (got, expected) = (argmax(&answer), argmax(golden));
            if got != expected && golden[expected] - golden[got] > tolerance {
                return Err(Mismatch::Label { sample, got, expected });
            }
            let difference = answer.iter().zip(golden).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            if difference > tolerance {
                return Err(Mismatch::Value { sample, difference, tolerance });
            }
            difference_max = difference_max.max(difference);
        }
        Ok(GoldenReport { samples: self.samples, difference_max })
    }
}

fn floats(tensors: &SafeTensors<'_>, name: &str) -> Result<(Vec<usize>, Vec<f32>), Mismatch> {
    let tensor = tensors.tensor(name).map_err(|_| Mismatch::File(format!("it has no tensor {name:?}")))?;
    if tensor.dtype() != Dtype::F32 {
        return Err(Mismatch::File(format!("its tensor {name:?} is not f32")));
    }
    let values =
        tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    Ok((tensor.shape().to_vec(), values))
}

/// The index of the largest value; zero of nothing.
pub fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}
