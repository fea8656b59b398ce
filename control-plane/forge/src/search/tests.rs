use super::*;
use crate::{
    data::Split,
    genotype::Dim,
    network::Network,
    params::to_vec,
    seeds::{self, Purpose},
};
use shared::manifest::Task;

const BOARD: &str = include_str!("../../../../firmware-configs/x86-64.toml");
pub(super) const SIDE: usize = 8;

pub(super) fn board() -> Board {
    Board::from_toml(BOARD, "x86-64.toml").unwrap()
}

/// Images of two classes, stripes along either axis, with a little noise.
pub(super) fn stripes() -> Split {
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

/// What a setting borrows.
pub(super) struct World {
    pub samples: Samples,
    pub board: Board,
    pub budget: Budget,
    pub choices: SearchSpace,
    pub seed: u64,
}

impl World {
    pub fn new(split: &Split, search_steps: u32) -> Self {
        let budget = Budget {
            search_steps,
            search_batch: 6,
            train_epochs: 1,
            channels: 4,
            cells: 2,
            nodes: 3,
            ..Budget::quick(Task::ImageClassification)
        };
        let choices = SearchSpace::usual(Dim::Image);
        Self { samples: Samples::new(split, &[1, SIDE, SIDE]), board: board(), budget, choices, seed: 7 }
    }

    pub fn setting(&self) -> Setting<'_> {
        let Self { samples, board, budget, choices, seed } = self;
        Setting { samples, input: &[1, SIDE, SIDE], classes: 2, budget, board, choices, seed: *seed }
    }
}

/// Everything that a search stands at.
fn state(search: &dyn Search) -> (SearchState, Vec<Vec<f32>>) {
    let (state, tensors) = search.save();
    (state, tensors.iter().map(|(_, tensor)| to_vec(tensor)).collect())
}

fn end(search: &mut dyn Search) {
    let (done, total) = search.progress();
    for _ in done..total {
        assert!(search.step().finite);
    }
    assert_eq!(search.progress(), (total, total));
}

#[test]
fn every_method_goes_on_from_its_state_as_if_it_had_not_stopped() {
    let world = World::new(&stripes(), 24);
    for method in SearchMethod::ALL {
        let mut whole = begin(method, world.setting()).unwrap();
        end(whole.as_mut());
        let mut killed = begin(method, world.setting()).unwrap();
        let (_, total) = killed.progress();
        for step in 0..total {
            killed.step();
            let (state, tensors) = killed.save();
            // Through the text of a checkpoint, as in its file.
            let state = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
            let mut next = begin(method, world.setting()).unwrap();
            let mut take = |name: &str| {
                tensors.iter().find(|(known, _)| *known == name).map(|(_, tensor)| tensor.copy())
            };
            next.restore(&state, &mut take).unwrap();
            assert_eq!(next.progress(), (step + 1, total));
            killed = next;
        }
        assert_eq!(state(whole.as_ref()), state(killed.as_ref()), "{method}");
        assert_eq!(whole.derive(), killed.derive(), "{method}");
        assert_eq!(whole.accuracy(), killed.accuracy(), "{method}");
    }
}

#[test]
fn every_method_repeats_by_its_seed_and_finds_a_cell_of_the_space_within_the_bound_on_skips() {
    let mut world = World::new(&stripes(), 12);
    for method in SearchMethod::ALL {
        let run = |world: &World| {
            let mut search = begin(method, world.setting()).unwrap();
            end(search.as_mut());
            (state(search.as_ref()), search.derive())
        };
        world.seed = 7;
        let (first, found) = run(&world);
        assert_eq!(run(&world), (first.clone(), found.clone()), "{method}");
        assert_eq!((found.channels, found.genotype.nodes.len()), (WIDTH_FACTOR * 4, 3), "{method}");
        found.genotype.validate().unwrap();
        assert!(
            found.genotype.skips() <= guard::skips_max(&world.setting().space()),
            "{method}: {:?}",
            found.genotype
        );
        world.seed = 8;
        assert_ne!(run(&world).0.0, first.0, "{method}");
    }
}

#[test]
fn every_method_ends_with_a_front_that_holds_what_it_found_and_repeats() {
    let world = World::new(&stripes(), 12);
    for method in SearchMethod::ALL {
        let run = || {
            let mut search = begin(method, world.setting()).unwrap();
            end(search.as_mut());
            (front(search.as_ref(), &world.setting()), search.derive().fit(&world.board).unwrap())
        };
        let (points, found) = run();
        assert_eq!(run().0, points, "{method}");
        let chosen = points.iter().filter(|point| point.architecture == found).count();
        assert_eq!(chosen, 1, "{method}");
        let on_front: Vec<&Point> = points.iter().filter(|point| point.on_front).collect();
        assert!(points.len() > 1 && !on_front.is_empty(), "{method}");
        let best = points.iter().map(|point| point.accuracy).fold(0.0, f32::max);
        assert_eq!(on_front[0].accuracy, best, "{method}");
    }
}

#[test]
fn every_method_finds_cells_of_the_space_that_it_is_given() {
    let mut world = World::new(&stripes(), 8);
    world.choices.operations =
        ["conv1", "glu3", "se", "attend3", "max5"].map(|name| name.parse().unwrap()).to_vec();
    world.choices.cell.reads = Some(3);
    world.choices.cell.fan_in = 3;
    world.choices.regularise.operation_dropout = 0.3;
    for method in SearchMethod::ALL {
        let mut search = begin(method, world.setting()).unwrap();
        end(search.as_mut());
        let found = search.derive().genotype;
        assert!(world.setting().space().has(&found), "{method}: {found:?}");
        assert_eq!(found.nodes.iter().map(Vec::len).collect::<Vec<_>>(), [2, 3, 3], "{method}");
    }
}

