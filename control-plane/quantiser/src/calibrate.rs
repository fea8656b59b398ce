//! Runs a graph over samples on ONNX Runtime and looks at values inside it.

use crate::{net::Net, observe::Observer, proto::ValueInfoProto, scheme::Compute};
use runtime::{Ort, Probe};
use std::collections::{HashMap, HashSet};

/// Samples of one shape, one after another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Samples<'a> {
    /// Shape of one, without the batch.
    pub shape: &'a [usize],
    /// Their values.
    pub values: &'a [f32],
}

impl<'a> Samples<'a> {
    /// Each sample.
    pub fn iter(self) -> impl Iterator<Item = &'a [f32]> {
        self.values.chunks_exact(self.each().max(1))
    }

    /// How many there are.
    pub fn count(self) -> usize {
        self.values.len() / self.each().max(1)
    }

    /// The samples before and from `at` on.
    pub fn split(self, at: usize) -> (Self, Self) {
        let (front, back) = self.values.split_at((at * self.each()).min(self.values.len()));
        (Self { values: front, ..self }, Self { values: back, ..self })
    }

    /// The first of them, at most `count`.
    pub fn first(self, count: usize) -> Self {
        self.split(count.min(self.count())).0
    }

    fn each(self) -> usize {
        self.shape.iter().product()
    }

    /// The shape of one sample as a batch.
    pub fn batch_of_one(self) -> Vec<usize> {
        std::iter::once(1).chain(self.shape.iter().copied()).collect()
    }
}

/// What was seen of a graph.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) values: HashMap<String, Observer>,
    /// Mean of each channel of what a node with weights reads, by its index.
    pub(crate) means: HashMap<usize, Vec<f32>>,
}

/// Looks at `names` and at the inputs of `computes` in two passes over `samples`: the first finds each value's extent,
/// the second fills its histogram.
///
/// # Errors
/// ONNX Runtime does not run the graph.
pub(crate) fn look(
    net: &Net,
    names: &[String],
    computes: &[Compute],
    samples: Samples<'_>,
    ort: &Ort,
) -> Result<Seen, runtime::Error> {
    let inputs: HashSet<&str> = net.graph.input.iter().map(|input| input.name.as_str()).collect();
    let inner: Vec<&String> = names.iter().filter(|name| !inputs.contains(name.as_str())).collect();
    let mut probed = net.clone();
    probed.graph.output = inner.iter().map(|name| ValueInfoProto::f32_of_any_shape(name)).collect();
    if inner.is_empty() {
        // A graph has an output: any will do, for nobody looks at it.
        probed.graph.output.clone_from(&net.graph.output);
    }
    probed.prune();
    let mut probe = Probe::load(ort, &probed.encode())?;
    let mut values: HashMap<String, Observer> =
        names.iter().map(|name| (name.clone(), Observer::default())).collect();
    let mut sums: HashMap<usize, Sums> = HashMap::new();
    let mut readers: HashMap<&str, Vec<&Compute>> = HashMap::new();
    for compute in computes {
        readers.entry(compute.input.as_str()).or_default().push(compute);
    }
    let shape = samples.batch_of_one();
    for counting in [false, true] {
        for sample in samples.iter() {
            let mut see = |name: &str, shape: &[i64], found: &[f32]| {
                if let Some(observer) = values.get_mut(name) {
                    if counting { observer.count(found) } else { observer.extend(found) }
                }
                if !counting {
                    for compute in readers.get(name).into_iter().flatten() {
                        sums.entry(compute.node).or_default().add(compute, shape, found);
                    }
                }
            };
            for input in &net.graph.input {
                let axes: Vec<i64> = shape.iter().map(|axis| *axis as i64).collect();
                see(&input.name, &axes, sample);
            }
            probe.run(sample, &shape, |index, shape, found| {
                if let Some(name) = inner.get(index) {
                    see(name, shape, found);
                }
            })?;
        }
    }
    let means = sums.into_iter().map(|(node, sums)| (node, sums.means())).collect();
    Ok(Seen { values, means })
}

/// Sums of the channels of a value.
#[derive(Debug, Default)]
struct Sums {
    sums: Vec<f64>,
    count: f64,
}

impl Sums {
    fn add(&mut self, compute: &Compute, shape: &[i64], values: &[f32]) {
        let axis = if compute.channels_last { shape.len().checked_sub(1) } else { Some(1) };
        let size = |axis: &i64| usize::try_from(*axis).unwrap_or(0);
        let Some(channels) = axis.and_then(|axis| shape.get(axis)).map(size).filter(|size| *size > 0) else {
            return;
        };
        let inner: usize = if compute.channels_last { 1 } else { shape.iter().skip(2).map(size).product() };
        self.sums.resize(channels, 0.0);
        for (index, value) in values.iter().enumerate() {
            self.sums[index / inner.max(1) % channels] += f64::from(*value);
        }
        #[expect(clippy::cast_precision_loss)]
        let each = values.len() as f64 / channels as f64;
        self.count += each;
    }

    #[expect(clippy::cast_possible_truncation)]
    fn means(&self) -> Vec<f32> {
        self.sums.iter().map(|sum| (sum / self.count.max(1.0)) as f32).collect()
    }
}

/// What the one output of a model is for each sample, one after another, and its shape for one.
///
/// # Errors
/// ONNX Runtime does not run it, or it gives no f32 values or another number for another sample.
pub fn answers(
    ort: &Ort,
    model: &[u8],
    samples: Samples<'_>,
) -> Result<(Vec<f32>, Vec<usize>), runtime::Error> {
    let mut probe = Probe::load(ort, model)?;
    let shape = samples.batch_of_one();
    let mut all = Vec::new();
    let mut given: Option<Vec<usize>> = None;
    let mut same = true;
    for sample in samples.iter() {
        probe.run(sample, &shape, |index, shape, values| {
            if index == 0 {
                let shape: Vec<usize> =
                    shape.iter().map(|axis| usize::try_from(*axis).unwrap_or(0)).collect();
                same &= given.as_ref().is_none_or(|given| *given == shape);
                given = Some(shape);
                all.extend_from_slice(values);
            }
        })?;
    }
    if !same {
        let reason = "its output has another shape for another sample".to_owned();
        return Err(runtime::Error::Form { runtime: "onnxruntime", reason });
    }
    Ok((all, given.unwrap_or_default()))
}
