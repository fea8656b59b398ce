//! Which candidates are left on each edge, and how a cell is derived from them.

use super::Space;
use crate::genotype::{Edge, Genotype, Operation};
use tch::Tensor;

/// The operations that are left on each edge, by their columns in the space; none where the edge is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidates {
    operations: Vec<Operation>,
    active: Vec<Vec<bool>>,
}

impl Candidates {
    /// Everything is left.
    pub fn all(space: &Space) -> Self {
        let operations = space.operations().to_vec();
        Self { active: vec![vec![true; operations.len()]; space.edges().len()], operations }
    }

    /// What a cell of `space` consists of: its own edges, each with its own operation.
    pub fn only(genotype: &Genotype, space: &Space) -> Self {
        let operations = space.operations().to_vec();
        let active = space
            .edges()
            .iter()
            .map(|(from, to)| {
                let kept = genotype.nodes[to - 2].iter().find(|edge| edge.from == *from);
                operations.iter().map(|op| kept.is_some_and(|edge| edge.op == *op)).collect()
            })
            .collect();
        Self { operations, active }
    }

    /// From one bit mask an edge, lowest bit the first operation; `None` if the masks are not those of `space`, or if a
    /// node would have nothing to read.
    pub fn from_masks(masks: &[u32], space: &Space) -> Option<Self> {
        let operations = space.operations().to_vec();
        let beyond = u32::MAX.checked_shl(operations.len() as u32).unwrap_or(0);
        if masks.iter().any(|mask| mask & beyond != 0) {
            return None;
        }
        let active: Vec<Vec<bool>> =
            masks.iter().map(|mask| (0..operations.len()).map(|op| mask >> op & 1 == 1).collect()).collect();
        let reads = |node: usize| {
            space.edges().iter().zip(&active).any(|((_, to), edge)| *to == node + 2 && edge.contains(&true))
        };
        let fits = active.len() == space.edges().len() && (0..space.nodes()).all(reads);
        fits.then_some(Self { operations, active })
    }

    /// For a checkpoint.
    pub fn masks(&self) -> Vec<u32> {
        self.active
            .iter()
            .map(|edge| edge.iter().enumerate().map(|(op, active)| u32::from(*active) << op).sum())
            .collect()
    }

    /// What could be on an edge, in the order of the columns.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Whether the operation of a column is left on an edge.
    pub fn is_active(&self, edge: usize, column: usize) -> bool {
        self.active[edge][column]
    }

    /// Whether nothing is left on an edge.
    pub fn is_gone(&self, edge: usize) -> bool {
        !self.active[edge].contains(&true)
    }

