//! One step of the search, timed, in a form that others can write too.
//!
//! # The step, exactly
//! Input `x` is f32 `[64, 1, 28, 28]`, standard normal; labels are `i % 10`. Everything is f32, `channels_last`.
//! `conv(k)` is a convolution without bias, stride 1, padding `k / 2`; `BN` is BatchNorm by batch statistics with
//! scale and shift, epsilon 1e-5, without running statistics.
//!
//! - stem: `relu(BN(conv3(x)))`, 1 to 16 channels, 28x28;
//! - states 0 and 1 of the one cell: each `relu(BN(conv1(stem)))`, 16 channels, with weights of its own;
//! - nodes 2, 3, 4, 5: node `n` reads states `n - 2` and `n - 1` (8 edges);
//!   `node = relu(sum over its 2 edges of sum over 6 operations of w[edge][op] * op(state))`,
//!   `w = softmax(alpha, dim = 1)`, `alpha` of `[8, 6]`, begun at 1e-3 times standard normal;
//! - operations, 16 channels each: `BN(conv3(s))`; `BN(conv1(depthwise conv5(s)))`; `max_pool2d(3, 1, 1)`;
//!   `avg_pool2d(3, 1, 1, count_include_pad = True)`; `s`; `0`;
//! - logits: concatenation of the four nodes (64 channels), mean over space, linear 64 to 10 with bias.
//!
//! A step is an architecture step and then a weight step, each on a batch of its own, each a forward pass, the mean
//! cross entropy, and the gradient of it with respect to `alpha` alone (Adam, rate 3e-4, betas 0.5 and 0.999, weight
//! decay 1e-3, decoupled) or to the weights alone (SGD, rate 0.025, momentum 0.9 with Nesterov, weight decay 3e-4 on
//! kernels and the head's matrix). The loss that a step reports is the weight step's. All of it is f32, on a GPU too.
//!
//! # Other methods
//! - [`Form::SecondOrder`]: the gradient of the architecture step is that of the loss on `x_arch` after a weight step on
//!   `x_weights` of rate 0.025, without momentum and decay, its gradient clipped to norm 5; the product with the second
//!   derivative is a difference of two gradients, at weights moved by 0.01 along the gradient on `x_arch` either way.
//! - [`Form::Gumbel`]: each pass, the forward and backward pass of a step, computes one operation an edge, the largest of
//!   `p = softmax((alpha + noise[i]) / 5.05)`, `i` the passes before it modulo 64; its weight is `1 - p + p`, of which the
//!   first `p` is taken as constant.
//! - [`Form::Partial`]: channels 0 to 3 of a state go through the operations (4 channels each); `alpha` has a column
//!   more, whose softmax over the two edges of a node weighs both what the operations give and channels 4 to 15 as they
//!   are; channel `g * 4 + c` of the two joined becomes channel `c * 4 + g` of the node, `c` and `g` from 0 to 3.
//!
//! # The start
//! [`StepBench::start`] writes what the first step begins from, so that another implementation can begin from the
//! same and show by its losses that it computes the same. Safetensors, f32, row major: `stem.*`, `cell0.adapterA.*`
//! (`weight`, `gamma`, `beta`), `cell0.edgeF_T.conv3.*` (`weight`, `gamma`, `beta`) and `cell0.edgeF_T.sep5.*` (`depthwise`,
//! `weight` of the pointwise convolution, `gamma`, `beta`) for the edge from state `F` to state `T`, `head.weight`, `head.bias`, `alpha`, and the
//! batches `x_weights` and `x_arch`; for [`Form::Gumbel`] also `noise` `[64, 8, 6]`.
//!
//! # Real images
//! With [`Images`] step `i` takes the `i`-th 64 of `images.weights.x` and of `images.arch.x` with their `labels`, round and
//! round, in place of the two batches, and [`StepBench::until`] goes on until the share of right answers on
//! `images.held`, in batches of 256 with statistics of their own, mixed as the next pass would be, reaches an aim.

mod images;

pub use images::{Images, Unfit};

use crate::{
    answer::Answer,
    device,
    genotype::{Adapter, CellPlan, Dim, Skeleton},
    optim::{Adam, LossScale, Sgd},
    params::{channels_last, to_vec},
    search::{self, Form, Mix, Relaxed},
    seeds::{self, Purpose},
    supernet::{Candidates, Space, Supernet, channel_share},
};
use rand_chacha::ChaCha8Rng;
use safetensors::{Dtype, SafeTensorError, tensor::TensorView};
use serde::Serialize;
use std::time::Instant;
use tch::Tensor;

const BATCH: i64 = 64;
const SIDE: i64 = 28;
const CHANNELS: i64 = 16;
const NODES: usize = 4;
const CLASSES: i64 = 10;
const WEIGHT_RATE: f64 = 0.025;
/// How far the search is, for what changes on its way.
const POSITION: f64 = 0.5;
/// Passes after which the same noise comes again.
const NOISES: u64 = 64;

