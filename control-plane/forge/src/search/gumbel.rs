//! One operation an edge at a time, by the Gumbel-softmax (Dong and Yang 2019, "GDAS", section 3.2).

use crate::supernet::Candidates;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

/// Temperature of the Gumbel-softmax at the beginning and at the end; linear in between.
const TEMPERATURE: (f64, f64) = (10.0, 0.1);

/// At `position` of the search, 0 to 1.
pub(super) fn temperature(position: f64) -> f64 {
    TEMPERATURE.0 + (TEMPERATURE.1 - TEMPERATURE.0) * position
}

/// Draws an operation for each edge, as likely as the softmax of `alpha` `[edges, operations]` makes it: the weights
/// `[edges, operations]`, and the candidates of which only the drawn ones are left.
///
/// A drawn operation weighs 1; its gradient is that of the softmax at `temperature` (straight through). What was not
/// drawn is not computed, so that its weight, 0, passes no gradient on, as there.
pub(super) fn sample(
    candidates: &Candidates,
    alpha: &Tensor,
    temperature: f64,
    rng: &mut ChaCha8Rng,
) -> (Tensor, Candidates) {
    let operations = candidates.operations().len();
    let noise = noise(alpha.size()[0], operations, rng).to_device(alpha.device());
    let soft = candidates.weights(&(alpha + noise), temperature);
    let best = tch::no_grad(|| soft.argmax(1, false));
    let mut drawn = vec![0i64; best.numel()];
    best.to_device(Device::Cpu).copy_data(&mut drawn, best.numel());
    let hard = best.one_hot(operations as i64).to_kind(Kind::Float);
    let weights = hard - soft.detach() + soft;
    (weights, candidates.chosen(&drawn))
}

/// Draws `[edges, operations]` from the standard Gumbel distribution.
pub fn noise(edges: i64, operations: usize, rng: &mut ChaCha8Rng) -> Tensor {
    let gumbel = |u: f32| -(-u.ln()).max(f32::MIN_POSITIVE).ln();
    let count = edges as usize * operations;
    let values: Vec<f32> = (0..count).map(|_| gumbel(rng.random_range(f32::EPSILON..1.0))).collect();
    Tensor::from_slice(&values).reshape([edges, -1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        params::to_vec,
        seeds::{self, Purpose},
        supernet::Space,
    };

    #[test]
    fn what_is_drawn_is_as_likely_as_the_softmax_and_weighs_one() {
        let left = Candidates::from_masks(&[0b00_0111, 0b10_0001], &Space::all_earlier(1)).unwrap();
        // Softmax of the first row over the three that are left: 1/6, 2/6, 3/6.
        let row = [1f32.ln(), 2f32.ln(), 3f32.ln(), 9.0, 9.0, 9.0];
        let alpha = Tensor::from_slice(&[row, [0.0, 9.0, 9.0, 9.0, 9.0, -20.0]].concat()).reshape([2, 6]);
        let mut counts = [0u32; 6];
        for step in 0..1200 {
            let mut rng = seeds::stream(1, Purpose::Gumbel, step);
            let (weights, drawn) = sample(&left, &alpha, 1.0, &mut rng);
            let masks = drawn.masks();
            assert!(masks[0].is_power_of_two() && masks[1] == 1, "{masks:?}");
            let op = masks[0].trailing_zeros() as usize;
            assert!((to_vec(&weights)[op] - 1.0).abs() < 1e-6);
            counts[op] += 1;
        }
        for (count, expected) in counts.into_iter().zip([200, 400, 600, 0, 0, 0]) {
            assert!(count.abs_diff(expected) <= 60, "{counts:?}");
        }
    }

    #[test]
    fn the_gradient_of_a_drawn_weight_is_that_of_the_softmax() {
        let all = Candidates::all(&Space::with_reads(1, 1));
        let alpha =
            Tensor::from_slice(&[0.3f32, -0.2, 0.1, 0.0, 0.5, -0.4]).reshape([1, 6]).set_requires_grad(true);
        let draw = || seeds::stream(3, Purpose::Gumbel, 0);
        let (weights, drawn) = sample(&all, &alpha, 2.0, &mut draw());
        let op = i64::from(drawn.masks()[0].trailing_zeros());
        let gradient = Tensor::run_backward(&[weights.get(0).get(op)], &[&alpha], false, false).remove(0);
        let soft = to_vec(&all.weights(&(alpha.detach() + noise(1, 6, &mut draw())), 2.0));
        for (other, found) in to_vec(&gradient).into_iter().enumerate() {
            let same = if other as i64 == op { 1.0 } else { 0.0 };
            let expected = soft[op as usize] * (same - soft[other]) / 2.0;
            assert!((found - expected).abs() < 1e-6, "{other}: {found}, not {expected}");
        }
        assert!((temperature(0.0) - 10.0).abs() < 1e-9 && (temperature(1.0) - 0.1).abs() < 1e-9);
    }
}
