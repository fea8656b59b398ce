//! From samples in memory to batches of tensors, with augmentation.

mod text;

pub use text::Change;

use crate::{
    answer::Answer,
    data::Split,
    genotype::Dim,
    params::channels_last,
    seeds::{self, Purpose},
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use shared::job::DatasetSchema;
use tch::{Device, Kind, Tensor, no_grad};
use text::Windows;

/// Samples and labels as tensors.
#[derive(Debug)]
pub struct Samples {
    dim: Dim,
    /// `[C, H, W]`; H is 1 for a series.
    shape: [i64; 3],
    /// `[N, C * H * W]`; nothing of text.
    values: Tensor,
    /// `[N]`.
    labels: Tensor,
    count: usize,
    /// Standard deviation of all values, the unit of jitter.
    deviation: f64,
    answer: Answer,
    text: Option<Windows>,
}

impl Samples {
    /// Of a split whose samples have `shape` (`[C, L]` or `[C, H, W]`).
    pub fn new(split: &Split, shape: &[usize]) -> Self {
        let (dim, shape) = match *shape {
            [c, l] => (Dim::Series, [c as i64, 1, l as i64]),
            [c, h, w] => (Dim::Image, [c as i64, h as i64, w as i64]),
            _ => (Dim::Series, [1, 1, shape.iter().product::<usize>() as i64]),
        };
        let values = Tensor::from_slice(&split.samples).reshape([-1, shape.iter().product()]);
        let deviation = values.std(false).double_value(&[]);
        let labels = Tensor::from_slice(&split.labels);
        let (count, answer, text) = (split.len(), Answer::Class, None);
        Self { dim, shape, values, labels, count, deviation, answer, text }
    }

    /// Of a split of the data set with this schema.
    pub fn of(split: &Split, schema: &DatasetSchema) -> Self {
        let ([channels, length], Some(_)) = (&schema.shape[..], &schema.text) else {
            return Self::new(split, &schema.shape);
        };
        let answer = Answer::of(schema);
        Self {
            dim: Dim::Series,
            shape: [*channels as i64, 1, *length as i64],
            values: Tensor::zeros([0], (Kind::Float, Device::Cpu)),
            labels: Tensor::from_slice(&split.labels),
            count: split.len(),
            deviation: 0.0,
            answer,
            text: Some(Windows::new(split, [*channels, *length], answer)),
        }
    }

    /// What is to be answered to a sample.
    pub fn answer(&self) -> Answer {
        self.answer
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The class of every sample.
    pub fn classes(&self) -> Vec<i64> {
        let mut classes = vec![0; self.count];
        self.labels.copy_data(&mut classes, self.count);
        classes
    }

    /// Channels-last samples `[B, C, H, W]` and their labels, as [`Answer`] takes them.
    pub fn batch(&self, indices: &[i64]) -> (Tensor, Tensor) {
        if let Some(text) = &self.text {
            return text.batch(indices, Change::Nothing, &mut seeds::stream(0, Purpose::Augment, 0));
        }
        no_grad(|| {
            let index = Tensor::from_slice(indices);
            let [c, h, w] = self.shape;
            let x = self.values.index_select(0, &index).reshape([-1, c, h, w]);
            (channels_last(&x), self.labels.index_select(0, &index))
        })
    }

    /// As [`Self::batch`], each sample changed at random by `augment`.
    pub fn augmented(&self, indices: &[i64], augment: &Augment, rng: &mut ChaCha8Rng) -> (Tensor, Tensor) {
        if let Some(text) = &self.text {
            return text.batch(indices, augment.text, rng);
        }
        let (x, labels) = self.batch(indices);
        (no_grad(|| channels_last(&augment.apply(self.dim, &x, self.deviation, rng))), labels)
    }
}

/// How far samples are changed at random.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augment {
    /// Largest rotation of an image in degrees.
    pub rotate_degrees: f32,
    /// Largest relative change of size (of duration, for a series).
    pub stretch: f32,
    /// Largest shift as a share of the length of an axis.
    pub shift: f32,
    /// Amplitude of a smooth warp of time as a share of the length.
    pub warp: f32,
    /// Standard deviation of a random factor, series only.
    pub gain: f32,
    /// Standard deviation of added noise relative to that of the data, series only.
    pub jitter: f32,
    /// Text only.
    pub text: Change,
}

impl Augment {
    /// What helps small classifiers and keeps labels true.
    pub fn for_dim(dim: Dim) -> Self {
        let text = Change::InsideAndCut;
        match dim {
            Dim::Image => Self {
                rotate_degrees: 10.0,
                stretch: 0.1,
                shift: 0.08,
                warp: 0.0,
                gain: 0.0,
                jitter: 0.0,
                text,
            },
            Dim::Series => Self {
                rotate_degrees: 0.0,
                stretch: 0.05,
                shift: 0.03,
                warp: 0.01,
                gain: 0.1,
                jitter: 0.05,
                text,
            },
        }
    }

    fn apply(&self, dim: Dim, x: &Tensor, deviation: f64, rng: &mut ChaCha8Rng) -> Tensor {
        let size = x.size();
        let (n, w) = (size[0], size[3]);
        let count = usize::try_from(n).unwrap_or(0);
        let symmetric = |limit: f32, rng: &mut ChaCha8Rng| {
            if limit > 0.0 { rng.random_range(-limit..limit) } else { 0.0 }
        };
        let mut theta = Vec::with_capacity(count * 6);
        let (mut phase, mut waves, mut amplitude, mut gain) = (vec![], vec![], vec![], vec![]);
        for _ in 0..count {
            let angle = symmetric(self.rotate_degrees, rng).to_radians();
            let (along_x, along_y) = (1.0 + symmetric(self.stretch, rng), 1.0 + symmetric(self.stretch, rng));
            // The grid spans -1 to 1, so a share of the length counts twice.
            let (shift_x, shift_y) = (2.0 * symmetric(self.shift, rng), 2.0 * symmetric(self.shift, rng));
            let (sin, cos) = angle.sin_cos();
            match dim {
                Dim::Image => theta.extend([
                    cos * along_x,
                    -sin * along_x,
                    shift_x,
                    sin * along_y,
                    cos * along_y,
                    shift_y,
                ]),
                Dim::Series => theta.extend([along_x, 0.0, shift_x, 0.0, 1.0, 0.0]),
            }
            phase.push(rng.random_range(0.0..std::f32::consts::TAU));
            waves.push(rng.random_range(1.0f32..4.0));
            amplitude.push(2.0 * symmetric(self.warp, rng));
            gain.push(1.0 + self.gain * seeds::normal(rng));
        }
        let theta = Tensor::from_slice(&theta).reshape([n, 2, 3]);
        let mut grid = Tensor::affine_grid_generator(&theta, &size, false);
        if self.warp > 0.0 {
            let along = Tensor::linspace(0.0, f64::from(std::f32::consts::PI), w, (Kind::Float, x.device()));
            let column = |values: &[f32]| Tensor::from_slice(values).reshape([n, 1, 1]);
            let wave =
                (along.reshape([1, 1, w]) * column(&waves) + column(&phase)).sin() * column(&amplitude);
            let zeros = wave.zeros_like();
            grid += Tensor::stack(&[wave, zeros], 3);
        }
        // Images are dark beyond their border; a series goes on as it ended.
        let padding_mode = i64::from(dim == Dim::Series);
        let mut out = x.grid_sampler_2d(&grid, 0, padding_mode, false);
        if self.gain > 0.0 {
            out *= Tensor::from_slice(&gain).reshape([n, 1, 1, 1]);
        }
        if self.jitter > 0.0 {
            let noise: Vec<f32> = (0..out.numel()).map(|_| seeds::normal(rng)).collect();
            out += Tensor::from_slice(&noise).reshape(&size) * (f64::from(self.jitter) * deviation);
        }
        out
    }
}

/// Batches that go through all samples in random order, again and again; step `i` is always the same batch.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    seed: u64,
    purpose: Purpose,
    count: usize,
    batch: usize,
}