/// A supernet of the form that this module describes, with its optimisers and two batches.
#[derive(Debug)]
pub struct StepBench {
    form: Form,
    seed: u64,
    /// Passes so far.
    passes: u64,
    net: Supernet,
    alpha: Tensor,
    candidates: Candidates,
    sgd: Sgd,
    adam: Adam,
    x_weights: Tensor,
    x_arch: Tensor,
    labels: Tensor,
    images: Option<Images>,
    steps: usize,
}

/// How far it is to an accuracy.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Until {
    /// Seconds of the steps alone.
    pub seconds: f64,
    pub steps: usize,
    /// At the last look, 0 to 1.
    pub accuracy: f64,
}

/// Some steps, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Steps {
    /// Milliseconds of each.
    pub ms: Vec<f64>,
    /// Loss of each, before its weights moved.
    pub loss: Vec<f64>,
}

impl StepBench {
    /// The network of the module's description.
    pub fn new(form: Form, seed: u64) -> Self {
        let adapter = Adapter { channels_in: CHANNELS, stride: 1, kernel: 1 };
        let skeleton = Skeleton {
            dim: Dim::Image,
            input: vec![1, SIDE as usize, SIDE as usize],
            classes: CLASSES,
            stem_channels: CHANNELS,
            stem_kernel: 3,
            stem_stride: 1,
            cells: vec![CellPlan { channels: CHANNELS, adapters: [adapter; 2] }],
            features: CHANNELS * NODES as i64,
            answer: Answer::Class,
        };
        let mut rng = seeds::stream(seed, Purpose::SupernetWeights, 0);
        let partial = if form == Form::Partial { channel_share(CHANNELS) } else { 1 };
        let space = Space::with_reads(NODES, 2);
        let net = Supernet::partial(skeleton, space, partial, &mut rng).in_full_precision();
        let mut normal = |count: i64| -> Vec<f32> { (0..count).map(|_| seeds::normal(&mut rng)).collect() };
        let (edges, operations) = (net.space().edges().len(), net.space().operations().len());
        let alpha = Tensor::from_slice(&normal(edges as i64 * form.columns(operations))) * 1e-3;
        let alpha = device::put(&alpha.reshape([edges as i64, form.columns(operations)]));
        let [x_weights, x_arch] = [0, 1].map(|_| {
            let x = Tensor::from_slice(&normal(BATCH * SIDE * SIDE)).reshape([BATCH, 1, SIDE, SIDE]);
            device::put(&channels_last(&x))
        });
        let labels: Vec<i64> = (0..BATCH).map(|i| i % CLASSES).collect();
        Self {
            form,
            seed,
            passes: 0,
            sgd: Sgd::new(net.params.len(), 0.9, 3e-4),
            adam: Adam::new(alpha.numel(), (0.5, 0.999), 1e-3),
            candidates: Candidates::all(net.space()),
            net,
            alpha: alpha.set_requires_grad(true),
            x_weights,
            x_arch,
            labels: device::put(&Tensor::from_slice(&labels)),
            images: None,
            steps: 0,
        }
    }

    /// The same, which learns from images.
    #[must_use]
    pub fn with_images(self, images: Images) -> Self {
        Self { images: Some(images), ..self }
    }

    /// One architecture step and one weight step; the loss of the latter.
    pub fn step(&mut self) -> f64 {
        let batch = |x: &Tensor| (x.shallow_clone(), self.labels.shallow_clone());
        let (training, validation) = match &self.images {
            Some(images) => (images.weights.batch(self.steps), images.arch.batch(self.steps)),
            None => (batch(&self.x_weights), batch(&self.x_arch)),
        };
        self.steps += 1;
        let ahead = (self.form == Form::SecondOrder).then_some((&training, WEIGHT_RATE));
        let (_, gradient) = self.relaxed().gradient(|| self.mix(), &validation, ahead, None);
        self.passes += 1;
        let decay = self.alpha.ones_like().view(-1);
        self.adam.step(&mut self.alpha.detach().view(-1), &gradient.reshape([-1]), &decay, 3e-4);
        let (weights, left) = tch::no_grad(|| self.mix());
        let loss = self.net.loss(&training.0, &training.1, &weights, &left);
        self.passes += 1;
        let gradient = self.net.params.gradients(&loss);
        self.sgd.step(&mut self.net.params.flat(), &gradient, self.net.params.decay(), WEIGHT_RATE);
        loss.double_value(&[])
    }

