//! The parameters of a network in one flat buffer, with one leaf tensor a parameter that views into it.
//!
//! One buffer makes an optimiser step, an average over steps or a checkpoint a handful of operations whatever the
//! number of parameters. Convolution weights lie channels last in it: the strides are written out, because asking for
//! the memory format is ambiguous where a dimension is 1.

use crate::{device, seeds};
use rand_chacha::ChaCha8Rng;
use std::ops::Index;
use tch::{Device, Kind, Tensor, no_grad};

/// How the name of a convolution's weight ends; that of the BatchNorm behind it ends in `.gamma`.
const WEIGHT: &str = ".weight";

/// Names one parameter of one [`Params`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParamId(usize);

/// First values of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All the same.
    Constant(f32),
    /// Normal with this standard deviation.
    Normal(f32),
}

impl Init {
    /// Normal with variance 2 / fan-in (He et al. 2015), for a weight of this shape.
    pub fn he(shape: &[i64]) -> Self {
        let fan_in: i64 = shape[1..].iter().product();
        Self::Normal((2.0 / fan_in.max(1) as f32).sqrt())
    }
}

#[derive(Clone, Debug)]
struct Spec {
    name: String,
    shape: Vec<i64>,
    init: Init,
    decay: bool,
    offset: i64,
}

/// Collects parameters before their buffer is made.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    specs: Vec<Spec>,
    total: i64,
}

impl Builder {
    /// Adds a parameter; `decay` says whether weight decay applies.
    pub fn add(&mut self, name: impl Into<String>, shape: &[i64], init: Init, decay: bool) -> ParamId {
        let elements: i64 = shape.iter().product();
        self.specs.push(Spec { name: name.into(), shape: shape.to_vec(), init, decay, offset: self.total });
        self.total += elements;
        ParamId(self.specs.len() - 1)
    }

    /// Makes the buffer on the device and fills it. With `trained`, the leaves ask for gradients.
    pub fn build(self, rng: &mut ChaCha8Rng, trained: bool) -> Params {
        let mut values = Vec::with_capacity(usize::try_from(self.total).unwrap_or(0));
        let mut decay = Vec::with_capacity(values.capacity());
        for spec in &self.specs {
            for _ in 0..spec.shape.iter().product::<i64>() {
                values.push(match spec.init {
                    Init::Constant(value) => value,
                    Init::Normal(deviation) => deviation * seeds::normal(rng),
                });
                decay.push(f32::from(u8::from(spec.decay)));
            }
        }
        let flat = device::put(&Tensor::from_slice(&values));
        let decay = device::put(&Tensor::from_slice(&decay));
        let leaves = leaves(&self.specs, &flat, trained);
        Params { specs: self.specs, flat, decay, leaves }
    }
}

/// Views into the buffer, one a parameter.
fn leaves(specs: &[Spec], flat: &Tensor, trained: bool) -> Vec<Tensor> {
    let leaf = |spec: &Spec| {
        let leaf = no_grad(|| flat.as_strided(&spec.shape, strides(&spec.shape), spec.offset)).detach();
        leaf.set_requires_grad(trained)
    };
    specs.iter().map(leaf).collect()
}

/// Strides of a parameter in the buffer: channels last for four axes, row major otherwise.
pub(crate) fn strides(shape: &[i64]) -> Vec<i64> {
    if let [_, c, h, w] = *shape {
        return vec![h * w * c, 1, w * c, c];
    }
    let mut strides = vec![1; shape.len()];
    for axis in (0..shape.len().saturating_sub(1)).rev() {
        strides[axis] = strides[axis + 1] * shape[axis + 1];
    }
    strides
}

/// A copy of `[N, C, H, W]` whose channels lie together, by explicit strides.
pub fn channels_last(tensor: &Tensor) -> Tensor {
    let size = tensor.size();
    let mut out = Tensor::empty_strided(&size, strides(&size), (tensor.kind(), tensor.device()));
    out.copy_(tensor);
    out
}

/// The parameters of one network.
#[derive(Debug)]
pub struct Params {
    specs: Vec<Spec>,
    flat: Tensor,
    decay: Tensor,
    leaves: Vec<Tensor>,
}

impl Index<ParamId> for Params {
    type Output = Tensor;

    fn index(&self, id: ParamId) -> &Tensor {
        &self.leaves[id.0]
    }
}

