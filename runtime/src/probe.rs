//! Runs a model that has many outputs, to see the values inside a network: what calibration needs.

use crate::{Error, LoadOptions, Ort, check_size, no_panic, one_line, onnxruntime};
use ort::{
    session::{Session, SessionOutputs},
    value::TensorRef,
};

const NAME: &str = "onnxruntime";

/// A model on ONNX Runtime of which every output is read.
#[derive(Debug)]
pub struct Probe {
    session: Session,
}

impl Probe {
    /// Loads a model with one f32 input and any number of f32 outputs.
    ///
    /// # Errors
    /// The bytes are too many or ONNX Runtime does not take them.
    pub fn load(ort: &Ort, model: &[u8]) -> Result<Self, Error> {
        check_size(model)?;
        let session = onnxruntime::open_session(ort.opened(), model, &LoadOptions::default())?;
        if session.inputs().len() != 1 {
            let reason = format!("{} inputs", session.inputs().len());
            return Err(Error::Form { runtime: NAME, reason });
        }
        Ok(Self { session })
    }

    /// Runs samples of `shape` (the batch first) and hands each output's index, shape and values to `read`.
    ///
    /// # Errors
    /// The input does not fill `shape`, the run fails, or an output is not f32.
    pub fn run(
        &mut self,
        input: &[f32],
        shape: &[usize],
        mut read: impl FnMut(usize, &[i64], &[f32]),
    ) -> Result<(), Error> {
        self.run_with(input, shape, |outputs| {
            for index in 0..outputs.len() {
                let (shape, values) =
                    outputs[index].try_extract_tensor::<f32>().map_err(|error| one_line(&error))?;
                read(index, shape, values);
            }
            Ok(())
        })
    }

    /// Runs samples of `shape` (the batch first) and gives each output's shape, whatever its type.
    ///
    /// # Errors
    /// The input does not fill `shape`, the run fails, or an output is no tensor.
    pub fn shapes(&mut self, input: &[f32], shape: &[usize]) -> Result<Vec<Vec<usize>>, Error> {
        let mut shapes = Vec::new();
        self.run_with(input, shape, |outputs| {
            for index in 0..outputs.len() {
                let shape = outputs[index].dtype().tensor_shape().ok_or("an output is no tensor")?;
                shapes.push(shape.iter().map(|axis| usize::try_from(*axis).unwrap_or(0)).collect());
            }
            Ok(())
        })?;
        Ok(shapes)
    }

    fn run_with(
        &mut self,
        input: &[f32],
        shape: &[usize],
        read: impl FnOnce(&SessionOutputs<'_>) -> Result<(), String>,
    ) -> Result<(), Error> {
        let expected = shape.iter().try_fold(1usize, |product, axis| product.checked_mul(*axis));
        if expected != Some(input.len()) || input.is_empty() {
            let batch = shape.first().copied().unwrap_or(0);
            let expected = expected.unwrap_or(usize::MAX);
            let each = expected.checked_div(batch).unwrap_or(0);
            return Err(Error::Input { got: input.len(), batch, each, expected });
        }
        let session = &mut self.session;
        no_panic(|| {
            let tensor =
                TensorRef::from_array_view((shape.to_vec(), input)).map_err(|error| one_line(&error))?;
            let outputs = session.run(ort::inputs![tensor]).map_err(|error| one_line(&error))?;
            read(&outputs)
        })
        .map_err(|reason| Error::Run { runtime: NAME, reason })
    }
}
