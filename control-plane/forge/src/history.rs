//! How loss and accuracy went: kept while a job runs, in its checkpoint, and drawn when it is done. Every step counts,
//! and memory is bounded: a curve that is full is halved by taking the mean of each two points. Values are f32: unlike
//! f64 they come out of JSON as they went in, so that a job that was killed draws the same.

use serde::{Deserialize, Serialize};

/// Points of a curve before it is halved.
const POINTS_MAX: usize = 400;
/// Points of the architecture weights before every other one is left out; each holds a value for each operation of each
/// edge.
const SHARES_MAX: usize = 64;

/// One training or search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Mean loss of the steps up to this one, since the point before.
    pub loss: Vec<(u64, f32)>,
    /// Share of right answers on data held back, at this step.
    pub accuracy: Vec<(u64, f32)>,
    /// Steps of one point.
    every: u64,
    /// Of the steps since the last point.
    sum: f32,
    count: u64,
}

impl Default for Curve {
    fn default() -> Self {
        Self { loss: Vec::new(), accuracy: Vec::new(), every: 1, sum: 0.0, count: 0 }
    }
}

impl Curve {
    /// Adds one step.
    pub fn push(&mut self, step: u64, loss: f64, accuracy: Option<f64>) {
        #[expect(clippy::cast_possible_truncation)]
        let loss = loss as f32;
        self.sum += loss;
        self.count += 1;
        if self.count >= self.every {
            #[expect(clippy::cast_precision_loss)]
            self.loss.push((step, self.sum / self.count as f32));
            (self.sum, self.count) = (0.0, 0);
        }
        if self.loss.len() >= POINTS_MAX {
            self.loss = halved(&self.loss);
            self.every *= 2;
        }
        if let Some(accuracy) = accuracy {
            #[expect(clippy::cast_possible_truncation)]
            self.accuracy.push((step, accuracy as f32));
            if self.accuracy.len() >= POINTS_MAX {
                self.accuracy = halved(&self.accuracy);
            }
        }
    }
}

fn halved(points: &[(u64, f32)]) -> Vec<(u64, f32)> {
    points.chunks_exact(2).map(|pair| (pair[1].0, f32::midpoint(pair[0].1, pair[1].1))).collect()
}

/// How the architecture weights of a search went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shares {
    /// From which state to which.
    pub edges: Vec<(usize, usize)>,
    /// Names, in the order of the columns.
    pub operations: Vec<String>,
    /// A step, and `[edges, operations]` row by row: the operations of an edge add up to 1.
    pub points: Vec<(u64, Vec<f32>)>,
    /// Steps from one point to the next.
    every: u64,
}

impl Shares {
    /// None yet.
    pub fn new(edges: Vec<(usize, usize)>, operations: Vec<String>) -> Self {
        Self { edges, operations, points: Vec::new(), every: 1 }
    }

    /// Whether a step is one of those that are kept.
    pub fn is_due(&self, step: u64) -> bool {
        step.is_multiple_of(self.every)
    }

    /// Adds a step that is due.
    pub fn push(&mut self, step: u64, values: Vec<f32>) {
        self.points.push((step, values));
        if self.points.len() >= SHARES_MAX {
            self.every *= 2;
            let every = self.every;
            self.points.retain(|(step, _)| step.is_multiple_of(every));
        }
    }
}

/// All of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Empty where nothing was searched.
    pub search: Curve,
    /// One each.
    pub teachers: Vec<Curve>,
    /// Empty without one.
    #[serde(default)]
    pub pretext: Curve,
    pub training: Curve,
    /// `None` where the search has no architecture weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<Shares>,
}

impl History {
    /// The curve of a teacher.
    pub fn teacher(&mut self, index: usize) -> &mut Curve {
        if self.teachers.len() <= index {
            self.teachers.resize_with(index + 1, Curve::default);
        }
        &mut self.teachers[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_stays_short_and_keeps_its_mean() {
        let mut curve = Curve::default();
        let steps = 10_000u64;
        for step in 1..=steps {
            curve.push(step, f64::from(u32::try_from(step % 7).unwrap()), (step % 100 == 0).then_some(0.5));
        }
        assert!((POINTS_MAX / 4..POINTS_MAX).contains(&curve.loss.len()), "{}", curve.loss.len());
        let mean = curve.loss.iter().map(|(_, loss)| loss).sum::<f32>() / curve.loss.len() as f32;
        assert!((mean - 3.0).abs() < 0.05, "{mean}");
        assert!(curve.loss.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(curve.accuracy.len(), 100);
    }

    #[test]
    fn every_step_is_a_point_while_there_are_few() {
        let mut curve = Curve::default();
        curve.push(1, 2.0, None);
        curve.push(2, 1.0, Some(0.9));
        assert_eq!(curve.loss, [(1, 2.0), (2, 1.0)]);
        assert_eq!(curve.accuracy, [(2, 0.9)]);
    }

    #[test]
    fn shares_are_kept_ever_more_rarely_and_stay_few() {
        let mut shares = Shares::new(vec![(0, 2)], vec!["skip".to_owned()]);
        for step in 1..=1000u64 {
            if shares.is_due(step) {
                shares.push(step, vec![step as f32]);
            }
        }
        assert!((SHARES_MAX / 4..SHARES_MAX).contains(&shares.points.len()), "{}", shares.points.len());
        assert!(shares.points.windows(2).all(|pair| pair[1].0 - pair[0].0 == shares.every));
        assert!(shares.points.iter().all(|(step, values)| values[0] == *step as f32));
    }
}
