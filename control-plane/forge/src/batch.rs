//! From samples, in memory or in a file, to batches of tensors, with augmentation. All of it happens on the processor; a batch
//! that is done goes to the device.

mod made;
mod text;

pub use text::Change;

use crate::{
    answer::Answer,
    data::{Split, balance},
    device,
    genotype::Dim,
    params::channels_last,
    seeds::{self, Purpose},
};
use made::Made;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use shared::{job::DatasetSchema, manifest::Task};
use std::sync::OnceLock;
use tch::{Kind, Tensor, no_grad};
use text::Windows;

/// Samples and labels, of which each batch becomes tensors.
#[derive(Debug)]
pub struct Samples {
    dim: Dim,
    /// `[C, H, W]`; H is 1 for a series.
    shape: [i64; 3],
    /// Without samples where they are text.
    split: Split,
    /// `[N]`.
    labels: Tensor,
    count: usize,
    /// Mean and variance of all values, once somebody asked.
    moments: OnceLock<(f64, f64)>,
    /// What a sample of each class counts for, `[classes]`, where classes are unbalanced; on the device.
    weights: Option<Tensor>,
    answer: Answer,
    text: Option<Windows>,
    made: Option<Made>,
}

impl Samples {
    /// Of a split whose samples have `shape` (`[C, L]` or `[C, H, W]`).
    pub fn new(split: &Split, shape: &[usize]) -> Self {
        let (dim, shape) = match *shape {
            [c, l] => (Dim::Series, [c as i64, 1, l as i64]),
            [c, h, w] => (Dim::Image, [c as i64, h as i64, w as i64]),
            _ => (Dim::Series, [1, 1, shape.iter().product::<usize>() as i64]),
        };
        let labels = Tensor::from_slice(&split.labels);
        Self {
            dim,
            shape,
            split: split.clone(),
            labels,
            count: split.len(),
            moments: OnceLock::new(),
            weights: None,
            answer: Answer::Class,
            text: None,
            made: None,
        }
    }

    /// Of `split`, whose first `normal` samples are normal and the others anomalies made of them, in their order: an augmented
    /// batch has others made each time.
    pub fn made_of(self, normal: usize, split: &Split, shape: &[usize]) -> Self {
        Self { made: Some(Made::new(shape, &split.samples, normal)), ..self }
    }

