use super::*;
use crate::{
    answer::Answer,
    genotype::{Architecture, Dim, Edge, Genotype, Operation},
    onnx::tests::{distance, reference, values},
    params::{channels_last, to_vec},
    seeds::{self, Purpose},
};
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};
use rand::{RngExt, SeedableRng};

/// A random cell in a random small network.
fn random_architecture(rng: &mut ChaCha8Rng) -> Architecture {
    let nodes = (0..rng.random_range(1..4usize))
        .map(|node| {
            let mut earlier: Vec<usize> = (0..node + 2).collect();
            seeds::shuffle(&mut earlier, rng);
            earlier.truncate(rng.random_range(1..3));
            let real = [
                Operation::Conv,
                Operation::SepConv,
                Operation::MaxPool,
                Operation::AvgPool,
                Operation::Skip,
            ];
            earlier.into_iter().map(|from| Edge { from, op: real[rng.random_range(0..real.len())] }).collect()
        })
        .collect();
    let (dim, input) = if rng.random() {
        (Dim::Image, vec![rng.random_range(1..3), rng.random_range(5..11), rng.random_range(5..11)])
    } else {
        (Dim::Series, vec![rng.random_range(1..3), rng.random_range(10..40)])
    };
    let answer = match (dim, rng.random_range(0..3)) {
        (Dim::Series, 0) => Answer::Next,
        (Dim::Series, 1) => Answer::ClassAndSlots { slots: rng.random_range(2..5) },
        _ => Answer::Class,
    };
    Architecture {
        dim,
        input,
        classes: rng.random_range(2..5),
        channels: rng.random_range(2..5),
        cells: rng.random_range(1..4),
        answer,
        genotype: Genotype { nodes },
    }
}

/// Random scales, shifts and running statistics, as training leaves them.
fn shake(net: &mut Network, rng: &mut ChaCha8Rng) {
    let mut named = net.params.named();
    named.extend(net.stats.named());
    for (name, _, values) in &mut named {
        let range = match name.rsplit('.').next() {
            Some("gamma") => 0.5..1.5,
            Some("variance") => 0.2..2.0,
            Some("beta" | "mean" | "bias") => -0.5..0.5,
            _ => continue,
        };
        values.iter_mut().for_each(|value| *value = rng.random_range(range.clone()));
    }
    net.load(|name| {
        let (_, shape, values) = named.iter().find(|(known, ..)| known == name)?;
        Some((shape.clone(), values.clone()))
    })
    .unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_exported_graph_computes_what_the_trained_network_does(seed in any::<u64>()) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let architecture = random_architecture(rng);
        let mut net = Network::new(architecture.clone(), rng).unwrap();
        shake(&mut net, rng);
        let graph = net.to_graph().unwrap();
        let weights: usize = graph.nodes().iter().filter_map(|node| node.op().weights()).map(|(w, _)| w.len()).sum();
        prop_assert_eq!(architecture.weights(), weights as u64);
        let each: usize = architecture.input.iter().product();
        let input = values(rng, 3 * each, 2.0);
        let shape: Vec<i64> = match *architecture.input {
            [c, l] => vec![3, c as i64, 1, l as i64],
            _ => [3].into_iter().chain(architecture.input.iter().map(|axis| *axis as i64)).collect(),
        };
        let found = to_vec(&net.probabilities(&channels_last(&Tensor::from_slice(&input).reshape(&shape))));
        let expected: Vec<f32> = input.chunks_exact(each).flat_map(|x| reference(&graph, x)).collect();
        let off = distance(&found, &expected);
        prop_assert!(off < 1e-4, "{:?} is off by {off}", architecture);
    }
}

#[test]
fn training_mode_normalises_by_the_batch_and_moves_the_statistics() {
    let rng = &mut seeds::stream(4, Purpose::NetworkWeights, 0);
    let net = Network::new(random_architecture(rng), rng).unwrap();
    let shape: Vec<i64> = match *net.architecture().input {
        [c, l] => vec![4, c as i64, 1, l as i64],
        _ => [4].into_iter().chain(net.architecture().input.iter().map(|axis| *axis as i64)).collect(),
    };
    let count = usize::try_from(shape.iter().product::<i64>()).unwrap();
    let x = channels_last(&Tensor::from_slice(&values(rng, count, 3.0)).reshape(&shape));
    let before = to_vec(&net.stats.flat());
    let _ = net.probabilities(&x);
    assert_eq!(to_vec(&net.stats.flat()), before);
    let _ = net.forward(&x, true);
    assert_ne!(to_vec(&net.stats.flat()), before);
}

#[test]
fn a_network_that_writes_sees_nothing_that_comes_later() {
    let rng = &mut ChaCha8Rng::seed_from_u64(6);
    let edge = |from, op| Edge { from, op };
    let architecture = Architecture {
        dim: Dim::Series,
        input: vec![3, 24],
        classes: 3,
        channels: 4,
        cells: 2,
        answer: Answer::Next,
        genotype: Genotype {
            nodes: vec![
                vec![edge(0, Operation::Conv), edge(1, Operation::SepConv)],
                vec![edge(1, Operation::MaxPool), edge(2, Operation::AvgPool)],
            ],
        },
    };
    let mut net = Network::new(architecture, rng).unwrap();
    shake(&mut net, rng);
    let before = values(rng, 3 * 24, 2.0);
    let logits = |values: &[f32]| {
        let x = channels_last(&Tensor::from_slice(values).reshape([1, 3, 1, 24]));
        to_vec(&tch::no_grad(|| net.forward(&x, false)))
    };
    let first = logits(&before);
    assert_eq!(first.len(), 24 * 3);
    for changed in [1, 9, 23] {
        let mut after = before.clone();
        (0..3).for_each(|channel| after[channel * 24 + changed..(channel + 1) * 24].fill(1.5));
        let second = logits(&after);
        let same = first[..changed * 3].iter().zip(&second).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(same, "what comes before {changed} depends on it");
        assert!(distance(&first[changed * 3..], &second[changed * 3..]) > 1e-3);
    }
}
