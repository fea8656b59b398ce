//! Anomalies made of normal samples: parts of them changed or taken from elsewhere.

use crate::seeds;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use shared::manifest::Column;
use std::ops::Range;

/// How often a change is tried that leaves a sample as it was, as a patch of darkness in the dark does.
const TRIES: usize = 5;
/// Least root mean square of a change, in standard deviations of the normal samples.
const DIFFERENCE_MIN: f32 = 0.15;
/// Keeps samples that do not vary at all from having no unit.
const DEVIATION_MIN: f32 = 1e-3;
/// Probability of each further change.
const MORE: f64 = 0.4;
const MORE_MAX: usize = 2;

/// What samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Rows of a table, `[F, 1]`: every value is a column of its own.
    Table,
    /// `[C, L]`.
    Series,
    /// `[C, H, W]`.
    Image,
}

/// Makes anomalies of samples of one shape.
#[derive(Clone, Debug)]
pub struct Maker {
    kind: Kind,
    /// Channels, height, width.
    shape: [usize; 3],
    /// Standard deviation of all values.
    deviation: f32,
    /// Least and greatest value.
    range: [f32; 2],
}

impl Maker {
    /// For samples of `shape`, `[C, L]` or `[C, H, W]`, some normal ones of which are given.
    pub fn new(shape: &[usize], normal: &[f32]) -> Self {
        let (kind, shape) = match *shape {
            [columns, 1] => (Kind::Table, [columns, 1, 1]),
            [c, l] => (Kind::Series, [c, 1, l]),
            [c, h, w] => (Kind::Image, [c, h, w]),
            _ => (Kind::Series, [1, 1, shape.iter().product()]),
        };
        let count = normal.len().max(1) as f64;
        let mean = normal.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
        let variance = normal.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count;
        let range = normal.iter().fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], value| {
            [low.min(*value), high.max(*value)]
        });
        Self { kind, shape, deviation: (variance.sqrt() as f32).max(DEVIATION_MIN), range }
    }

    /// Changes the normal `sample` so that it is none any more; parts come from the normal samples of `pool`.
    pub fn make(&self, sample: &mut [f32], pool: &[f32], rng: &mut ChaCha8Rng) {
        let before = sample.to_vec();
        for _ in 0..TRIES {
            self.change(sample, pool, rng);
            let more = (0..MORE_MAX).take_while(|_| rng.random_bool(MORE)).count();
            (0..more).for_each(|_| self.change(sample, pool, rng));
            self.keep_within(sample);
            if self.differs(&before, sample) {
                return;
            }
            sample.copy_from_slice(&before);
        }
        for value in sample.iter_mut() {
            *value += self.deviation * seeds::normal(rng);
        }
    }

    fn differs(&self, before: &[f32], after: &[f32]) -> bool {
        let squares: f32 = before.iter().zip(after).map(|(a, b)| (a - b).powi(2)).sum();
        squares / before.len().max(1) as f32 >= (DIFFERENCE_MIN * self.deviation).powi(2)
    }

    /// What no sample of the kind can be would be found by that alone.
    fn keep_within(&self, sample: &mut [f32]) {
        let [low, high] = match self.kind {
            Kind::Table => [-Column::LIMIT, Column::LIMIT],
            Kind::Image if self.range[0] < self.range[1] => self.range,
            Kind::Image | Kind::Series => return,
        };
        sample.iter_mut().for_each(|value| *value = value.clamp(low, high));
    }

    fn change(&self, sample: &mut [f32], pool: &[f32], rng: &mut ChaCha8Rng) {
        match self.kind {
            Kind::Table => self.change_row(sample, pool, rng),
            Kind::Series => self.change_series(sample, pool, rng),
            Kind::Image => self.change_image(sample, pool, rng),
        }
    }

    /// Some columns of a row get values that do not belong to the others.
    fn change_row(&self, row: &mut [f32], pool: &[f32], rng: &mut ChaCha8Rng) {
        let columns = row.len();
        let mut chosen: Vec<usize> = (0..columns).collect();
        seeds::shuffle(&mut chosen, rng);
        let most = if rng.random_bool(0.5) { columns.div_ceil(3) } else { columns };
        chosen.truncate(rng.random_range(1..=most.max(1)));
        let how = rng.random_range(0..3);
        let span = rng.random_range(1.0f32..Column::LIMIT.log2()).exp2();
        for at in chosen {
            row[at] = match how {
                // As some other row has it.
                0 => donor(pool, columns, rng)[at],
                // As no row needs to have it.
                1 => rng.random_range(-span..span),
                _ => row[at] + sign(rng) * rng.random_range(-1.0..Column::LIMIT.log2()).exp2(),
            };
        }
    }

    /// A stretch of time, in all channels or in one.
    fn change_series(&self, series: &mut [f32], pool: &[f32], rng: &mut ChaCha8Rng) {
        let [channels, _, length] = self.shape;
        let stretch = part(length, 0.05..0.6, rng);
        let from = rng.random_range(0..=length - stretch.len());
        let one = rng.random_range(0..channels);
        let all = rng.random_bool(0.5);
        let (how, other) = (rng.random_range(0..7), donor(pool, series.len(), rng));
        let (strength, side) = (rng.random_range(0.5f32..2.0), sign(rng));
        for channel in (0..channels).filter(|channel| all || *channel == one) {
            let source = &other[channel * length..][from..from + stretch.len()];
            // Of another channel where there is one.
            let neighbour = (channel + 1) % channels;
            let swapped = series[neighbour * length..][stretch.clone()].to_vec();
            let part = &mut series[channel * length..][stretch.clone()];
            match how {
                // Of another sample, and of another time.
                0 => part.copy_from_slice(source),
                1 => {
                    let mean = part.iter().sum::<f32>() / part.len().max(1) as f32;
                    let factor = if side > 0.0 { 1.0 + strength } else { 0.5 / (0.5 + strength) - 0.2 };
                    part.iter_mut().for_each(|value| *value = mean + (*value - mean) * factor);
                }
                2 => part.iter_mut().for_each(|value| *value += side * strength * self.deviation),
                3 => part.iter_mut().for_each(|value| {
                    *value += 0.5 * strength * self.deviation * seeds::normal(rng);
                }),
                // A sensor that hangs.
                4 => part.fill(part.first().copied().unwrap_or_default()),
                5 if channels > 1 && rng.random_bool(0.5) => part.copy_from_slice(&swapped),
                5 => part.reverse(),
                _ => {
                    let at = rng.random_range(0..part.len());
                    part[at] += side * 3.0 * strength * self.deviation;
                }
            }
        }
    }

    /// A patch, in all channels.
    fn change_image(&self, image: &mut [f32], pool: &[f32], rng: &mut ChaCha8Rng) {
        let [channels, height, width] = self.shape;
        let (rows, columns) = (part(height, 0.15..0.7, rng), part(width, 0.15..0.7, rng));
        let top = rng.random_range(0..=height - rows.len());
        let left = rng.random_range(0..=width - columns.len());
        let other = donor(pool, image.len(), rng);
        let how = rng.random_range(0..6);
        let filled = other[rng.random_range(0..other.len())];
        let strength = rng.random_range(0.3f32..1.0);
        let before = image.to_vec();
        for channel in 0..channels {
            for (y, row) in rows.clone().enumerate() {
                for (x, column) in columns.clone().enumerate() {
                    let at = |row: usize, column: usize| (channel * height + row) * width + column;
                    let elsewhere = at(top + y, left + x);
                    let (turned_row, turned_column) = (rows.end - 1 - y, columns.end - 1 - x);
                    let value = &mut image[at(row, column)];
                    match how {
                        // Of the same image, of another one, of either turned round.
                        0 => *value = before[elsewhere],
                        1 => *value = other[elsewhere],
                        2 => *value = before[at(turned_row, turned_column)],
                        3 => *value += strength * self.deviation * seeds::normal(rng),
                        4 => *value = filled,
                        _ => *value = self.range[0] + self.range[1] - *value,
                    }
                }
            }
        }
    }
}

