//! Optimisers over flat buffers whose whole state can be written to a checkpoint, and what keeps small gradients from
//! vanishing in mixed precision.

use crate::{device, params::Params, precision::Precision};
use tch::{Kind, Tensor, no_grad};

/// Stochastic gradient descent with Nesterov momentum and decoupled choice of what decays.
#[derive(Debug)]
pub struct Sgd {
    momentum: f64,
    weight_decay: f64,
    scale: LossScale,
    /// Running mean of gradients, as long as the parameters.
    pub velocity: Tensor,
}

impl Sgd {
    /// For `len` parameters, on the device.
    pub fn new(len: usize, momentum: f64, weight_decay: f64) -> Self {
        let scale = LossScale::of(Precision::of(device::get()));
        Self { momentum, weight_decay, scale, velocity: zeros(len) }
    }

    /// Moves `params` by the gradient of `loss`, clipped to `norm_max`; in mixed precision not at all where that is not finite.
    pub fn learn(&mut self, params: &Params, loss: &Tensor, norm_max: f64, rate: f64) {
        let gradient = self.scale.undo(params.gradients(&self.scale.apply(loss)));
        let norm = norm(&gradient);
        if self.scale.admits(norm.is_finite()) {
            self.step(&mut params.flat(), &clipped(&gradient, norm, norm_max), params.decay(), rate);
        }
    }

    /// [`Self::learn`] for two networks that `loss` depends on, by one backward pass; `other` is the optimiser of the second, and
    /// each gradient is clipped by itself.
    pub fn learn_both(
        &mut self,
        other: &mut Self,
        [params, others]: [&Params; 2],
        loss: &Tensor,
        norm_max: f64,
        rate: f64,
    ) {
        let (mine, theirs) = params.gradients_with(&self.scale.apply(loss), others);
        let [mine, theirs] = [mine, theirs].map(|gradient| self.scale.undo(gradient));
        let norms = [&mine, &theirs].map(norm);
        if self.scale.admits(norms.iter().all(|norm| norm.is_finite())) {
            self.step(&mut params.flat(), &clipped(&mine, norms[0], norm_max), params.decay(), rate);
            other.step(&mut others.flat(), &clipped(&theirs, norms[1], norm_max), others.decay(), rate);
        }
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
    Tensor::zeros([i64::try_from(len).unwrap_or(0)], (Kind::Float, device::get()))
}

/// What brings the norm of `gradient` down to `limit`; 1 where it is not above.
pub fn clip_factor(gradient: &Tensor, limit: f64) -> f64 {
    factor(norm(gradient), limit)
}

/// Scales `gradient` so that its norm is at most `limit`.
pub fn clip(gradient: &Tensor, limit: f64) -> Tensor {
    clipped(gradient, norm(gradient), limit)
}

fn norm(gradient: &Tensor) -> f64 {
    no_grad(|| gradient.norm().double_value(&[]))
}

fn factor(norm: f64, limit: f64) -> f64 {
    if norm > limit { limit / norm } else { 1.0 }
}

fn clipped(gradient: &Tensor, norm: f64, limit: f64) -> Tensor {
    let factor = factor(norm, limit);
    if factor < 1.0 { no_grad(|| gradient * factor) } else { gradient.shallow_clone() }
}

/// What a loss is multiplied by before the backward pass, and its gradient divided by afterwards, so that small gradients do
/// not vanish in f16 (Micikevicius et al. 2018, section 3.2). It falls where a gradient was too large for f16, and grows
/// again. In full precision it is 1 and does nothing. It is in no checkpoint: a few steps find it again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScale {
    factor: f64,
    /// Steps since it last changed.
    steps: u32,
    precision: Precision,
}

impl LossScale {
    const FIRST: f64 = 16_384.0;
    const MAX: f64 = 1_048_576.0;
    /// Steps in a row with finite gradients after which it is doubled.
    const GROWS_AFTER: u32 = 500;

    /// For a forward pass in this precision.
    pub fn of(precision: Precision) -> Self {
        let factor = match precision {
            Precision::Full => 1.0,
            Precision::Mixed => Self::FIRST,
        };
        Self { factor, steps: 0, precision }
    }

