use super::{plain, *};
use crate::{
    answer::Answer,
    params::{channels_last, to_vec},
    seeds::{self, Purpose},
};

/// A supernet, a batch and random architecture weights, all from one seed.
fn setting(input: &[usize], space: Space, partial: i64) -> (Supernet, Tensor, Tensor, Tensor) {
    answering(Answer::Class, input, space, partial)
}

fn answering(
    answer: Answer,
    input: &[usize],
    space: Space,
    partial: i64,
) -> (Supernet, Tensor, Tensor, Tensor) {
    let skeleton = Skeleton::answering(answer, input, 3, [4, 2, space.nodes()]);
    let mut rng = seeds::stream(7, Purpose::SupernetWeights, 0);
    let edges = space.edges().len();
    let net = Supernet::partial(skeleton, space, partial, &mut rng);
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
    // The last column holds the strengths of the edges.
    let alpha = random(&[edges as i64, 7]).set_requires_grad(true);
    let columns = match answer {
        Answer::Class => return (net, x, Tensor::from_slice(&[0i64, 1, 2, 0, 1, 2]), alpha),
        Answer::Next => input[1],
        Answer::ClassAndSlots { .. } => 1 + input[1],
    };
    let labels: Vec<i64> = (0..6 * columns as i64).map(|label| label % 2).collect();
    (net, x, Tensor::from_slice(&labels).reshape([6, columns as i64]), alpha)
}

fn relative_difference(a: &Tensor, b: &Tensor) -> f64 {
    ((a - b).norm() / b.norm()).double_value(&[])
}

fn assert_equal(input: &[usize], space: Space, candidates: &Candidates) {
    for partial in [1, 2] {
        assert_equal_partial(input, space.clone(), candidates, partial);
    }
}

fn assert_equal_partial(input: &[usize], space: Space, candidates: &Candidates, partial: i64) {
    assert_equal_in(setting(input, space, partial), candidates, partial);
}

fn assert_equal_in(
    (net, x, labels, alpha): (Supernet, Tensor, Tensor, Tensor),
    candidates: &Candidates,
    partial: i64,
) {
    let mix = || {
        let weights = candidates.weights(&alpha.narrow(1, 0, 6), 1.0);
        match partial {
            1 => weights,
            _ => candidates.with_edge_shares(&weights, &alpha.select(1, 6), net.space()),
        }
    };
    let both =
        [plain::loss, |net: &Supernet, x: &Tensor, labels: &Tensor, mix: &Tensor, left: &Candidates| {
            net.loss(x, labels, mix, left)
        }]
        .map(|loss| {
            let loss = loss(&net, &x, &labels, &mix(), candidates);
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
fn it_is_equal_too_where_every_position_is_answered() {
    for answer in [Answer::Next, Answer::ClassAndSlots { slots: 2 }] {
        for partial in [1, 2] {
            let setting = answering(answer, &[2, 21], Space::all_earlier(2), partial);
            assert_equal_in(setting, &Candidates::all(5), partial);
        }
    }
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

#[test]
fn a_partial_supernet_has_fewer_weights_and_lets_most_channels_pass() {
    let space = Space::all_earlier(2);
    let (whole, ..) = setting(&[1, 9, 9], space.clone(), 1);
    let (partial, x, _, alpha) = setting(&[1, 9, 9], space.clone(), 2);
    assert!(
        2 * partial.params.len() < whole.params.len(),
        "{} of {}",
        partial.params.len(),
        whole.params.len()
    );
    // With nothing on any edge but zero, what passes by still reaches the head.
    let zeros = Candidates::from_masks(&[0b10_0000; 5], &space).unwrap();
    let mix =
        zeros.with_edge_shares(&zeros.weights(&alpha.narrow(1, 0, 6), 1.0), &alpha.select(1, 6), &space);
    let logits = to_vec(&partial.forward(&x, &mix, &zeros));
    assert_ne!(logits[..3], logits[3..6]);
    assert_eq!([8, 12, 16, 24, 30].map(channel_share), [2, 2, 4, 4, 2]);
}
