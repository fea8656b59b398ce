//! One step of a search that trains a shared network, timed, in a form that others can write too.
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
//! - [`Kind::Paths`]: there is no `alpha`, and a step is a weight step alone. Step `i` computes one operation an edge,
//!   `paths[i modulo 64]`, numbered from 0 in the order above and never the last; it weighs 1. The gradient is clipped to
//!   norm 5; it is zero for what is not on the path, which momentum and weight decay move all the same.
//! - `generated`: the same; of each kernel `[16, in, h, w]` of an operation the last 8 output channels are weights, the
//!   first 8 are generated. For output channel `o` and input channel `i` their taps are
//!   `sqrt(2 / (in * h * w)) * relu(outputs[o] + inputs[i] + code @ CODE.T + bias) @ taps`. `outputs` `[32, 32]`, `inputs`
//!   `[16, 32]`, `CODE` `[32, 16]`, `bias` `[32]` and `taps` `[32, 25]`, of which the middle `h` by `w` of 5 by 5 are taken,
//!   are one for all kernels; `code` `[16]` is each kernel's own. Of these `CODE` and `taps` decay.
//!
//! # The start
//! [`StepBench::start`] writes what the first step begins from, so that another implementation can begin from the
//! same and show by its losses that it computes the same. Safetensors, f32, row major: `stem.*`, `cell0.adapterA.*`
//! (`weight`, `gamma`, `beta`), `cell0.edgeF_T.conv3.*` (`weight`, `gamma`, `beta`) and `cell0.edgeF_T.sep5.*` (`depthwise`,
//! `weight` of the pointwise convolution, `gamma`, `beta`) for the edge from state `F` to state `T`, `head.weight`, `head.bias`, `alpha`, and the
//! batches `x_weights` and `x_arch`; for [`Form::Gumbel`] also `noise` `[64, 8, 6]`; for [`Kind::Paths`] `paths` `[64, 8]` in
//! place of `alpha`, and where kernels are generated `generator.*` (`code`, which is `CODE`, `bias`, `outputs`, `inputs`, `taps`)
//! and beside each kernel its `.code`.
//!
//! # Real images
//! With [`Images`] step `i` takes the `i`-th 64 of `images.weights.x` and of `images.arch.x` with their `labels`, round and
//! round, in place of the two batches, and [`StepBench::until`] goes on until the share of right answers on
//! `images.held`, in batches of 256 with statistics of their own, mixed as the next pass would be, reaches an aim; for
//! [`Kind::Paths`] along the path of `conv3` on every edge.

mod bilevel;
mod images;
mod paths;

pub use images::{Images, Unfit};

use crate::{
    answer::Answer,
    device,
    genotype::{Adapter, CellPlan, Dim, Skeleton},
    optim::Sgd,
    params::{channels_last, to_vec},
    search::Form,
    seeds::{self, Purpose},
    supernet::{Space, Supernet, channel_share},
};
use bilevel::Bilevel;
use paths::Paths;
use rand_chacha::ChaCha8Rng;
use safetensors::{Dtype, SafeTensorError, tensor::TensorView};
use serde::Serialize;
use shared::{job::SearchMethod, space::Generated};
use std::time::Instant;
use tch::Tensor;

const BATCH: i64 = 64;
const SIDE: i64 = 28;
const CHANNELS: i64 = 16;
const NODES: usize = 4;
const CLASSES: i64 = 10;
const WEIGHT_RATE: f64 = 0.025;
/// Passes or steps after which what was drawn comes again.
const DRAWS: u64 = 64;

/// Images and their labels.
type Batch = (Tensor, Tensor);

/// What kind of step a method takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Under architecture weights.
    Bilevel(Form),
    /// Along a random path.
    Paths {
        /// Whether kernels are generated, to the share that a job has where it names none.
        generated: bool,
    },
}

impl Kind {
    /// That of a method; `None` where it trains networks that share nothing.
    pub fn of(method: SearchMethod) -> Option<Self> {
        match method {
            SearchMethod::Evolution => Some(Self::Paths { generated: false }),
            SearchMethod::Hypernetwork => Some(Self::Paths { generated: true }),
            SearchMethod::Darts
            | SearchMethod::DartsSecondOrder
            | SearchMethod::Gdas
            | SearchMethod::PartialChannels
            | SearchMethod::Random
            | SearchMethod::SuccessiveHalving => Form::of(method).map(Self::Bilevel),
        }
    }

