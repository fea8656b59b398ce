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

/// The operations that are left on each edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidates {
    active: Vec<[bool; Operation::ALL.len()]>,
}

impl Candidates {
    /// Everything is left.
    pub fn all(edges: usize) -> Self {
        Self { active: vec![[true; Operation::ALL.len()]; edges] }
    }

    /// From one bit mask an edge, lowest bit the first operation; `None` if an edge has nothing left.
    pub fn from_masks(masks: &[u8]) -> Option<Self> {
        let active: Vec<_> = masks.iter().map(|mask| std::array::from_fn(|op| mask >> op & 1 == 1)).collect();
        active.iter().all(|edge: &[bool; 6]| edge.contains(&true)).then_some(Self { active })
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
        let mask: Vec<f32> = self
            .active
            .iter()
            .flatten()
            .map(|active| if *active { 0.0 } else { f32::NEG_INFINITY })
            .collect();
        let mask = Tensor::from_slice(&mask).reshape(alpha.size());
        (alpha / temperature + mask).softmax(1, tch::Kind::Float)
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

/// What each operation costs relative to the dearest, by weights and multiply-accumulates at `channels`.
pub fn costs(dim: Dim, channels: u64) -> [f32; 6] {
    let most = Operation::ALL.iter().map(|op| op.weights(dim, channels)).max().unwrap_or(1).max(1) as f32;
    Operation::ALL.map(|op| op.weights(dim, channels) as f32 / most)
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
        assert_eq!(Candidates::from_masks(&left.masks()), Some(left));
        assert_eq!(Candidates::from_masks(&[0]), None);
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
    }
}
