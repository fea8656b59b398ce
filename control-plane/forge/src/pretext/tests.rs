use super::*;
use crate::{
    data::Split,
    genotype::{Architecture, Dim, Edge, Genotype, Operation},
    params::to_vec,
};
use tch::Kind;

const LENGTH: usize = 30;

/// Waves of random phase and speed: what is hidden follows from what is not.
fn waves(count: usize) -> Samples {
    let mut rng = seeds::stream(4, Purpose::Samples, 0);
    let mut split = Split::default();
    for _ in 0..count {
        let (phase, speed) = (3.0 * seeds::normal(&mut rng), 0.3 + 0.05 * seeds::normal(&mut rng));
        split.samples.extend((0..LENGTH).map(|at| (at as f32 * speed + phase).sin()));
        split.labels.push(0);
    }
    Samples::new(&split, &[1, LENGTH])
}

fn architecture(dim: Dim, input: Vec<usize>) -> Architecture {
    let edge = |from| Edge { from, op: Operation::CONV3 };
    let genotype = Genotype { nodes: vec![vec![edge(0), edge(1)], vec![edge(1), edge(2)]] };
    let answer = Default::default();
    Architecture { dim, input, classes: 2, channels: 4, cells: 3, answer, genotype, layout: None }
}

fn network() -> Network {
    let architecture = architecture(Dim::Series, vec![1, LENGTH]);
    Network::new(architecture, &mut seeds::stream(1, Purpose::NetworkWeights, 0)).unwrap()
}

#[test]
fn either_pretext_is_learned_and_leaves_the_head_alone() {
    let samples = waves(64);
    for pretext in Pretext::ALL {
        let net = network();
        let before = to_vec(&net.params.flat());
        let mut course = Pretraining::new(pretext, net, &samples, 40, None, 3);
        let (_, total) = course.progress();
        assert!(course.loss().is_nan());
        let first = course.step();
        for _ in 1..total {
            course.step();
        }
        assert!(course.loss() < first * 0.7, "{pretext}: {first} and {}", course.loss());
        let net = course.finish();
        let after = to_vec(&net.params.flat());
        let head = net.skeleton().features as usize * 2 + 2;
        let body = before.len() - head;
        // It only decays.
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 0.01 * a.abs();
        assert!(before[body..].iter().zip(&after[body..]).all(near), "{pretext}: the head changed");
        assert_ne!(before[..body], after[..body]);
    }
}

#[test]
fn a_pretext_goes_on_from_a_checkpoint_as_if_it_had_not_stopped() {
    let samples = waves(64);
    for pretext in Pretext::ALL {
        let course = || Pretraining::new(pretext, network(), &samples, 3, None, 3);
        let mut whole = course();
        let (_, total) = whole.progress();
        for _ in 0..total / 2 {
            whole.step();
        }
        let saved: Vec<(&str, Tensor)> =
            whole.save().iter().map(|(name, tensor)| (*name, tensor.copy())).collect();
        let mut resumed = course();
        let mut find = |name: &str| {
            saved.iter().find(|(saved, _)| *saved == name).map(|(_, tensor)| tensor.shallow_clone())
        };
        resumed.restore(total / 2, &mut find).unwrap();
        for _ in total / 2..total {
            whole.step();
            resumed.step();
        }
        assert_eq!(whole.loss(), resumed.loss());
        assert_eq!(to_vec(&whole.finish().params.flat()), to_vec(&resumed.finish().params.flat()));
        assert!(course().restore(total + 1, &mut find).is_err());
    }
}

#[test]
fn three_patches_of_ten_are_hidden_and_a_decoded_sample_has_the_shape_of_its_input() {
    for (dim, input, size, patch) in
        [(Dim::Image, vec![2, 30, 29], [3, 2, 30, 29], 8), (Dim::Series, vec![2, 101], [3, 2, 1, 101], 8)]
    {
        let net =
            Network::new(architecture(dim, input.clone()), &mut seeds::stream(1, Purpose::NetworkWeights, 0))
                .unwrap();
        let values = (0..3 * input.iter().product::<usize>()).map(|at| (at as f32).sin()).collect();
        let samples =
            Samples::new(&Split { samples: values, labels: vec![0; 3], ..Split::default() }, &input);
        let mut rng = seeds::stream(1, Purpose::Pretext, 0);
        let masked = masked::Masked::new(net.skeleton(), &samples, &mut rng);
        let mask = masked.mask(&size, &mut rng);
        assert_eq!(mask.size(), [3, 1, size[2], size[3]]);
        let share = mask.mean(Kind::Float).double_value(&[]);
        assert!((share - masked::MASK_SHARE).abs() < 0.1, "{share}");
        // A patch is hidden as a whole.
        assert_eq!(to_vec(&mask)[..patch].iter().sum::<f32>() % patch as f32, 0.0);
        let (x, _) = samples.batch(&[0, 1, 2]);
        assert_eq!(masked.decode(&net.features(&x, false), &size).size(), size);
    }
}
