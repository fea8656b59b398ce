//! Distillation: a small network learns from what larger ones answer, not from the labels alone (Hinton, Vinyals and
//! Dean 2015, "Distilling the Knowledge in a Neural Network").

use crate::{answer::Answer, network::Network};
use tch::{Kind, Tensor};

/// Softens the answers of teachers and network, so that what a teacher thinks of the other classes counts.
pub const TEMPERATURE: f64 = 3.0;
/// Weight of the teachers in the loss; the labels have the rest.
const TEACHERS_SHARE: f64 = 0.7;
/// Keeps the logarithm of a probability of zero finite.
const PROBABILITY_MIN: f64 = 1e-8;

/// The loss of `logits` for samples `x`, of which `hard` is the loss by the labels; of each part of the answer as much.
/// The teachers are one by the mean of their probabilities; the square of the temperature keeps the size of the
/// gradient. Without teachers, `hard`.
pub fn loss(answer: Answer, teachers: &[Network], x: &Tensor, logits: &Tensor, hard: Tensor) -> Tensor {
    let Some(targets) = targets(answer, teachers, x) else { return hard };
    let divergence = |(targets, logits): (Tensor, Tensor)| {
        let answers = (logits / TEMPERATURE).log_softmax(1, Kind::Float);
        let targets_log = targets.clamp_min(PROBABILITY_MIN).log();
        let rows =
            (&targets * (targets_log - answers)).sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
        rows.mean(Kind::Float)
    };
    let parts = targets.into_iter().zip(answer.parts(logits, length(x)));
    let Some(divergence) = parts.map(divergence).reduce(|sum, next| sum + next) else { return hard };
    hard * (1.0 - TEACHERS_SHARE) + divergence * (TEACHERS_SHARE * TEMPERATURE * TEMPERATURE)
}

/// For each part of the answer the mean of the teachers' softened probabilities; none without teachers.
fn targets(answer: Answer, teachers: &[Network], x: &Tensor) -> Option<Vec<Tensor>> {
    tch::no_grad(|| {
        let one = |teacher: &Network| -> Vec<Tensor> {
            let parts = answer.parts(&teacher.forward(x, false), length(x));
            parts.iter().map(|part| (part / TEMPERATURE).softmax(1, Kind::Float)).collect()
        };
        let add =
            |sum: Vec<Tensor>, next: Vec<Tensor>| sum.into_iter().zip(next).map(|(a, b)| a + b).collect();
        let sum = teachers.iter().map(one).reduce(add)?;
        Some(sum.into_iter().map(|part| part / teachers.len() as f64).collect())
    })
}

/// Positions of samples `[N, C, H, W]`.
fn length(x: &Tensor) -> i64 {
    x.size().last().copied().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        genotype::{Architecture, Dim, Edge, Genotype, Operation},
        seeds::{self, Purpose},
    };

    fn network(seed: u64) -> Network {
        let architecture = Architecture {
            dim: Dim::Series,
            input: vec![1, 8],
            classes: 3,
            channels: 4,
            cells: 1,
            answer: Default::default(),
            genotype: Genotype { nodes: vec![vec![Edge { from: 0, op: Operation::Conv }]] },
        };
        Network::new(architecture, &mut seeds::stream(seed, Purpose::NetworkWeights, 0)).unwrap()
    }

    fn value(tensor: &Tensor) -> f64 {
        tensor.double_value(&[])
    }

    #[test]
    fn who_answers_as_the_teachers_do_has_only_the_labels_left_to_learn() {
        let x = Tensor::from_slice(&(0..16).map(|i| i as f32).collect::<Vec<_>>()).reshape([2, 1, 1, 8]);
        let hard = || Tensor::from(2.0f32);
        let teachers = [network(1)];
        let same = loss(Answer::Class, &teachers, &x, &teachers[0].forward(&x, false), hard());
        assert!((value(&same) - 2.0 * (1.0 - TEACHERS_SHARE)).abs() < 1e-5, "{same}");
        let other = loss(Answer::Class, &teachers, &x, &network(2).forward(&x, false), hard());
        assert!(value(&other) > value(&same) + 1e-3, "{other} and {same}");
        assert_eq!(value(&loss(Answer::Class, &[], &x, &teachers[0].forward(&x, false), hard())), 2.0);
    }

    #[test]
    fn several_teachers_count_alike() {
        let x = Tensor::from_slice(&[0.5f32; 8]).reshape([1, 1, 1, 8]);
        let [a, b] = [network(1), network(2)];
        let softened = |net: &Network| (net.forward(&x, false) / TEMPERATURE).softmax(1, Kind::Float);
        let mean = (softened(&a) + softened(&b)) / 2.0;
        let found = targets(Answer::Class, &[a, b], &x).unwrap().remove(0);
        assert!(value(&(found - mean).abs().max()) < 1e-6);
    }
}
