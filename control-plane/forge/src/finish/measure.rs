//! What an exported model is worth on a split, by the measures of its task.

use super::{ACCURACY_BATCH, alarm::auroc};
use crate::{
    anomaly::ANOMALY,
    data::{Split, balance},
};
use runtime::{Runnable, golden::argmax};
use shared::{
    job::{DatasetSchema, Metric},
    manifest::{Head, Task},
    text::{EMPTY, Span, spans},
};

/// What a character costs that the alphabet lacks: any of Unicode may stand there.
const UNKNOWN_BITS: f64 = 21.0;
/// The least probability that a character is taken to have been given.
const PROBABILITY_MIN: f64 = 1e-9;

/// How a model did.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Measured {
    /// Whether the class of each sample was right.
    right: Vec<bool>,
    /// The task's own measures, the first one above all.
    pub(super) metrics: Vec<(Metric, f64)>,
}

impl Measured {
    /// Share of right classes among the first `count` samples.
    pub(super) fn accuracy_of(&self, count: usize) -> f64 {
        let seen = &self.right[..count.min(self.right.len())];
        seen.iter().filter(|right| **right).count() as f64 / seen.len().max(1) as f64
    }

    /// Share of right classes.
    pub(super) fn accuracy(&self) -> f64 {
        self.accuracy_of(self.right.len())
    }

    /// One measure, where the task has it.
    pub(super) fn metric(&self, wanted: Metric) -> Option<f64> {
        self.metrics.iter().find(|(metric, _)| *metric == wanted).map(|(_, value)| *value)
    }

    pub(super) fn count(&self) -> usize {
        self.right.len()
    }
}

/// Runs `model` on the first `count` samples of a split of the data set with this schema; `balanced` asks for the mean of the
/// classes' accuracies.
pub(super) fn measure(
    model: &dyn Runnable,
    split: &Split,
    schema: &DatasetSchema,
    balanced: bool,
    count: usize,
) -> Result<Measured, runtime::Error> {
    let (outputs, classes) = (model.output().elements().max(1), schema.labels.len());
    let count = count.min(split.len());
    let mut right = Vec::with_capacity(count);
    let (mut bits, mut slots, mut scores) = (0f64, Slots::default(), Vec::new());
    let (mut values, mut answers) = (Vec::new(), Vec::new());
    let all: Vec<usize> = (0..count).collect();
    for chunk in all.chunks(ACCURACY_BATCH) {
        values.clear();
        chunk.iter().for_each(|sample| split.values(*sample, &schema.shape, &mut values));
        model.run_into(&values, chunk.len(), &mut answers)?;
        for (sample, answer) in chunk.iter().zip(answers.chunks_exact(outputs)) {
            let (label, answer) = (split.labels[*sample], answer.split_at(classes.min(answer.len())));
            right.push(argmax(answer.0) as i64 == label);
            match schema.task {
                Task::ImageClassification | Task::SeriesClassification => {}
                Task::TextGeneration => bits += bits_of(answer.0, label),
                Task::IntentSlots => {
                    if let (Some(head), [_, length]) = (schema.heads.first(), &schema.shape[..]) {
                        slots.compare(head, answer.1, split.text.window_labels(*sample, *length));
                    }
                }
                Task::AnomalyDetection => {
                    scores.push((answer.0.last().copied().unwrap_or(0.0), label == ANOMALY));
                }
            }
        }
    }
    let metrics = match schema.task {
        Task::ImageClassification | Task::SeriesClassification => {
            let found = || (Metric::BalancedAccuracy, balanced_accuracy(&right, &split.labels, classes));
            balanced.then(found).into_iter().collect()
        }
        Task::TextGeneration => vec![(Metric::BitsPerCharacter, bits / count.max(1) as f64)],
        Task::IntentSlots => vec![(Metric::SlotF1, slots.f1())],
        Task::AnomalyDetection => of_anomalies(&scores, &right).to_vec(),
    };
    Ok(Measured { right, metrics })
}

/// Of probabilities of an anomaly and whether there is one, and of whether the line is right about it.
fn of_anomalies(scores: &[(f32, bool)], right: &[bool]) -> [(Metric, f64); 3] {
    let share = |anomaly: bool, is_right: bool| {
        let of = scores.iter().zip(right).filter(|((_, found), _)| *found == anomaly);
        let (count, met) =
            of.fold((0, 0), |(count, met), (_, right)| (count + 1, met + usize::from(*right == is_right)));
        met as f64 / count.max(1) as f64
    };
    [
        (Metric::Auroc, auroc(scores)),
        (Metric::DetectionRate, share(true, true)),
        (Metric::FalseAlarmRate, share(false, false)),
    ]
}