#[test]
fn a_search_on_cells_from_before_kernels_had_numbers_goes_on() {
    let world = World::new(&stripes(), 12);
    let mut separable = false;
    for method in [SearchMethod::Evolution, SearchMethod::Random, SearchMethod::SuccessiveHalving] {
        let mut search = begin(method, world.setting()).unwrap();
        end(search.as_mut());
        let (state, tensors) = search.save();
        let old = [("conv3", "conv"), ("sep5", "sep_conv"), ("max3", "max_pool"), ("avg3", "avg_pool")];
        let text = old.into_iter().fold(serde_json::to_string(&state).unwrap(), |text, (new, old)| {
            text.replace(&format!("\"{new}\""), &format!("\"{old}\""))
        });
        assert!(text.contains("\"conv\"") && text.contains("_pool\""), "{method}: {text}");
        separable |= text.contains("\"sep_conv\"");
        let mut take =
            |name: &str| tensors.iter().find(|(known, _)| *known == name).map(|(_, tensor)| tensor.copy());
        let mut next = begin(method, world.setting()).unwrap();
        next.restore(&serde_json::from_str(&text).unwrap(), &mut take).unwrap();
        assert_eq!(next.save().0, state, "{method}");
    }
    assert!(separable);
}

#[test]
fn a_state_of_another_search_is_refused_in_words() {
    let world = World::new(&stripes(), 12);
    for method in SearchMethod::ALL {
        let mut search = begin(method, world.setting()).unwrap();
        search.step();
        let (state, _) = search.save();
        let error = search.restore(&state, &mut |_| None).unwrap_err();
        assert_eq!(error, "the checkpoint lacks weights", "{method}");
        let short = |_: &str| Some(Tensor::from_slice(&[1f32]));
        let error = search.restore(&state, &mut { short }).unwrap_err();
        assert!(error.starts_with("weights in the checkpoint has 1 values, not "), "{method}: {error}");
        for bad in [
            SearchState { step: 10_000, ..state.clone() },
            SearchState { masks: vec![0; 9], judged: vec![judged(), judged()], ..state.clone() },
        ] {
            let error = search.restore(&bad, &mut |_| None).unwrap_err();
            assert_eq!(error, "the checkpoint is of another search", "{method}");
        }
    }
}

#[test]
fn a_checkpoint_from_before_there_were_methods_is_one_of_the_first() {
    let old = r#"{"step":9,"arch_steps":4,"masks":[63,63,16,1,0,7,3,3,3]}"#;
    let state: SearchState = serde_json::from_str(old).unwrap();
    assert_eq!((state.step, state.arch_steps, state.masks.len()), (9, 4, 9));
    assert!(state.repairs.is_empty() && state.judged.is_empty());
    assert_eq!(serde_json::to_string(&state).unwrap(), old);
    let world = World::new(&stripes(), 12);
    let mut search = begin(SearchMethod::Darts, world.setting()).unwrap();
    let (_, tensors) = search.save();
    let mut take =
        |name: &str| tensors.iter().find(|(known, _)| *known == name).map(|(_, tensor)| tensor.copy());
    search.restore(&state, &mut take).unwrap();
    assert_eq!(search.save().0, state);
}

fn judged() -> Judged {
    Judged { cell: Genotype { nodes: Vec::new() }, right: 1, of: 2, loss: 1.0 }
}

#[test]
fn all_methods_take_as_many_weight_steps_as_the_first_and_never_more() {
    for steps in [1, 20, 120, 500] {
        let world = World::new(&stripes(), steps);
        let total = |method| begin(method, world.setting()).unwrap().progress().1;
        let expected = total(SearchMethod::Darts);
        for method in [SearchMethod::DartsSecondOrder, SearchMethod::Gdas, SearchMethod::PartialChannels] {
            assert_eq!(total(method), expected, "{method}");
        }
        // A step more for each cell would be too many.
        for method in [SearchMethod::Random, SearchMethod::SuccessiveHalving] {
            let found = total(method);
            assert!(found <= expected && found + 64 > expected, "{method}: {found} of {expected}");
        }
        for method in [SearchMethod::Evolution, SearchMethod::Hypernetwork] {
            assert_eq!(total(method), expected + u64::from(steps), "{method}");
        }
    }
}

#[test]
fn cells_that_are_judged_one_by_one_fit_the_board_and_the_best_of_them_is_taken() {
    let mut world = World::new(&stripes(), 24);
    // The heaviest cell does not fit in full width.
    let heaviest = world.setting().heaviest();
    let net = Network::new(heaviest, &mut seeds::stream(1, Purpose::NetworkWeights, 0)).unwrap();
    world.board.limits.macs_max = net.to_graph().unwrap().macs() / 2;
    for method in [
        SearchMethod::Random,
        SearchMethod::SuccessiveHalving,
        SearchMethod::Evolution,
        SearchMethod::Hypernetwork,
    ] {
        let mut search = begin(method, world.setting()).unwrap();
        assert_eq!(search.accuracy(), None);
        end(search.as_mut());
        let (state, _) = search.save();
        assert!(state.judged.len() > 1 && state.masks.is_empty(), "{method}");
        let last = match method {
            SearchMethod::SuccessiveHalving => &state.judged[state.judged.len() - 2..],
            _ => &state.judged,
        };
        let best = judge::best(last).unwrap();
        assert_eq!(search.derive().genotype, best.cell, "{method}");
        assert_eq!(search.accuracy(), Some(best.accuracy()), "{method}");
        search.derive().fit(&world.board).unwrap();
    }
}
