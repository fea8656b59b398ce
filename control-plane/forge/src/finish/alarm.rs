//! Where a model that finds anomalies draws its line: by what it says of normal samples that it was not trained on.

use super::{ACCURACY_BATCH, Error};
use crate::{anomaly::ANOMALY, data::Split, onnx};
use runtime::{LoadOptions, Ort, Runtime};
use shared::manifest::Alarm;
use tch::{Kind, Tensor};

/// Share of normal samples that may be reported, in thousandths.
pub(super) const FALSE_ALARMS_PERMILLE: u32 = 10;
/// Keeps a probability of nothing from having no logarithm.
const PROBABILITY_MIN: f32 = 1e-12;
/// How far the line is from what lies just below it, in log odds: what rounds otherwise stays below.
const ROOM: f32 = 1e-2;

/// A model with its line drawn, and by how much the log odds of an anomaly were lowered for it.
pub(super) fn drawn(model: Vec<u8>, held: Option<&Split>, ort: &Ort) -> Result<(Vec<u8>, f32), Error> {
    let Some(held) = held else { return Ok((model, 0.0)) };
    let loaded = ort.load(&model, &LoadOptions::default())?;
    let (each, outputs) = (loaded.input().elements(), loaded.output().elements().max(1));
    let (mut scores, mut answers) = (Vec::with_capacity(held.len()), Vec::new());
    for samples in held.samples.chunks(ACCURACY_BATCH * each) {
        loaded.run_into(samples, samples.len() / each, &mut answers)?;
        scores.extend(answers.chunks_exact(outputs).map(log_odds));
    }
    let line = line(scores, FALSE_ALARMS_PERMILLE);
    Ok((onnx::shift(&model, &[0.0, -line])?, line))
}

/// What the report and the manifest say of it.
pub(super) fn told(held: Option<&Split>) -> Option<Alarm> {
    held.map(|held| Alarm { false_alarms_permille: FALSE_ALARMS_PERMILLE, normal_samples: held.len() as u64 })
}

/// Probabilities `[N, 2]` of a network with the log odds of an anomaly lowered by `by`.
pub(super) fn lowered(probabilities: Tensor, by: f32) -> Tensor {
    if by == 0.0 {
        return probabilities;
    }
    let shift = Tensor::from_slice(&[0.0, -by]);
    (probabilities.clamp_min(f64::from(PROBABILITY_MIN)).log() + shift).softmax(1, Kind::Float)
}

fn log_odds(row: &[f32]) -> f32 {
    let ln = |class: usize| row.get(class).copied().unwrap_or(0.0).max(PROBABILITY_MIN).ln();
    ln(ANOMALY as usize) - ln(0)
}

/// The log odds that at most `permille` of the thousand scores lie above.
fn line(mut scores: Vec<f32>, permille: u32) -> f32 {
    scores.sort_unstable_by(|a, b| b.total_cmp(a));
    let above = scores.len() * permille as usize / 1000;
    let Some(below) = scores.get(above).copied() else { return 0.0 };
    // Half way to the next one above.
    let next = above.checked_sub(1).and_then(|at| scores.get(at)).copied().unwrap_or(below);
    (below.midpoint(next)).max(below + ROOM)
}

/// Area under the receiver operating characteristic: the share of pairs of an anomaly and a normal sample in which the anomaly
/// has the higher score, a tie counting half. 0.5 where one of them is missing.
pub(super) fn auroc(scores: &[(f32, bool)]) -> f64 {
    let mut sorted: Vec<(f32, bool)> = scores.to_vec();
    sorted.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let (mut normal, mut anomalies, mut pairs) = (0f64, 0f64, 0f64);
    for equal in sorted.chunk_by(|a, b| a.0 == b.0) {
        let found = equal.iter().filter(|(_, anomaly)| *anomaly).count() as f64;
        let others = equal.len() as f64 - found;
        pairs += found * (normal + others / 2.0);
        (normal, anomalies) = (normal + others, anomalies + found);
    }
    if normal * anomalies > 0.0 { pairs / (normal * anomalies) } else { 0.5 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::{Graph, Op, Shape, ValueId},
        onnx::tests::{linear, ort, values},
        params::to_vec,
    };
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use runtime::Tract;

    #[test]
    fn the_line_leaves_no_more_than_its_share_above() {
        let scores: Vec<f32> = (0..1000u16).map(f32::from).collect();
        let found = line(scores.clone(), 10);
        assert_eq!(scores.iter().filter(|score| **score > found).count(), 10);
        assert_eq!(found, 989.5);
        // Fewer than a hundred: none.
        assert_eq!(line(vec![1.0, 3.0, 2.0], 10), 3.0 + ROOM);
        // Equal ones are all below.
        assert_eq!(line(vec![5.0; 1000], 10), 5.0 + ROOM);
        assert_eq!(line(Vec::new(), 10), 0.0);
    }

    #[test]
    fn the_area_counts_pairs_in_the_right_order_and_ties_by_half() {
        let area = |scores: &[(f32, bool)]| auroc(scores);
        assert_eq!(area(&[(0.1, false), (0.2, false), (0.3, true)]), 1.0);
        assert_eq!(area(&[(0.3, false), (0.2, true)]), 0.0);
        assert_eq!(area(&[(0.1, false), (0.4, false), (0.3, true), (0.4, true)]), 0.625);
        assert_eq!(area(&[(0.5, true), (0.5, false)]), 0.5);
        assert_eq!(area(&[(0.5, true)]), 0.5);
    }

    /// A random linear model of two classes.
    fn two_classes() -> Graph {
        let rng = &mut ChaCha8Rng::seed_from_u64(1);
        let mut graph = Graph::new(Shape::series(5, 4)).unwrap();
        let mean = graph.push(Op::GlobalAvgPool, &[ValueId::INPUT]).unwrap();
        let logits = graph.push(linear(rng, 5, 2, false), &[mean]).unwrap();
        graph.push(Op::Softmax, &[logits]).unwrap();
        graph
    }

    #[test]
    fn a_model_with_its_line_drawn_says_the_same_on_both_runtimes_and_reports_one_normal_sample_of_a_hundred()
    {
        let Some(ort) = ort() else { return };
        let graph = two_classes();
        let each = graph.input_shape().elements();
        let count = 200;
        let samples = values(&mut ChaCha8Rng::seed_from_u64(3), each * count, 1.0);
        let held = Split { samples: samples.clone(), labels: vec![0; count], ..Split::default() };
        let before = onnx::write_f32(&graph).unwrap();
        let (after, line) = drawn(before.clone(), Some(&held), &ort).unwrap();
        let run = |runtime: &dyn Runtime, model: &[u8]| {
            let mut answers = Vec::new();
            runtime
                .load(model, &LoadOptions::default())
                .unwrap()
                .run_into(&samples, count, &mut answers)
                .unwrap();
            answers
        };
        let found = run(&ort, &after);
        let alarms = found.chunks(2).filter(|row| row[1] > row[0]).count();
        // The second of them may be too near to the third to be told apart.
        assert!((1..=2).contains(&alarms), "{alarms}");
        let expected = Tensor::from_slice(&run(&ort, &before)).reshape([-1, 2]);
        let expected = to_vec(&lowered(expected, line));
        for other in [expected, run(&Tract, &after)] {
            let furthest = found.iter().zip(&other).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            assert!(furthest < 1e-3, "{furthest}");
        }
        assert_eq!(drawn(before.clone(), None, &ort).unwrap(), (before, 0.0));
    }
}
