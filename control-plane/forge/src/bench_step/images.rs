//! Images that the steps of the bench learn from, so that two programs can be compared by the time to one accuracy.

use super::{BATCH, SIDE};
use crate::{
    data::{Dataset, Split},
    device,
    params::{channels_last, to_vec},
};
use tch::Tensor;

/// Images that the weights learn from, and as many again for the architecture.
const LEARNT: usize = 128 * BATCH as usize;
/// Images that neither learns from.
const HELD: usize = 16 * BATCH as usize;
/// Images of one look at the accuracy: batch statistics are theirs.
pub(super) const LOOK: i64 = 256;
/// What pixels are less and divided by: mean and standard deviation of MNIST's.
const MEAN: f32 = 0.1307;
const DEVIATION: f32 = 0.3081;

/// Three parts of the training split of a data set of images of 28 by 28.
#[derive(Debug)]
pub struct Images {
    pub(super) weights: Part,
    pub(super) arch: Part,
    pub(super) held: Part,
}

/// Images `[N, 1, 28, 28]` and their classes `[N]`.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) x: Tensor,
    pub(super) labels: Tensor,
}

/// Why a data set has no such images.
#[derive(Debug, thiserror::Error)]
#[error(
    "the bench learns from {needed} images of [1, 28, 28] in at most 10 classes, the set has {count} of {shape:?} in {classes}"
)]
pub struct Unfit {
    needed: usize,
    count: usize,
    shape: Vec<usize>,
    classes: usize,
}

impl Images {
    /// The first of the training split, as they come: for the weights, for the architecture, for the accuracy.
    ///
    /// # Errors
    /// A set of other samples or of too few.
    pub fn of(set: &Dataset) -> Result<Self, Unfit> {
        let (schema, train) = (&set.schema, &set.train);
        let needed = 2 * LEARNT + HELD;
        let side = SIDE as usize;
        if schema.shape != [1, side, side] || schema.labels.len() > 10 || train.len() < needed {
            let (shape, classes) = (schema.shape.clone(), schema.labels.len());
            return Err(Unfit { needed, count: train.len(), shape, classes });
        }
        let part = |first: usize, count: usize| Part::of(train, first, count);
        Ok(Self { weights: part(0, LEARNT), arch: part(LEARNT, LEARNT), held: part(2 * LEARNT, HELD) })
    }

    /// Name and tensor of each, for the file that another program begins from.
    pub(super) fn named(&self) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let parts = [("weights", &self.weights), ("arch", &self.arch), ("held", &self.held)];
        let mut named = Vec::new();
        for (name, Part { x, labels }) in parts {
            for (of, tensor) in [("x", x), ("labels", &labels.to_kind(tch::Kind::Float))] {
                let shape = tensor.size().iter().map(|axis| usize::try_from(*axis).unwrap_or(0)).collect();
                named.push((format!("images.{name}.{of}"), shape, to_vec(tensor)));
            }
        }
        named
    }
}

impl Part {
    fn of(split: &Split, first: usize, count: usize) -> Self {
        let side = SIDE as usize;
        let mut values = Vec::with_capacity(count * side * side);
        (first..first + count).for_each(|index| split.values(index, &[1, side, side], &mut values));
        values.iter_mut().for_each(|value| *value = (*value - MEAN) / DEVIATION);
        let x = Tensor::from_slice(&values).reshape([-1, 1, SIDE, SIDE]);
        let labels = split.labels.get(first..first + count).unwrap_or_default();
        Self { x: device::put(&channels_last(&x)), labels: device::put(&Tensor::from_slice(labels)) }
    }

    /// The batch of a step, round and round.
    pub(super) fn batch(&self, step: usize) -> (Tensor, Tensor) {
        let batches = (self.x.size()[0] / BATCH).max(1);
        let first = (step as i64 % batches) * BATCH;
        (channels_last(&self.x.narrow(0, first, BATCH)), self.labels.narrow(0, first, BATCH))
    }
}
