use super::{plain, *};
use crate::{
    answer::Answer,
    genotype::Layout,
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
    let layout = Layout::usual(answer, input, 2);
    let skeleton = Skeleton::laid_out(answer, input, 3, 4, space.nodes(), &layout);
    let mut rng = seeds::stream(7, Purpose::SupernetWeights, 0);
    let (edges, columns) = (space.edges().len(), space.operations().len() + 1);
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
    let alpha = random(&[edges as i64, columns as i64]).set_requires_grad(true);
    let positions = match answer {
        Answer::Class => return (net, x, Tensor::from_slice(&[0i64, 1, 2, 0, 1, 2]), alpha),
        Answer::Next => input[1],
        Answer::ClassAndSlots { .. } => 1 + input[1],
    };
    let labels: Vec<i64> = (0..6 * positions as i64).map(|label| label % 2).collect();
    (net, x, Tensor::from_slice(&labels).reshape([6, positions as i64]), alpha)
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
    let (net, x, labels, alpha) = setting(input, space, partial);
    assert_same(&net, &x, &labels, &alpha, candidates);
}

/// That both ways give the same loss and gradients.
fn assert_same(net: &Supernet, x: &Tensor, labels: &Tensor, alpha: &Tensor, candidates: &Candidates) {
    let columns = net.space().operations().len() as i64;
    let mix = || {
        let weights = candidates.weights(&alpha.narrow(1, 0, columns), 1.0);
        match net.partial {
            1 => weights,
            _ => candidates.with_edge_shares(&weights, &alpha.select(1, columns), net.space()),
        }
    };
    let both =
        [plain::loss, |net: &Supernet, x: &Tensor, labels: &Tensor, mix: &Tensor, left: &Candidates| {
            net.loss(x, labels, mix, left)
        }]
        .map(|loss| {
            let loss = loss(net, x, labels, &mix(), candidates);
            let arch = Tensor::run_backward(&[&loss], &[alpha], true, false).remove(0);
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
    for (input, space) in [(vec![1, 9, 9], Space::with_reads(3, 2)), (vec![2, 21], Space::all_earlier(2))] {
        assert_equal(&input, space.clone(), &Candidates::all(&space));
    }
}

/// Every kind, some with several kernels.
fn rich(nodes: usize) -> Space {
    let names = [
        "conv1", "conv3", "sep3", "sep5d2", "glu3", "attend3", "se", "max3", "max5", "avg3", "avg5", "skip",
        "zero",
    ];
    Space::new(nodes, 2, 2, names.map(|name| name.parse().unwrap()).to_vec())
}

#[test]
fn so_it_does_with_operations_of_every_kind_and_several_kernels_and_with_generated_ones() {
    for input in [vec![1, 9, 9], vec![2, 21]] {
        let space = rich(2);
        assert_equal(&input, space.clone(), &Candidates::all(&space));
        let (plain, x, labels, alpha) = setting(&input, space.clone(), 1);
        for sharing in [vec![1.0], vec![0.5, 0.0]] {
            let mut rng = seeds::stream(7, Purpose::SupernetWeights, 0);
            let generated = Generated { sharing };
            let net = Supernet::generated(plain.skeleton.clone(), space.clone(), &generated, &mut rng);
            assert_same(&net, &x, &labels, &alpha, &Candidates::all(&space));
        }
    }
}

#[test]
fn a_generated_supernet_has_fewer_weights_the_more_it_shares() {
    let space = Space::all_earlier(2);
    let count = |sharing: Vec<f64>| {
        let skeleton = Skeleton::new(&[1, 28, 28], 10, 16, 3, 2);
        let mut rng = seeds::stream(7, Purpose::SupernetWeights, 0);
        Supernet::generated(skeleton, space.clone(), &Generated { sharing }, &mut rng).params.len()
    };
    let (whole, half, last) = (count(vec![1.0]), count(vec![0.5]), count(vec![0.0, 0.0, 1.0]));
    assert!(whole < last && last < half && half < count(vec![0.0]), "{whole}, {last}, {half}");
}

#[test]
fn it_is_equal_too_where_every_position_is_answered() {
    for answer in [Answer::Next, Answer::ClassAndSlots { slots: 2 }] {
        let space = allowed(answer);
        let left = Candidates::all(&space);
        for partial in [1, 2] {
            let (net, x, labels, alpha) = answering(answer, &[2, 21], space.clone(), partial);
            assert_same(&net, &x, &labels, &alpha, &left);
        }
    }
}

/// The operations of [`rich`] that the answer allows.
fn allowed(answer: Answer) -> Space {
    let operations = rich(2).operations().iter().copied().filter(|one| answer.allows(*one)).collect();
    Space::new(2, 2, 2, operations)
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
