//! The gradient of the architecture through one weight step (Liu, Simonyan and Yang 2019, equations 7 and 8).

use super::{feed::Batch, relaxed::Mix};
use crate::{
    genotype::Skeleton,
    optim,
    supernet::{self, Space, Supernet},
};
use tch::{Tensor, no_grad};

/// The finite difference moves the weights by this distance in all.
const DIFFERENCE_NORM: f64 = 0.01;

/// Cross entropy on the validation batch after the weight step, and its gradient with respect to `alpha`:
///
/// `∇α Lv(w', α) - ξ ∇²αw Lt(w, α) ∇w' Lv(w', α)` with `w' = w - ξ ∇w Lt(w, α)`, the product with the second derivative
/// as a difference of two gradients at `w ± ε ∇w' Lv`, `ε` such that the weights move by 0.01.
///
/// `rate` is ξ; as in a weight step, the gradient of the weights is clipped to the norm `norm_max`, by a factor that is
/// taken as constant. The step is without momentum and weight decay. `mix` gives what the supernet is computed with,
/// the same at each call. The weights are afterwards what they were.
pub(super) fn gradient(
    net: &Supernet,
    alpha: &Tensor,
    mix: impl Fn() -> Mix,
    [training, validation]: [&Batch; 2],
    rate: f64,
    norm_max: f64,
) -> (f64, Tensor) {
    let loss = |(x, labels): &Batch| {
        let (weights, candidates) = mix();
        net.loss(x, labels, &weights, &candidates)
    };
    let mut flat = net.params.flat();
    let start = flat.copy();
    let mut move_to = |direction: &Tensor, distance: f64| {
        no_grad(|| flat.copy_(&(&start + direction * distance)));
    };
    let down = net.params.gradients(&loss(training));
    let rate = rate * optim::clip_factor(&down, norm_max);
    move_to(&down, -rate);
    let ahead = loss(validation);
    let (along, direct) = net.params.gradients_and(&ahead, alpha);
    let norm = along.norm().double_value(&[]);
    let gradient = if norm > 0.0 {
        let epsilon = DIFFERENCE_NORM / norm;
        let mut at = |distance: f64| {
            move_to(&along, distance);
            Tensor::run_backward(&[loss(training)], &[alpha], false, false).remove(0)
        };
        let (plus, minus) = (at(epsilon), at(-epsilon));
        direct - (plus - minus) * (rate / (2.0 * epsilon))
    } else {
        direct
    };
    no_grad(|| flat.copy_(&start));
    (ahead.double_value(&[]), gradient)
}

/// What it takes beside a step of first order: the weights as they were, both gradients of them, and what is moved to.
pub(super) fn more_bytes(skeleton: &Skeleton, space: &Space) -> u64 {
    const COPIES: u64 = 5;
    COPIES * size_of::<f32>() as u64 * supernet::weights(skeleton, space)
}
