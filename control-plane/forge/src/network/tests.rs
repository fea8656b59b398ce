use super::*;
use crate::{
    answer::Answer,
    genotype::{Architecture, Dim, Edge, Genotype, Layout, Operation, Stage},
    onnx::tests::{distance, reference, values},
    params::{channels_last, to_vec},
    seeds::{self, Purpose},
};
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};
use rand::{RngExt, SeedableRng};

/// Every kind of operation, some with several kernels.
fn operations(answer: Answer) -> Vec<Operation> {
    let names = [
        "conv1", "conv3", "conv5d2", "sep5", "sep3d2", "sep_conv", "glu3", "glu3d2", "attend3", "se", "max3",
        "max5", "avg3", "avg5", "skip",
    ];
    names.map(|name| name.parse().unwrap()).into_iter().filter(|one| answer.allows(*one)).collect()
}

/// A random cell in a random small network.
fn random_architecture(rng: &mut ChaCha8Rng) -> Architecture {
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
    let real = operations(answer);
    let nodes = (0..rng.random_range(1..4usize))
        .map(|node| {
            let mut earlier: Vec<usize> = (0..node + 2).collect();
            seeds::shuffle(&mut earlier, rng);
            earlier.truncate(rng.random_range(1..4));
            earlier.into_iter().map(|from| Edge { from, op: real[rng.random_range(0..real.len())] }).collect()
        })
        .collect();
    let cells = rng.random_range(1..4u32);
    let stages = if answer.is_class() && cells > 1 && rng.random() {
        vec![Stage { width: 2, cells: 1 }, Stage { width: 3, cells: cells - 1 }]
    } else {
        vec![Stage { width: rng.random_range(1..3), cells }]
    };
    let layout = rng.random::<bool>().then_some(Layout { stem_kernel: 5, stem_stride: 1, stages });
    Architecture {
        dim,
        input,
        classes: rng.random_range(2..5),
        channels: rng.random_range(2..5),
        cells: cells as usize,
        answer,
        genotype: Genotype { nodes },
        layout,
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

/// A network that writes, both nodes of whose cells do `op`.
fn writing(op: Operation) -> Architecture {
    let edge = |from| Edge { from, op };
    Architecture {
        dim: Dim::Series,
        input: vec![3, 24],
        classes: 3,
        channels: 4,
        cells: 2,
        answer: Answer::Next,
        genotype: Genotype { nodes: vec![vec![edge(0), edge(1)], vec![edge(1), edge(2)]] },
        layout: None,
    }
}

#[test]
fn whatever_it_does_a_network_that_writes_sees_nothing_that_comes_later() {
    let rng = &mut ChaCha8Rng::seed_from_u64(6);
    for op in operations(Answer::Next) {
        let mut net = Network::new(writing(op), rng).unwrap();
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
            assert!(same, "{op}: what comes before {changed} depends on it");
            assert!(distance(&first[changed * 3..], &second[changed * 3..]) > 1e-3, "{op}");
        }
    }
}

#[test]
fn a_network_that_writes_cannot_have_what_sees_all_positions() {
    let with = writing("se".parse().unwrap());
    let error = Architecture::from_json(&with.to_json()).unwrap_err();
    assert!(error.starts_with("node 2 has the operation se, which sees what comes later"), "{error}");
    assert!(Network::new(with.clone(), &mut ChaCha8Rng::seed_from_u64(6)).is_err());
    let named = Architecture { answer: Answer::ClassAndSlots { slots: 2 }, ..with };
    assert_eq!(Architecture::from_json(&named.to_json()), Ok(named));
}

#[test]
fn a_layout_that_drops_positions_is_refused_where_all_are_answered() {
    let stage = |cells| Stage { width: 1, cells };
    let keeps = Layout { stem_kernel: 5, stem_stride: 1, stages: vec![stage(2)] };
    let laid_out = |layout| Architecture { layout: Some(layout), ..writing(Operation::CONV3) };
    assert!(Architecture::from_json(&laid_out(keeps.clone()).to_json()).is_ok());
    for layout in
        [Layout { stem_stride: 2, ..keeps.clone() }, Layout { stages: vec![stage(1), stage(1)], ..keeps }]
    {
        let error = Architecture::from_json(&laid_out(layout).to_json()).unwrap_err();
        assert!(error.contains("the stem has a stride of 1 and all cells are in one stage"), "{error}");
    }
}
