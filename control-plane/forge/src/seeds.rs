//! Randomness that can be resumed: every use draws from its own stream, named by the job's seed, a purpose and a
//! step, so that a checkpoint needs no generator state and libtorch's global generator is never touched.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What a stream of random numbers is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Splitting the training data for the search.
    Split = 1,
    /// First weights of the supernet.
    SupernetWeights = 2,
    /// First architecture weights.
    Alpha = 3,
    /// Order of samples in the search.
    SearchOrder = 4,
    /// First weights of the derived network.
    NetworkWeights = 5,
    /// Order of samples in training.
    TrainOrder = 6,
    /// Augmentation in training.
    Augment = 7,
    /// Calibration and golden samples.
    Samples = 8,
    /// Which operation a Gumbel-softmax takes on each edge, in weight steps and in architecture steps.
    Gumbel = 9,
    /// Which skip connections are dropped in a step.
    SkipDropout = 10,
    /// Cells to train for themselves.
    Cells = 11,
    /// The path through a supernet that a step trains.
    Path = 12,
    /// Parents, crossings and mutations.
    Evolution = 13,
    /// Seeds of a job's parts.
    Derived = 14,
    /// First weights of what a pretext needs beside the network.
    PretextWeights = 15,
    /// Order of samples in a pretext.
    PretextOrder = 16,
    /// What a pretext hides or changes.
    Pretext = 17,
    /// Which samples keep their labels.
    Labelled = 18,
    /// Normal samples that draw the line of a model that finds anomalies.
    NormalHeldBack = 40,
    /// How anomalies are made of normal samples.
    Anomalies = 41,
    /// Samples that a compression is judged by.
    HeldBack = 30,
    /// Order of samples in the retraining behind a step of the compression.
    RetrainOrder = 31,
    /// Augmentation there.
    RetrainAugment = 32,
    /// Which samples a layer's rounding is learned from, step by step.
    Rounding = 33,
}

/// The stream of one purpose at one step.
pub fn stream(seed: u64, purpose: Purpose, step: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(purpose as u64).to_le_bytes());
    key[16..24].copy_from_slice(&step.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// A seed of its own for one of several that a job of `seed` does alike.
pub fn derived(seed: u64, index: u32) -> u64 {
    stream(seed, Purpose::Derived, u64::from(index)).random()
}

/// One draw from the standard normal distribution (Box and Muller).
pub fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let u: f32 = rng.random_range(f32::EPSILON..1.0);
    let v: f32 = rng.random_range(0.0..std::f32::consts::TAU);
    (-2.0 * u.ln()).sqrt() * v.cos()
}

/// Puts `items` into random order (Fisher and Yates).
pub fn shuffle<T>(items: &mut [T], rng: &mut ChaCha8Rng) {
    for last in (1..items.len()).rev() {
        items.swap(last, rng.random_range(0..=last));
    }
}
