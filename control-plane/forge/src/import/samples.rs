//! The samples that a model is calibrated by: a data set of the forge, or arrays without labels.

use super::Error;
use crate::{
    data::{self, Split, npy},
    finish::CALIBRATION_SAMPLES,
    seeds::{self, Purpose},
};
use shared::{
    Digest,
    job::{DataFormat, DatasetSchema, Reading},
    limits::TENSOR_ELEMENTS_MAX,
    manifest::Task,
};
use std::path::Path;

/// Most values of all calibration samples.
const VALUES_MAX: usize = 1 << 28;

/// Samples in random order.
#[derive(Clone, Debug)]
pub(super) struct Calibration {
    /// Shape of one, without the batch.
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
    pub(super) count: usize,
    /// What a data set has beside.
    pub(super) labelled: Option<Labelled>,
    format: DataFormat,
    digest: Digest,
}

/// A split with labels, for measuring.
#[derive(Clone, Debug)]
pub(super) struct Labelled {
    pub(super) labels: Vec<String>,
    pub(super) test: Split,
}

impl Calibration {
    /// What the report says of it: the shape that devices give, and the model's classes.
    pub(super) fn schema(&self, device_shape: &[usize], labels: Vec<String>) -> DatasetSchema {
        let image = device_shape.len() == super::IMAGE_AXES;
        DatasetSchema {
            format: self.format,
            task: if image { Task::ImageClassification } else { Task::SeriesClassification },
            digest: self.digest,
            shape: device_shape.to_vec(),
            labels,
            heads: Vec::new(),
            text: None,
            reading: Reading::default(),
            columns: Vec::new(),
            remarks: Vec::new(),
            train_count: self.count as u64,
            test_count: self.labelled.as_ref().map_or(0, |labelled| labelled.test.len() as u64),
        }
    }
}

/// Opens the samples for a model whose input has `axes` axes without the batch, where it says so. An array of so many
/// axes is one sample, one of one more a batch.
pub(super) fn open(path: &Path, axes: Option<usize>, seed: u64) -> Result<Calibration, Error> {
    match npy::open(path)? {
        Some(folder) => of_arrays(path, folder, axes, seed),
        None => of_set(path, seed),
    }
}

fn of_set(path: &Path, seed: u64) -> Result<Calibration, Error> {
    let set = data::open(path, None).map_err(|error| match error {
        data::Error::NotFound { path, expected } => {
            data::Error::NotFound { path, expected: format!(".npy files, or {expected}") }
        }
        error => error,
    })?;
    if set.schema.text.is_some() {
        let what = "text calibrates no model from elsewhere; give its inputs as .npy files";
        return Err(Error::Input(format!("{}: {what}", path.display())));
    }
    if !set.schema.columns.is_empty() {
        let what = "a table is standardised for networks of our own; give the model's inputs as .npy files";
        return Err(Error::Input(format!("{}: {what}", path.display())));
    }
    let shape = set.schema.shape.clone();
    let (values, count) = drawn(&set.train.samples, &shape, seed);
    Ok(Calibration {
        shape,
        values,
        count,
        labelled: Some(Labelled { labels: set.schema.labels, test: set.test }),
        format: set.schema.format,
        digest: set.schema.digest,
    })
}

fn of_arrays(path: &Path, folder: npy::Folder, axes: Option<usize>, seed: u64) -> Result<Calibration, Error> {
    let mut shape: Option<Vec<usize>> = None;
    let mut all = Vec::new();
    for (file, array) in &folder.arrays {
        let wrong = |reason: String| Error::Input(format!("{}: {reason}", file.display()));
        let axes = axes.unwrap_or(array.shape.len().saturating_sub(1));
        let one = match array.shape.len().checked_sub(axes) {
            Some(0) => &array.shape[..],
            Some(1) => &array.shape[1..],
            _ => {
                return Err(wrong(format!(
                    "its shape is {:?}; a sample has {axes} axes, a batch of them one more",
                    array.shape
                )));
            }
        };
        let first = shape.get_or_insert_with(|| one.to_vec());
        if first != one {
            return Err(wrong(format!("its samples are {one:?}, those of the files before it {first:?}")));
        }
        all.extend_from_slice(&array.values);
    }
    let shape = shape.unwrap_or_default();
    let each: usize = shape.iter().product();
    if !(1..=TENSOR_ELEMENTS_MAX).contains(&each) || all.len() < each {
        return Err(Error::Input(format!("{}: its arrays hold no sample", path.display())));
    }
    let (values, count) = drawn(&all, &shape, seed);
    Ok(Calibration { shape, values, count, labelled: None, format: DataFormat::Npy, digest: folder.digest })
}

/// Some samples in random order, and how many they are.
fn drawn(all: &[f32], shape: &[usize], seed: u64) -> (Vec<f32>, usize) {
    let each = shape.iter().product::<usize>().max(1);
    let mut order: Vec<usize> = (0..all.len() / each).collect();
    seeds::shuffle(&mut order, &mut seeds::stream(seed, Purpose::Samples, 0));
    order.truncate(CALIBRATION_SAMPLES.min((VALUES_MAX / each).max(1)));
    (order.iter().flat_map(|index| &all[index * each..][..each]).copied().collect(), order.len())
}