    /// The loss to take gradients of.
    pub fn apply(&self, loss: &Tensor) -> Tensor {
        if self.factor == 1.0 { loss.shallow_clone() } else { loss * self.factor }
    }

    /// The gradient of the loss, from that of [`Self::apply`].
    pub fn undo(&self, gradient: Tensor) -> Tensor {
        if self.factor == 1.0 { gradient } else { no_grad(|| gradient / self.factor) }
    }

    /// Notes whether a gradient is finite; whether the step may be taken. Where even the least scale is too large it may: the
    /// loss then shows that the training has diverged.
    pub fn admits(&mut self, finite: bool) -> bool {
        if self.precision == Precision::Full {
            return true;
        }
        if !finite {
            let least = self.factor <= 1.0;
            (self.factor, self.steps) = ((self.factor / 2.0).max(1.0), 0);
            return least;
        }
        self.steps += 1;
        if self.steps >= Self::GROWS_AFTER {
            (self.factor, self.steps) = ((self.factor * 2.0).min(Self::MAX), 0);
        }
        true
    }
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
    use crate::{
        params::{Builder, Init, to_vec},
        seeds::{self, Purpose},
    };

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
    fn in_full_precision_a_loss_is_taken_as_it_is_and_every_step_too() {
        let mut scale = LossScale::of(Precision::Full);
        let loss = Tensor::from_slice(&[0.3f32]);
        assert_eq!(to_vec(&scale.undo(scale.apply(&loss))), [0.3]);
        assert!(scale.admits(true) && scale.admits(false));
        assert_eq!(scale, LossScale::of(Precision::Full));
    }

    #[test]
    fn a_scale_that_was_too_large_is_halved_and_the_step_left_out_and_it_grows_again() {
        let mut scale = LossScale::of(Precision::Mixed);
        let loss = Tensor::from_slice(&[0.3f32]);
        assert_eq!(to_vec(&scale.apply(&loss)), [0.3f32 * 16_384.0]);
        assert_eq!(to_vec(&scale.undo(scale.apply(&loss))), [0.3]);
        assert!(!scale.admits(false) && scale.factor == 8192.0);
        for step in 1..LossScale::GROWS_AFTER {
            assert!(scale.admits(true) && scale.factor == 8192.0, "step {step}");
        }
        assert!(scale.admits(true) && scale.factor == 16_384.0);
        for _ in 0..20 * LossScale::GROWS_AFTER {
            scale.admits(true);
        }
        assert!(scale.factor == LossScale::MAX);
    }

    #[test]
    fn a_gradient_that_no_scale_makes_finite_is_taken_so_that_the_loss_shows_it() {
        let mut scale = LossScale::of(Precision::Mixed);
        let left_out = (0..30).take_while(|_| !scale.admits(false)).count();
        assert_eq!((left_out, scale.factor), (14, 1.0));
    }

    #[test]
    fn learning_is_a_step_along_the_clipped_gradient() {
        let mut builder = Builder::default();
        let id = builder.add("x", &[3], Init::Normal(1.0), true);
        let params = || builder.clone().build(&mut seeds::stream(1, Purpose::NetworkWeights, 0), true);
        let loss = |params: &Params| (&params[id] * &params[id]).sum(Kind::Float) * 10.0;
        let (learned, stepped) = (params(), params());
        let [mut one, mut other] = [0; 2].map(|_| Sgd::new(3, 0.9, 1e-2));
        for _ in 0..3 {
            one.learn(&learned, &loss(&learned), 2.0, 0.1);
            let gradient = clip(&stepped.gradients(&loss(&stepped)), 2.0);
            other.step(&mut stepped.flat(), &gradient, stepped.decay(), 0.1);
        }
        assert_eq!(to_vec(&learned.flat()), to_vec(&stepped.flat()));
    }

    #[test]
    fn the_rate_rises_then_falls_to_zero() {
        let rates: Vec<f64> = (0..100).map(|step| one_cycle(1.0, step, 100, 0.2)).collect();
        assert!(rates[0] < 0.1 && rates[19] > 0.9 && rates[99] < 0.01);
    }
}