/// A sample of `each` values of the pool.
fn donor<'p>(pool: &'p [f32], each: usize, rng: &mut ChaCha8Rng) -> &'p [f32] {
    let count = (pool.len() / each.max(1)).max(1);
    &pool[rng.random_range(0..count) * each..][..each]
}

/// A part of `length` values whose share of it is within `share`.
fn part(length: usize, share: Range<f32>, rng: &mut ChaCha8Rng) -> Range<usize> {
    let count = ((length as f32 * rng.random_range(share)) as usize).clamp(1, length);
    let from = rng.random_range(0..=length - count);
    from..from + count
}

fn sign(rng: &mut ChaCha8Rng) -> f32 {
    if rng.random_bool(0.5) { 1.0 } else { -1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds::Purpose;

    #[test]
    fn a_change_is_felt_even_where_a_sample_is_all_alike() {
        for shape in [vec![4, 1], vec![1, 20], vec![3, 6, 6]] {
            let each: usize = shape.iter().product();
            // Nine of ten samples are dark, so that most patches are too.
            let pool: Vec<f32> =
                (0..10 * each).map(|at| if at < each { (at % 5) as f32 } else { 0.0 }).collect();
            let maker = Maker::new(&shape, &pool);
            let mut rng = seeds::stream(1, Purpose::Anomalies, 0);
            for _ in 0..200 {
                let normal = donor(&pool, each, &mut rng);
                let mut sample = normal.to_vec();
                maker.make(&mut sample, &pool, &mut rng);
                let squares: f32 = sample.iter().zip(normal).map(|(a, b)| (a - b).powi(2)).sum();
                assert!(squares > 0.0 && sample.iter().all(|value| value.is_finite()), "{shape:?}");
            }
        }
    }

    #[test]
    fn a_row_stays_what_a_device_can_give_and_pixels_stay_pixels() {
        let mut rng = seeds::stream(2, Purpose::Anomalies, 0);
        let pool: Vec<f32> = (0..400).map(|at| (at % 7) as f32 - 3.0).collect();
        for (shape, low, high) in [(vec![4, 1], -Column::LIMIT, Column::LIMIT), (vec![1, 2, 2], -3.0, 3.0)] {
            let maker = Maker::new(&shape, &pool);
            let mut moved = [0; 4];
            for sample in pool.chunks(4) {
                let mut made = sample.to_vec();
                maker.make(&mut made, &pool, &mut rng);
                assert!(made.iter().all(|value| (low..=high).contains(value)), "{made:?}");
                for (count, (a, b)) in moved.iter_mut().zip(sample.iter().zip(&made)) {
                    *count += usize::from(a != b);
                }
            }
            assert!(moved.iter().all(|count| (20..100).contains(count)), "{moved:?}");
        }
    }
}
