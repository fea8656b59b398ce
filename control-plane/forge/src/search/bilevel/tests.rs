use super::*;
use crate::{
    batch::{Augment, Samples},
    data::Split,
    genotype::{Edge, Operation},
    network::Network,
    search::{
        WIDTH_FACTOR,
        tests::{SIDE, World, board, stripes},
    },
    train::{self, Course, Plan, Training},
};
use rand::RngExt;

use shared::job::Budget;

fn bilevel(setting: Setting<'_>) -> Bilevel<'_> {
    Bilevel::new(Form::FirstOrder, setting).unwrap()
}

#[test]
fn an_architecture_step_leaves_the_weights_and_a_weight_step_the_architecture() {
    let world = World::new(&stripes(), 10);
    let mut search = bilevel(world.setting());
    let state = |search: &Bilevel<'_>| (to_vec(&search.net.params.flat()), to_vec(&search.alpha));
    let (weights, alpha) = state(&search);
    // Two steps of warm-up.
    assert_eq!(search.step().validation_loss, None);
    let (trained, same) = state(&search);
    assert_eq!(alpha, same);
    assert_ne!(weights, trained);
    search.step = search.schedule.warm_up;
    let (loss, norm) = search.arch_step();
    assert!(loss.is_finite() && norm > 0.0);
    let (same, moved) = state(&search);
    assert_eq!(trained, same);
    assert_ne!(alpha, moved);
}

/// The weights of the supernet for the derived network, which names an edge's weights by what they are.
fn weights_of(search: &Bilevel<'_>, found: &Genotype, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
    let edge = |node: usize, edge: &Edge| (format!("edge{}_{}", edge.from, node + 2), edge.op);
    let ops: Vec<(String, Operation)> = found
        .nodes
        .iter()
        .enumerate()
        .flat_map(|(node, edges)| edges.iter().map(move |e| edge(node, e)))
        .collect();
    let parts: Vec<&str> = name.split('.').collect();
    let wanted = match (parts.as_slice(), ops.iter().find(|(edge, _)| parts.get(1) == Some(&edge.as_str()))) {
        ([cell, edge, part], Some((_, op))) => format!("{cell}.{edge}.{op}.{part}"),
        _ => name.to_owned(),
    };
    let (_, shape, values) = search.net.params.named().into_iter().find(|(name, ..)| *name == wanted)?;
    Some((shape, values))
}

#[test]
fn operations_go_in_stages_and_what_is_left_in_the_end_computes_what_the_derived_network_does() {
    let world = World::new(&stripes(), 20);
    let mut search = bilevel(world.setting());
    let (_, total) = search.progress();
    let mut most = Vec::new();
    for _ in 0..total {
        assert!(search.step().finite);
        most.push(search.candidates.most());
    }
    assert!(most.is_sorted_by(|a, b| a >= b));
    most.dedup();
    assert_eq!(most, [6, 4, 3, 2, 1]);
    let judged = search.judged();
    assert_eq!(judged[0].cell, search.derive().genotype);
    assert!(judged.len() > 1 && judged.iter().all(|judged| judged.of > 0), "{}", judged.len());
    assert_eq!(search.adam.steps, 20);
    let found = search.derive();
    assert_eq!(found.channels, WIDTH_FACTOR * 4);
    found.genotype.validate().unwrap();
    let active: usize = search.candidates.masks().iter().map(|mask| mask.count_ones() as usize).sum();
    assert_eq!(active, found.genotype.nodes.iter().flatten().count());

    let narrow = Architecture { channels: 4, ..found };
    let mut net = Network::new(narrow, &mut seeds::stream(1, Purpose::NetworkWeights, 0)).unwrap();
    let genotype = net.architecture().genotype.clone();
    net.params.load(|name| weights_of(&search, &genotype, name)).unwrap();
    let (x, _) = world.samples.batch(&[0, 1, 2, 3, 4, 5, 6, 7]);
    let mix = search.candidates.weights(&search.alpha, TEMPERATURE.1);
    let searched = to_vec(&search.net.forward(&x, &mix, &search.candidates));
    let derived = to_vec(&net.forward(&x, true));
    for (a, b) in searched.iter().zip(&derived) {
        assert!((a - b).abs() < 1e-4, "{searched:?} and {derived:?}");
    }
}

#[test]
fn a_validation_loss_that_is_no_number_shows_at_once() {
    let mut split = stripes();
    let world = World::new(&split, 5);
    for sample in bilevel(world.setting()).feed.validation_half() {
        split.samples[*sample as usize * SIDE * SIDE..][..SIDE * SIDE].fill(f32::MAX);
    }
    let world = World::new(&split, 5);
    let mut search = bilevel(world.setting());
    let outcomes: Vec<StepOutcome> = (0..2).map(|_| search.step()).collect();
    assert!(outcomes[0].finite && outcomes[0].validation_loss.is_none());
    assert!(outcomes[1].loss.is_finite() || outcomes[1].validation_loss.is_some());
    assert!(!outcomes[1].finite, "{:?}", outcomes[1]);
}

#[test]
fn a_board_that_the_wide_network_does_not_fit_presses_and_a_roomy_one_hardly_does() {
    let world = World::new(&stripes(), 1);
    let heavy = |channels: u32| {
        let budget = Budget { channels: channels / 2, cells: 3, nodes: 2, ..world.budget };
        Setting { input: &[1, 28, 28], classes: 10, budget: &budget, ..world.setting() }.heaviest()
    };
    assert!(pressure(&heavy(16), &board()).unwrap() < 1.1 * PRESSURE.0);
    let mut small = board();
    small.limits.weight_bytes_max = 250_000;
    let (narrow, wide) = (pressure(&heavy(8), &small).unwrap(), pressure(&heavy(16), &small).unwrap());
    assert!(narrow < 0.7 && wide > 0.8, "{narrow} and {wide}");
    // More than could be exported: it is narrowed later, and no network of that size is built.
    assert_eq!(pressure(&heavy(1024), &board()), Ok(PRESSURE.1));
}

/// Two dots in a row of a dark image, 3 apart in one class and 4 in the other, around the edge of the image where they
/// have to: a single dot says nothing, and no window of 3 by 3 holds both.
fn dots(count: usize, seed: u64) -> Split {
    let mut rng = seeds::stream(seed, Purpose::Samples, 0);
    let mut split = Split::default();
    for sample in 0..count {
        let class = sample % 2;
        let [row, column] = [0; 2].map(|_| rng.random_range(0..SIDE));
        let mut image: Vec<f32> = (0..SIDE * SIDE).map(|_| 0.05 * seeds::normal(&mut rng)).collect();
        for at in [column, (column + 3 + class) % SIDE] {
            image[row * SIDE + at] += 1.0;
        }
        split.samples.extend(image);
        split.labels.push(class as i64);
    }
    split
}

/// Accuracy of a trained network of this architecture on samples that it has not seen, without augmentation.
fn trained_accuracy(found: Architecture, samples: &Samples) -> f64 {
    let net = Network::new(found, &mut seeds::stream(1, Purpose::NetworkWeights, 0)).unwrap();
    let mut training = Training::new(
        net,
        samples,
        Plan { epochs: 60, steps_max: None, rate: 0.05, augment: Augment::NONE },
        3,
    );
    let (_, total) = training.progress();
    for _ in 0..total {
        training.step();
    }
    let test = Samples::new(&dots(400, 2), &[1, SIDE, SIDE]);
    train::accuracy(&training.finish(), &test, &(0..400).collect::<Vec<_>>())
}

#[test]
fn where_plain_darts_ends_in_nothing_but_skips_the_guard_finds_a_cell_that_learns() {
    // Convolutions and skips, on a board that is so small that each convolution costs more than it gives at first.
    let mut world = World::new(&dots(400, 1), 100);
    world.budget = Budget { search_batch: 16, cells: 1, nodes: 2, ..world.budget };
    world.board.limits.weight_bytes_max = 1;
    let search = |guarded: bool| {
        let mut search = bilevel(world.setting());
        if !guarded {
            search.guard.off();
        }
        let edges = search.net.space().edges().len();
        search.candidates = Candidates::from_masks(&vec![0b01_0001; edges], search.net.space()).unwrap();
        let (_, total) = search.progress();
        let repairs = (0..total).filter(|_| search.step().repaired).count();
        (search.derive(), repairs)
    };
    let (plain, repairs) = search(false);
    assert_eq!((plain.genotype.skips(), repairs), (4, 0), "{:?}", plain.genotype);
    let (guarded, repairs) = search(true);
    assert!(guarded.genotype.skips() <= 1 && repairs > 0, "{:?}, {repairs} repairs", guarded.genotype);
    let [plain, guarded] = [plain, guarded].map(|found| trained_accuracy(found, &world.samples));
    assert!(plain < 0.6 && guarded > 0.9, "{plain} and {guarded}");
}
