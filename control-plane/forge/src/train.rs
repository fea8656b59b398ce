//! Training of a derived network: SGD with momentum under one cycle of the rate, label smoothing, augmentation, and
//! an average over the last steps that is what gets exported.

use crate::{
    batch::{Augment, Batches, Order, Samples},
    checkpoint, distil,
    network::Network,
    optim::{self, Sgd},
    params::channels_last,
    precision::Precision,
    seeds::{self, Purpose},
};
use serde::{Deserialize, Serialize};
use tch::Tensor;

pub(crate) const LABEL_SMOOTHING: f64 = 0.05;
pub(crate) const MOMENTUM: f64 = 0.9;
const WEIGHT_DECAY: f64 = 5e-4;
const GRADIENT_NORM_MAX: f64 = 5.0;
/// The average reaches back over this share of the steps.
const AVERAGE_SHARE: f64 = 0.04;
/// Samples in one step of a large set; small sets use less, for more steps.
const BATCH_MAX: usize = 128;
/// Steps that one pass should have at least.
const STEPS_PER_EPOCH_MIN: usize = 4;
/// Samples in one forward pass of an evaluation.
const EVALUATION_BATCH: usize = 500;
/// Training sets from this size on give a fiftieth away to watch progress on.
const HELD_BACK_FROM: usize = 5000;
/// Share of the steps after which mirrored images are tried.
const MIRROR_FROM: f64 = 0.15;
/// Share of its right answers that a network keeps on mirrored images, of which it has seen none, where labels survive
/// mirroring: of digits it keeps less than half, of clothes most.
const MIRROR_KEPT_MIN: f64 = 0.6;
/// Images that are looked at for it.
const MIRROR_LOOK: usize = 1000;
/// Erasing parts of images pays where each image is seen so many times.
const ERASE_FROM_PASSES: u64 = 12;

/// How to train.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Passes over the training data.
    pub epochs: u32,
    /// Most steps, where that ends it sooner.
    pub steps_max: Option<u64>,
    /// Highest rate.
    pub rate: f64,
    /// How samples are changed.
    pub augment: Augment,
}

/// What is learned step by step, and goes on from a checkpoint as if it had never stopped.
pub trait Course {
    /// Steps done and steps in all.
    fn progress(&self) -> (u64, u64);
    /// One step; gives its loss.
    fn step(&mut self) -> f64;
    /// Share of right answers on what is held back, 0 to 1; `None` where nothing is.
    fn accuracy(&mut self) -> Option<f64>;
    /// What a checkpoint needs beside the number of steps.
    fn save(&self) -> Vec<(&'static str, Tensor)>;
    /// Goes on from a checkpoint of `step` steps.
    ///
    /// # Errors
    /// A sentence, if it is not one of this course.
    fn restore(&mut self, step: u64, tensor: &mut dyn FnMut(&str) -> Option<Tensor>) -> Result<(), String>;
}

/// What a training's checkpoint says beside its tensors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainState {
    /// Steps done.
    pub step: u64,
}

/// A training in progress.
#[derive(Debug)]
pub struct Training<'a> {
    samples: &'a Samples,
    teachers: &'a [Network],
    net: Network,
    sgd: Sgd,
    average: Tensor,
    average_stats: Tensor,
    plan: Plan,
    /// One value: 1 where images are mirrored, -1 while that is not known.
    mirrors: Tensor,
    batches: Batches,
    used: Vec<i64>,
    held_back: Vec<i64>,
    seed: u64,
    step: u64,
    total: u64,
}

impl<'a> Training<'a> {
    /// Trains `net` on, from the weights that it has.
    pub fn new(net: Network, samples: &'a Samples, plan: Plan, seed: u64) -> Self {
        let mut used: Vec<i64> = (0..samples.len() as i64).collect();
        // Windows of a running text that lie side by side share characters: its end is held back.
        if !samples.answer().is_causal() {
            seeds::shuffle(&mut used, &mut seeds::stream(seed, Purpose::Split, 1));
        }
        let held_back =
            if used.len() >= HELD_BACK_FROM { used.split_off(used.len() - used.len() / 50) } else { vec![] };
        let batch = batch_of(used.len());
        let batches = Batches::new(Order::new(seed, Purpose::TrainOrder, used.len(), batch));
        let total = batches.steps_per_epoch() * u64::from(plan.epochs);
        let total = plan.steps_max.map_or(total, |most| total.min(most.max(1)));
        let mut plan = plan;
        if total / batches.steps_per_epoch().max(1) < ERASE_FROM_PASSES {
            plan.augment.erase = 0.0;
        }
        Self {
            mirrors: Tensor::from_slice(&[-1f32]),
            samples,
            teachers: &[],
            sgd: Sgd::new(net.params.len(), MOMENTUM, WEIGHT_DECAY),
            average: net.params.flat().copy(),
            average_stats: net.stats.flat().copy(),
            net,
            plan,
            batches,
            used,
            held_back,
            seed,
            step: 0,
            total,
        }
    }

    /// Has it learn from the answers of `teachers` too.
    pub fn taught_by(self, teachers: &'a [Network]) -> Self {
        Self { teachers, ..self }
    }

    /// Steps of one pass over the training data.
    pub fn steps_per_epoch(&self) -> u64 {
        self.batches.steps_per_epoch()
    }

