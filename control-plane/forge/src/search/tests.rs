use super::*;
use crate::{data::Split, genotype::Edge, network::Network};
use std::collections::BTreeSet;

const BOARD: &str = include_str!("../../../../firmware-configs/x86-64.toml");
const SIDE: usize = 8;

fn board() -> Board {
    Board::from_toml(BOARD, "x86-64.toml").unwrap()
}

/// Images of two classes, stripes along either axis, with a little noise.
fn split() -> Split {
    let mut rng = seeds::stream(3, Purpose::Samples, 0);
    let mut split = Split::default();
    for sample in 0..26 {
        for at in 0..SIDE * SIDE {
            let along = if sample % 2 == 0 { at / SIDE } else { at % SIDE };
            split.samples.push((along % 2) as f32 + 0.1 * seeds::normal(&mut rng));
        }
        split.labels.push(sample % 2);
    }
    split
}

fn budget(search_steps: u32) -> Budget {
    Budget {
        search_steps,
        search_batch: 6,
        train_epochs: 1,
        channels: 4,
        cells: 2,
        nodes: 3,
        teachers: 0,
        seconds: None,
    }
}

fn search(samples: &Samples, steps: u32) -> Search<'_> {
    Search::new(samples, &[1, SIDE, SIDE], 2, &budget(steps), &board(), 7).unwrap()
}

#[test]
fn the_halves_share_every_class_and_no_sample() {
    let classes: Vec<i64> = (0..101).map(|sample| if sample < 70 { 0 } else { 1 + sample % 3 }).collect();
    let draw = |step| halves(&classes, &mut seeds::stream(1, Purpose::Split, step));
    let [a, b] = draw(0);
    assert_eq!(draw(0), [a.clone(), b.clone()]);
    assert_ne!(draw(1)[0], a);
    let all: BTreeSet<i64> = a.iter().chain(&b).copied().collect();
    assert_eq!((all.len(), a.len() + b.len()), (classes.len(), classes.len()));
    for class in 0..4 {
        let count = |half: &[i64]| half.iter().filter(|at| classes[**at as usize] == class).count();
        assert!(count(&a).abs_diff(count(&b)) <= 1, "class {class}: {} and {}", count(&a), count(&b));
    }
    // The first of a half are of all classes: the accuracy is measured on them.
    let first: BTreeSet<i64> = b.iter().take(20).map(|at| classes[*at as usize]).collect();
    assert!(first.len() > 1);
    assert_eq!(halves(&[0], &mut seeds::stream(1, Purpose::Split, 0)), [[0], [0]]);
}

#[test]
fn an_architecture_step_leaves_the_weights_and_a_weight_step_the_architecture() {
    let samples = Samples::new(&split(), &[1, SIDE, SIDE]);
    let mut search = search(&samples, 10);
    let state = |search: &Search<'_>| (to_vec(&search.net.params.flat()), to_vec(&search.alpha));
    let (weights, alpha) = state(&search);
    // Two steps of warm-up.
    assert_eq!(search.step().validation_loss, None);
    let (trained, same) = state(&search);
    assert_eq!(alpha, same);
    assert_ne!(weights, trained);
    search.step = search.warm_up;
    let (loss, norm) = search.arch_step(1.0, 0.0);
    assert!(loss.is_finite() && norm > 0.0);
    let (same, moved) = state(&search);
    assert_eq!(trained, same);
    assert_ne!(alpha, moved);
}

/// The weights of the supernet for the derived network, which names an edge's weights by what they are.
fn weights_of(search: &Search<'_>, found: &Genotype, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
    let edge = |node: usize, edge: &Edge| (format!("edge{}_{}", edge.from, node + 2), edge.op);
    let ops: Vec<(String, Operation)> = found
        .nodes
        .iter()
        .enumerate()
        .flat_map(|(node, edges)| edges.iter().map(move |e| edge(node, e)))
        .collect();
    let parts: Vec<&str> = name.split('.').collect();
    let wanted = match (parts.as_slice(), ops.iter().find(|(edge, _)| parts.get(1) == Some(&edge.as_str()))) {
        ([cell, edge, part], Some((_, Operation::Conv))) => match *part {
            "weight" => format!("{cell}.{edge}.conv"),
            part => format!("{cell}.{edge}.conv_{part}"),
        },
        ([cell, edge, part], Some((_, Operation::SepConv))) => match *part {
            "weight" => format!("{cell}.{edge}.pointwise"),
            "depthwise" => name.to_owned(),
            part => format!("{cell}.{edge}.sep_{part}"),
        },
        _ => name.to_owned(),
    };
    let (_, shape, values) = search.net.params.named().into_iter().find(|(name, ..)| *name == wanted)?;
    Some((shape, values))
}