    fn relaxed(&self) -> Relaxed<'_> {
        let scale = LossScale::of(self.net.precision());
        let Self { form, net, candidates, alpha, .. } = self;
        Relaxed { form: *form, net, candidates, alpha, scale }
    }

    /// What this pass computes with.
    fn mix(&self) -> Mix {
        self.relaxed().mix(1.0, POSITION, None, &mut self.noise_of(self.passes))
    }

    fn noise_of(&self, pass: u64) -> ChaCha8Rng {
        seeds::stream(self.seed, Purpose::Gumbel, pass % NOISES)
    }

    /// The next `steps` steps.
    pub fn run(&mut self, steps: usize) -> Steps {
        let mut done = Steps::default();
        for _ in 0..steps {
            let start = Instant::now();
            let loss = self.step();
            done.ms.push(start.elapsed().as_secs_f64() * 1e3);
            done.loss.push(loss);
        }
        done
    }

    /// Steps until `accuracy` of the held images is reached, looked at after every `each` of them; `most` at the most.
    /// Without images the accuracy stays 0.
    pub fn until(&mut self, accuracy: f64, most: usize, each: usize) -> Until {
        let mut done = Until::default();
        while done.steps < most && done.accuracy < accuracy {
            let now = each.clamp(1, most - done.steps);
            done.seconds += self.run(now).ms.iter().sum::<f64>() / 1e3;
            done.steps += now;
            done.accuracy = self.accuracy();
        }
        done
    }

    fn accuracy(&self) -> f64 {
        let Some(Images { held, .. }) = &self.images else { return 0.0 };
        let (mix, candidates) = tch::no_grad(|| self.mix());
        let looks = held.x.split(images::LOOK, 0).into_iter().zip(held.labels.split(images::LOOK, 0));
        let right = looks.map(|(x, labels)| {
            self.net.accuracy(&channels_last(&x), &labels, &mix, &candidates) * labels.numel() as f64
        });
        right.sum::<f64>() / held.labels.numel().max(1) as f64
    }

    /// What the next step begins from, optimisers aside, as the module describes it.
    ///
    /// # Errors
    /// Values that do not fit their shapes, which is a fault of this program.
    pub fn start(&self) -> Result<Vec<u8>, SafeTensorError> {
        let mut tensors = self.net.params.named();
        let mut more = vec![("alpha", &self.alpha), ("x_weights", &self.x_weights), ("x_arch", &self.x_arch)];
        let (edges, operations) = (self.alpha.size()[0], self.candidates.operations().len());
        let noises: Vec<Tensor> =
            (0..NOISES).map(|pass| search::noise(edges, operations, &mut self.noise_of(pass))).collect();
        let noise = Tensor::stack(&noises, 0);
        if self.form == Form::Gumbel {
            more.push(("noise", &noise));
        }
        for (name, tensor) in more {
            let shape = tensor.size().iter().map(|axis| usize::try_from(*axis).unwrap_or(0)).collect();
            tensors.push((name.to_owned(), shape, to_vec(tensor)));
        }
        tensors.extend(self.images.iter().flat_map(Images::named));
        let bytes: Vec<Vec<u8>> = tensors
            .iter()
            .map(|(_, _, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect())
            .collect();
        let views = tensors
            .iter()
            .zip(&bytes)
            .map(|((name, shape, _), bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>, SafeTensorError>>()?;
        safetensors::serialize(views, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_lower_the_loss() {
        for form in [Form::FirstOrder, Form::SecondOrder, Form::Partial] {
            let mut bench = StepBench::new(form, 1);
            let steps = bench.run(6);
            assert_eq!((steps.ms.len(), steps.loss.len()), (6, 6));
            assert!(steps.ms.iter().all(|ms| *ms > 0.0));
            assert!(steps.loss[5] < steps.loss[0], "{form:?}: {:?}", steps.loss);
        }
        // Each step is of another network: the losses go up and down.
        let steps = StepBench::new(Form::Gumbel, 1).run(6);
        assert!(steps.loss.iter().all(|loss| loss.is_finite()), "{:?}", steps.loss);
        assert_eq!(StepBench::new(Form::Gumbel, 1).run(6).loss, steps.loss);
    }

    #[test]
    fn the_start_holds_every_weight_and_both_batches() {
        let bench = StepBench::new(Form::FirstOrder, 1);
        let bytes = bench.start().unwrap();
        let start = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let shape = |name: &str| start.tensor(name).unwrap().shape().to_vec();
        assert_eq!(shape("stem.weight"), [16, 1, 3, 3]);
        assert_eq!(shape("cell0.adapter1.gamma"), [16]);
        assert_eq!(shape("cell0.edge2_3.conv3.weight"), [16, 16, 3, 3]);
        assert_eq!(shape("cell0.edge4_5.sep5.depthwise"), [16, 1, 5, 5]);
        assert_eq!(shape("head.weight"), [10, 64]);
        assert_eq!(shape("alpha"), [8, 6]);
        assert_eq!(shape("x_arch"), [64, 1, 28, 28]);
        // Stem and two adapters of three tensors, eight edges of seven, the head's two, alpha, two batches.
        assert_eq!(start.len(), 3 * 3 + 8 * 7 + 2 + 3);
        let bytes = StepBench::new(Form::Partial, 1).start().unwrap();
        let start = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let shape = |name: &str| start.tensor(name).unwrap().shape().to_vec();
        assert_eq!((shape("cell0.edge2_3.conv3.weight"), shape("alpha")), (vec![4, 4, 3, 3], vec![8, 7]));
        let bytes = StepBench::new(Form::Gumbel, 1).start().unwrap();
        let start = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(start.tensor("noise").unwrap().shape(), [64, 8, 6]);
    }
}
