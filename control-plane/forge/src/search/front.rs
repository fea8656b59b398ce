//! What a search ends with: of the networks that it judged, those that no other one beats in accuracy, weights and latency
//! at once (the Pareto front), and beside them the others.

use super::{Search, Setting, judge::Judged};
use crate::{genotype::Architecture, network::cost_on};
use serde::{Deserialize, Serialize};
use shared::job::{FrontEntry, FrontPoint};
use std::cmp::Ordering;

/// Most judged cells that are looked at, the best first: each is laid out for the board.
const LOOKED_AT_MAX: usize = 128;
/// Most points that are kept, those of the front first.
const POINTS_MAX: usize = 64;

/// A judged network. What is judged is narrower; weights and latency are of the network that would be trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    pub architecture: Architecture,
    /// 0 to 1.
    pub accuracy: f32,
    pub weight_bytes: u64,
    pub latency_us: u64,
    #[serde(default)]
    pub on_front: bool,
}

impl Point {
    /// Whether it is at least as good in everything and better in something.
    fn beats(&self, other: &Self) -> bool {
        let costs = |point: &Self| (point.weight_bytes, point.latency_us);
        let ((a, b), (c, d)) = (costs(self), costs(other));
        let as_good = self.accuracy >= other.accuracy && a <= c && b <= d;
        as_good && (self.accuracy > other.accuracy || a < c || b < d)
    }
}

/// The points of a search at its end, the front first, each part from the most accurate to the least.
pub fn front(search: &dyn Search, setting: &Setting<'_>) -> Vec<Point> {
    let mut judged = search.judged();
    let chosen = search.derive().genotype;
    // The chosen one stays, however many are better by chance.
    judged.sort_by(|a, b| (b.cell == chosen).cmp(&(a.cell == chosen)).then(b.compare(a)));
    judged.truncate(LOOKED_AT_MAX);
    let mut points = ranked(judged.into_iter().filter_map(|judged| point(judged, setting)).collect());
    if let Some(at) = points.iter().position(|point| point.architecture.genotype == chosen)
        && at >= POINTS_MAX
    {
        points.swap(at, POINTS_MAX - 1);
    }
    points.truncate(POINTS_MAX);
    points
}

/// What a judged cell gives on the board; `None` where no network of it fits.
fn point(judged: Judged, setting: &Setting<'_>) -> Option<Point> {
    #[expect(clippy::cast_possible_truncation)]
    let accuracy = judged.accuracy() as f32;
    let architecture = setting.wide(judged.cell).fit(setting.board).ok()?;
    let (weight_bytes, latency_us) = cost_on(&architecture, setting.board).ok()?;
    Some(Point { architecture, accuracy, weight_bytes, latency_us, on_front: false })
}

fn ranked(mut points: Vec<Point>) -> Vec<Point> {
    let beaten = |one: &Point| points.iter().any(|other| other.beats(one));
    let beaten: Vec<bool> = points.iter().map(beaten).collect();
    for (point, beaten) in points.iter_mut().zip(beaten) {
        point.on_front = !beaten;
    }
    let order = |a: &Point, b: &Point| -> Ordering {
        let costs = |point: &Point| (point.weight_bytes, point.latency_us);
        (b.on_front.cmp(&a.on_front)).then(b.accuracy.total_cmp(&a.accuracy)).then(costs(a).cmp(&costs(b)))
    };
    // Stable: of equals the one that was judged first.
    points.sort_by(order);
    points
}

/// The points as others see them; `chosen` is what was trained.
pub fn points(points: &[Point], chosen: &Architecture) -> Vec<FrontEntry> {
    let entry = |(index, point): (u32, &Point)| FrontEntry {
        point: FrontPoint {
            index,
            cell: point.architecture.genotype.line(point.architecture.dim),
            channels: u32::try_from(point.architecture.channels).unwrap_or(u32::MAX),
            accuracy: point.accuracy,
            weight_bytes: point.weight_bytes,
            latency_us: point.latency_us,
            on_front: point.on_front,
            chosen: point.architecture == *chosen,
        },
        architecture: serde_json::to_value(&point.architecture).unwrap_or_default(),
    };
    (0..).zip(points).map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genotype::{Dim, Edge, Genotype, Operation};

    fn point(accuracy: f32, weight_bytes: u64, latency_us: u64) -> Point {
        let nodes = vec![vec![Edge { from: 0, op: Operation::CONV3 }]];
        let architecture = Architecture {
            dim: Dim::Image,
            input: vec![1, 8, 8],
            classes: 2,
            channels: usize::try_from(weight_bytes).unwrap(),
            cells: 1,
            answer: Default::default(),
            genotype: Genotype { nodes },
            layout: None,
        };
        Point { architecture, accuracy, weight_bytes, latency_us, on_front: false }
    }

    #[test]
    fn on_the_front_is_what_nothing_beats_and_it_comes_first() {
        let all = vec![
            point(0.9, 100, 50),
            point(0.8, 101, 40),
            point(0.95, 200, 90),
            point(0.95, 201, 90),
            point(0.7, 150, 60),
            point(0.5, 10, 45),
        ];
        let found = ranked(all);
        let shown: Vec<(f32, u64, bool)> =
            found.iter().map(|point| (point.accuracy, point.weight_bytes, point.on_front)).collect();
        assert_eq!(
            shown,
            [
                (0.95, 200, true),
                (0.9, 100, true),
                (0.8, 101, true),
                (0.5, 10, true),
                (0.95, 201, false),
                (0.7, 150, false)
            ]
        );
        let entries = points(&found, &found[1].architecture);
        let chosen: Vec<bool> = entries.iter().map(|entry| entry.point.chosen).collect();
        assert_eq!(chosen, [false, true, false, false, false, false]);
        let text = entries[1].architecture.to_string();
        assert_eq!(Architecture::from_json(&text), Ok(found[1].architecture.clone()));
    }

    #[test]
    fn two_that_are_equal_are_both_on_the_front_and_nothing_is_none() {
        let found = ranked(vec![point(0.9, 100, 50); 2]);
        assert!(found.iter().all(|point| point.on_front));
        assert!(ranked(Vec::new()).is_empty());
    }
}
