//! The samples that a model is calibrated by: a data set of the forge, or arrays without labels.

use super::Error;
use crate::{
    data::{self, Room, Split, npy},
    finish::CALIBRATION_SAMPLES,
    memory,
    seeds::{self, Purpose},
};
use shared::{
    Digest,
    job::{DATA_FILE, DataFormat, DatasetSchema, Reading},
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
    /// What is to be known of the set.
    pub(super) remarks: Vec<String>,
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
            remarks: self.labelled.as_ref().map(|labelled| labelled.remarks.clone()).unwrap_or_default(),
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
    // What is open stays there when its folder goes.
    let folder = tempfile::tempdir()
        .map_err(|error| Error::Input(format!("no temporary folder can be made: {error}")))?;
    let room = Room { file: folder.path().join(DATA_FILE), memory_bytes: memory::for_data() };
    let set = data::open_within(path, None, &room).map_err(|error| match error {
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
    let mut values = Vec::new();
    let order = order(set.train.len(), &shape, seed);
    order.iter().for_each(|sample| set.train.values(*sample, &shape, &mut values));
    if let Some(error) = set.train.failure() {
        return Err(error.into());
    }
    Ok(Calibration {
        shape,
        values,
        count: order.len(),
        labelled: Some(Labelled { labels: set.schema.labels, test: set.test, remarks: set.schema.remarks }),
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
    let order = order(all.len() / each, &shape, seed);
    let values = order.iter().flat_map(|index| &all[index * each..][..each]).copied().collect();
    let (count, format) = (order.len(), DataFormat::Npy);
    Ok(Calibration { shape, values, count, labelled: None, format, digest: folder.digest })
}

/// Some of `count` samples in random order.
fn order(count: usize, shape: &[usize], seed: u64) -> Vec<usize> {
    let each = shape.iter().product::<usize>().max(1);
    let mut order: Vec<usize> = (0..count).collect();
    seeds::shuffle(&mut order, &mut seeds::stream(seed, Purpose::Samples, 0));
    order.truncate(CALIBRATION_SAMPLES.min((VALUES_MAX / each).max(1)));
    order
}
