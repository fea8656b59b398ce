//! Optimisers over flat buffers whose whole state can be written to a checkpoint.

use tch::{Device, Kind, Tensor, no_grad};

/// Stochastic gradient descent with Nesterov momentum and decoupled choice of what decays.
#[derive(Debug)]
pub struct Sgd {
    momentum: f64,
    weight_decay: f64,
    /// Running mean of gradients, as long as the parameters.
    pub velocity: Tensor,
}

impl Sgd {
    /// For `len` parameters.
    pub fn new(len: usize, momentum: f64, weight_decay: f64) -> Self {
        Self { momentum, weight_decay, velocity: zeros(len) }
    }

    /// One step on `values`; `decay` is 1 where weight decay applies.
    pub fn step(&mut self, values: &mut Tensor, gradient: &Tensor, decay: &Tensor, rate: f64) {
        no_grad(|| {
            let gradient = gradient + (&*values * decay) * self.weight_decay;
            let _ = self.velocity.g_mul_scalar_(self.momentum).g_add_(&gradient);
            let step = gradient + &self.velocity * self.momentum;
            let _ = values.g_sub_(&(step * rate));
        });
    }
}

/// Adam (Kingma and Ba 2015) with decoupled weight decay (Loshchilov and Hutter 2019).
#[derive(Debug)]
pub struct Adam {
    beta1: f64,
    beta2: f64,
    weight_decay: f64,
    /// First moment.
    pub mean: Tensor,
    /// Second moment.
    pub square: Tensor,
    /// Steps done.
    pub steps: u64,
}

impl Adam {
    /// For `len` parameters.
    pub fn new(len: usize, betas: (f64, f64), weight_decay: f64) -> Self {
        Self { beta1: betas.0, beta2: betas.1, weight_decay, mean: zeros(len), square: zeros(len), steps: 0 }
    }

    /// One step on `values`; `decay` is 1 where weight decay applies.
    pub fn step(&mut self, values: &mut Tensor, gradient: &Tensor, decay: &Tensor, rate: f64) {
        self.steps += 1;
        let exponent = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let (correct1, correct2) = (1.0 - self.beta1.powi(exponent), 1.0 - self.beta2.powi(exponent));
        no_grad(|| {
            let _ = self.mean.g_mul_scalar_(self.beta1).g_add_(&(gradient * (1.0 - self.beta1)));
            let _ = self.square.g_mul_scalar_(self.beta2).g_add_(&(gradient * gradient * (1.0 - self.beta2)));
            if self.weight_decay > 0.0 {
                let shrink = &*values * decay * (rate * self.weight_decay);
                let _ = values.g_sub_(&shrink);
            }
            let scale = (&self.square / correct2).sqrt() + 1e-8;
            let _ = values.g_sub_(&(&self.mean / scale * (rate / correct1)));
        });
    }
}

fn zeros(len: usize) -> Tensor {
    Tensor::zeros([i64::try_from(len).unwrap_or(0)], (Kind::Float, Device::Cpu))
}

/// What brings the norm of `gradient` down to `limit`; 1 where it is not above.
pub fn clip_factor(gradient: &Tensor, limit: f64) -> f64 {
    let norm = no_grad(|| gradient.norm().double_value(&[]));
    if norm > limit { limit / norm } else { 1.0 }
}

/// Scales `gradient` so that its norm is at most `limit`.
pub fn clip(gradient: &Tensor, limit: f64) -> Tensor {
    let factor = clip_factor(gradient, limit);
    if factor < 1.0 { no_grad(|| gradient * factor) } else { gradient.shallow_clone() }
}

/// A rate that rises linearly over the first `warm` share of the steps and falls as a half cosine to zero.
pub fn one_cycle(peak: f64, step: u64, total: u64, warm: f64) -> f64 {
    let position = (step as f64 + 0.5) / total.max(1) as f64;
    if position < warm {
        peak * (position / warm)
    } else {
        let rest = ((position - warm) / (1.0 - warm)).min(1.0);
        peak * 0.5 * (1.0 + (std::f64::consts::PI * rest).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::to_vec;

    /// Minimises (x - 3)² + (y + 1)² from zero.
    fn settle(mut step: impl FnMut(&mut Tensor, &Tensor, &Tensor)) -> Vec<f32> {
        let (mut values, target) = (zeros(2), Tensor::from_slice(&[3f32, -1.0]));
        let decay = zeros(2);
        for _ in 0..300 {
            let gradient = (&values - &target) * 2.0;
            step(&mut values, &gradient, &decay);
        }
        to_vec(&values)
    }

    #[test]
    fn both_optimisers_find_a_minimum() {
        let mut sgd = Sgd::new(2, 0.9, 1e-2);
        let mut adam = Adam::new(2, (0.9, 0.999), 0.0);
        for found in [
            settle(|values, gradient, decay| sgd.step(values, gradient, decay, 0.02)),
            settle(|values, gradient, decay| adam.step(values, gradient, decay, 0.1)),
        ] {
            assert!((found[0] - 3.0).abs() < 0.02 && (found[1] + 1.0).abs() < 0.02, "{found:?}");
        }
    }

    #[test]
    fn the_rate_rises_then_falls_to_zero() {
        let rates: Vec<f64> = (0..100).map(|step| one_cycle(1.0, step, 100, 0.2)).collect();
        assert!(rates[0] < 0.1 && rates[19] > 0.9 && rates[99] < 0.01);
    }
}