    fn supernet(self, rng: &mut ChaCha8Rng) -> Supernet {
        let (skeleton, space) = (skeleton(), Space::with_reads(NODES, 2));
        match self {
            Self::Bilevel(Form::Partial) => Supernet::partial(skeleton, space, channel_share(CHANNELS), rng),
            Self::Bilevel(Form::FirstOrder | Form::SecondOrder | Form::Gumbel)
            | Self::Paths { generated: false } => Supernet::new(skeleton, space, rng),
            Self::Paths { generated: true } => {
                Supernet::generated(skeleton, space, &Generated::default(), rng)
            }
        }
    }
}

/// The network of the module's description, around its operations.
fn skeleton() -> Skeleton {
    let adapter = Adapter { channels_in: CHANNELS, stride: 1, kernel: 1 };
    Skeleton {
        dim: Dim::Image,
        input: vec![1, SIDE as usize, SIDE as usize],
        classes: CLASSES,
        stem_channels: CHANNELS,
        stem_kernel: 3,
        stem_stride: 1,
        cells: vec![CellPlan { channels: CHANNELS, adapters: [adapter; 2] }],
        features: CHANNELS * NODES as i64,
        answer: Answer::Class,
    }
}

/// Standard normal numbers.
fn normal(shape: &[i64], rng: &mut ChaCha8Rng) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product::<i64>()).map(|_| seeds::normal(rng)).collect();
    Tensor::from_slice(&values).reshape(shape)
}

/// A supernet of the form that this module describes, with what trains it.
#[derive(Debug)]
pub struct StepBench {
    net: Supernet,
    sgd: Sgd,
    way: Way,
    inputs: Inputs,
    steps: usize,
}

/// How its steps go.
#[derive(Debug)]
enum Way {
    Bilevel(Bilevel),
    Paths(Paths),
}

/// What it learns from.
#[derive(Debug)]
struct Inputs {
    x_weights: Tensor,
    x_arch: Tensor,
    labels: Tensor,
    /// In place of the two batches.
    images: Option<Images>,
}

impl Inputs {
    fn new(rng: &mut ChaCha8Rng) -> Self {
        let [x_weights, x_arch] =
            [0, 1].map(|_| device::put(&channels_last(&normal(&[BATCH, 1, SIDE, SIDE], rng))));
        let labels: Vec<i64> = (0..BATCH).map(|i| i % CLASSES).collect();
        Self { x_weights, x_arch, labels: device::put(&Tensor::from_slice(&labels)), images: None }
    }

    /// For the weights.
    fn training(&self, step: usize) -> Batch {
        match &self.images {
            Some(images) => images.weights.batch(step),
            None => (self.x_weights.shallow_clone(), self.labels.shallow_clone()),
        }
    }

    /// For the architecture.
    fn validation(&self, step: usize) -> Batch {
        match &self.images {
            Some(images) => images.arch.batch(step),
            None => (self.x_arch.shallow_clone(), self.labels.shallow_clone()),
        }
    }
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
    pub fn new(kind: Kind, seed: u64) -> Self {
        let mut rng = seeds::stream(seed, Purpose::SupernetWeights, 0);
        let net = kind.supernet(&mut rng).in_full_precision();
        let way = match kind {
            Kind::Bilevel(form) => Way::Bilevel(Bilevel::new(form, net.space(), seed, &mut rng)),
            Kind::Paths { .. } => Way::Paths(Paths::new(net.space(), seed)),
        };
        Self { sgd: Sgd::new(net.params.len(), 0.9, 3e-4), net, way, inputs: Inputs::new(&mut rng), steps: 0 }
    }

    /// The same, which learns from images.
    #[must_use]
    pub fn with_images(mut self, images: Images) -> Self {
        self.inputs.images = Some(images);
        self
    }

