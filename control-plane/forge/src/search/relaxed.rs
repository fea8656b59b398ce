//! What the methods with architecture weights do differently: how the candidates of an edge become one operation, and
//! which gradient moves the architecture.

use super::{feed::Batch, gumbel, second_order};
use crate::{
    optim::LossScale,
    supernet::{Candidates, Supernet},
};
use rand_chacha::ChaCha8Rng;
use shared::job::SearchMethod;
use tch::Tensor;

/// The gradient of the weights is clipped to this norm.
pub(super) const GRADIENT_NORM_MAX: f64 = 5.0;

/// A method with architecture weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The mean of the candidates, weighted by a softmax; the gradient at the weights as they are.
    FirstOrder,
    /// The same; the gradient through one weight step.
    SecondOrder,
    /// One candidate, drawn by the Gumbel-softmax.
    Gumbel,
    /// As the first, for a share of the channels, with edge normalisation.
    Partial,
}

impl Form {
    /// That of a method; `None` where it has no architecture weights.
    pub fn of(method: SearchMethod) -> Option<Self> {
        match method {
            SearchMethod::Darts => Some(Self::FirstOrder),
            SearchMethod::DartsSecondOrder => Some(Self::SecondOrder),
            SearchMethod::Gdas => Some(Self::Gumbel),
            SearchMethod::PartialChannels => Some(Self::Partial),
            SearchMethod::Random
            | SearchMethod::SuccessiveHalving
            | SearchMethod::Evolution
            | SearchMethod::Hypernetwork => None,
        }
    }

    /// Architecture weights of an edge: one for each of so many operations, and one for the edge itself where edges are
    /// normalised.
    pub fn columns(self, operations: usize) -> i64 {
        operations as i64 + i64::from(self == Self::Partial)
    }
}

/// A supernet under architecture weights.
#[derive(Clone, Copy, Debug)]
pub struct Relaxed<'a> {
    pub form: Form,
    /// A partial supernet where `form` is [`Form::Partial`].
    pub net: &'a Supernet,
    pub candidates: &'a Candidates,
    /// `[edges, columns]`.
    pub alpha: &'a Tensor,
    /// Of the loss whose gradient is taken, but for one that goes through a weight step.
    pub scale: LossScale,
}

/// What a supernet is computed with: the weights of the candidates, and which of them are computed.
pub type Mix = (Tensor, Candidates);

