//! The step of a method with architecture weights: first the architecture's, then the weights'.

use super::{Batch, DRAWS, WEIGHT_RATE, normal};
use crate::{
    device,
    optim::{Adam, LossScale, Sgd},
    search::{self, Form, Mix, Relaxed},
    seeds::{self, Purpose},
    supernet::{Candidates, Space, Supernet},
};
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

const ARCH_RATE: f64 = 3e-4;
/// How far the search is, for what changes on its way.
const POSITION: f64 = 0.5;

/// Architecture weights with what moves them.
#[derive(Debug)]
pub(super) struct Bilevel {
    form: Form,
    seed: u64,
    /// Passes so far.
    passes: u64,
    /// `[edges, columns]`.
    alpha: Tensor,
    candidates: Candidates,
    adam: Adam,
}

impl Bilevel {
    /// With everything left of `space`; `rng` gives the first architecture weights, `seed` the noise of each pass.
    pub(super) fn new(form: Form, space: &Space, seed: u64, rng: &mut ChaCha8Rng) -> Self {
        let shape = [space.edges().len() as i64, form.columns(space.operations().len())];
        let alpha = device::put(&(normal(&shape, rng) * 1e-3)).set_requires_grad(true);
        Self {
            form,
            seed,
            passes: 0,
            candidates: Candidates::all(space),
            adam: Adam::new(alpha.numel(), (0.5, 0.999), 1e-3),
            alpha,
        }
    }

    /// One architecture step and one weight step; the loss of the latter.
    pub(super) fn step(
        &mut self,
        net: &Supernet,
        sgd: &mut Sgd,
        training: &Batch,
        validation: &Batch,
    ) -> f64 {
        let ahead = (self.form == Form::SecondOrder).then_some((training, WEIGHT_RATE));
        let (_, gradient) = self.relaxed(net).gradient(|| self.mix(net), validation, ahead, None);
        self.passes += 1;
        let decay = self.alpha.ones_like().view(-1);
        self.adam.step(&mut self.alpha.detach().view(-1), &gradient.reshape([-1]), &decay, ARCH_RATE);
        let (weights, left) = tch::no_grad(|| self.mix(net));
        let loss = net.loss(&training.0, &training.1, &weights, &left);
        self.passes += 1;
        let gradient = net.params.gradients(&loss);
        sgd.step(&mut net.params.flat(), &gradient, net.params.decay(), WEIGHT_RATE);
        loss.double_value(&[])
    }

    /// What the next pass computes with.
    pub(super) fn mix(&self, net: &Supernet) -> Mix {
        self.relaxed(net).mix(1.0, POSITION, None, &mut self.noise_of(self.passes))
    }

    /// What a step begins from beside the weights.
    pub(super) fn named(&self) -> Vec<(&'static str, Tensor)> {
        let mut named = vec![("alpha", self.alpha.shallow_clone())];
        if self.form == Form::Gumbel {
            let (edges, operations) = (self.alpha.size()[0], self.candidates.operations().len());
            let noises: Vec<Tensor> =
                (0..DRAWS).map(|pass| search::noise(edges, operations, &mut self.noise_of(pass))).collect();
            named.push(("noise", Tensor::stack(&noises, 0)));
        }
        named
    }

    fn relaxed<'a>(&'a self, net: &'a Supernet) -> Relaxed<'a> {
        let scale = LossScale::of(net.precision());
        let Self { form, candidates, alpha, .. } = self;
        Relaxed { form: *form, net, candidates, alpha, scale }
    }

    fn noise_of(&self, pass: u64) -> ChaCha8Rng {
        seeds::stream(self.seed, Purpose::Gumbel, pass % DRAWS)
    }
}