impl Params {
    /// The same on the processor, to be read by what is exported and not to be trained on.
    pub fn on_cpu(self) -> Self {
        if self.flat.device() == Device::Cpu {
            return self;
        }
        let [flat, decay] = [&self.flat, &self.decay].map(|tensor| tensor.to_device(Device::Cpu));
        let leaves = leaves(&self.specs, &flat, false);
        Self { specs: self.specs, flat, decay, leaves }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.flat.numel()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All values in the order of the buffer. Writing to it in place changes the leaves.
    pub fn flat(&self) -> Tensor {
        self.flat.shallow_clone()
    }

    /// 1 where weight decay applies, 0 elsewhere.
    pub fn decay(&self) -> &Tensor {
        &self.decay
    }

    /// Replaces all values.
    pub fn set_flat(&mut self, values: &Tensor) {
        no_grad(|| self.flat.copy_(values));
    }

    /// Gives every convolution that a BatchNorm follows the norm that it is expected to have at its start. What the network
    /// answers stays the same; a step of some rate turns the weights as far again as it does at the start, which it does
    /// not once training has made them long (van Laarhoven 2017, "L2 Regularization versus Batch and Weight Normalization").
    pub fn shorten(&mut self) {
        let is_normed = |spec: &Spec| {
            let gamma = spec.name.strip_suffix(WEIGHT).map(|unit| format!("{unit}.gamma"));
            gamma.is_some_and(|gamma| self.specs.iter().any(|other| other.name == gamma))
        };
        for (spec, leaf) in self.specs.iter().zip(&self.leaves) {
            let Init::Normal(deviation) = spec.init else { continue };
            if !is_normed(spec) {
                continue;
            }
            no_grad(|| {
                let norm = leaf.square().sum(Kind::Double).sqrt().double_value(&[]);
                let wanted = f64::from(deviation) * (leaf.numel() as f64).sqrt();
                if norm > wanted {
                    let mut leaf = leaf.detach();
                    let _ = leaf.g_mul_scalar_(wanted / norm);
                }
            });
        }
    }

    /// Gradients of `loss`, flat; zero for parameters that it does not depend on.
    pub fn gradients(&self, loss: &Tensor) -> Tensor {
        let gradients = Tensor::run_backward(&[loss], &self.leaves, false, false);
        self.flatten(&gradients)
    }

    /// [`Self::gradients`] and the gradient with respect to `also`, which `loss` depends on, from one backward pass.
    pub fn gradients_and(&self, loss: &Tensor, also: &Tensor) -> (Tensor, Tensor) {
        let inputs: Vec<&Tensor> = self.leaves.iter().chain([also]).collect();
        let mut gradients = Tensor::run_backward(&[loss], &inputs, false, false);
        let last = gradients.split_off(self.leaves.len()).remove(0);
        (self.flatten(&gradients), last)
    }

    /// Gradients of `loss` for the parameters of this and of another network, each flat, from one backward pass.
    pub fn gradients_with(&self, loss: &Tensor, other: &Self) -> (Tensor, Tensor) {
        let leaves: Vec<&Tensor> = self.leaves.iter().chain(&other.leaves).collect();
        let mut gradients = Tensor::run_backward(&[loss], &leaves, false, false);
        let others = gradients.split_off(self.leaves.len());
        (self.flatten(&gradients), other.flatten(&others))
    }

    /// Joins one tensor a parameter into the order of the buffer.
    pub fn flatten(&self, tensors: &[Tensor]) -> Tensor {
        no_grad(|| {
            let parts: Vec<Tensor> = tensors
                .iter()
                .zip(&self.specs)
                .map(|(tensor, spec)| {
                    if !tensor.defined() {
                        return Tensor::zeros(
                            [spec.shape.iter().product()],
                            (Kind::Float, self.flat.device()),
                        );
                    }
                    if spec.shape.len() == 4 {
                        tensor.permute([0, 2, 3, 1]).reshape([-1])
                    } else {
                        tensor.reshape([-1])
                    }
                })
                .collect();
            Tensor::cat(&parts, 0)
        })
    }

    /// Name, shape and values (row major) of every parameter.
    pub fn named(&self) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        self.specs
            .iter()
            .zip(&self.leaves)
            .map(|(spec, leaf)| {
                let shape = spec.shape.iter().map(|axis| usize::try_from(*axis).unwrap_or(0)).collect();
                (spec.name.clone(), shape, to_vec(leaf))
            })
            .collect()
    }