    /// Whether mirrored images are trained on; decided early, and not before.
    pub fn mirrors_images(&self) -> bool {
        self.plan.augment.mirror && self.mirrors.double_value(&[0]) > 0.0
    }

    fn labels_survive_mirroring(&mut self) -> bool {
        self.with_average(|net, training| {
            let from = if training.held_back.is_empty() { &training.used } else { &training.held_back };
            let some = &from[..from.len().min(MIRROR_LOOK)];
            let right = |mirrored| share_right(net, training.samples, some, mirrored);
            right(true) >= right(false) * MIRROR_KEPT_MIN
        })
    }

    /// What `look` makes of the network with the average weights; it has its own again afterwards.
    fn with_average<T>(&mut self, look: impl FnOnce(&Network, &Self) -> T) -> T {
        let (weights, stats) = (self.net.params.flat().copy(), self.net.stats.flat().copy());
        self.net.params.set_flat(&self.average);
        self.net.stats.set_flat(&self.average_stats);
        let found = look(&self.net, self);
        self.net.params.set_flat(&weights);
        self.net.stats.set_flat(&stats);
        found
    }

    /// The network with the average weights.
    pub fn finish(mut self) -> Network {
        self.net.params.set_flat(&self.average);
        self.net.stats.set_flat(&self.average_stats);
        self.net
    }
}

impl Course for Training<'_> {
    fn progress(&self) -> (u64, u64) {
        (self.step, self.total)
    }

    fn step(&mut self) -> f64 {
        let chosen: Vec<i64> = self.batches.get(self.step).iter().map(|at| self.used[*at as usize]).collect();
        let mut rng = seeds::stream(self.seed ^ 0x7261_696e, Purpose::Augment, self.step);
        if self.plan.augment.mirror && self.step == (self.total as f64 * MIRROR_FROM) as u64 {
            let survive = self.labels_survive_mirroring();
            let _ = self.mirrors.fill_(f64::from(u8::from(survive)));
        }
        let augment = Augment { mirror: self.mirrors_images(), ..self.plan.augment };
        let (x, labels) = self.samples.augmented(&chosen, &augment, &mut rng);
        let answer = self.samples.answer();
        // What writes text is judged by its probabilities: they are not to be smoothed.
        let smoothing = if answer.is_causal() { 0.0 } else { LABEL_SMOOTHING };
        let weights = self.samples.weights();
        let hard = |logits: &Tensor| answer.weighted_loss(logits, &labels, smoothing, weights);
        let precision = Precision::of(x.device());
        let loss = if self.teachers.is_empty() {
            hard(&precision.compute(|| self.net.forward(&x, true)))
        } else {
            let pupil = precision.compute(|| self.net.traced(&x, true));
            let hard = hard(&pupil.logits);
            distil::loss(answer, self.teachers, &x, &pupil, hard)
        };
        let rate = optim::one_cycle(self.plan.rate, self.step, self.total, 0.15);
        self.sgd.learn(&self.net.params, &loss, GRADIENT_NORM_MAX, rate);
        let flat = self.net.params.flat();
        self.step += 1;
        let window = (self.total as f64 * AVERAGE_SHARE).max(4.0);
        let newest = (1.0 / self.step as f64).max(1.0 / window);
        tch::no_grad(|| {
            let _ = self.average.lerp_(&flat, newest);
            let _ = self.average_stats.lerp_(&self.net.stats.flat(), newest);
        });
        loss.double_value(&[])
    }

    /// Of the average weights; small sets hold nothing back.
    fn accuracy(&mut self) -> Option<f64> {
        if self.held_back.is_empty() {
            return None;
        }
        Some(self.with_average(|net, training| accuracy(net, training.samples, &training.held_back)))
    }

    fn save(&self) -> Vec<(&'static str, Tensor)> {
        vec![
            ("weights", self.net.params.flat()),
            ("stats", self.net.stats.flat()),
            ("velocity", self.sgd.velocity.shallow_clone()),
            ("average", self.average.shallow_clone()),
            ("average_stats", self.average_stats.shallow_clone()),
            ("mirrors", self.mirrors.shallow_clone()),
        ]
    }

    fn restore(&mut self, step: u64, tensor: &mut dyn FnMut(&str) -> Option<Tensor>) -> Result<(), String> {
        if step > self.total {
            return Err("the checkpoint is of another training".to_owned());
        }
        checkpoint::copy_back(&self.save(), tensor)?;
        self.step = step;
        Ok(())
    }
}

/// Samples in one step of a training on `count` samples.
pub fn batch_of(count: usize) -> usize {
    BATCH_MAX.min(count / STEPS_PER_EPOCH_MIN).max(2)
}

/// Share of the labels of the samples at `indices` that `net` meets.
pub fn accuracy(net: &Network, samples: &Samples, indices: &[i64]) -> f64 {
    share_right(net, samples, indices, false)
}

fn share_right(net: &Network, samples: &Samples, indices: &[i64], mirrored: bool) -> f64 {
    let (mut right, mut of) = (0, 0);
    for chunk in indices.chunks(EVALUATION_BATCH) {
        let (x, labels) = samples.batch(chunk);
        let x = if mirrored { channels_last(&x.flip([3])) } else { x };
        let (met, count) = net.right(&x, &labels);
        right += met;
        of += count;
    }
    right as f64 / of.max(1) as f64
}

#[cfg(test)]
mod tests;