impl Order {
    /// Over `count` samples, `batch` at a time.
    pub fn new(seed: u64, purpose: Purpose, count: usize, batch: usize) -> Self {
        Self { seed, purpose, count, batch: batch.clamp(1, count.max(1)) }
    }

    /// Steps of one pass; a rest smaller than a batch is left out of that pass.
    pub fn steps_per_epoch(&self) -> u64 {
        (self.count / self.batch).max(1) as u64
    }

    /// All batches of one pass.
    pub fn epoch(&self, epoch: u64) -> Vec<Vec<i64>> {
        let mut all: Vec<i64> = (0..self.count as i64).collect();
        seeds::shuffle(&mut all, &mut seeds::stream(self.seed, self.purpose, epoch));
        all.chunks_exact(self.batch).map(<[i64]>::to_vec).collect()
    }
}

/// The batches of an [`Order`] by their number, of which one pass is kept.
#[derive(Debug)]
pub struct Batches {
    order: Order,
    pass: Option<(u64, Vec<Vec<i64>>)>,
}

impl Batches {
    /// Of all passes of `order`.
    pub fn new(order: Order) -> Self {
        Self { order, pass: None }
    }

    /// Steps of one pass.
    pub fn steps_per_epoch(&self) -> u64 {
        self.order.steps_per_epoch()
    }

    /// The batch of step `number`.
    pub fn get(&mut self, number: u64) -> &[i64] {
        let per_epoch = self.steps_per_epoch();
        let (epoch, index) = (number / per_epoch, (number % per_epoch) as usize);
        let pass = self.pass.take().filter(|pass| pass.0 == epoch);
        let (_, batches) = self.pass.insert(pass.unwrap_or_else(|| (epoch, self.order.epoch(epoch))));
        &batches[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::to_vec;

    #[test]
    fn augmentation_repeats_by_seed_and_changes_every_sample() {
        for (dim, shape) in [(Dim::Image, vec![1, 12, 12]), (Dim::Series, vec![2, 40])] {
            let elements: usize = shape.iter().product();
            let values: Vec<f32> = (0..4 * elements).map(|i| (i as f32 * 0.37).sin()).collect();
            let samples = Samples::new(
                &Split { samples: values, labels: vec![0, 1, 0, 1], ..Split::default() },
                &shape,
            );
            let augment = Augment::for_dim(dim);
            let draw = |step| {
                let mut rng = seeds::stream(5, Purpose::Augment, step);
                to_vec(&samples.augmented(&[0, 1, 2, 3], &augment, &mut rng).0)
            };
            assert_eq!(draw(0), draw(0));
            assert_ne!(draw(0), draw(1));
            let plain = to_vec(&samples.batch(&[0, 1, 2, 3]).0);
            for (changed, plain) in draw(0).chunks(elements).zip(plain.chunks(elements)) {
                assert!(changed.iter().all(|value| value.is_finite()));
                assert_ne!(changed, plain);
            }
        }
    }

    #[test]
    fn an_epoch_visits_every_sample_once_in_an_order_of_its_own() {
        let order = Order::new(3, Purpose::TrainOrder, 12, 4);
        let mut seen: Vec<i64> = order.epoch(0).concat();
        assert_ne!(order.epoch(0), order.epoch(1));
        seen.sort_unstable();
        assert_eq!(seen, (0..12).collect::<Vec<i64>>());
        assert_eq!(order.steps_per_epoch(), 3);
    }
}
