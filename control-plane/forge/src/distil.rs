//! Distillation: a small network learns from what larger ones answer, not from the labels alone (Hinton, Vinyals and
//! Dean 2015, "Distilling the Knowledge in a Neural Network"), and from where in a sample they look.

use crate::{
    answer::Answer,
    network::{Network, Traced},
    precision::Precision,
};
use tch::{Kind, Tensor};

/// Softens the answers of teachers and network, so that what a teacher thinks of the other classes counts.
pub const TEMPERATURE: f64 = 3.0;
/// Weight of the teachers in the loss; the labels have the rest.
const TEACHERS_SHARE: f64 = 0.7;
/// Weight of what the cells look at, beside answers and labels.
const ATTENTION_WEIGHT: f64 = 1.0;
/// Keeps the logarithm of a probability of zero finite.
const PROBABILITY_MIN: f64 = 1e-8;

/// The loss of a pupil for samples `x`, of which `hard` is the loss by the labels: of each part of its answer as much
/// against that of the teachers, who are one by the mean of their probabilities, and what its cells look at against what
/// theirs do (Zagoruyko and Komodakis 2017). The square of the temperature keeps the size of the gradient. Without
/// teachers, `hard`.
pub fn loss(answer: Answer, teachers: &[Network], x: &Tensor, pupil: &Traced, hard: Tensor) -> Tensor {
    let answers = || -> Vec<Traced> { teachers.iter().map(|one| one.traced(x, false)).collect() };
    let traced = Precision::of(x.device()).compute(|| tch::no_grad(answers));
    let length = length(x);
    let Some(targets) = targets(answer, length, &traced) else { return hard };
    let parts = targets.iter().zip(answer.parts(&pupil.logits, length));
    let apart = parts.map(|(targets, logits)| divergence(targets, &logits));
    let Some(apart) = apart.reduce(|sum, next| sum + next) else { return hard };
    let loss = blended(apart, hard);
    match looks_elsewhere(&traced, pupil) {
        Some(distance) => loss + distance * ATTENTION_WEIGHT,
        None => loss,
    }
}

/// The loss by answers alone, where the teachers' softened probabilities `[N, classes]` are known.
pub fn blend(targets: &Tensor, logits: &Tensor, hard: Tensor) -> Tensor {
    blended(divergence(targets, logits), hard)
}

fn blended(divergence: Tensor, hard: Tensor) -> Tensor {
    hard * (1.0 - TEACHERS_SHARE) + divergence * (TEACHERS_SHARE * TEMPERATURE * TEMPERATURE)
}

/// How far softened `logits` are from softened probabilities, both `[N, classes]`: mean over rows.
fn divergence(targets: &Tensor, logits: &Tensor) -> Tensor {
    let answers = (logits / TEMPERATURE).log_softmax(1, Kind::Float);
    let targets_log = targets.clamp_min(PROBABILITY_MIN).log();
    row_sums(&(targets * (targets_log - answers))).mean(Kind::Float)
}

/// For each part of the answer to samples of `length` positions the mean of the teachers' softened probabilities, `[rows,
/// classes of the part]`; none without teachers.
fn targets(answer: Answer, length: i64, teachers: &[Traced]) -> Option<Vec<Tensor>> {
    let softened = |teacher: &Traced| -> Vec<Tensor> {
        let parts = answer.parts(&teacher.logits, length);
        parts.iter().map(|part| (part / TEMPERATURE).softmax(1, Kind::Float)).collect()
    };
    let add = |sum: Vec<Tensor>, next: Vec<Tensor>| sum.into_iter().zip(next).map(|(a, b)| a + b).collect();
    let sum = teachers.iter().map(softened).reduce(add)?;
    Some(sum.into_iter().map(|part| part / teachers.len() as f64).collect())
}

/// Squared distance of what the pupil's cells look at from what the teachers' do: mean over samples, cells and teachers,
/// 0 to 4. Cells of another resolution are left out; none where that is all.
fn looks_elsewhere(teachers: &[Traced], pupil: &Traced) -> Option<Tensor> {
    let pairs = teachers.iter().flat_map(|teacher| teacher.attention.iter().zip(&pupil.attention));
    let distances: Vec<Tensor> = pairs
        .filter(|(theirs, ours)| theirs.size() == ours.size())
        .map(|(theirs, ours)| row_sums(&(ours - theirs).square()).mean(Kind::Float))
        .collect();
    (!distances.is_empty()).then(|| Tensor::stack(&distances, 0).mean(Kind::Float))
}

fn row_sums(x: &Tensor) -> Tensor {
    x.sum_dim_intlist([1i64].as_slice(), false, Kind::Float)
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
            answer: Answer::Class,
            genotype: Genotype { nodes: vec![vec![Edge { from: 0, op: Operation::CONV3 }]] },
            layout: None,
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
        let left = |pupil: &Network, teachers: &[Network]| {
            value(&loss(Answer::Class, teachers, &x, &pupil.traced(&x, false), hard()))
        };
        let same = left(&teachers[0], &teachers);
        assert!((same - 2.0 * (1.0 - TEACHERS_SHARE)).abs() < 1e-5, "{same}");
        let other = left(&network(2), &teachers);
        assert!(other > same + 1e-3, "{other} and {same}");
        assert_eq!(left(&teachers[0], &[]), 2.0);
    }

    #[test]
    fn who_answers_alike_but_looks_elsewhere_has_something_left_to_learn() {
        let attention = |values: &[f32]| Tensor::from_slice(values).reshape([1, -1]);
        let traced = |looks: &[f32]| Traced {
            logits: Tensor::from_slice(&[0.3f32, 0.1]).reshape([1, 2]),
            attention: vec![attention(looks)],
        };
        let teacher = [traced(&[1.0, 0.0, 0.0])];
        let distance = |looks: &[f32]| looks_elsewhere(&teacher, &traced(looks)).map(|found| value(&found));
        assert_eq!(distance(&[1.0, 0.0, 0.0]), Some(0.0));
        assert_eq!(distance(&[0.0, 1.0, 0.0]), Some(2.0));
        // A cell of another resolution says nothing.
        assert_eq!(distance(&[0.0, 1.0]), None);
    }

    #[test]
    fn several_teachers_count_alike() {
        let x = Tensor::from_slice(&[0.5f32; 8]).reshape([1, 1, 1, 8]);
        let [a, b] = [network(1), network(2)].map(|net| net.traced(&x, false));
        let softened = |one: &Traced| (&one.logits / TEMPERATURE).softmax(1, Kind::Float);
        let mean = (softened(&a) + softened(&b)) / 2.0;
        let found = targets(Answer::Class, 8, &[a, b]).unwrap().remove(0);
        assert!(value(&(found - mean).abs().max()) < 1e-6);
    }
}