    /// Columns that are left on an edge.
    pub fn left(&self, edge: usize) -> impl Iterator<Item = usize> + '_ {
        self.active[edge].iter().enumerate().filter(|(_, active)| **active).map(|(column, _)| column)
    }

    /// Of what is left on each edge just the operation with that column.
    pub fn chosen(&self, columns: &[i64]) -> Self {
        let pick = |(active, chosen): (&Vec<bool>, &i64)| {
            active.iter().enumerate().map(|(op, active)| *active && op as i64 == *chosen).collect()
        };
        let active = self.active.iter().zip(columns).map(pick).collect();
        Self { operations: self.operations.clone(), active }
    }

    /// Operations left on the edge that has most.
    pub fn most(&self) -> usize {
        self.active.iter().map(|edge| edge.iter().filter(|active| **active).count()).max().unwrap_or(0)
    }

    /// Softmax of `alpha` `[edges, operations]` over what is left; differentiable, exactly 0 for what is not.
    pub fn weights(&self, alpha: &Tensor, temperature: f64) -> Tensor {
        let gone = |edge: &[bool]| !edge.contains(&true);
        let values = |value: fn(bool, bool) -> f32| {
            let values: Vec<f32> = self
                .active
                .iter()
                .flat_map(|edge| edge.iter().map(move |active| value(*active, gone(edge))))
                .collect();
            Tensor::from_slice(&values).reshape(alpha.size()).to_device(alpha.device())
        };
        // A row of nothing but minus infinity would give NaN; its softmax is taken as it is, and then removed.
        let mask = values(|active, gone| if active || gone { 0.0 } else { f32::NEG_INFINITY });
        let weights = (alpha / temperature + mask).softmax(1, tch::Kind::Float);
        if self.active.iter().any(|edge| gone(edge)) {
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
        let beta = beta + Tensor::from_slice(&gone).to_device(beta.device());
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
        let operations = &self.operations;
        let [is_zero, is_skip] =
            [Operation::ZERO, Operation::SKIP].map(|op| move |column: usize| operations[column] == op);
        for (edge, active) in self.active.iter_mut().enumerate() {
            let weight = |op: usize| weights[edge * operations.len() + op];
            loop {
                let left: Vec<usize> = (0..active.len()).filter(|op| active[*op]).collect();
                if left.len() <= keep.max(1) {
                    break;
                }
                let real = left.iter().filter(|op| !is_zero(**op)).count();
                let others = left.iter().filter(|op| !is_zero(**op) && !is_skip(**op)).count();
                let needed = |op: usize| match op {
                    op if is_zero(op) => false,
                    op if is_skip(op) => real == 1,
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
        let Some(skip) = space.column(Operation::SKIP) else { return left.derive(space, weights) };
        loop {
            let cell = left.derive(space, weights);
            let skips = space.skips(&cell);
            if skips.len() <= skips_max {
                return cell;
            }
            let weight = |edge: usize| weights[edge * self.operations.len() + skip];
            let weakest = skips
                .into_iter()
                .filter(|edge| left.others(*edge).next().is_some())
                .min_by(|a, b| weight(*a).total_cmp(&weight(*b)));
            match weakest {
                Some(edge) => left.active[edge][skip] = false,
                None => return cell,
            }
        }
    }

    /// Columns that are left on an edge beside the skip connection and nothing.
    pub fn others(&self, edge: usize) -> impl Iterator<Item = usize> + '_ {
        self.left(edge)
            .filter(|column| ![Operation::SKIP, Operation::ZERO].contains(&self.operations[*column]))
    }

    /// The cell: the strongest operation of each edge, then the strongest edges of each node.
    pub fn derive(&self, space: &Space, weights: &[f32]) -> Genotype {
        let mut nodes = vec![Vec::new(); space.nodes()];
        for (index, (from, to)) in space.edges().iter().enumerate() {
            let best = self
                .left(index)
                .map(|column| (weights[index * self.operations.len() + column], self.operations[column]))
                .filter(|(_, op)| *op != Operation::ZERO)
                .max_by(|a, b| a.0.total_cmp(&b.0));
            if let Some((weight, op)) = best {
                nodes[to - 2].push((weight, Edge { from: *from, op }));
            }
        }
        let nodes = nodes
            .into_iter()
            .map(|mut edges| {
                edges.sort_by(|a, b| b.0.total_cmp(&a.0));
                edges.truncate(space.fan_in());
                edges.sort_by_key(|(_, edge)| edge.from);
                edges.into_iter().map(|(_, edge)| edge).collect()
            })
            .collect();
        Genotype { nodes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genotype::Dim;

    #[test]
    fn pruning_removes_the_weakest_and_never_leaves_zero_alone() {
        let mut left = Candidates::all(&Space::with_reads(1, 1));
        let weights = [0.1, 0.15, 0.05, 0.12, 0.08, 0.5];
        left.prune(&weights, 3);
        assert_eq!(left.masks(), [0b10_1010]);
        left.prune(&weights, 1);
        assert_eq!(left.masks(), [0b00_0010]);
        let space = Space::with_reads(1, 1);
        assert_eq!(Candidates::from_masks(&left.masks(), &space), Some(left));
        assert_eq!(Candidates::from_masks(&[0], &space), None);
        assert_eq!(Candidates::from_masks(&[1, 1], &space), None);
    }

    #[test]
    fn of_two_candidates_one_can_learn() {
        let mut left = Candidates::all(&Space::with_reads(1, 1));
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
        let all = Candidates::all(&Space::all_earlier(2));
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
    fn derivation_keeps_the_strongest_operation_and_the_two_strongest_edges() {
        let space = Space::all_earlier(2);
        let mut weights = vec![0.01f32; 5 * 6];
        for (edge, op, weight) in
            [(0, 0, 0.5), (1, 2, 0.6), (2, 1, 0.3), (3, 4, 0.9), (4, 3, 0.4), (4, 5, 0.99)]
        {
            weights[edge * 6 + op] = weight;
        }
        let cell = Candidates::all(&Space::all_earlier(2)).derive(&space, &weights);
        assert_eq!(cell.line(Dim::Image), "0->2 conv3 | 1->2 max3 | 1->3 skip | 2->3 avg3");
        cell.validate().unwrap();
        assert_eq!(space.skips(&cell), [3]);
        let settled = Candidates::only(&cell, &space);
        assert_eq!(settled.masks(), [0b00_0001, 0b00_0100, 0, 0b01_0000, 0b00_1000]);
        assert_eq!(settled.derive(&space, &[1.0; 30]), cell);
        assert_eq!(Candidates::from_masks(&settled.masks(), &space), Some(settled));
    }
}
