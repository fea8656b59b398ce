//! Which edges a cell has, and what may be on them.

use crate::{
    genotype::{Dim, Edge, Genotype, Operation},
    seeds,
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// The edges of a cell, each with the same operations to choose from: node `n` is state `n + 2` and reads some of the
/// states before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    nodes: usize,
    fan_in: usize,
    edges: Vec<(usize, usize)>,
    operations: Vec<Operation>,
}

impl Space {
    /// Every node reads every earlier state; a found one sums two. The operations are [`Operation::FIRST`].
    pub fn all_earlier(nodes: usize) -> Self {
        Self::with_reads(nodes, usize::MAX)
    }

    /// The same, but every node reads just the `reads` states before it.
    pub fn with_reads(nodes: usize, reads: usize) -> Self {
        Self::new(nodes, reads, 2, Operation::FIRST.to_vec())
    }

    /// Every node reads the `reads` states before it through one of `operations` each; a found one sums `fan_in` of them.
    pub fn new(nodes: usize, reads: usize, fan_in: usize, operations: Vec<Operation>) -> Self {
        let edges = (2..nodes + 2)
            .flat_map(|to| (to.saturating_sub(reads)..to).map(move |from| (from, to)))
            .collect();
        Self { nodes, fan_in, edges, operations }
    }

    /// Number of nodes.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// States that a node of a found cell sums.
    pub fn fan_in(&self) -> usize {
        self.fan_in
    }

    /// All edges as (from, to), in order of `to`.
    pub fn edges(&self) -> &[(usize, usize)] {
        &self.edges
    }

    /// What may be on an edge, in the order of the columns of the architecture weights.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The column of an operation.
    pub fn column(&self, operation: Operation) -> Option<usize> {
        self.operations.iter().position(|known| *known == operation)
    }

    /// What a cell may consist of.
    pub fn real(&self) -> impl Iterator<Item = Operation> + '_ {
        self.operations.iter().copied().filter(|operation| *operation != Operation::ZERO)
    }

    /// Edges that read `state`.
    pub fn readers(&self, state: usize) -> impl Iterator<Item = usize> + '_ {
        self.edges.iter().enumerate().filter(move |(_, edge)| edge.0 == state).map(|(index, _)| index)
    }

    /// The edges that are skip connections in `cell`.
    pub fn skips(&self, cell: &Genotype) -> Vec<usize> {
        let is_skip =
            |(from, to): (usize, usize)| cell.nodes[to - 2].contains(&Edge { from, op: Operation::SKIP });
        (0..self.edges.len()).filter(|edge| is_skip(self.edges[*edge])).collect()
    }

    /// One of the operations of a cell, each equally likely.
    pub fn draw_operation(&self, rng: &mut ChaCha8Rng) -> Operation {
        let real: Vec<Operation> = self.real().collect();
        real[rng.random_range(0..real.len())]
    }

    /// A cell of this space: every node reads as many of its states as it sums (fewer, where it has no more), every
    /// choice is equally likely.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> Genotype {
        let node = |to: usize, rng: &mut ChaCha8Rng| {
            let mut from: Vec<usize> =
                self.edges.iter().filter(|edge| edge.1 == to).map(|edge| edge.0).collect();
            seeds::shuffle(&mut from, rng);
            from.truncate(self.fan_in);
            from.sort_unstable();
            from.into_iter().map(|from| Edge { from, op: self.draw_operation(rng) }).collect()
        };
        Genotype { nodes: (2..self.nodes + 2).map(|to| node(to, rng)).collect() }
    }

    /// The cell with the operation that has most weights everywhere, on the newest states.
    pub fn heaviest(&self, dim: Dim) -> Genotype {
        /// With fewer, the windows of a depthwise convolution weigh more than its channels.
        const CHANNELS: u64 = 64;
        let most = self.real().max_by_key(|operation| operation.weights(dim, CHANNELS));
        let op = most.unwrap_or(Operation::SKIP);
        let node = |to: usize| {
            let from = self.edges.iter().filter(move |edge| edge.1 == to).map(|edge| edge.0);
            let count = from.clone().count();
            from.skip(count.saturating_sub(self.fan_in)).map(|from| Edge { from, op }).collect()
        };
        Genotype { nodes: (2..self.nodes + 2).map(node).collect() }
    }

    /// Whether `cell` is one that this space can give.
    pub fn has(&self, cell: &Genotype) -> bool {
        let known = |(node, edge): (usize, &Edge)| {
            self.edges.contains(&(edge.from, node + 2)) && self.real().any(|operation| operation == edge.op)
        };
        let mut edges = cell
            .nodes
            .iter()
            .enumerate()
            .flat_map(|(node, edges)| edges.iter().map(move |edge| (node, edge)));
        cell.nodes.len() == self.nodes && cell.validate().is_ok() && edges.all(known)
    }
}

