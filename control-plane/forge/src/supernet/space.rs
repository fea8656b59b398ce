//! Which edges a cell has, which candidates are left on each, and how a cell is derived from them.

use crate::{
    genotype::{Dim, Edge, Genotype, Operation},
    seeds,
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

/// The edges of a cell: node `n` is state `n + 2` and reads up to `fan_in` of the states before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    nodes: usize,
    edges: Vec<(usize, usize)>,
}

impl Space {
    /// Every node reads every earlier state.
    pub fn all_earlier(nodes: usize) -> Self {
        Self::with_fan_in(nodes, usize::MAX)
    }

    /// Every node reads the `fan_in` states before it.
    pub fn with_fan_in(nodes: usize, fan_in: usize) -> Self {
        let edges = (2..nodes + 2)
            .flat_map(|to| (to.saturating_sub(fan_in)..to).map(move |from| (from, to)))
            .collect();
        Self { nodes, edges }
    }

    /// Number of nodes.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// All edges as (from, to), in order of `to`.
    pub fn edges(&self) -> &[(usize, usize)] {
        &self.edges
    }

    /// Edges that read `state`.
    pub fn readers(&self, state: usize) -> impl Iterator<Item = usize> + '_ {
        self.edges.iter().enumerate().filter(move |(_, edge)| edge.0 == state).map(|(index, _)| index)
    }

    /// The edges that are skip connections in `cell`.
    pub fn skips(&self, cell: &Genotype) -> Vec<usize> {
        let is_skip =
            |(from, to): (usize, usize)| cell.nodes[to - 2].contains(&Edge { from, op: Operation::Skip });
        (0..self.edges.len()).filter(|edge| is_skip(self.edges[*edge])).collect()
    }

    /// A cell of this space: every node reads two of its states (one, where it has no other), every choice is equally
    /// likely.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> Genotype {
        let node = |to: usize, rng: &mut ChaCha8Rng| {
            let mut from: Vec<usize> =
                self.edges.iter().filter(|edge| edge.1 == to).map(|edge| edge.0).collect();
            seeds::shuffle(&mut from, rng);
            from.truncate(2);
            from.sort_unstable();
            from.into_iter()
                .map(|from| Edge { from, op: Operation::REAL[rng.random_range(0..Operation::REAL.len())] })
                .collect()
        };
        Genotype { nodes: (2..self.nodes + 2).map(|to| node(to, rng)).collect() }
    }
}

/// The operations that are left on each edge; none where the edge is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidates {
    active: Vec<[bool; Operation::ALL.len()]>,
}

impl Candidates {
    /// Everything is left.
    pub fn all(edges: usize) -> Self {
        Self { active: vec![[true; Operation::ALL.len()]; edges] }
    }

    /// What a cell of `space` consists of: its own edges, each with its own operation.
    pub fn only(genotype: &Genotype, space: &Space) -> Self {
        let active = space
            .edges()
            .iter()
            .map(|(from, to)| {
                let kept = genotype.nodes[to - 2].iter().find(|edge| edge.from == *from);
                std::array::from_fn(|op| kept.is_some_and(|edge| edge.op.index() == op))
            })
            .collect();
        Self { active }
    }

    /// From one bit mask an edge, lowest bit the first operation; `None` if the masks are not those of `space`, or if a
    /// node would have nothing to read.
    pub fn from_masks(masks: &[u8], space: &Space) -> Option<Self> {
        let active: Vec<[bool; Operation::ALL.len()]> =
            masks.iter().map(|mask| std::array::from_fn(|op| mask >> op & 1 == 1)).collect();
        let reads = |node: usize| {
            space.edges().iter().zip(&active).any(|((_, to), edge)| *to == node + 2 && edge.contains(&true))
        };
        (active.len() == space.edges().len() && (0..space.nodes()).all(reads)).then_some(Self { active })
    }

    /// For a checkpoint.
    pub fn masks(&self) -> Vec<u8> {
        self.active
            .iter()
            .map(|edge| edge.iter().enumerate().map(|(op, active)| u8::from(*active) << op).sum())
            .collect()
    }

    /// Whether an operation is left on an edge.
    pub fn is_active(&self, edge: usize, op: Operation) -> bool {
        self.active[edge][op.index()]
    }

    /// Whether nothing is left on an edge.
    pub fn is_gone(&self, edge: usize) -> bool {
        !self.active[edge].contains(&true)
    }

    /// Of what is left on each edge just the operation with that index.
    pub fn chosen(&self, operations: &[i64]) -> Self {
        let pick = |(active, chosen): (&[bool; Operation::ALL.len()], &i64)| {
            std::array::from_fn(|op| active[op] && op as i64 == *chosen)
        };
        Self { active: self.active.iter().zip(operations).map(pick).collect() }
    }