    /// One step of the method; the loss of its weight step.
    pub fn step(&mut self) -> f64 {
        let number = self.steps;
        self.steps += 1;
        let training = self.inputs.training(number);
        match &mut self.way {
            Way::Bilevel(bilevel) => {
                let validation = self.inputs.validation(number);
                bilevel.step(&self.net, &mut self.sgd, &training, &validation)
            }
            Way::Paths(paths) => paths.step(&self.net, &mut self.sgd, &training, number),
        }
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
        let Some(Images { held, .. }) = &self.inputs.images else { return 0.0 };
        let (mix, candidates) = match &self.way {
            Way::Bilevel(bilevel) => tch::no_grad(|| bilevel.mix(&self.net)),
            Way::Paths(paths) => paths.look(self.net.space()),
        };
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
        let Inputs { x_weights, x_arch, images, .. } = &self.inputs;
        let mut tensors = self.net.params.named();
        let mut more = match &self.way {
            Way::Bilevel(bilevel) => bilevel.named(),
            Way::Paths(paths) => paths.named(self.net.space()),
        };
        more.extend([("x_weights", x_weights.shallow_clone()), ("x_arch", x_arch.shallow_clone())]);
        for (name, tensor) in &more {
            let shape = tensor.size().iter().map(|axis| usize::try_from(*axis).unwrap_or(0)).collect();
            tensors.push(((*name).to_owned(), shape, to_vec(tensor)));
        }
        tensors.extend(images.iter().flat_map(Images::named));
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
    use std::collections::BTreeMap;

    fn bench(method: SearchMethod) -> StepBench {
        StepBench::new(Kind::of(method).unwrap(), 1)
    }

    #[test]
    fn steps_lower_the_loss() {
        for method in [SearchMethod::Darts, SearchMethod::DartsSecondOrder, SearchMethod::PartialChannels] {
            let steps = bench(method).run(6);
            assert_eq!((steps.ms.len(), steps.loss.len()), (6, 6));
            assert!(steps.ms.iter().all(|ms| *ms > 0.0));
            assert!(steps.loss[5] < steps.loss[0], "{method}: {:?}", steps.loss);
        }
        // Each step is of another network: the losses go up and down.
        for method in [SearchMethod::Gdas, SearchMethod::Evolution, SearchMethod::Hypernetwork] {
            let steps = bench(method).run(6);
            assert!(steps.loss.iter().all(|loss| loss.is_finite()), "{method}: {:?}", steps.loss);
            assert_eq!(bench(method).run(6).loss, steps.loss, "{method}");
        }
    }

    /// The shape of each tensor of the start.
    fn start(method: SearchMethod) -> BTreeMap<String, Vec<usize>> {
        let bytes = bench(method).start().unwrap();
        let start = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        start.tensors().into_iter().map(|(name, tensor)| (name, tensor.shape().to_vec())).collect()
    }

    #[test]
    fn the_start_holds_every_weight_and_both_batches() {
        let darts = start(SearchMethod::Darts);
        assert_eq!(darts["stem.weight"], [16, 1, 3, 3]);
        assert_eq!(darts["cell0.adapter1.gamma"], [16]);
        assert_eq!(darts["cell0.edge2_3.conv3.weight"], [16, 16, 3, 3]);
        assert_eq!(darts["cell0.edge4_5.sep5.depthwise"], [16, 1, 5, 5]);
        assert_eq!(darts["head.weight"], [10, 64]);
        assert_eq!(darts["alpha"], [8, 6]);
        assert_eq!(darts["x_arch"], [64, 1, 28, 28]);
        // Stem and two adapters of three tensors, eight edges of seven, the head's two, alpha, two batches.
        assert_eq!(darts.len(), 3 * 3 + 8 * 7 + 2 + 3);
        let partial = start(SearchMethod::PartialChannels);
        assert_eq!(partial["cell0.edge2_3.conv3.weight"], [4, 4, 3, 3]);
        assert_eq!(partial["alpha"], [8, 7]);
        assert_eq!(start(SearchMethod::Gdas)["noise"], [64, 8, 6]);
    }

    #[test]
    fn the_start_of_paths_holds_them_in_place_of_architecture_weights_and_what_kernels_come_from() {
        let shared = start(SearchMethod::Evolution);
        assert!(!shared.contains_key("alpha"));
        assert_eq!(shared["paths"], [64, 8]);
        assert_eq!(shared["cell0.edge2_3.conv3.weight"], [16, 16, 3, 3]);
        assert_eq!(shared.len(), 3 * 3 + 8 * 7 + 2 + 3);
        let generated = start(SearchMethod::Hypernetwork);
        assert_eq!(generated["cell0.edge2_3.conv3.weight"], [8, 16, 3, 3]);
        assert_eq!(generated["cell0.edge2_3.conv3.weight.code"], [16]);
        assert_eq!(generated["cell0.edge4_5.sep5.depthwise"], [8, 1, 5, 5]);
        let of = |part: &str| generated[&format!("generator.{part}")].clone();
        assert_eq!((of("code"), of("bias"), of("taps")), (vec![32, 16], vec![32], vec![32, 25]));
        assert_eq!((of("outputs"), of("inputs")), (vec![32, 32], vec![16, 32]));
        // Three codes more an edge, and the generator's five.
        assert_eq!(generated.len(), shared.len() + 8 * 3 + 5);
    }
}