#[test]
fn operations_go_in_stages_and_what_is_left_in_the_end_computes_what_the_derived_network_does() {
    let samples = Samples::new(&split(), &[1, SIDE, SIDE]);
    let mut search = search(&samples, 20);
    let (_, total) = search.progress();
    let mut most = Vec::new();
    for _ in 0..total {
        assert!(search.step().finite);
        most.push(search.candidates.most());
    }
    assert!(most.is_sorted_by(|a, b| a >= b));
    most.dedup();
    assert_eq!(most, [6, 4, 3, 2, 1]);
    assert_eq!(search.arch_steps(), 20);
    let found = search.derive();
    assert_eq!(found.channels, WIDTH_FACTOR * 4);
    found.genotype.validate().unwrap();
    let active: usize = search.candidates.masks().iter().map(|mask| mask.count_ones() as usize).sum();
    assert_eq!(active, found.genotype.nodes.iter().flatten().count());

    let narrow = Architecture { channels: 4, ..found };
    let mut net = Network::new(narrow, &mut seeds::stream(1, Purpose::NetworkWeights, 0)).unwrap();
    let genotype = net.architecture().genotype.clone();
    net.params.load(|name| weights_of(&search, &genotype, name)).unwrap();
    let (x, _) = samples.batch(&[0, 1, 2, 3, 4, 5, 6, 7]);
    let mix = search.candidates.weights(&search.alpha, TEMPERATURE.1);
    let searched = to_vec(&search.net.forward(&x, &mix, &search.candidates));
    let derived = to_vec(&net.forward(&x, true));
    for (a, b) in searched.iter().zip(&derived) {
        assert!((a - b).abs() < 1e-4, "{searched:?} and {derived:?}");
    }
}

#[test]
fn a_validation_loss_that_is_no_number_shows_at_once() {
    let mut split = split();
    let samples = Samples::new(&split, &[1, SIDE, SIDE]);
    let [_, validation] = search(&samples, 5).halves.clone();
    for sample in validation {
        split.samples[sample as usize * SIDE * SIDE..][..SIDE * SIDE].fill(f32::MAX);
    }
    let samples = Samples::new(&split, &[1, SIDE, SIDE]);
    let mut search = search(&samples, 5);
    let outcomes: Vec<StepOutcome> = (0..2).map(|_| search.step()).collect();
    assert!(outcomes[0].finite && outcomes[0].validation_loss.is_none());
    assert!(outcomes[1].loss.is_finite() || outcomes[1].validation_loss.is_some());
    assert!(!outcomes[1].finite, "{:?}", outcomes[1]);
}

#[test]
fn a_search_goes_on_from_its_state_as_if_it_had_not_stopped() {
    let samples = Samples::new(&split(), &[1, SIDE, SIDE]);
    let (mut whole, mut first) = (search(&samples, 10), search(&samples, 10));
    let (_, total) = whole.progress();
    for step in 0..total {
        whole.step();
        first.step();
        let (state, tensors) = first.save();
        let mut second = search(&samples, 10);
        let take =
            |name: &str| tensors.iter().find(|(known, _)| *known == name).map(|(_, tensor)| tensor.copy());
        second.restore(&state, take).unwrap();
        assert_eq!(second.progress(), (step + 1, total));
        first = second;
    }
    assert_eq!(to_vec(&whole.net.params.flat()), to_vec(&first.net.params.flat()));
    assert_eq!(whole.derive(), first.derive());
    let bad = SearchState { masks: vec![0; 9], ..first.save().0 };
    assert!(first.restore(&bad, |_| None).is_err());
}

#[test]
fn a_board_that_the_wide_network_does_not_fit_presses_and_a_roomy_one_hardly_does() {
    let heavy = |channels| Architecture {
        dim: crate::genotype::Dim::Image,
        input: vec![1, 28, 28],
        classes: 10,
        channels,
        cells: 3,
        genotype: heaviest(2),
    };
    assert!(pressure(&heavy(16), &board()).unwrap() < 1.1 * PRESSURE.0);
    let mut small = board();
    small.limits.weight_bytes_max = 250_000;
    let (narrow, wide) = (pressure(&heavy(8), &small).unwrap(), pressure(&heavy(16), &small).unwrap());
    assert!(narrow < 0.7 && wide > 0.8, "{narrow} and {wide}");
    // More than could be exported: it is narrowed later, and no network of that size is built.
    assert_eq!(pressure(&heavy(1024), &board()), Ok(PRESSURE.1));
}
