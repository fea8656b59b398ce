//! A cell of which only some channels go through the operations (Xu et al. 2020, sections 3.1 and 3.2).
//!
//! The permutation that shuffles the channels is the same for all edges, so a node is shuffled once, after its sum.

use super::{Candidates, Cell, Sum, Supernet};
use tch::Tensor;

/// Of how many of `channels` one goes through the operations: 4 as in the paper, as long as 4 channels do, else 2.
pub fn channel_share(channels: i64) -> i64 {
    if channels >= 16 && channels % 4 == 0 { 4 } else { 2 }
}

impl Supernet {
    /// The values of a cell's nodes; `mix` has a column more, the share of each edge.
    pub(super) fn partial_cell(
        &self,
        cell: &Cell,
        inputs: [Tensor; 2],
        mix: &Tensor,
        candidates: &Candidates,
    ) -> Vec<Tensor> {
        let mut sums: Vec<[Sum; 2]> = Vec::new();
        sums.resize_with(self.space.nodes(), Default::default);
        let mut nodes = Vec::with_capacity(self.space.nodes());
        for state in 0..self.space.nodes() + 2 {
            let value = match inputs.get(state) {
                Some(input) => input.shallow_clone(),
                None => {
                    let value = self.joined(std::mem::take(&mut sums[state - 2]), &inputs[0]);
                    nodes.push(value.shallow_clone());
                    value
                }
            };
            let [through, past] = self.split(&value);
            for (to, term) in self.outgoing(cell, state, &through, mix, candidates) {
                sums[to - 2][0].add(term);
            }
            for edge in self.space.readers(state).filter(|edge| !candidates.is_gone(*edge)) {
                let share = mix.get(edge as i64).get(self.space.operations().len() as i64);
                sums[self.space.edges()[edge].1 - 2][1].add(&past * share);
            }
        }
        nodes
    }

    /// The channels that go through the operations, in memory of their own, and those that pass by.
    fn split(&self, x: &Tensor) -> [Tensor; 2] {
        let channels = x.size()[1];
        let through = channels / self.partial;
        let rows = x.permute([0, 2, 3, 1]);
        let first = rows.narrow(3, 0, through).contiguous().permute([0, 3, 1, 2]);
        [first, x.narrow(1, through, channels - through)]
    }

    /// A node from both of its sums, channels shuffled: each channel that went through the operations is followed by
    /// those that passed by. `like` has the shape of the whole.
    fn joined(&self, [through, past]: [Sum; 2], like: &Tensor) -> Tensor {
        let [like_through, like_past] = self.split(like);
        let (through, past) = (through.relu(&like_through), past.relu(&like_past));
        let size = like.size();
        let rows = Tensor::cat(&[through, past], 1).permute([0, 2, 3, 1]);
        let groups = rows.reshape([size[0], size[2], size[3], self.partial, size[1] / self.partial]);
        let shuffled = groups.transpose(3, 4).reshape([size[0], size[2], size[3], size[1]]);
        shuffled.permute([0, 3, 1, 2])
    }
}
