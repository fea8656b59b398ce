//! Keeps skip connections from taking over a search by gradients.
//!
//! A skip connection carries gradients from the first step on, while a convolution has to learn first: the longer a
//! search goes, the more skips it takes, and networks of them are poor (Zela et al. 2020). Against it:
//!
//! - skips are dropped at random, less and less often (Chen et al. 2019, "P-DARTS", section 3.3), and so is every other
//!   operation where the space says so;
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
use shared::space::Regularise;
use tch::{Tensor, no_grad};

/// Share of a cell's edges that may be skip connections.
const SKIP_SHARE_MAX: f64 = 0.25;
/// A skip leads its edge if it weighs this many times what the strongest other operation does.
const LEAD: f32 = 1.25;
/// Most repairs of one search; after them the bound on the cell has to do.
const REPAIRS_MAX: usize = 3;
/// Share of the architecture steps between two repairs, and before the first.
const REST_SHARE: f64 = 0.1;

/// Most skip connections of a cell.
pub(super) fn skips_max(space: &Space) -> usize {
    ((space.fan_in() * space.nodes()) as f64 * SKIP_SHARE_MAX).max(1.0) as usize
}

/// What a search has been through.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    /// Off only where a test shows what happens without it.
    on: bool,
    seed: u64,
    /// Architecture steps in all.
    arch: u64,
    regularise: Regularise,
    /// The architecture steps at which the search was set back.
    pub repairs: Vec<u64>,
}

impl Guard {
    pub(super) fn new(seed: u64, arch: u64, regularise: Regularise) -> Self {
        Self { on: true, seed, arch, regularise, repairs: Vec::new() }
    }

    #[cfg(test)]
    pub(super) fn off(&mut self) {
        self.on = false;
    }

    /// What is left of a probability at an architecture step, of which there is all at first and after each repair.
    fn left(&self, arch_step: u64) -> f64 {
        let since = self.repairs.last().copied().unwrap_or(0);
        let left = self.arch.saturating_sub(arch_step) as f64;
        left / self.arch.saturating_sub(since).max(1) as f64
    }

    /// Factors `[edges, operations]` for the weights of a step: 0 for operations that are dropped, and for those that are
    /// not, what keeps the mean. The draw is that of the pass with this number.
    pub(super) fn drop(&self, space: &Space, arch_step: u64, pass: u64) -> Tensor {
        let columns = space.operations().len();
        let mut factors = vec![1f32; space.edges().len() * columns];
        let left = if self.on { self.left(arch_step) } else { 0.0 };
        let mut rng = seeds::stream(self.seed, Purpose::SkipDropout, pass);
        let others = (0..columns)
            .filter(|column| ![Operation::SKIP, Operation::ZERO].contains(&space.operations()[*column]));
        let others: Vec<usize> = others.collect();
        let skip: Vec<usize> = space.column(Operation::SKIP).into_iter().collect();
        let Regularise { skip_dropout, operation_dropout, .. } = self.regularise;
        for (dropped, dropout) in [(skip, skip_dropout * left), (others, operation_dropout * left)] {
            if dropout <= 0.0 {
                continue;
            }
            for edge in factors.chunks_exact_mut(columns) {
                for column in &dropped {
                    let kept = rng.random_range(0.0..1.0) >= dropout;
                    edge[*column] = if kept { (1.0 / (1.0 - dropout)) as f32 } else { 0.0 };
                }
            }
        }
        Tensor::from_slice(&factors).reshape([space.edges().len() as i64, -1])
    }

    /// The cell that the weights `[edges, operations]` of the candidates give.
    pub(super) fn derive(&self, candidates: &Candidates, space: &Space, weights: &[f32]) -> Genotype {
        if self.on {
            candidates.derive_with(space, weights, skips_max(space))
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
        let skip = space.column(Operation::SKIP)?;
        let leads = |edge: &usize| {
            let weight = |column: usize| weights[edge * space.operations().len() + column];
            let next = candidates.others(*edge).map(weight).reduce(f32::max);
            candidates.is_active(*edge, skip) && next.is_some_and(|next| weight(skip) >= LEAD * next)
        };
        let in_cell = space.skips(&candidates.derive(space, weights));
        let led = in_cell.iter().filter(|edge| leads(edge)).count();
        (led > skips_max(space)).then(|| (0..space.edges().len()).filter(leads).collect())
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
        let skip = candidates.operations().iter().position(|operation| *operation == Operation::SKIP);
        let Some(skip) = skip.map(|column| column as i64) else { return };
        no_grad(|| {
            for edge in edges {
                let row = alpha.detach().get(*edge as i64);
                let others: Vec<f64> =
                    candidates.others(*edge).map(|column| row.double_value(&[column as i64])).collect();
                if others.is_empty() {
                    continue;
                }
                let level = others.iter().sum::<f64>() / others.len() as f64;
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
        assert_eq!([1, 2, 3, 4, 8].map(|nodes| skips_max(&Space::all_earlier(nodes))), [1, 1, 1, 2, 4]);
        let wide = Space::new(4, 9, 4, vec![Operation::CONV3, Operation::SKIP]);
        assert_eq!(skips_max(&wide), 4);
    }

    #[test]
    fn skips_are_dropped_ever_less_often_until_a_repair_and_keep_their_mean() {
        let mut guard = Guard::new(1, 100, Regularise::default());
        assert!((guard.left(0) - 1.0).abs() < 1e-9 && (guard.left(50) - 0.5).abs() < 1e-9);
        assert!(guard.left(100) < 1e-9);
        let space = Space::all_earlier(8);
        let draw = |guard: &Guard, arch_step, pass| to_vec(&guard.drop(&space, arch_step, pass));
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
        assert!((guard.left(50) - 1.0).abs() < 1e-9 && (guard.left(75) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn every_operation_that_gives_something_is_dropped_where_the_space_says_so() {
        let regularise = Regularise { operation_dropout: 0.5, skip_dropout: 0.0, ..Regularise::default() };
        let guard = Guard::new(1, 100, regularise);
        let factors = to_vec(&guard.drop(&Space::all_earlier(8), 0, 3));
        for column in 0..6 {
            let seen: Vec<f32> = factors.chunks(6).map(|edge| edge[column]).collect();
            if column < SKIP {
                assert!(seen.contains(&0.0) && seen.contains(&2.0), "{column}: {seen:?}");
            } else {
                assert!(seen.iter().all(|factor| *factor == 1.0), "{column}: {seen:?}");
            }
        }
    }

    #[test]
    fn more_skips_in_the_lead_than_a_cell_may_have_are_found_and_set_back_three_times_at_most() {
        let space = Space::all_earlier(2);
        let all = Candidates::all(&space);
        let mut guard = Guard::new(1, 100, Regularise::default());
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