/// Mean over the classes that occur of the share of their samples that was right.
fn balanced_accuracy(right: &[bool], labels: &[i64], classes: usize) -> f64 {
    let labels = &labels[..right.len().min(labels.len())];
    let met: Vec<i64> =
        labels.iter().zip(right).filter(|(_, right)| **right).map(|(label, _)| *label).collect();
    let counts = balance::counts(labels, classes).into_iter().zip(balance::counts(&met, classes));
    let shares: Vec<f64> = counts.filter(|(of, _)| *of > 0).map(|(of, met)| met as f64 / of as f64).collect();
    shares.iter().sum::<f64>() / shares.len().max(1) as f64
}

fn bits_of(answer: &[f32], label: i64) -> f64 {
    let given = usize::try_from(label).ok().and_then(|label| answer.get(label));
    given.map_or(UNKNOWN_BITS, |given| -f64::from(*given).max(PROBABILITY_MIN).log2())
}

/// Slots that were found, that are there, and that are both: whole ones, by name and place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slots {
    found: usize,
    there: usize,
    both: usize,
}

impl Slots {
    /// Adds a sample: what a model said of its positions, `[labels, positions]`, and the labels that are right.
    fn compare(&mut self, head: &Head, said: &[f32], labels: &[u8]) {
        let used = labels.iter().take_while(|label| **label != EMPTY).count();
        let name = |label: usize| head.labels.get(label).map_or("", String::as_str);
        let best = |at: usize| {
            let column: Vec<f32> = said.iter().skip(at).step_by(head.positions.max(1)).copied().collect();
            argmax(&column)
        };
        let found: Vec<Span> = spans((0..used).map(|at| name(best(at))));
        let there: Vec<Span> = spans(labels[..used].iter().map(|label| name(usize::from(*label))));
        self.found += found.len();
        self.there += there.len();
        self.both += found.iter().filter(|span| there.contains(span)).count();
    }

    fn f1(self) -> f64 {
        if self.found + self.there == 0 {
            1.0
        } else {
            2.0 * self.both as f64 / (self.found + self.there) as f64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_counts_where_name_and_both_ends_are_right() {
        let labels = ["O", "B-room", "I-room"].map(str::to_owned).to_vec();
        let head = Head { name: "slots".to_owned(), labels, positions: 4 };
        let mut slots = Slots::default();
        // Says O B I O; the last position is no character.
        let said = [1., 0., 0., 1., 0., 1., 0., 0., 0., 0., 1., 0.];
        slots.compare(&head, &said, &[0, 1, 2, EMPTY]);
        assert_eq!((slots, slots.f1()), (Slots { found: 1, there: 1, both: 1 }, 1.0));
        slots.compare(&head, &said, &[0, 1, 0, EMPTY]);
        assert_eq!((slots, slots.f1()), (Slots { found: 2, there: 2, both: 1 }, 0.5));
        assert_eq!(Slots::default().f1(), 1.0);
    }

    #[test]
    fn each_class_that_occurs_counts_alike_in_the_balanced_accuracy() {
        let labels = [0, 0, 0, 0, 2, 2];
        assert_eq!(balanced_accuracy(&[true, true, true, true, false, false], &labels, 3), 0.5);
        assert_eq!(balanced_accuracy(&[true, true, true, false, true, false], &labels, 3), 0.625);
        assert_eq!(balanced_accuracy(&[true, false], &labels, 3), 0.5);
        assert_eq!(balanced_accuracy(&[], &labels, 3), 0.0);
    }

    #[test]
    fn anomalies_that_are_found_and_false_alarms_are_counted_by_themselves() {
        let scores = [(0.9, true), (0.2, true), (0.1, false), (0.6, false), (0.3, false), (0.2, false)];
        let right = [true, false, true, false, true, true];
        let found = of_anomalies(&scores, &right);
        assert_eq!(found[1..], [(Metric::DetectionRate, 0.5), (Metric::FalseAlarmRate, 0.25)]);
        // The first before all four, the second before one, and level with one.
        assert_eq!(found[0], (Metric::Auroc, 5.5 / 8.0));
    }

    #[test]
    fn a_sure_character_costs_little_and_an_unknown_one_much() {
        assert_eq!(bits_of(&[0.5, 0.5], 1), 1.0);
        assert_eq!(bits_of(&[1.0, 0.0], 0), 0.0);
        assert!(bits_of(&[1.0, 0.0], 1) > 29.0);
        assert_eq!(bits_of(&[1.0, 0.0], i64::from(EMPTY)), UNKNOWN_BITS);
    }
}
