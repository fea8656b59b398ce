//! Batches in which anomalies are made anew each time that they are asked for: a network that saw the same ones again and
//! again would know these and no others.

use super::{Augment, Samples};
use crate::{
    anomaly::{ANOMALY, Maker, NORMAL},
    params::{channels_last, to_vec},
};
use rand_chacha::ChaCha8Rng;
use tch::{Tensor, no_grad};

/// How the second half of some samples came about: as anomalies of the first half, in its order.
#[derive(Debug)]
pub(super) struct Made {
    maker: Maker,
    normal: i64,
}

impl Made {
    /// Of samples of `shape` of which the first `normal` ones are.
    pub(super) fn new(shape: &[usize], values: &[f32], normal: usize) -> Self {
        let each: usize = shape.iter().product();
        let known = &values[..(normal * each).min(values.len())];
        Self { maker: Maker::new(shape, known), normal: normal as i64 }
    }

    /// As [`Samples::augmented`], but on the processor: what is normal is changed as usual, and anomalies are then made of it.
    pub(super) fn batch(
        &self,
        samples: &Samples,
        indices: &[i64],
        augment: &Augment,
        rng: &mut ChaCha8Rng,
    ) -> (Tensor, Tensor) {
        let source = |index: &i64| if *index < self.normal { *index } else { *index - self.normal };
        let sources: Vec<i64> = indices.iter().map(source).collect();
        let (x, _) = samples.taken(&sources);
        no_grad(|| {
            let x = samples.changed(&x, augment, rng);
            let pool = to_vec(&x);
            let mut values = pool.clone();
            let each = (values.len() / indices.len().max(1)).max(1);
            for (sample, index) in values.chunks_exact_mut(each).zip(indices) {
                if *index >= self.normal {
                    self.maker.make(sample, &pool, rng);
                }
            }
            let label = |index: &i64| if *index < self.normal { NORMAL } else { ANOMALY };
            let labels: Vec<i64> = indices.iter().map(label).collect();
            let x = Tensor::from_slice(&values).reshape(x.size());
            (channels_last(&x), Tensor::from_slice(&labels))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        anomaly::with_made,
        data::Split,
        seeds::{self, Purpose},
    };

    #[test]
    fn anomalies_are_new_at_every_step_and_what_is_normal_stays_normal() {
        let shape = [3, 1];
        let samples: Vec<f32> = (0..30).map(|at| (at as f32 * 0.7).sin()).collect();
        let normal = Split { samples, labels: vec![NORMAL; 10], ..Split::default() };
        let all = with_made(&normal, &shape, 1, 0);
        let samples = Samples::new(&all, &shape).made_of(10, &all, &shape);
        let chosen = [2i64, 12, 19];
        let draw = |step| {
            let mut rng = seeds::stream(5, Purpose::Augment, step);
            let (x, labels) = samples.augmented(&chosen, &Augment::NONE, &mut rng);
            (to_vec(&x), to_vec(&labels))
        };
        let (values, labels) = draw(0);
        assert_eq!(labels, [0.0, 1.0, 1.0]);
        assert_eq!(values[..3], normal.samples[6..9]);
        assert_ne!(values[3..6], normal.samples[6..9]);
        assert_eq!(draw(0).0, values);
        assert_ne!(draw(1).0[3..], values[3..]);
        // To be judged by, they stay what they are.
        assert_eq!(to_vec(&samples.batch(&chosen).0)[3..6], all.samples[36..39]);
    }
}
