//! The step of a method that trains a supernet along one path at a time.

use super::{Batch, DRAWS, WEIGHT_RATE};
use crate::{
    genotype::Dim,
    optim::Sgd,
    search::{Mix, path},
    seeds::{self, Purpose},
    supernet::{Candidates, Space, Supernet},
};
use tch::Tensor;

/// Which path a step takes.
#[derive(Debug)]
pub(super) struct Paths {
    seed: u64,
    ones: Tensor,
}

impl Paths {
    pub(super) fn new(space: &Space, seed: u64) -> Self {
        Self { seed, ones: path::ones(space) }
    }

    /// The weight step with that number; its loss.
    pub(super) fn step(&self, net: &Supernet, sgd: &mut Sgd, training: &Batch, number: usize) -> f64 {
        let drawn = self.drawn(net.space(), number as u64);
        path::step(net, sgd, training, &self.ones, &drawn, WEIGHT_RATE)
    }

    /// What a look at the accuracy computes with: always the same path, that of most weights.
    pub(super) fn look(&self, space: &Space) -> Mix {
        (self.ones.shallow_clone(), Candidates::only(&space.heaviest(Dim::Image), space))
    }

    /// What a step begins from beside the weights: for each path the column of each edge's operation, -1 where the edge
    /// has none.
    pub(super) fn named(&self, space: &Space) -> Vec<(&'static str, Tensor)> {
        let columns = |number: u64| -> Vec<f32> {
            let drawn = self.drawn(space, number);
            let column = |edge: usize| drawn.left(edge).next().map_or(-1.0, |column| column as f32);
            (0..space.edges().len()).map(column).collect()
        };
        let paths: Vec<f32> = (0..DRAWS).flat_map(columns).collect();
        vec![("paths", Tensor::from_slice(&paths).reshape([DRAWS as i64, -1]))]
    }

    fn drawn(&self, space: &Space, number: u64) -> Candidates {
        path::draw(space, &mut seeds::stream(self.seed, Purpose::Path, number % DRAWS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::to_vec;

    #[test]
    fn a_path_has_one_operation_on_every_edge_and_comes_again_after_sixty_four_steps() {
        let space = Space::with_reads(4, 2);
        let paths = Paths::new(&space, 1);
        let (name, columns) = paths.named(&space).remove(0);
        assert_eq!((name, columns.size()), ("paths", vec![64, 8]));
        let columns = to_vec(&columns);
        // Never the last one, which gives nothing.
        assert!(columns.iter().all(|column| (0f32..5.0).contains(column)), "{columns:?}");
        assert_ne!(columns[..8], columns[8..16]);
        assert_eq!(paths.drawn(&space, 64), paths.drawn(&space, 0));
        let masks: Vec<u32> = columns[..8].iter().map(|column| 1 << *column as u32).collect();
        assert_eq!(paths.drawn(&space, 0).masks(), masks);
    }

    #[test]
    fn the_accuracy_is_that_of_the_convolutions() {
        let space = Space::with_reads(4, 2);
        assert_eq!(Paths::new(&space, 1).look(&space).1.masks(), [1; 8]);
    }
}
