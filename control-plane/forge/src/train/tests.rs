use super::*;
use crate::{
    data::Split,
    genotype::{Architecture, Dim, Edge, Genotype, Operation},
    params::to_vec,
};
use std::collections::BTreeSet;

const LENGTH: usize = 8;

/// `count` rising and falling series.
fn samples(count: usize) -> Samples {
    let mut rng = seeds::stream(2, Purpose::Samples, 0);
    let mut split = Split::default();
    for sample in 0..count {
        let sign = if sample % 2 == 0 { 1.0 } else { -1.0 };
        split.samples.extend((0..LENGTH).map(|at| sign * at as f32 + 0.1 * seeds::normal(&mut rng)));
        split.labels.push(sample as i64 % 2);
    }
    Samples::new(&split, &[1, LENGTH])
}

fn network() -> Network {
    let architecture = Architecture {
        dim: Dim::Series,
        input: vec![1, LENGTH],
        classes: 2,
        channels: 4,
        cells: 1,
        answer: Default::default(),
        genotype: Genotype { nodes: vec![vec![Edge { from: 0, op: Operation::CONV3 }]] },
        layout: None,
    };
    Network::new(architecture, &mut seeds::stream(1, Purpose::NetworkWeights, 0)).unwrap()
}

fn plan(epochs: u32) -> Plan {
    Plan { epochs, steps_max: None, rate: 0.05, augment: Augment::for_dim(Dim::Series) }
}

#[test]
fn training_learns_and_gives_the_average_of_the_last_steps() {
    let samples = samples(40);
    let mut training = Training::new(network(), &samples, plan(20), 3);
    let (_, total) = training.progress();
    let first = training.step();
    let losses: Vec<f64> = (1..total).map(|_| training.step()).collect();
    assert!(losses[losses.len() - 1] < first / 2.0, "{first} and {losses:?}");
    assert_eq!(training.progress(), (total, total));
    let (average, newest) = (to_vec(&training.average), to_vec(&training.net.params.flat()));
    assert_ne!(average, newest);
    let net = training.finish();
    assert_eq!(to_vec(&net.params.flat()), average);
    let all: Vec<i64> = (0..40).collect();
    assert!(accuracy(&net, &samples, &all) > 0.9);
}

/// Series around one of two means with more noise than that, one in `rare` of the second kind.
fn noisy(count: usize, rare: usize, stream: u64) -> Split {
    let mut rng = seeds::stream(7, Purpose::Samples, stream);
    let mut split = Split::default();
    for sample in 0..count {
        let label = i64::from(sample % rare == 0);
        let mean = 0.8 * label as f32 - 0.4;
        split.samples.extend((0..LENGTH).map(|_| mean + seeds::normal(&mut rng)));
        split.labels.push(label);
    }
    split
}

#[test]
fn of_unbalanced_classes_the_rare_one_is_told_too() {
    let train = noisy(800, 20, 0);
    let schema: shared::job::DatasetSchema = serde_json::from_value(serde_json::json!({
        "format": "ts", "task": "series_classification", "digest": "0".repeat(64), "shape": [1, LENGTH],
        "labels": ["often", "rarely"], "train_count": 800, "test_count": 400,
    }))
    .unwrap();
    let test = noisy(400, 2, 1);
    let looked_at = Samples::new(&test, &[1, LENGTH]);
    let [rare, often]: [Vec<i64>; 2] = [1, 0].map(|label| {
        (0..400).filter(|sample| test.labels[usize::try_from(*sample).unwrap()] == label).collect()
    });
    let recalls = |samples: &Samples| {
        let augment = Augment::NONE;
        let plan = Plan { epochs: 40, steps_max: None, rate: 0.05, augment };
        let mut training = Training::new(network(), samples, plan, 3);
        while training.progress().0 < training.progress().1 {
            training.step();
        }
        let net = training.finish();
        [&rare, &often].map(|of| accuracy(&net, &looked_at, of))
    };
    let plain = recalls(&Samples::new(&train, &schema.shape));
    let weighed = recalls(&Samples::of(&train, &schema));
    let balanced = |recalls: [f64; 2]| recalls.iter().sum::<f64>() / 2.0;
    assert!(weighed[0] > plain[0] + 0.15, "of the rare class {plain:?} and {weighed:?} are told");
    assert!(balanced(weighed) > balanced(plain) + 0.05, "{plain:?} and {weighed:?}");
}

/// Bars that rise to the left or to the right, or lie level; mirrored, a third of the labels stay true, or all if a label
/// does not say where a bar rises.
fn bars(sided: bool) -> Samples {
    let mut rng = seeds::stream(2, Purpose::Samples, 0);
    let mut split = Split::default();
    for sample in 0..120i64 {
        for (row, column) in (0..8).flat_map(|row| (0..8).map(move |column| (row, column))) {
            let on = match sample % 3 {
                0 => row == column,
                1 => row == 7 - column,
                _ => row == 4,
            };
            split.samples.push(f32::from(u8::from(on)) + 0.05 * seeds::normal(&mut rng));
        }
        split.labels.push(if sided { sample % 3 } else { sample % 3 / 2 });
    }
    Samples::new(&split, &[1, 8, 8])
}

#[test]
fn images_are_mirrored_where_their_labels_survive_it_and_nowhere_else() {
    for sided in [true, false] {
        let samples = bars(sided);
        let architecture = Architecture {
            dim: Dim::Image,
            input: vec![1, 8, 8],
            classes: 3,
            channels: 8,
            cells: 1,
            answer: Default::default(),
            genotype: Genotype { nodes: vec![vec![Edge { from: 0, op: Operation::CONV3 }]] },
            layout: None,
        };
        let net = Network::new(architecture, &mut seeds::stream(1, Purpose::NetworkWeights, 0)).unwrap();
        let augment = Augment { mirror: true, ..Augment::NONE };
        let mut training =
            Training::new(net, &samples, Plan { epochs: 200, steps_max: None, rate: 0.1, augment }, 3);
        assert!(!training.mirrors_images());
        let (_, total) = training.progress();
        for _ in 0..=(total as f64 * MIRROR_FROM) as u64 {
            training.step();
        }
        assert_eq!(training.mirrors_images(), !sided);
    }
}

#[test]
fn what_is_held_back_is_not_trained_on_and_looking_at_it_changes_nothing() {
    let samples = samples(HELD_BACK_FROM);
    let mut training = Training::new(network(), &samples, plan(1), 3);
    let used: BTreeSet<i64> = training.used.iter().copied().collect();
    assert_eq!(training.held_back.len(), HELD_BACK_FROM / 50);
    assert!(training.held_back.iter().all(|sample| !used.contains(sample)));
    training.step();
    let state = |training: &Training<'_>| {
        training.save().iter().map(|(_, tensor)| to_vec(tensor)).collect::<Vec<_>>()
    };
    let before = state(&training);
    assert!(training.accuracy().is_some());
    assert_eq!(state(&training), before);
    assert_eq!(Training::new(network(), &self::samples(40), plan(1), 3).accuracy(), None);
}
