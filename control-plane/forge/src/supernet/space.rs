//! Which edges a cell has, which candidates are left on each, and how a cell is derived from them.

use crate::genotype::{Dim, Edge, Genotype, Operation};
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

    /// Removes the weakest operations until each edge has at most `keep`; the last one is never `zero`.
    pub fn prune(&mut self, weights: &[f32], keep: usize) {
        for (edge, active) in self.active.iter_mut().enumerate() {
            let weight = |op: usize| weights[edge * Operation::ALL.len() + op];
            loop {
                let left: Vec<usize> = (0..active.len()).filter(|op| active[*op]).collect();
                if left.len() <= keep.max(1) {
                    break;
                }
                let real = left.iter().filter(|op| **op != Operation::Zero.index()).count();
                let weakest = left
                    .into_iter()
                    .filter(|op| *op == Operation::Zero.index() || real > 1)
                    .min_by(|a, b| weight(*a).total_cmp(&weight(*b)));
                match weakest {
                    Some(op) => active[op] = false,
                    None => break,
                }
            }
        }
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
        let settled = Candidates::only(&cell, &space);
        assert_eq!(settled.masks(), [0b00_0001, 0b00_0100, 0, 0b01_0000, 0b00_1000]);
        assert_eq!(settled.derive(&space, &[1.0; 30]), cell);
        assert_eq!(Candidates::from_masks(&settled.masks(), &space), Some(settled));
    }
}
