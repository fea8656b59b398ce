//! What was seen of one activation: its extent, then a histogram over it, and the ranges that follow from them.

use crate::affine::Affine;
use std::fmt;

/// Bins of a histogram: eight to a step of the widest encoding.
const BINS: usize = 2048;
/// The MSE rule tries the whole extent and then every hundredth less of it, down to this share.
const SHRINK_MIN: f32 = 0.3;
const SHRINK_STEPS: u8 = 70;
/// Levels of one sign, as the entropy rule counts them.
const LEVELS: usize = 128;
/// The entropy rule tries every range of so many bins more than [`LEVELS`].
const KEPT_STEP: usize = 16;

/// How an activation's range is chosen from what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Calibrator {
    /// From the smallest to the largest value.
    MinMax,
    /// Without these millionths of the values on either side.
    Percentile {
        /// What is left out on one side, in millionths.
        tail_ppm: u32,
    },
    /// The range with the least expected squared error.
    Mse,
    /// The range whose 128 levels keep most of the distribution of the magnitudes: least Kullback-Leibler divergence
    /// (Migacz, "8-bit Inference with TensorRT", 2017).
    Entropy,
}

impl Calibrator {
    /// Every rule.
    pub const ALL: [Self; 6] = [
        Self::MinMax,
        Self::Percentile { tail_ppm: 10 },
        Self::Percentile { tail_ppm: 100 },
        Self::Percentile { tail_ppm: 1000 },
        Self::Mse,
        Self::Entropy,
    ];
}

impl fmt::Display for Calibrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MinMax => f.write_str("min-max"),
            Self::Percentile { tail_ppm } => write!(f, "percentile {}", 100.0 - f64::from(*tail_ppm) / 1e4),
            Self::Mse => f.write_str("mse"),
            Self::Entropy => f.write_str("entropy"),
        }
    }
}

#[derive(Clone, Debug)]
/// See the module. Two passes over the same values: [`Observer::extend`], then [`Observer::count`].
pub struct Observer {
    low: f32,
    high: f32,
    finite: bool,
    bins: Vec<u64>,
}

impl Default for Observer {
    fn default() -> Self {
        Self { low: f32::INFINITY, high: f32::NEG_INFINITY, finite: true, bins: Vec::new() }
    }
}

impl Observer {
    /// First pass.
    pub fn extend(&mut self, values: &[f32]) {
        for value in values {
            self.finite &= value.is_finite();
            self.low = self.low.min(*value);
            self.high = self.high.max(*value);
        }
    }

    /// Second pass, over the same values.
    pub fn count(&mut self, values: &[f32]) {
        self.bins.resize(BINS, 0);
        let width = self.high - self.low;
        if width.is_nan() || width <= 0.0 {
            self.bins[0] += values.len() as u64;
            return;
        }
        #[expect(clippy::cast_precision_loss)]
        let factor = BINS as f32 / width;
        for value in values {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
            let bin = ((value - self.low) * factor) as usize;
            self.bins[bin.min(BINS - 1)] += 1;
        }
    }

    /// Whether something was seen and all of it was finite.
    pub fn is_finite(&self) -> bool {
        self.finite && self.low <= self.high && (self.high - self.low).is_finite()
    }

    /// The range that a rule gives, smallest and largest value.
    pub fn range(&self, rule: Calibrator) -> (f32, f32) {
        match rule {
            Calibrator::MinMax => (self.low, self.high),
            Calibrator::Percentile { tail_ppm } => self.percentile(tail_ppm),
            Calibrator::Mse => self.least_error(),
            Calibrator::Entropy => self.least_divergence(),
        }
    }

    fn percentile(&self, tail_ppm: u32) -> (f32, f32) {
        #[expect(clippy::cast_precision_loss)]
        let tail = self.bins.iter().sum::<u64>() as f64 * f64::from(tail_ppm) * 1e-6;
        let first = reach(self.bins.iter(), tail);
        let last = reach(self.bins.iter().rev(), tail).map(|from_end| BINS - 1 - from_end);
        match (first, last) {
            (Some(first), Some(last)) => (self.edge(first), self.edge(last + 1)),
            _ => (self.low, self.high),
        }
    }

    fn least_error(&self) -> (f32, f32) {
        let mut best = (self.low, self.high);
        let mut least = f64::INFINITY;
        for step in 0..=SHRINK_STEPS {
            let share = 1.0 - (1.0 - SHRINK_MIN) * f32::from(step) / f32::from(SHRINK_STEPS);
            let range = (self.low * share, self.high * share);
            let Ok(affine) = Affine::from_range(range.0.min(range.1), range.1) else { continue };
            let (_, noise) = self.signal_and_noise(affine);
            if noise < least {
                (least, best) = (noise, range);
            }
        }
        best
    }

