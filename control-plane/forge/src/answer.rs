//! What a network answers, what that is trained by, and when it is right.
//!
//! Logits and labels are made of parts, each a classification of its own; a label under zero counts for nothing.
//!
//! | answer | logits | labels |
//! |---|---|---|
//! | a class | `[N, classes]` | `[N]` |
//! | the next character | `[N, L, classes]` | `[N, L]` |
//! | a class and slots | `[N, classes + L * slots]` | `[N, 1 + L]` |

use serde::{Deserialize, Serialize};
use shared::{
    job::DatasetSchema,
    manifest::Task,
    space::{Operation, OperationKind},
};
use tch::{Kind, Tensor};

/// What a network answers to one sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// One of its classes, from the mean over all positions.
    #[default]
    Class,
    /// The character that follows. It is trained at every position, so no position may see what comes after it; what is
    /// exported answers for the last one.
    Next,
    /// One of its classes, and for each position one of `slots` labels.
    ClassAndSlots {
        /// Labels of a position.
        slots: usize,
    },
}

/// The label that counts for nothing.
pub const NO_LABEL: i64 = -100;

impl Answer {
    /// What the task of a data set asks for.
    pub fn of(schema: &DatasetSchema) -> Self {
        match schema.task {
            Task::ImageClassification | Task::SeriesClassification | Task::AnomalyDetection => Self::Class,
            Task::IntentSlots => {
                Self::ClassAndSlots { slots: schema.heads.first().map_or(0, |head| head.labels.len()) }
            }
            Task::TextGeneration => Self::Next,
        }
    }

    /// Whether the answer is a class alone.
    pub fn is_class(&self) -> bool {
        *self == Self::Class
    }

    /// Whether a position must not see those after it.
    pub fn is_causal(self) -> bool {
        self == Self::Next
    }

    /// Whether a network with this answer may have this operation: a squeeze-excite shows every position all others.
    pub fn allows(self, operation: Operation) -> bool {
        !(self.is_causal() && operation.kind() == OperationKind::SqueezeExcite)
    }

    /// Mean cross entropy of each part, added up.
    pub fn loss(self, logits: &Tensor, labels: &Tensor, smoothing: f64) -> Tensor {
        self.weighted_loss(logits, labels, smoothing, None)
    }

    /// The same with samples that count for what `weights`, `[classes]`, says of their class; for a class alone.
    pub fn weighted_loss(
        self,
        logits: &Tensor,
        labels: &Tensor,
        smoothing: f64,
        weights: Option<&Tensor>,
    ) -> Tensor {
        let weights = weights.filter(|_| self.is_class());
        let cross_entropy = |(logits, labels): (Tensor, Tensor)| {
            logits.cross_entropy_loss(&labels, weights, tch::Reduction::Mean, NO_LABEL, smoothing)
        };
        let parts = self.parts(logits, self.length(labels)).into_iter().zip(self.labels(labels));
        let sum = parts.map(cross_entropy).reduce(|sum, next| sum + next);
        sum.unwrap_or_else(|| logits.sum(Kind::Float))
    }

    /// How many of the labels that count were met, and how many there are.
    pub fn right(self, logits: &Tensor, labels: &Tensor) -> (i64, i64) {
        let count = |(logits, labels): (Tensor, Tensor)| {
            let right = logits.argmax(1, false).eq_tensor(&labels).sum(Kind::Int64).int64_value(&[]);
            (right, labels.ge(0).sum(Kind::Int64).int64_value(&[]))
        };
        let parts = self.parts(logits, self.length(labels)).into_iter().zip(self.labels(labels));
        parts.map(count).fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1))
    }

    /// The logits of each part, `[rows, classes of the part]`, for samples of `length` positions.
    pub fn parts(self, logits: &Tensor, length: i64) -> Vec<Tensor> {
        let size = logits.size();
        match self {
            Self::Class => vec![logits.shallow_clone()],
            Self::Next => vec![logits.reshape([-1, size.last().copied().unwrap_or(1)])],
            Self::ClassAndSlots { slots } => {
                let slots = slots as i64;
                let classes = size.last().copied().unwrap_or(0) - length * slots;
                let behind = logits.narrow(1, classes, length * slots).reshape([-1, slots]);
                vec![logits.narrow(1, 0, classes), behind]
            }
        }
    }

    /// Probabilities as the exported model gives them, `[N, outputs]`.
    pub fn probabilities(self, logits: &Tensor, length: i64) -> Tensor {
        match self {
            Self::Class => logits.softmax(1, Kind::Float),
            Self::Next => logits.select(1, length - 1).softmax(1, Kind::Float),
            Self::ClassAndSlots { slots } => {
                let parts = self.parts(logits, length);
                let [class, behind] = parts.as_slice() else { return logits.softmax(1, Kind::Float) };
                let behind = behind.softmax(1, Kind::Float).reshape([-1, length, slots as i64]);
                let behind = behind.transpose(1, 2).reshape([-1, length * slots as i64]);
                Tensor::cat(&[class.softmax(1, Kind::Float), behind], 1)
            }
        }
    }

    fn labels(self, labels: &Tensor) -> Vec<Tensor> {
        match self {
            Self::Class => vec![labels.shallow_clone()],
            Self::Next => vec![labels.reshape([-1])],
            Self::ClassAndSlots { .. } => {
                vec![labels.select(1, 0), labels.narrow(1, 1, self.length(labels)).reshape([-1])]
            }
        }
    }

    /// Positions of a sample with these labels.
    fn length(self, labels: &Tensor) -> i64 {
        let columns = || labels.size().get(1).copied().unwrap_or(1);
        match self {
            Self::Class => 1,
            Self::Next => columns(),
            Self::ClassAndSlots { .. } => columns() - 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::to_vec;

    #[test]
    fn each_part_of_an_answer_counts_and_a_label_under_zero_does_not() {
        let answer = Answer::ClassAndSlots { slots: 2 };
        // Two classes, three positions of two labels: says class 1 and the labels 0, 1, 1.
        let logits = Tensor::from_slice(&[0f32, 9.0, 9.0, 0.0, 0.0, 9.0, 0.0, 9.0]).reshape([1, 8]);
        let labels = |labels: [i64; 4]| Tensor::from_slice(&labels).reshape([1, 4]);
        assert_eq!(answer.right(&logits, &labels([1, 0, 1, 1])), (4, 4));
        assert_eq!(answer.right(&logits, &labels([0, 0, 0, NO_LABEL])), (1, 3));
        let loss = |labels| answer.loss(&logits, &labels, 0.0).double_value(&[]);
        assert!(loss(labels([1, 0, 1, NO_LABEL])) < 0.01);
        // One of two counted positions is wrong by nine.
        assert!((loss(labels([1, 0, 0, NO_LABEL])) - 4.5).abs() < 0.01);
        assert!((loss(labels([0, 0, 1, 1])) - 9.0).abs() < 0.01);
        let found = to_vec(&answer.probabilities(&logits, 3));
        let rounded: Vec<f32> = found.iter().map(|value| value.round()).collect();
        // Classes, then the first label at each position, then the second.
        assert_eq!(rounded, [0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn the_next_character_is_asked_for_at_every_position_and_answered_at_the_last() {
        let logits = Tensor::from_slice(&[9f32, 0.0, 0.0, 9.0]).reshape([1, 2, 2]);
        let labels = Tensor::from_slice(&[0i64, 0]).reshape([1, 2]);
        assert_eq!(Answer::Next.right(&logits, &labels), (1, 2));
        let found = to_vec(&Answer::Next.probabilities(&logits, 2));
        assert!(found[0] < 0.01 && found[1] > 0.99);
    }
}
