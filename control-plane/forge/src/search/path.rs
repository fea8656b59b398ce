//! The step of a supernet that is trained along one path at a time, each equally likely (Guo et al. 2020).

use super::{feed::Batch, relaxed::GRADIENT_NORM_MAX};
use crate::{
    device,
    optim::Sgd,
    supernet::{Candidates, Space, Supernet},
};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

/// What the operations of any path weigh, `[edges, operations]`: 1 each.
pub fn ones(space: &Space) -> Tensor {
    let size = [space.edges().len(), space.operations().len()].map(|count| count as i64);
    Tensor::ones(size, (Kind::Float, device::get()))
}

/// A random path.
pub fn draw(space: &Space, rng: &mut ChaCha8Rng) -> Candidates {
    Candidates::only(&space.draw(rng), space)
}

/// One weight step along `path`; the loss before it. What is not on the path has a gradient of zero: momentum and
/// decay move it all the same.
pub fn step(
    net: &Supernet,
    sgd: &mut Sgd,
    (x, labels): &Batch,
    ones: &Tensor,
    path: &Candidates,
    rate: f64,
) -> f64 {
    let loss = net.loss(x, labels, ones, path);
    sgd.learn(&net.params, &loss, GRADIENT_NORM_MAX, rate);
    loss.double_value(&[])
}