    /// Of a split of the data set with this schema.
    pub fn of(split: &Split, schema: &DatasetSchema) -> Self {
        let ([channels, length], Some(_)) = (&schema.shape[..], &schema.text) else {
            let weighed = matches!(schema.task, Task::ImageClassification | Task::SeriesClassification);
            let weights = balance::weights(&split.labels, schema.labels.len()).filter(|_| weighed);
            let weights = weights.map(|weights| device::put(&Tensor::from_slice(&weights)));
            return Self { weights, ..Self::new(split, &schema.shape) };
        };
        let answer = Answer::of(schema);
        Self {
            dim: Dim::Series,
            shape: [*channels as i64, 1, *length as i64],
            split: Split::default(),
            labels: Tensor::from_slice(&split.labels),
            count: split.len(),
            moments: OnceLock::new(),
            weights: None,
            answer,
            text: Some(Windows::new(split, [*channels, *length], answer)),
            made: None,
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

    /// Axes that a network slides over.
    pub fn dim(&self) -> Dim {
        self.dim
    }

    /// Mean and variance of all values; the first call reads them all.
    pub fn moments(&self) -> (f64, f64) {
        *self.moments.get_or_init(|| {
            let (mut row, mut of, mut sum, mut squares) = (Vec::new(), 0u64, 0f64, 0f64);
            // Summed around the first value: far from zero squares would lose what tells them apart.
            let mut first = None;
            for sample in 0..self.count {
                row.clear();
                self.split.values(sample, &[self.each()], &mut row);
                let around = f64::from(*first.get_or_insert(row.first().copied().unwrap_or_default()));
                for value in &row {
                    let apart = f64::from(*value) - around;
                    sum += apart;
                    squares += apart * apart;
                }
                of += row.len() as u64;
            }
            let of = of.max(1) as f64;
            let mean = sum / of;
            (f64::from(first.unwrap_or_default()) + mean, (squares / of - mean * mean).max(0.0))
        })
    }

    /// What a sample of each class counts for in training, `[classes]`; `None` where all count alike.
    pub fn weights(&self) -> Option<&Tensor> {
        self.weights.as_ref()
    }

    /// Values of a sample.
    fn each(&self) -> usize {
        self.shape.iter().map(|axis| usize::try_from(*axis).unwrap_or(0)).product()
    }

    /// The class of every sample.
    pub fn classes(&self) -> Vec<i64> {
        let mut classes = vec![0; self.count];
        self.labels.copy_data(&mut classes, self.count);
        classes
    }

    /// Channels-last samples `[B, C, H, W]` and their labels, as [`Answer`] takes them, on the device.
    pub fn batch(&self, indices: &[i64]) -> (Tensor, Tensor) {
        put(self.taken(indices))
    }

    /// The same where the samples are.
    fn taken(&self, indices: &[i64]) -> (Tensor, Tensor) {
        if let Some(text) = &self.text {
            return text.batch(indices, Change::Nothing, &mut seeds::stream(0, Purpose::Augment, 0));
        }
        no_grad(|| {
            let index = Tensor::from_slice(indices);
            let [c, h, w] = self.shape;
            let each = self.each();
            let mut values = Vec::with_capacity(indices.len() * each);
            for sample in indices.iter().filter_map(|sample| usize::try_from(*sample).ok()) {
                self.split.values(sample, &[each], &mut values);
            }
            let x = Tensor::from_slice(&values).reshape([-1, c, h, w]);
            (channels_last(&x), self.labels.index_select(0, &index))
        })
    }

    /// As [`Self::batch`], each sample changed at random by `augment`.
    pub fn augmented(&self, indices: &[i64], augment: &Augment, rng: &mut ChaCha8Rng) -> (Tensor, Tensor) {
        if let Some(text) = &self.text {
            return put(text.batch(indices, augment.text, rng));
        }
        if let Some(made) = &self.made {
            return put(made.batch(self, indices, augment, rng));
        }
        let (x, labels) = self.taken(indices);
        put((no_grad(|| channels_last(&self.changed(&x, augment, rng))), labels))
    }

    /// `x` changed at random by `augment`, which adds noise by the deviation of all values.
    fn changed(&self, x: &Tensor, augment: &Augment, rng: &mut ChaCha8Rng) -> Tensor {
        let deviation = if augment.jitter > 0.0 { self.moments().1.sqrt() } else { 0.0 };
        augment.apply(self.dim, x, deviation, rng)
    }
}

fn put((x, labels): (Tensor, Tensor)) -> (Tensor, Tensor) {
    (device::put(&x), device::put(&labels))
}

/// The samples of `split` at `indices` with their labels, as numbers of `shape`; those that it does not have are left out.
pub fn picked(split: &Split, shape: &[usize], indices: impl IntoIterator<Item = usize>) -> Split {
    let mut picked = Split::default();
    for index in indices {
        if let Some(label) = split.labels.get(index) {
            split.values(index, shape, &mut picked.samples);
            picked.labels.push(*label);
        }
    }
    picked
}

/// Series shorter than this are not moved along time: it would be by less than two positions, which only blurs them, and
/// where so little is seen the place itself says much.
const MOVED_FROM: i64 = 64;
/// They are so many times as noisy instead: `ItalyPowerDemand`, 24 positions and 67 samples, was told at 0.950 when moved, at 0.958
/// when not, and at 0.965 with the noise (a network of residual blocks, four seeds).
const STILL_JITTER: f32 = 4.0;

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
    /// Whether every other image is mirrored, left to right.
    pub mirror: bool,
    /// Longest side of the dark rectangle on every other image (Zhong et al. 2020, "Random Erasing"), as a share of the
    /// image's; none where it is 0.
    pub erase: f32,
    /// Text only.
    pub text: Change,
}

impl Augment {
    /// Samples as they are.
    pub const NONE: Self = Self {
        rotate_degrees: 0.0,
        stretch: 0.0,
        shift: 0.0,
        warp: 0.0,
        gain: 0.0,
        jitter: 0.0,
        mirror: false,
        erase: 0.0,
        text: Change::Nothing,
    };

