//! Keeps skip connections from taking over a search by gradients.
//!
//! A skip connection carries gradients from the first step on, while a convolution has to learn first: the longer a
//! search goes, the more skips it takes, and networks of them are poor (Zela et al. 2020). Against it:
//!
//! - skips are dropped at random, less and less often (Chen et al. 2019, "P-DARTS", section 3.3);
//! - a cell has at most [`skips_max`] of them, two of eight edges, as there;
//! - where more than that lead their edges (the criterion of Liang et al. 2019, "DARTS+"), the search is set back:
//!   those skips begin anew, level with the other operations of their edges, and are dropped as often as at first.

use crate::{
    genotype::{Genotype, Operation},
    optim::Adam,
    seeds::{self, Purpose},
    supernet::{Candidates, Space},
};
use rand::RngExt;
use tch::{Tensor, no_grad};

/// Share of a cell's edges that may be skip connections.
const SKIP_SHARE_MAX: f64 = 0.25;
/// Probability with which a skip connection is dropped from a step at first; it falls to zero in a straight line.
const DROPOUT: f64 = 0.4;
/// A skip leads its edge if it weighs this many times what the strongest other operation does.
const LEAD: f32 = 1.25;
/// Most repairs of one search; after them the bound on the cell has to do.
const REPAIRS_MAX: usize = 3;
/// Share of the architecture steps between two repairs, and before the first.
const REST_SHARE: f64 = 0.1;

/// Most skip connections of a cell with `nodes` nodes of two edges each.
pub(super) fn skips_max(nodes: usize) -> usize {
    ((2 * nodes) as f64 * SKIP_SHARE_MAX).max(1.0) as usize
}

/// What a search has been through.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    /// Off only where a test shows what happens without it.
    on: bool,
    seed: u64,
    /// Architecture steps in all.
    arch: u64,
    /// The architecture steps at which the search was set back.
    pub repairs: Vec<u64>,
}

impl Guard {
    pub(super) fn new(seed: u64, arch: u64) -> Self {
        Self { on: true, seed, arch, repairs: Vec::new() }
    }

    #[cfg(test)]
    pub(super) fn off(&mut self) {
        self.on = false;
    }

    /// Probability with which a skip is dropped at an architecture step.
    fn dropout(&self, arch_step: u64) -> f64 {
        let since = self.repairs.last().copied().unwrap_or(0);
        let left = self.arch.saturating_sub(arch_step) as f64;
        DROPOUT * left / self.arch.saturating_sub(since).max(1) as f64
    }

    /// Factors `[edges, operations]` for the weights of a step: 0 for skips that are dropped, and for those that are
    /// not, what keeps the mean. The draw is that of the pass with this number.
    pub(super) fn drop_skips(&self, edges: usize, arch_step: u64, pass: u64) -> Tensor {
        let mut factors = vec![1f32; edges * Operation::ALL.len()];
        let dropout = if self.on { self.dropout(arch_step) } else { 0.0 };
        if dropout > 0.0 {
            let mut rng = seeds::stream(self.seed, Purpose::SkipDropout, pass);
            for edge in factors.chunks_exact_mut(Operation::ALL.len()) {
                let kept = rng.random_range(0.0..1.0) >= dropout;
                edge[Operation::Skip.index()] = if kept { (1.0 / (1.0 - dropout)) as f32 } else { 0.0 };
            }
        }
        Tensor::from_slice(&factors).reshape([edges as i64, -1])
    }

    /// The cell that the weights `[edges, operations]` of the candidates give.
    pub(super) fn derive(&self, candidates: &Candidates, space: &Space, weights: &[f32]) -> Genotype {
        if self.on {
            candidates.derive_with(space, weights, skips_max(space.nodes()))
        } else {
            candidates.derive(space, weights)
        }
    }

    /// Edges on which a skip connection leads, if they have taken over the cell at this architecture step and the search
    /// may be set back.
    pub(super) fn taken_over(
        &self,
        candidates: &Candidates,
        space: &Space,
        weights: &[f32],
        arch_step: u64,
    ) -> Option<Vec<usize>> {
        let since = self.repairs.last().copied().unwrap_or(0);
        let rest = (self.arch as f64 * REST_SHARE).ceil() as u64;
        if !self.on || self.repairs.len() >= REPAIRS_MAX || arch_step < since + rest {
            return None;
        }
        let leads = |edge: &usize| {
            let weight = |op: Operation| weights[edge * Operation::ALL.len() + op.index()];
            let next = candidates.others(*edge).map(weight).reduce(f32::max);
            candidates.is_active(*edge, Operation::Skip)
                && next.is_some_and(|next| weight(Operation::Skip) >= LEAD * next)
        };
        let in_cell = space.skips(&candidates.derive(space, weights));
        let led = in_cell.iter().filter(|edge| leads(edge)).count();
        (led > skips_max(space.nodes())).then(|| (0..space.edges().len()).filter(leads).collect())
    }