impl Relaxed<'_> {
    fn operations(&self) -> i64 {
        self.candidates.operations().len() as i64
    }

    /// Softmax over the candidates of each edge, `[edges, operations]`.
    pub fn shares(&self, temperature: f64) -> Tensor {
        self.candidates.weights(&self.alpha.narrow(1, 0, self.operations()), temperature)
    }

    /// Weights, differentiable with respect to `alpha`, and candidates of a step. `position`, 0 to 1, says how far the
    /// search has come; `dropped` are factors `[edges, operations]`; `rng` draws what is drawn.
    pub fn mix(
        &self,
        temperature: f64,
        position: f64,
        dropped: Option<&Tensor>,
        rng: &mut ChaCha8Rng,
    ) -> Mix {
        let (weights, left) = match self.form {
            Form::Gumbel => gumbel::sample(self.candidates, self.alpha, gumbel::temperature(position), rng),
            Form::FirstOrder | Form::SecondOrder | Form::Partial => {
                (self.shares(temperature), self.candidates.clone())
            }
        };
        // Not in place: the softmax needs what it gave.
        let weights = match dropped {
            Some(factors) => weights * factors.to_device(self.alpha.device()),
            None => weights,
        };
        (self.normalised(weights), left)
    }

    /// Weights of the operations with the shares of the edges, where edges are normalised.
    pub(super) fn normalised(&self, weights: Tensor) -> Tensor {
        match self.form {
            Form::Partial => {
                let beta = self.alpha.select(1, self.operations());
                self.candidates.with_edge_shares(&weights, &beta, self.net.space())
            }
            Form::FirstOrder | Form::SecondOrder | Form::Gumbel => weights,
        }
    }

    /// How strong each operation of each edge is, `[edges, operations]`: what a cell is derived by.
    pub fn strengths(&self, temperature: f64) -> Tensor {
        tch::no_grad(|| self.normalised(self.shares(temperature)).narrow(1, 0, self.operations()))
    }

    /// Cross entropy on the validation batch, and its gradient with respect to `alpha`, to which that of `penalty` is
    /// added. `mix` gives the same at each call; with `ahead`, the gradient goes through a weight step on that batch at
    /// that rate.
    pub fn gradient(
        &self,
        mix: impl Fn() -> Mix,
        validation: &Batch,
        ahead: Option<(&Batch, f64)>,
        penalty: Option<&Tensor>,
    ) -> (f64, Tensor) {
        if let Some((training, rate)) = ahead {
            let batches = [training, validation];
            let (loss, gradient) =
                second_order::gradient(self.net, self.alpha, mix, batches, rate, GRADIENT_NORM_MAX);
            return (loss, penalty.map(|penalty| &gradient + self.of(penalty)).unwrap_or(gradient));
        }
        let (weights, left) = mix();
        let loss = self.net.loss(&validation.0, &validation.1, &weights, &left);
        let total = penalty.map_or_else(|| loss.shallow_clone(), |penalty| &loss + penalty);
        (loss.double_value(&[]), self.scale.undo(self.of(&self.scale.apply(&total))))
    }

    fn of(&self, value: &Tensor) -> Tensor {
        let gradient = Tensor::run_backward(&[value], &[self.alpha], false, false).remove(0);
        // Where every edge drew nothing, there is no way back to the architecture.
        if gradient.defined() { gradient } else { self.alpha.zeros_like() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        genotype::Skeleton,
        params::{channels_last, to_vec},
        seeds::{self, Purpose},
        supernet::Space,
    };

    fn values(count: i64, step: u64) -> Tensor {
        let mut rng = seeds::stream(9, Purpose::Samples, step);
        Tensor::from_slice(&(0..count).map(|_| seeds::normal(&mut rng)).collect::<Vec<_>>())
    }

    fn batch(step: u64) -> Batch {
        (
            channels_last(&values(6 * 49, step).reshape([6, 1, 7, 7])),
            Tensor::from_slice(&[0i64, 1, 2, 0, 1, 2]),
        )
    }

    fn supernet() -> Supernet {
        let mut rng = seeds::stream(2, Purpose::SupernetWeights, 0);
        Supernet::new(Skeleton::new(&[1, 7, 7], 3, 4, 2, 2), Space::all_earlier(2), &mut rng)
    }

    /// `Lv(w - ξ ∇w Lt(w, α), α)` by its definition.
    fn unrolled(net: &Supernet, left: &Candidates, alpha: &Tensor, rate: f64) -> f64 {
        let loss = |(x, labels): &Batch| net.loss(x, labels, &left.weights(alpha, 1.0), left);
        let mut flat = net.params.flat();
        let start = flat.copy();
        let down = net.params.gradients(&loss(&batch(0)));
        tch::no_grad(|| flat.copy_(&(&start - down * rate)));
        let found = tch::no_grad(|| loss(&batch(1))).double_value(&[]);
        tch::no_grad(|| flat.copy_(&start));
        found
    }

    #[test]
    fn the_second_order_gradient_is_that_of_the_loss_after_a_weight_step() {
        let (net, left, rate) = (supernet(), Candidates::all(&Space::all_earlier(2)), 0.2);
        let alpha = values(30, 2).reshape([5, 6]).set_requires_grad(true);
        let before = to_vec(&net.params.flat());
        let (form, scale) = (Form::SecondOrder, LossScale::of(net.precision()));
        let relaxed = Relaxed { form, net: &net, candidates: &left, alpha: &alpha, scale };
        let mix = || (left.weights(&alpha, 1.0), left.clone());
        let (loss, second) = relaxed.gradient(mix, &batch(1), Some((&batch(0), rate)), None);
        let (_, first) = relaxed.gradient(mix, &batch(1), None, None);
        assert_eq!(to_vec(&net.params.flat()), before);
        assert!((loss - unrolled(&net, &left, &alpha, rate)).abs() < 1e-5);
        // Along random directions: by f32 losses, so with wide steps.
        let (mut off_second, mut off_first) = (0f64, 0f64);
        for direction in 3..9 {
            let direction = values(30, direction).reshape([5, 6]);
            let at = |distance: f64| {
                let moved = (alpha.detach() + &direction * distance).set_requires_grad(true);
                unrolled(&net, &left, &moved, rate)
            };
            let expected = (at(0.02) - at(-0.02)) / 0.04;
            let along = |gradient: &Tensor| (gradient * &direction).sum(tch::Kind::Float).double_value(&[]);
            off_second += (along(&second) - expected).powi(2);
            off_first += (along(&first) - expected).powi(2);
        }
        assert!(off_second.sqrt() < 0.1 * off_first.sqrt(), "off by {off_second} and {off_first}");
    }

    #[test]
    fn only_what_was_drawn_is_computed_and_edges_that_draw_nothing_give_no_gradient() {
        let net = supernet();
        let alpha = values(30, 2).reshape([5, 6]).set_requires_grad(true);
        let nothing = Candidates::from_masks(&[0b10_0000; 5], net.space()).unwrap();
        let (form, scale) = (Form::Gumbel, LossScale::of(net.precision()));
        let relaxed = Relaxed { form, net: &net, candidates: &nothing, alpha: &alpha, scale };
        let mix = || relaxed.mix(1.0, 0.5, None, &mut seeds::stream(1, Purpose::Gumbel, 0));
        let (loss, gradient) = relaxed.gradient(mix, &batch(1), None, None);
        assert!(loss.is_finite() && to_vec(&gradient).iter().all(|value| *value == 0.0));
        let all = Candidates::all(&Space::all_earlier(2));
        let relaxed = Relaxed { candidates: &all, ..relaxed };
        let mix = || relaxed.mix(1.0, 0.5, None, &mut seeds::stream(1, Purpose::Gumbel, 0));
        let drawn = mix().1;
        assert!(drawn.masks().iter().all(|mask| mask.is_power_of_two()));
        let (_, gradient) = relaxed.gradient(mix, &batch(1), None, None);
        let moves: Vec<bool> =
            to_vec(&gradient).chunks(6).map(|edge| edge.iter().any(|g| *g != 0.0)).collect();
        let draws: Vec<bool> = drawn.masks().iter().map(|mask| *mask != 0b10_0000).collect();
        assert_eq!(moves, draws);
    }
}