    /// What helps small classifiers and keeps labels true.
    pub fn for_dim(dim: Dim) -> Self {
        match dim {
            Dim::Image => Self { rotate_degrees: 10.0, stretch: 0.1, shift: 0.08, ..Self::NONE },
            Dim::Series => Self {
                stretch: 0.05,
                shift: 0.03,
                warp: 0.01,
                gain: 0.1,
                jitter: 0.05,
                text: Change::InsideAndCut,
                ..Self::NONE
            },
        }
    }

    /// Everything but the noise `times` as far.
    pub fn stronger(self, times: f32) -> Self {
        Self {
            rotate_degrees: self.rotate_degrees * times,
            stretch: self.stretch * times,
            shift: self.shift * times,
            warp: self.warp * times,
            gain: self.gain * times,
            ..self
        }
    }

    fn apply(&self, dim: Dim, x: &Tensor, deviation: f64, rng: &mut ChaCha8Rng) -> Tensor {
        let size = x.size();
        let (n, w) = (size[0], size[3]);
        let count = usize::try_from(n).unwrap_or(0);
        if size[2] * w == 1 {
            // A row of a table: nothing to move along, and no gain that all columns share.
            return self.jittered(x.copy(), deviation, rng);
        }
        if dim == Dim::Series && w < MOVED_FROM && self.stretch.max(self.shift).max(self.warp) > 0.0 {
            let jitter = self.jitter * STILL_JITTER;
            let still = Self { stretch: 0.0, shift: 0.0, warp: 0.0, jitter, ..*self };
            return still.apply(dim, x, deviation, rng);
        }
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
            let side = if self.mirror && rng.random_range(0.0..1.0f32) < 0.5 { -1.0 } else { 1.0 };
            match dim {
                Dim::Image => theta.extend([
                    side * cos * along_x,
                    side * -sin * along_x,
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
        if self.erase > 0.0 {
            out *= self.left_visible(&size, rng);
        }
        if self.gain > 0.0 {
            out *= Tensor::from_slice(&gain).reshape([n, 1, 1, 1]);
        }
        self.jittered(out, deviation, rng)
    }

    fn jittered(&self, x: Tensor, deviation: f64, rng: &mut ChaCha8Rng) -> Tensor {
        if self.jitter <= 0.0 {
            return x;
        }
        let noise: Vec<f32> = (0..x.numel()).map(|_| seeds::normal(rng)).collect();
        let noise = Tensor::from_slice(&noise).reshape(x.size());
        x + noise * (f64::from(self.jitter) * deviation)
    }

    /// 0 where an image of `[N, C, H, W]` is erased, 1 elsewhere: `[N, 1, H, W]`.
    fn left_visible(&self, size: &[i64], rng: &mut ChaCha8Rng) -> Tensor {
        let [n, h, w] = [size[0], size[2], size[3]].map(|axis| usize::try_from(axis).unwrap_or(0));
        let mut visible = vec![1f32; n * h * w];
        for image in visible.chunks_exact_mut((h * w).max(1)) {
            if rng.random_range(0.0..1.0f32) < 0.5 {
                continue;
            }
            let mut stretch = |length: usize| {
                let side = ((length as f32 * rng.random_range(0.0..self.erase)).ceil() as usize).min(length);
                let start = rng.random_range(0..=length - side);
                start..start + side
            };
            let (rows, columns) = (stretch(h), stretch(w));
            for row in rows {
                image[row * w..][columns.clone()].fill(0.0);
            }
        }
        Tensor::from_slice(&visible).reshape([size[0], 1, size[2], size[3]])
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
    fn mirrored_images_are_images_from_the_other_side_and_erased_ones_lack_a_rectangle() {
        let values: Vec<f32> = (0..8 * 100).map(|i| 1.0 + (i % 100) as f32).collect();
        let samples =
            Samples::new(&Split { samples: values, labels: vec![0; 8], ..Split::default() }, &[1, 10, 10]);
        let all: Vec<i64> = (0..8).collect();
        let draw = |augment: Augment| {
            let mut rng = seeds::stream(5, Purpose::Augment, 0);
            to_vec(&samples.augmented(&all, &augment, &mut rng).0)
        };
        let (plain, _) = samples.batch(&all);
        let (plain, other) = (to_vec(&plain), to_vec(&plain.flip([3])));
        let mirrored = draw(Augment { mirror: true, ..Augment::NONE });
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-2);
        let sides: Vec<bool> = mirrored.chunks(100).map(|image| near(image, &plain[..100])).collect();
        assert!(sides.contains(&true) && sides.contains(&false), "{sides:?}");
        for image in mirrored.chunks(100) {
            assert!(near(image, &plain[..100]) || near(image, &other[..100]));
        }
        let erased = draw(Augment { erase: 0.5, ..Augment::NONE });
        let dark: Vec<usize> =
            erased.chunks(100).map(|image| image.iter().filter(|value| **value == 0.0).count()).collect();
        assert!(dark.contains(&0) && dark.iter().any(|count| *count > 0), "{dark:?}");
        assert!(dark.iter().all(|count| *count <= 25));
    }

    #[test]
    fn a_short_series_is_not_moved_along_time() {
        let moved = |length: usize| {
            let values: Vec<f32> = (0..2 * length).map(|at| (at as f32 * 0.37).sin()).collect();
            let split = Split { samples: values, labels: vec![0, 1], ..Split::default() };
            let samples = Samples::new(&split, &[1, length]);
            let augment = Augment { gain: 0.0, jitter: 0.0, ..Augment::for_dim(Dim::Series) };
            let (x, _) = samples.augmented(&[0, 1], &augment, &mut seeds::stream(5, Purpose::Augment, 0));
            (x - samples.batch(&[0, 1]).0).abs().max().double_value(&[])
        };
        assert!(moved(24) < 1e-4, "{}", moved(24));
        assert!(moved(64) > 1e-2, "{}", moved(64));
    }

    /// A data set of two splits of `count` series each, in a file where memory has no room for it.
    fn opened(folder: &std::path::Path, memory_bytes: u64, count: u32) -> crate::data::Dataset {
        for part in ["TRAIN", "TEST"] {
            let row = |sample: u32| {
                let value = |at: u32| (f64::from(sample * 31 + at) * 0.7).sin() * 1e3 + 1e5;
                format!("{}\t{}\t{}\n", sample % 5 / 4, value(0), value(1))
            };
            std::fs::write(folder.join(format!("S_{part}.tsv")), (0..count).map(row).collect::<String>())
                .unwrap();
        }
        let room = crate::data::Room { file: folder.join("samples.bin"), memory_bytes };
        crate::data::open_within(folder, None, &room).unwrap()
    }

    #[test]
    fn batches_and_moments_of_samples_in_a_file_are_those_of_samples_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let [whole, stored] = [u64::MAX, 0].map(|memory_bytes| opened(folder.path(), memory_bytes, 40));
        assert!(whole.train.stored.is_none() && stored.train.stored.is_some());
        let [whole, stored] = [whole, stored].map(|set| Samples::of(&set.train, &set.schema));
        assert_eq!(whole.moments(), stored.moments());
        let augment = Augment::for_dim(Dim::Series);
        let draw = |samples: &Samples| {
            let mut rng = seeds::stream(5, Purpose::Augment, 1);
            let (x, labels) = samples.augmented(&[3, 39, 3, 0], &augment, &mut rng);
            (to_vec(&x), to_vec(&labels.to_kind(Kind::Float)), to_vec(&samples.batch(&[7, 1]).0))
        };
        assert_eq!(draw(&whole), draw(&stored));
        // Far from zero the deviation is still that of the values.
        let (mean, variance) = stored.moments();
        assert!((mean - 1e5).abs() < 200.0 && (variance.sqrt() - 707.0).abs() < 50.0, "{mean} {variance}");
    }

    #[test]
    fn samples_of_rare_classes_weigh_more() {
        let folder = tempfile::tempdir().unwrap();
        let weights = |count| {
            let set = opened(folder.path(), u64::MAX, count);
            Samples::of(&set.train, &set.schema).weights().map(to_vec)
        };
        // Four to one is still balanced.
        assert_eq!(weights(40), None);
        assert_eq!(weights(44), Some(vec![1.0, 36.0 / 16.0]));
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
