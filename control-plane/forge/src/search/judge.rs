//! How a cell is judged: by the labels of the validation half that it meets.

use super::feed::Feed;
use crate::genotype::{Dim, Genotype};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use tch::Tensor;

/// A cell and how it did. All of one search are judged on the same samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judged {
    pub cell: Genotype,
    /// Right answers.
    pub right: u32,
    /// Of how many.
    pub of: u32,
    /// Mean cross entropy; infinite where it is not a number.
    #[serde(with = "finite_or_not")]
    pub loss: f32,
}

impl Judged {
    /// Judges `cell` by a network that gives logits for samples `[N, C, H, W]`.
    pub(super) fn new(cell: Genotype, feed: &Feed<'_>, logits: impl Fn(&Tensor) -> Tensor) -> Self {
        let (mut right, mut of, mut loss, mut batches) = (0, 0, 0f64, 0);
        for (x, labels) in feed.judges() {
            let logits = tch::no_grad(|| logits(&x));
            let (met, count) = feed.answer().right(&logits, &labels);
            right += met;
            of += count;
            loss += feed.answer().loss(&logits, &labels, 0.0).double_value(&[]);
            batches += 1;
        }
        let loss = (loss / f64::from(batches.max(1))) as f32;
        let count = |value: i64| u32::try_from(value).unwrap_or(0);
        let loss = if loss.is_finite() { loss } else { f32::INFINITY };
        Self { cell, right: count(right), of: count(of), loss }
    }

    /// The same with every operation as it is called over `dim`.
    pub(super) fn over(&self, dim: Dim) -> Self {
        Self { cell: self.cell.over(dim), ..self.clone() }
    }

    /// Share of right answers, 0 to 1.
    pub fn accuracy(&self) -> f64 {
        f64::from(self.right) / f64::from(self.of.max(1))
    }

    /// Greater is better: more right answers, and where they are as many, the smaller loss.
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        self.right.cmp(&other.right).then(other.loss.total_cmp(&self.loss))
    }
}

/// The best; of equals the first.
pub(super) fn best(judged: &[Judged]) -> Option<&Judged> {
    judged.iter().reduce(|best, other| if other.compare(best).is_gt() { other } else { best })
}

/// JSON has no infinity.
mod finite_or_not {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &f32, to: S) -> Result<S::Ok, S::Error> {
        value.is_finite().then_some(*value).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f32, D::Error> {
        Ok(Option::<f32>::deserialize(from)?.unwrap_or(f32::INFINITY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(right: u32, loss: f32) -> Judged {
        Judged { cell: Genotype { nodes: Vec::new() }, right, of: 10, loss }
    }

    #[test]
    fn more_right_answers_win_then_the_smaller_loss_then_the_first() {
        let all = [judged(3, 0.5), judged(7, 0.9), judged(7, 0.4), judged(7, 0.4), judged(6, 0.1)];
        assert!(std::ptr::eq(best(&all).unwrap(), &raw const all[2]));
        assert_eq!(best(&[]), None);
        assert!((all[1].accuracy() - 0.7).abs() < 1e-9);
    }

    #[test]
    fn a_loss_without_end_survives_its_file() {
        for loss in [0.1f32, f32::INFINITY] {
            let text = serde_json::to_string(&judged(1, loss)).unwrap();
            assert_eq!(serde_json::from_str::<Judged>(&text).unwrap(), judged(1, loss));
        }
    }
}