    /// Copies one parameter's values (row major) in.
    ///
    /// # Errors
    /// The name of a parameter that `values` lacks or has in another shape.
    pub fn load(
        &mut self,
        mut values: impl FnMut(&str) -> Option<(Vec<usize>, Vec<f32>)>,
    ) -> Result<(), String> {
        for (spec, leaf) in self.specs.iter().zip(&mut self.leaves) {
            let (shape, data) = values(&spec.name).ok_or_else(|| format!("{} is missing", spec.name))?;
            let wanted: Vec<usize> =
                spec.shape.iter().map(|axis| usize::try_from(*axis).unwrap_or(0)).collect();
            if shape != wanted || data.len() != wanted.iter().product::<usize>() {
                return Err(format!("{} has the shape {shape:?}, expected {wanted:?}", spec.name));
            }
            if data.iter().any(|value| !value.is_finite()) {
                return Err(format!("{} holds a value that is not finite", spec.name));
            }
            no_grad(|| leaf.copy_(&Tensor::from_slice(&data).reshape(&spec.shape)));
        }
        Ok(())
    }
}

/// The values of a tensor, row major, wherever it is.
pub fn to_vec(tensor: &Tensor) -> Vec<f32> {
    let here = tensor.detach().to_device(Device::Cpu);
    let flat = no_grad(|| here.to_kind(Kind::Float).contiguous().reshape([-1]));
    let mut values = vec![0f32; flat.numel()];
    let count = values.len();
    flat.copy_data(&mut values, count);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_the_buffer_shows_in_the_leaves_and_gradients_come_back_in_its_order() {
        let mut builder = Builder::default();
        let conv = builder.add("conv", &[2, 3, 1, 2], Init::Normal(1.0), true);
        let bias = builder.add("bias", &[2], Init::Constant(0.5), false);
        let unused = builder.add("unused", &[3], Init::Constant(0.0), false);
        let mut params = builder.build(&mut seeds::stream(1, seeds::Purpose::NetworkWeights, 0), true);
        let loss = (&params[conv] * &params[conv]).sum(Kind::Float) + params[bias].sum(Kind::Float);
        let gradient = params.gradients(&loss);
        let doubled: Vec<f32> = to_vec(&params.flat()).iter().take(12).map(|v| v * 2.0).collect();
        assert_eq!(to_vec(&gradient)[..12], doubled[..]);
        assert_eq!(to_vec(&gradient)[12..], [1.0, 1.0, 0.0, 0.0, 0.0]);
        params.set_flat(&gradient);
        assert_eq!(to_vec(&params[bias]), [1.0, 1.0]);
        assert_eq!(to_vec(&params[unused]), [0.0, 0.0, 0.0]);
    }

    #[test]
    fn long_weights_become_as_long_as_at_their_start_where_batch_norm_follows_and_nowhere_else() {
        let mut builder = Builder::default();
        let conv = builder.add("stem.weight", &[2, 2, 1, 1], Init::Normal(0.5), true);
        builder.add("stem.gamma", &[2], Init::Constant(1.0), false);
        let short = builder.add("next.weight", &[2, 2, 1, 1], Init::Normal(100.0), true);
        builder.add("next.gamma", &[2], Init::Constant(1.0), false);
        let head = builder.add("head.weight", &[2, 2], Init::Normal(0.5), true);
        let mut params = builder.build(&mut seeds::stream(1, seeds::Purpose::NetworkWeights, 0), true);
        let values: Vec<f32> = (1..=params.len()).map(|v| v as f32).collect();
        params.set_flat(&Tensor::from_slice(&values));
        params.shorten();
        let scale = 1.0 / 30f32.sqrt();
        let found = to_vec(&params[conv].reshape([-1]));
        for (found, wanted) in found.iter().zip([1.0, 2.0, 3.0, 4.0]) {
            assert!((found - wanted * scale).abs() < 1e-6, "{found} {wanted}");
        }
        assert_eq!(to_vec(&params[short]), [7.0, 8.0, 9.0, 10.0]);
        assert_eq!(to_vec(&params[head]), [13.0, 14.0, 15.0, 16.0]);
    }
}