    /// Operations left on the edge that has most.
    pub fn most(&self) -> usize {
        self.active.iter().map(|edge| edge.iter().filter(|active| **active).count()).max().unwrap_or(0)
    }

    /// Softmax of `alpha` `[edges, operations]` over what is left; differentiable, exactly 0 for what is not.
    pub fn weights(&self, alpha: &Tensor, temperature: f64) -> Tensor {
        let gone = |edge: &[bool; Operation::ALL.len()]| !edge.contains(&true);
        let values = |value: fn(bool, bool) -> f32| {
            let values: Vec<f32> = self
                .active
                .iter()
                .flat_map(|edge| edge.iter().map(move |active| value(*active, gone(edge))))
                .collect();
            Tensor::from_slice(&values).reshape(alpha.size())
        };
        // A row of nothing but minus infinity would give NaN; its softmax is taken as it is, and then removed.
        let mask = values(|active, gone| if active || gone { 0.0 } else { f32::NEG_INFINITY });
        let weights = (alpha / temperature + mask).softmax(1, tch::Kind::Float);
        if self.active.iter().any(gone) {
            weights * values(|active, _| f32::from(u8::from(active)))
        } else {
            weights
        }
    }

    /// [`Self::weights`] times the share of the edge, with that share as one column more: the edge normalisation of Xu
    /// et al. 2020. The shares of what a node reads are the softmax of its edges in `beta` `[edges]`.
    pub fn with_edge_shares(&self, weights: &Tensor, beta: &Tensor, space: &Space) -> Tensor {
        let gone: Vec<f32> = (0..self.active.len())
            .map(|edge| if self.is_gone(edge) { f32::NEG_INFINITY } else { 0.0 })
            .collect();
        let beta = beta + Tensor::from_slice(&gone);
        let mut first = 0;
        let shares: Vec<Tensor> = (2..space.nodes() + 2)
            .map(|node| {
                let count = space.edges().iter().filter(|(_, to)| *to == node).count() as i64;
                let part = beta.narrow(0, first, count).softmax(0, tch::Kind::Float);
                first += count;
                part
            })
            .collect();
        let shares = Tensor::cat(&shares, 0).unsqueeze(1);
        Tensor::cat(&[weights * &shares, shares], 1)
    }

    /// Removes the weakest operations until each edge has at most `keep`; the last one is never `zero`, and while there
    /// are two, one of them is neither that nor the skip connection: each edge keeps something to learn by.
    pub fn prune(&mut self, weights: &[f32], keep: usize) {
        for (edge, active) in self.active.iter_mut().enumerate() {
            let weight = |op: usize| weights[edge * Operation::ALL.len() + op];
            loop {
                let left: Vec<usize> = (0..active.len()).filter(|op| active[*op]).collect();
                if left.len() <= keep.max(1) {
                    break;
                }
                let (zero, skip) = (Operation::Zero.index(), Operation::Skip.index());
                let real = left.iter().filter(|op| **op != zero).count();
                let others = left.iter().filter(|op| **op != zero && **op != skip).count();
                let needed = |op: usize| match op {
                    op if op == zero => false,
                    op if op == skip => real == 1,
                    _ => real == 1 || (keep > 1 && others == 1),
                };
                let weakest = left
                    .into_iter()
                    .filter(|op| !needed(*op))
                    .min_by(|a, b| weight(*a).total_cmp(&weight(*b)));
                match weakest {
                    Some(op) => active[op] = false,
                    None => break,
                }
            }
        }
    }

    /// As [`Self::derive`], with at most `skips_max` skip connections, where the other candidates that are left allow
    /// it: the weakest give way to what comes next on their edge (Chen et al. 2019, "P-DARTS", section 3.3).
    pub fn derive_with(&self, space: &Space, weights: &[f32], skips_max: usize) -> Genotype {
        let mut left = self.clone();
        loop {
            let cell = left.derive(space, weights);
            let skips = space.skips(&cell);
            if skips.len() <= skips_max {
                return cell;
            }
            let weight = |edge: usize| weights[edge * Operation::ALL.len() + Operation::Skip.index()];
            let weakest = skips
                .into_iter()
                .filter(|edge| left.others(*edge).next().is_some())
                .min_by(|a, b| weight(*a).total_cmp(&weight(*b)));
            match weakest {
                Some(edge) => left.active[edge][Operation::Skip.index()] = false,
                None => return cell,
            }
        }
    }

