//! Anomaly detection as telling what is normal from what was made abnormal: training data holds normal samples only, and
//! anomalies are made of them by changing a part of each (Li et al. 2021, "CutPaste"; Carmona et al. 2022, "Neural
//! Contextual Anomaly Detection for Time Series"). What comes out is a classifier of two classes, which search, training,
//! quantisation and devices take as any other.

use crate::{
    data::Split,
    params::to_vec,
    seeds::{self, Purpose},
    train::Scores,
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Class of a normal sample.
pub const NORMAL: i64 = 0;
/// Class of an anomaly.
pub const ANOMALY: i64 = 1;
/// Samples of each class that a training split is brought to, by repeating normal ones, each changed anew.
const EACH_MIN: usize = 2048;
/// Share of an axis that is changed.
const SPAN: std::ops::Range<f32> = 0.1..0.5;
/// Share of normal training samples that the network may call anomalies.
pub const FALSE_ALARMS: f64 = 0.01;

/// What is done to a part of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// The same size of part from elsewhere in another sample.
    Foreign,
    /// Further from its mean, or nearer.
    Scaled,
    /// Higher or lower.
    Shifted,
    /// Noise on top.
    Noisy,
    /// Its mean everywhere.
    Flat,
    /// Back to front along the last axis.
    Reversed,
}

impl Change {
    const ALL: [Self; 6] =
        [Self::Foreign, Self::Scaled, Self::Shifted, Self::Noisy, Self::Flat, Self::Reversed];
}

/// Normal samples and as many anomalies made of them; at least [`EACH_MIN`] of each. Samples have `shape`: `[C, L]` or
/// `[C, H, W]`.
pub fn with_made(normal: &Split, shape: &[usize], seed: u64) -> Split {
    let each: usize = shape.iter().product();
    let count = normal.len();
    let total = count.max(EACH_MIN);
    let mut out = Split {
        samples: Vec::with_capacity(2 * total * each),
        labels: Vec::with_capacity(2 * total),
    };
    let deviation = deviation(&normal.samples);
    for index in 0..total {
        let sample = &normal.samples[(index % count.max(1)) * each..][..each];
        out.samples.extend_from_slice(sample);
        out.labels.push(NORMAL);
        let mut rng = seeds::stream(seed, Purpose::Anomalies, index as u64);
        let from = rng.random_range(0..count.max(1));
        let other = &normal.samples[from * each..][..each];
        let start = out.samples.len();
        out.samples.extend_from_slice(sample);
        change(&mut out.samples[start..], other, Axes::of(shape), deviation, &mut rng);
        out.labels.push(ANOMALY);
    }
    out
}

/// Channels, rows and columns of a sample.
#[derive(Clone, Copy, Debug)]
struct Axes {
    channels: usize,
    rows: usize,
    columns: usize,
}

impl Axes {
    fn of(shape: &[usize]) -> Self {
        match *shape {
            [channels, rows, columns] => Self { channels, rows, columns },
            [channels, columns] => Self { channels, rows: 1, columns },
            _ => Self { channels: 1, rows: 1, columns: shape.iter().product() },
        }
    }

    fn at(self, channel: usize, row: usize, column: usize) -> usize {
        (channel * self.rows + row) * self.columns + column
    }
}

/// A stretch of an axis.
fn span(length: usize, rng: &mut ChaCha8Rng) -> std::ops::Range<usize> {
    let size = ((length as f32 * rng.random_range(SPAN)).round() as usize).clamp(1, length.max(1));
    let start = rng.random_range(0..=length.saturating_sub(size));
    start..(start + size).min(length)
}

fn change(sample: &mut [f32], other: &[f32], axes: Axes, deviation: f32, rng: &mut ChaCha8Rng) {
    let kind = Change::ALL[rng.random_range(0..Change::ALL.len())];
    let (rows, columns) = (span(axes.rows, rng), span(axes.columns, rng));
    // One channel, or all of them.
    let channels = if rng.random_range(0.0..1.0f32) < 0.5 {
        0..axes.channels
    } else {
        let one = rng.random_range(0..axes.channels.max(1));
        one..one + 1
    };
    // Where a part of another sample comes from.
    let (row_shift, column_shift) =
        (rng.random_range(0..axes.rows.max(1)), rng.random_range(0..axes.columns.max(1)));
    let away = |rng: &mut ChaCha8Rng| {
        let size = rng.random_range(0.5..2.5f32);
        if rng.random_range(0.0..1.0f32) < 0.5 { size } else { -size }
    };
    let by = deviation * away(rng);
    let factor = if by > 0.0 { rng.random_range(1.7..3.5f32) } else { rng.random_range(-0.5..0.4f32) };
    let noise = deviation * rng.random_range(0.4..1.2f32);
    for channel in channels {
        for row in rows.clone() {
            let places: Vec<usize> =
                columns.clone().map(|column| axes.at(channel, row, column)).collect();
            let mean = places.iter().map(|at| sample[*at]).sum::<f32>() / places.len().max(1) as f32;
            let before: Vec<f32> = places.iter().map(|at| sample[*at]).collect();
            for (index, at) in places.iter().enumerate() {
                let old = before[index];
                sample[*at] = match kind {
                    Change::Foreign => {
                        let row = (row + row_shift) % axes.rows.max(1);
                        let column = (columns.start + index + column_shift) % axes.columns.max(1);
                        other[axes.at(channel, row, column)]
                    }
                    Change::Scaled => mean + (old - mean) * factor,
                    Change::Shifted => old + by,
                    Change::Noisy => old + noise * seeds::normal(rng),
                    Change::Flat => mean,
                    Change::Reversed => before[before.len() - 1 - index],
                };
            }
        }
    }
}

/// Of all values; 1 where they do not vary.
fn deviation(values: &[f32]) -> f32 {
    let count = values.len().max(1) as f64;
    let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
    let variance = values.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count;
    if variance > 0.0 { variance.sqrt() as f32 } else { 1.0 }
}

/// Area under the curve of hits over false alarms (ROC): the probability that a random anomaly has a higher score than a
/// random normal sample; ties count half. `None` where either is missing.
pub fn area_under_roc(scores: &[f32], labels: &[i64]) -> Option<f64> {
    let mut order: Vec<(f32, bool)> =
        scores.iter().zip(labels).map(|(score, label)| (*score, *label == ANOMALY)).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positives = order.iter().filter(|(_, anomaly)| *anomaly).count() as f64;
    let negatives = order.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    // Mann and Whitney's statistic, by the mean rank of equals.
    let (mut rank_sum, mut start) = (0.0, 0);
    while start < order.len() {
        let end = start + order[start..].iter().take_while(|(score, _)| *score == order[start].0).count();
        let rank = (start + 1 + end) as f64 / 2.0;
        rank_sum += rank * order[start..end].iter().filter(|(_, anomaly)| *anomaly).count() as f64;
        start = end.max(start + 1);
    }
    Some((rank_sum - positives * (positives + 1.0) / 2.0) / (positives * negatives))
}

/// The value that `share` of `values` are above.
pub fn upper_quantile(values: &[f32], share: f64) -> Option<f32> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let above = (sorted.len() as f64 * share).floor() as usize;
    sorted.len().checked_sub(1 + above).map(|at| sorted[at])
}
