use super::{plain, *};
use crate::{
    params::{channels_last, to_vec},
    seeds::{self, Purpose},
};

/// A supernet, a batch and random architecture weights, all from one seed.
fn setting(input: &[usize], space: Space) -> (Supernet, Tensor, Tensor, Tensor) {
    let skeleton = Skeleton::new(input, 3, 4, 2, space.nodes());
    let mut rng = seeds::stream(7, Purpose::SupernetWeights, 0);
    let edges = space.edges().len();
    let net = Supernet::new(skeleton, space, &mut rng);
    let mut random = |shape: &[i64]| {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| seeds::normal(&mut rng)).collect();
        Tensor::from_slice(&values).reshape(shape)
    };
    let shape = match *input {
        [c, l] => [6, c as i64, 1, l as i64],
        [c, h, w] => [6, c as i64, h as i64, w as i64],
        _ => unreachable!("tests give two or three axes"),
    };
    let x = channels_last(&random(&shape));
    let alpha = random(&[edges as i64, 6]).set_requires_grad(true);
    (net, x, Tensor::from_slice(&[0i64, 1, 2, 0, 1, 2]), alpha)
}

fn relative_difference(a: &Tensor, b: &Tensor) -> f64 {
    ((a - b).norm() / b.norm()).double_value(&[])
}

fn assert_equal(input: &[usize], space: Space, candidates: &Candidates) {
    let (net, x, labels, alpha) = setting(input, space);
    let both =
        [plain::loss, |net: &Supernet, x: &Tensor, labels: &Tensor, mix: &Tensor, left: &Candidates| {
            net.loss(x, labels, mix, left)
        }]
        .map(|loss| {
            let loss = loss(&net, &x, &labels, &candidates.weights(&alpha, 1.0), candidates);
            let arch = Tensor::run_backward(&[&loss], &[&alpha], true, false).remove(0);
            (loss.double_value(&[]), net.params.gradients(&loss), arch)
        });
    let [(plain, plain_w, plain_a), (ours, ours_w, ours_a)] = both;
    assert!((plain - ours).abs() < 1e-5, "loss {plain} and {ours}");
    assert!(
        relative_difference(&ours_w, &plain_w) < 1e-4,
        "weights {}",
        relative_difference(&ours_w, &plain_w)
    );
    assert!(
        relative_difference(&ours_a, &plain_a) < 1e-4,
        "alpha {}",
        relative_difference(&ours_a, &plain_a)
    );
    assert!(to_vec(&plain_a).iter().any(|g| g.abs() > 1e-6));
}

#[test]
fn the_restructured_cell_has_the_loss_and_the_gradients_of_the_plain_one() {
    assert_equal(&[1, 9, 9], Space::with_fan_in(3, 2), &Candidates::all(6));
    assert_equal(&[2, 21], Space::all_earlier(2), &Candidates::all(5));
}

#[test]
fn it_stays_equal_when_candidates_have_been_pruned() {
    let space = || Space::all_earlier(2);
    for masks in [
        [0b000_001, 0b000_010, 0b010_000, 0b101_101, 0b001_110],
        [0b010_100, 0b001_010, 0b000_100, 0b011_000, 0b100_000],
        [0b001_000, 0b010_000, 0, 0b001_100, 0b000_001],
    ] {
        let left = Candidates::from_masks(&masks, &space()).unwrap();
        assert_equal(&[1, 9, 9], space(), &left);
        assert_equal(&[2, 21], space(), &left);
    }
}
