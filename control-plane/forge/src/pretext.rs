//! A start that needs no labels: the body of a network learns a pretext over all samples, and only then, with a new
//! head, the labels of those that have one.

mod contrastive;
mod masked;
#[cfg(test)]
mod tests;

use crate::{
    batch::{Batches, Order, Samples},
    checkpoint,
    network::Network,
    optim::{self, Sgd},
    params::Params,
    seeds::{self, Purpose},
    train::{Course, batch_of},
};
use rand_chacha::ChaCha8Rng;
use shared::job::Pretext;
use tch::Tensor;

const MOMENTUM: f64 = 0.9;
const WEIGHT_DECAY: f64 = 1e-4;
const GRADIENT_NORM_MAX: f64 = 5.0;
/// Highest rate.
const RATE: f64 = 0.05;
/// Share of the steps in which the rate rises.
const WARM: f64 = 0.1;
/// The loss that is told is the mean over this share of the steps, the last.
const TOLD_SHARE: u64 = 10;

/// What a network learns.
trait Objective: std::fmt::Debug {
    /// What it needs beside the network, and forgets afterwards.
    fn head(&self) -> &Params;
    /// The loss on the samples at `chosen`, an f32 scalar; its randomness comes from `rng`.
    fn loss(&self, net: &Network, samples: &Samples, chosen: &[i64], rng: &mut ChaCha8Rng) -> Tensor;
}

/// A pretext in progress.
#[derive(Debug)]
pub struct Pretraining<'a> {
    samples: &'a Samples,
    net: Network,
    objective: Box<dyn Objective>,
    sgd: Sgd,
    head_sgd: Sgd,
    batches: Batches,
    seed: u64,
    step: u64,
    total: u64,
    /// Sum and number of the losses that are told; a tensor of two, so that a checkpoint keeps it exactly.
    told: Tensor,
}

impl<'a> Pretraining<'a> {
    /// Over all `samples`, `epochs` passes or `steps_max` steps, whichever is less.
    pub fn new(
        pretext: Pretext,
        net: Network,
        samples: &'a Samples,
        epochs: u32,
        steps_max: Option<u64>,
        seed: u64,
    ) -> Self {
        let mut rng = seeds::stream(seed, Purpose::PretextWeights, 0);
        let objective: Box<dyn Objective> = match pretext {
            Pretext::Masked => Box::new(masked::Masked::new(net.skeleton(), samples, &mut rng)),
            Pretext::Contrastive => {
                Box::new(contrastive::Contrastive::new(net.skeleton(), samples.dim(), &mut rng))
            }
        };
        let count = samples.len();
        let batches = Batches::new(Order::new(seed, Purpose::PretextOrder, count, batch_of(count)));
        let total = batches.steps_per_epoch() * u64::from(epochs);
        Self {
            samples,
            sgd: Sgd::new(net.params.len(), MOMENTUM, WEIGHT_DECAY),
            head_sgd: Sgd::new(objective.head().len(), MOMENTUM, WEIGHT_DECAY),
            net,
            objective,
            batches,
            seed,
            step: 0,
            total: steps_max.map_or(total, |most| total.min(most.max(1))),
            told: Tensor::zeros([2], (tch::Kind::Float, tch::Device::Cpu)),
        }
    }

    /// Steps of one pass over the samples.
    pub fn steps_per_epoch(&self) -> u64 {
        self.batches.steps_per_epoch()
    }

    /// Mean loss of the last tenth of the steps so far; NaN before it.
    pub fn loss(&self) -> f64 {
        self.told.double_value(&[0]) / self.told.double_value(&[1])
    }

    /// The network, ready to be trained; its head has learned nothing.
    pub fn finish(mut self) -> Network {
        self.net.params.shorten();
        self.net
    }
}

impl Course for Pretraining<'_> {
    fn progress(&self) -> (u64, u64) {
        (self.step, self.total)
    }

    fn step(&mut self) -> f64 {
        let chosen = self.batches.get(self.step).to_vec();
        let mut rng = seeds::stream(self.seed, Purpose::Pretext, self.step);
        let loss = self.objective.loss(&self.net, self.samples, &chosen, &mut rng);
        let rate = optim::one_cycle(RATE, self.step, self.total, WARM);
        let both = [&self.net.params, self.objective.head()];
        self.sgd.learn_both(&mut self.head_sgd, both, &loss, GRADIENT_NORM_MAX, rate);
        self.step += 1;
        let loss = loss.double_value(&[]);
        if self.step + self.total / TOLD_SHARE >= self.total {
            tch::no_grad(|| {
                let _ = self.told.g_add_(&Tensor::from_slice(&[loss as f32, 1.0]));
            });
        }
        loss
    }

    fn accuracy(&mut self) -> Option<f64> {
        None
    }

    fn save(&self) -> Vec<(&'static str, Tensor)> {
        vec![
            ("weights", self.net.params.flat()),
            ("stats", self.net.stats.flat()),
            ("velocity", self.sgd.velocity.shallow_clone()),
            ("pretext.weights", self.objective.head().flat()),
            ("pretext.velocity", self.head_sgd.velocity.shallow_clone()),
            ("pretext.told", self.told.shallow_clone()),
        ]
    }

    fn restore(&mut self, step: u64, tensor: &mut dyn FnMut(&str) -> Option<Tensor>) -> Result<(), String> {
        if step > self.total {
            return Err("the checkpoint is of another pretext".to_owned());
        }
        checkpoint::copy_back(&self.save(), tensor)?;
        self.step = step;
        Ok(())
    }
}