    /// What is left on an edge beside the skip connection and nothing.
    pub fn others(&self, edge: usize) -> impl Iterator<Item = Operation> + '_ {
        Operation::REAL.into_iter().filter(move |op| *op != Operation::Skip && self.is_active(edge, *op))
    }

    /// The cell: the strongest operation of each edge, then the two strongest edges of each node.
    pub fn derive(&self, space: &Space, weights: &[f32]) -> Genotype {
        let mut nodes = vec![Vec::new(); space.nodes()];
        for (index, (from, to)) in space.edges().iter().enumerate() {
            let best = Operation::ALL
                .into_iter()
                .filter(|op| *op != Operation::Zero && self.is_active(index, *op))
                .map(|op| (weights[index * Operation::ALL.len() + op.index()], op))
                .max_by(|a, b| a.0.total_cmp(&b.0));
            if let Some((weight, op)) = best {
                nodes[to - 2].push((weight, Edge { from: *from, op }));
            }
        }
        let nodes = nodes
            .into_iter()
            .map(|mut edges| {
                edges.sort_by(|a, b| b.0.total_cmp(&a.0));
                edges.truncate(2);
                edges.sort_by_key(|(_, edge)| edge.from);
                edges.into_iter().map(|(_, edge)| edge).collect()
            })
            .collect();
        Genotype { nodes }
    }
}