    /// The rule of [`Calibrator::Entropy`].
    fn least_divergence(&self) -> (f32, f32) {
        let largest = self.high.abs().max(self.low.abs());
        if largest.is_nan() || largest <= 0.0 || self.high <= self.low {
            return (self.low, self.high);
        }
        let magnitudes = self.magnitudes(largest);
        let mut best = (f64::INFINITY, BINS);
        for kept in (LEVELS..=BINS).step_by(KEPT_STEP) {
            let divergence = divergence(&magnitudes, kept);
            if divergence < best.0 {
                best = (divergence, kept);
            }
        }
        #[expect(clippy::cast_precision_loss)]
        let limit = largest * best.1 as f32 / BINS as f32;
        (self.low.max(-limit), self.high.min(limit))
    }

    /// A histogram of the magnitudes from zero to `largest`.
    fn magnitudes(&self, largest: f32) -> Vec<f64> {
        let mut magnitudes = vec![0.0; BINS];
        for (bin, count) in self.bins.iter().enumerate().filter(|(_, count)| **count > 0) {
            let (low, high) = (self.edge(bin), self.edge(bin + 1));
            let middle = if low <= 0.0 && high >= 0.0 { 0.0 } else { f32::midpoint(low, high).abs() };
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let at = (middle / largest * BINS as f32) as usize;
            #[expect(clippy::cast_precision_loss)]
            let count = *count as f64;
            magnitudes[at.min(BINS - 1)] += count;
        }
        magnitudes
    }

    /// Sums of squares of the values and of their rounding errors under `affine`, by the histogram.
    pub fn signal_and_noise(&self, affine: Affine) -> (f64, f64) {
        let (mut signal, mut noise) = (0f64, 0f64);
        for (bin, count) in self.bins.iter().enumerate().filter(|(_, count)| **count > 0) {
            let (low, high) = (self.edge(bin), self.edge(bin + 1));
            // Most values of a rectified activation are exactly zero; their bin must not count as noise.
            let value = if low <= 0.0 && high >= 0.0 { 0.0 } else { f32::midpoint(low, high) };
            #[expect(clippy::cast_precision_loss)]
            let count = *count as f64;
            signal += count * f64::from(value).powi(2);
            noise += count * f64::from(value - affine.round_trip(value)).powi(2);
        }
        (signal, noise)
    }

    /// The lower end of a bin.
    fn edge(&self, bin: usize) -> f32 {
        #[expect(clippy::cast_precision_loss)]
        let share = bin as f32 / BINS as f32;
        self.low + (self.high - self.low) * share
    }
}

/// How many bins lie before the one in which more than `tail` values have been seen.
fn reach<'a>(mut bins: impl Iterator<Item = &'a u64>, tail: f64) -> Option<usize> {
    let mut seen = 0u64;
    bins.position(|count| {
        seen += *count;
        #[expect(clippy::cast_precision_loss)]
        let past = seen as f64 > tail;
        past
    })
}

/// How much of the distribution is lost when the first `kept` bins are all that there is, in [`LEVELS`] levels.
fn divergence(magnitudes: &[f64], kept: usize) -> f64 {
    let beyond: f64 = magnitudes[kept..].iter().sum();
    // What lies beyond is clipped: it counts to the last bin of the reference, and not to its image in few levels.
    let reference = |bin: usize| magnitudes[bin] + if bin + 1 == kept { beyond } else { 0.0 };
    let total: f64 = magnitudes.iter().sum();
    let inside: f64 = magnitudes[..kept].iter().sum();
    if inside <= 0.0 {
        return f64::INFINITY;
    }
    let mut divergence = 0.0;
    for level in 0..LEVELS {
        let (from, to) = (level * kept / LEVELS, (level + 1) * kept / LEVELS);
        let filled = magnitudes[from..to].iter().filter(|count| **count > 0.0).count();
        #[expect(clippy::cast_precision_loss)]
        let each = magnitudes[from..to].iter().sum::<f64>() / filled.max(1) as f64;
        for (bin, count) in magnitudes.iter().enumerate().take(to).skip(from) {
            let wanted = reference(bin) / total;
            if wanted <= 0.0 {
                continue;
            }
            // A bin that only the clipped values fill has an image of nothing: as good as nothing.
            let image = if *count > 0.0 { each / inside } else { 1e-12 };
            divergence += wanted * (wanted / image).ln();
        }
    }
    divergence
}

#[cfg(test)]
mod tests;
