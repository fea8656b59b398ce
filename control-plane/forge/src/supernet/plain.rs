//! The same supernet computed operation by operation, as the paper writes it: the reference for the restructured one.

use super::{Candidates, Cell, Supernet};
use tch::Tensor;

pub(super) fn loss(
    net: &Supernet,
    x: &Tensor,
    labels: &Tensor,
    mix: &Tensor,
    candidates: &Candidates,
) -> Tensor {
    let stem = net.stem.forward(&net.params, x, net.skeleton.reach());
    let mut outputs = [stem.shallow_clone(), stem];
    let reach = net.skeleton.reach();
    for cell in &net.cells {
        let mut states: Vec<Tensor> =
            (0..2).map(|side| cell.adapters[side].forward(&net.params, &outputs[side], reach)).collect();
        for node in 2..net.space.nodes() + 2 {
            let mut sum = states[0].zeros_like();
            for (edge, (from, to)) in net.space.edges().iter().enumerate() {
                if *to == node && !candidates.is_gone(edge) {
                    sum += mixed(net, cell, edge, &states[*from], mix, candidates);
                }
            }
            states.push(sum.relu());
        }
        let [_, previous] = outputs;
        outputs = [previous, Tensor::cat(&states[2..], 1)];
    }
    let [_, joined] = outputs;
    net.skeleton.answer.loss(&net.head.forward(&net.params, &[joined]), labels, 0.0)
}

/// What one edge gives; in a partial supernet weighted by its share, its channels shuffled as Xu et al. 2020 do.
fn mixed(
    net: &Supernet,
    cell: &Cell,
    edge: usize,
    x: &Tensor,
    mix: &Tensor,
    candidates: &Candidates,
) -> Tensor {
    let weight = |column: usize| mix.get(edge as i64).get(column as i64);
    let through = x.size()[1] / net.partial;
    let part = x.narrow(1, 0, through);
    let mut sum = part.zeros_like();
    for column in candidates.left(edge) {
        let (candidate, operation) = (&cell.edges[edge][column], net.space.operations()[column]);
        let parts = (&net.params, net.generator.as_ref());
        sum += candidate.plain(parts, operation, net.skeleton.dim, &part) * weight(column);
    }
    if net.partial == 1 {
        return sum;
    }
    let past = x.narrow(1, through, x.size()[1] - through) * weight(net.space.operations().len());
    let whole = Tensor::cat(&[sum, past], 1);
    let [n, c, h, w] = x.size()[..] else { unreachable!("states have four axes") };
    whole.reshape([n, net.partial, c / net.partial, h, w]).transpose(1, 2).reshape([n, c, h, w])
}