/// What each operation costs relative to the dearest, in cells of these widths: its weights. Almost every operation keeps
/// the resolution, so its multiply-accumulates in a cell are its weights times one number, and the ratios are the same.
pub fn costs(operations: &[Operation], dim: Dim, widths: impl Iterator<Item = u64> + Clone) -> Vec<f32> {
    let weights = |op: &Operation| widths.clone().map(|channels| op.weights(dim, channels)).sum::<u64>();
    let all: Vec<u64> = operations.iter().map(weights).collect();
    let most = all.iter().copied().max().unwrap_or(1).max(1) as f32;
    all.into_iter().map(|weights| weights as f32 / most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_nodes_that_read_the_previous_two_states_have_eight_edges() {
        let space = Space::with_reads(4, 2);
        assert_eq!(space.edges(), [(0, 2), (1, 2), (1, 3), (2, 3), (2, 4), (3, 4), (3, 5), (4, 5)]);
        assert_eq!(Space::all_earlier(4).edges().len(), 14);
        assert_eq!(space.readers(3).collect::<Vec<_>>(), [5, 6]);
    }

    #[test]
    fn drawn_cells_are_valid_repeat_by_seed_and_take_every_operation() {
        let space = Space::all_earlier(3);
        let draw = |step| space.draw(&mut seeds::stream(1, seeds::Purpose::Cells, step));
        assert_eq!(draw(0), draw(0));
        let cells: Vec<Genotype> = (0..40).map(draw).collect();
        let mut taken = std::collections::BTreeSet::new();
        for cell in &cells {
            assert!(space.has(cell));
            assert!(cell.nodes.iter().all(|edges| edges.len() == 2));
            taken.extend(cell.nodes.iter().flatten().map(|edge| edge.op));
        }
        assert_eq!(taken, space.real().collect());
    }

    #[test]
    fn the_cost_of_an_operation_is_its_share_of_the_dearest_over_all_widths() {
        let all = costs(&Operation::FIRST, Dim::Image, [8, 16].into_iter());
        assert_eq!(all[0], 1.0);
        let separable = (25 * 8 + 64 + 25 * 16 + 256) as f32 / (9 * 64 + 9 * 256) as f32;
        assert!((all[1] - separable).abs() < 1e-6);
        assert_eq!(all[2..], [0.0; 4]);
    }

    #[test]
    fn the_heaviest_cell_has_the_operation_with_most_weights_on_the_newest_states() {
        let space = Space::all_earlier(2);
        assert_eq!(
            space.heaviest(Dim::Image).line(Dim::Image),
            "0->2 conv3 | 1->2 conv3 | 1->3 conv3 | 2->3 conv3"
        );
        let operations = ["conv1", "glu3", "skip"].map(|name| name.parse().unwrap()).to_vec();
        let wide = Space::new(2, 2, 3, operations);
        assert_eq!(
            wide.heaviest(Dim::Series).line(Dim::Series),
            "0->2 glu3 | 1->2 glu3 | 1->3 glu3 | 2->3 glu3"
        );
        assert!(wide.has(&wide.heaviest(Dim::Series)) && !wide.has(&space.heaviest(Dim::Image)));
    }
}