/// What each operation costs relative to the dearest, in cells of these widths: its weights. Every operation keeps the
/// resolution, so its multiply-accumulates in a cell are its weights times one number, and the ratios are the same.
pub fn costs(dim: Dim, widths: impl Iterator<Item = u64> + Clone) -> [f32; 6] {
    let all = Operation::ALL.map(|op| widths.clone().map(|channels| op.weights(dim, channels)).sum::<u64>());
    let most = all.into_iter().max().unwrap_or(1).max(1) as f32;
    all.map(|weights| weights as f32 / most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_nodes_that_read_the_previous_two_states_have_eight_edges() {
        let space = Space::with_fan_in(4, 2);
        assert_eq!(space.edges(), [(0, 2), (1, 2), (1, 3), (2, 3), (2, 4), (3, 4), (3, 5), (4, 5)]);
        assert_eq!(Space::all_earlier(4).edges().len(), 14);
        assert_eq!(space.readers(3).collect::<Vec<_>>(), [5, 6]);
    }

    #[test]
    fn pruning_removes_the_weakest_and_never_leaves_zero_alone() {
        let mut left = Candidates::all(1);
        let weights = [0.1, 0.15, 0.05, 0.12, 0.08, 0.5];
        left.prune(&weights, 3);
        assert_eq!(left.masks(), [0b10_1010]);
        left.prune(&weights, 1);
        assert_eq!(left.masks(), [0b00_0010]);
        let space = Space::with_fan_in(1, 1);
        assert_eq!(Candidates::from_masks(&left.masks(), &space), Some(left));
        assert_eq!(Candidates::from_masks(&[0], &space), None);
        assert_eq!(Candidates::from_masks(&[1, 1], &space), None);
    }

    #[test]
    fn of_two_candidates_one_can_learn() {
        let mut left = Candidates::all(1);
        // Skip and zero are the strongest by far.
        let weights = [0.01, 0.02, 0.03, 0.04, 0.5, 0.4];
        left.prune(&weights, 2);
        assert_eq!(left.masks(), [0b01_1000]);
        left.prune(&weights, 1);
        assert_eq!(left.masks(), [0b01_0000]);
    }

    #[test]
    fn the_weakest_skips_give_way_to_the_next_operation_of_their_edge() {
        let space = Space::all_earlier(2);
        let mut weights = vec![0.01f32; 5 * 6];
        for (edge, skip, (next, weight)) in [
            (0, 0.9, (0, 0.05)),
            (1, 0.6, (2, 0.3)),
            (2, 0.8, (1, 0.1)),
            (3, 0.7, (3, 0.2)),
            (4, 0.03, (0, 0.02)),
        ] {
            weights[edge * 6 + 4] = skip;
            weights[edge * 6 + next] = weight;
        }
        let all = Candidates::all(5);
        let line = |skips_max| all.derive_with(&space, &weights, skips_max).line(Dim::Image);
        assert_eq!(line(4), "0->2 skip | 1->2 skip | 0->3 skip | 1->3 skip");
        assert_eq!(line(3), "0->2 skip | 1->2 max3 | 0->3 skip | 1->3 skip");
        assert_eq!(line(1), "0->2 skip | 1->2 max3 | 0->3 sep5 | 1->3 avg3");
        assert_eq!(line(0), "0->2 conv3 | 1->2 max3 | 0->3 sep5 | 1->3 avg3");
        // Where nothing else is left, the skips stay.
        let skips = Candidates::from_masks(&[0b01_0000; 5], &space).unwrap();
        assert_eq!(skips.derive_with(&space, &weights, 0).skips(), 4);
    }

    #[test]
    fn drawn_cells_are_valid_repeat_by_seed_and_take_every_operation() {
        let draw = |step| Space::all_earlier(3).draw(&mut seeds::stream(1, seeds::Purpose::Cells, step));
        assert_eq!(draw(0), draw(0));
        let cells: Vec<Genotype> = (0..40).map(draw).collect();
        let mut taken = std::collections::BTreeSet::new();
        for cell in &cells {
            cell.validate().unwrap();
            assert!(cell.nodes.iter().all(|edges| edges.len() == 2));
            taken.extend(cell.nodes.iter().flatten().map(|edge| edge.op));
        }
        assert_eq!(taken.into_iter().collect::<Vec<_>>(), Operation::REAL);
    }

    #[test]
    fn the_shares_of_the_edges_that_are_left_add_up_to_one_at_each_node() {
        let space = Space::all_earlier(2);
        let left = Candidates::from_masks(&[0b11, 0, 0b1, 0b10, 0b100], &space).unwrap();
        let beta = Tensor::from_slice(&[0.3f32, 9.0, 1.0, 1.0, 1.0]);
        let ones = left.weights(&Tensor::zeros([5, 6], (tch::Kind::Float, tch::Device::Cpu)), 1.0);
        let values = crate::params::to_vec(&left.with_edge_shares(&ones, &beta, &space));
        let rows: Vec<&[f32]> = values.chunks(7).collect();
        assert_eq!(rows[0], [0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 1.0]);
        assert_eq!(rows[1], [0.0; 7]);
        for (row, op) in rows[2..].iter().zip([0, 1, 2]) {
            assert!((row[op] - 1.0 / 3.0).abs() < 1e-6 && (row[6] - row[op]).abs() < 1e-6, "{row:?}");
        }
    }

    #[test]
    fn an_edge_that_is_gone_weighs_nothing_and_takes_no_gradient() {
        let left = Candidates::from_masks(&[0b00_0011, 0], &Space::all_earlier(1)).unwrap();
        let alpha = Tensor::from_slice(&[0.5f32, 0.5, 9.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let alpha = alpha.reshape([2, 6]).set_requires_grad(true);
        let weights = left.weights(&alpha, 1.0);
        let values = crate::params::to_vec(&weights);
        assert_eq!(values, [0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        let loss = (weights.get(0).get(0) - weights.get(1).get(3)).sum(tch::Kind::Float);
        let gradient = Tensor::run_backward(&[loss], &[&alpha], false, false).remove(0);
        assert_eq!(crate::params::to_vec(&gradient)[..2], [0.25, -0.25]);
        assert!(crate::params::to_vec(&gradient)[2..].iter().all(|value| *value == 0.0));
    }

    #[test]
    fn the_cost_of_an_operation_is_its_share_of_the_dearest_over_all_widths() {
        let all = costs(Dim::Image, [8, 16].into_iter());
        assert_eq!(all[Operation::Conv.index()], 1.0);
        let separable = (25 * 8 + 64 + 25 * 16 + 256) as f32 / (9 * 64 + 9 * 256) as f32;
        assert!((all[Operation::SepConv.index()] - separable).abs() < 1e-6);
        assert_eq!(all[2..], [0.0; 4]);
    }

    #[test]
    fn derivation_keeps_the_strongest_operation_and_the_two_strongest_edges() {
        let space = Space::all_earlier(2);
        let mut weights = vec![0.01f32; 5 * 6];
        for (edge, op, weight) in
            [(0, 0, 0.5), (1, 2, 0.6), (2, 1, 0.3), (3, 4, 0.9), (4, 3, 0.4), (4, 5, 0.99)]
        {
            weights[edge * 6 + op] = weight;
        }
        let cell = Candidates::all(5).derive(&space, &weights);
        assert_eq!(cell.line(Dim::Image), "0->2 conv3 | 1->2 max3 | 1->3 skip | 2->3 avg3");
        cell.validate().unwrap();
        assert_eq!(space.skips(&cell), [3]);
        let settled = Candidates::only(&cell, &space);
        assert_eq!(settled.masks(), [0b00_0001, 0b00_0100, 0, 0b01_0000, 0b00_1000]);
        assert_eq!(settled.derive(&space, &[1.0; 30]), cell);
        assert_eq!(Candidates::from_masks(&settled.masks(), &space), Some(settled));
    }
}