    /// Sets the skips of `edges` back in `alpha` `[edges, columns]` and in its optimiser.
    pub(super) fn repair(
        &mut self,
        edges: &[usize],
        candidates: &Candidates,
        alpha: &Tensor,
        adam: &mut Adam,
        arch_step: u64,
    ) {
        self.repairs.push(arch_step);
        let columns = alpha.size()[1];
        no_grad(|| {
            for edge in edges {
                let row = alpha.detach().get(*edge as i64);
                let others: Vec<f64> =
                    candidates.others(*edge).map(|op| row.double_value(&[op.index() as i64])).collect();
                if others.is_empty() {
                    continue;
                }
                let level = others.iter().sum::<f64>() / others.len() as f64;
                let skip = Operation::Skip.index() as i64;
                let _ = row.get(skip).fill_(level);
                for moment in [&adam.mean, &adam.square] {
                    let _ = moment.get(*edge as i64 * columns + skip).fill_(0.0);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::to_vec;

    const SKIP: usize = 4;

    fn weights(skips: &[f32]) -> Vec<f32> {
        skips.iter().flat_map(|skip| [0.2, 0.1, 0.1, 0.1, *skip, 0.1]).collect()
    }

    #[test]
    fn a_quarter_of_the_edges_may_be_skips_and_one_always() {
        assert_eq!([1, 2, 3, 4, 8].map(skips_max), [1, 1, 1, 2, 4]);
    }

    #[test]
    fn skips_are_dropped_ever_less_often_until_a_repair_and_keep_their_mean() {
        let mut guard = Guard::new(1, 100);
        assert!((guard.dropout(0) - 0.4).abs() < 1e-9 && (guard.dropout(50) - 0.2).abs() < 1e-9);
        assert!(guard.dropout(100) < 1e-9);
        let draw = |guard: &Guard, arch_step, pass| to_vec(&guard.drop_skips(50, arch_step, pass));
        assert_eq!(draw(&guard, 0, 3), draw(&guard, 0, 3));
        assert_ne!(draw(&guard, 0, 3), draw(&guard, 0, 4));
        let all: Vec<f32> = (0..40).flat_map(|pass| draw(&guard, 0, pass)).collect();
        let skips: Vec<f32> = all.chunks(6).map(|edge| edge[SKIP]).collect();
        let mean = skips.iter().sum::<f32>() / skips.len() as f32;
        assert!((mean - 1.0).abs() < 0.1, "{mean}");
        assert!(skips.contains(&0.0));
        assert!(all.chunks(6).all(|edge| edge[..SKIP] == [1.0; SKIP] && edge[SKIP + 1] == 1.0));
        assert!(draw(&guard, 100, 3).iter().all(|factor| *factor == 1.0));
        guard.repairs.push(50);
        assert!((guard.dropout(50) - 0.4).abs() < 1e-9 && (guard.dropout(75) - 0.2).abs() < 1e-9);
    }

    #[test]
    fn more_skips_in_the_lead_than_a_cell_may_have_are_found_and_set_back_three_times_at_most() {
        let space = Space::all_earlier(2);
        let all = Candidates::all(5);
        let mut guard = Guard::new(1, 100);
        // Edge 4 is the weakest of its node and not in the cell, and its skip does not lead by enough.
        let taken = weights(&[0.5, 0.1, 0.6, 0.4, 0.21]);
        let look = |guard: &Guard, weights: &[f32], step| guard.taken_over(&all, &space, weights, step);
        assert_eq!(look(&guard, &taken, 9), None);
        assert_eq!(look(&guard, &taken, 10), Some(vec![0, 2, 3]));
        assert_eq!(look(&guard, &weights(&[0.5, 0.1, 0.1, 0.1, 0.1]), 10), None);
        let alpha: Vec<f32> = (0..30).map(|at| at as f32).collect();
        let alpha = Tensor::from_slice(&alpha).reshape([5, 6]);
        let mut adam = Adam::new(30, (0.9, 0.999), 0.0);
        let _ = adam.mean.fill_(1.0);
        guard.repair(&[0, 2], &all, &alpha, &mut adam, 10);
        let values = to_vec(&alpha);
        // The mean of 0 to 3, and of 12 to 15.
        assert_eq!((values[SKIP], values[6 + SKIP], values[12 + SKIP]), (1.5, 10.0, 13.5));
        let means = to_vec(&adam.mean);
        assert_eq!((means[SKIP], means[6 + SKIP], means[12 + SKIP], means[5]), (0.0, 1.0, 0.0, 1.0));
        assert_eq!(look(&guard, &taken, 19), None);
        for step in [20, 30] {
            assert!(look(&guard, &taken, step).is_some());
            guard.repair(&[0], &all, &alpha, &mut adam, step);
        }
        assert_eq!(look(&guard, &taken, 90), None);
        assert_eq!(guard.derive(&all, &space, &taken).skips(), 1);
        guard.off();
        assert_eq!(guard.derive(&all, &space, &taken).skips(), 3);
    }
}
