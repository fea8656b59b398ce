//! What was seen of one activation: its extent, then a histogram over it, and the ranges that follow from them.

use super::{Affine, Calibrator};

/// Bins of a histogram: eight to a step of the widest encoding.
const BINS: usize = 2048;
/// Share that the percentile rule leaves out on either side.
const TAIL: f64 = 1e-4;
/// The MSE rule tries the whole extent and then every hundredth less of it, down to this share.
const SHRINK_MIN: f32 = 0.3;
const SHRINK_STEPS: u8 = 70;

#[derive(Clone, Debug)]
pub(super) struct Observer {
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
    pub(super) fn extend(&mut self, values: &[f32]) {
        for value in values {
            self.finite &= value.is_finite();
            self.low = self.low.min(*value);
            self.high = self.high.max(*value);
        }
    }

    /// Second pass, over the same values.
    pub(super) fn count(&mut self, values: &[f32]) {
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
    pub(super) fn is_finite(&self) -> bool {
        self.finite && self.low <= self.high && (self.high - self.low).is_finite()
    }

    pub(super) fn range(&self, rule: Calibrator) -> (f32, f32) {
        match rule {
            Calibrator::MinMax => (self.low, self.high),
            Calibrator::Percentile => self.percentile(),
            Calibrator::Mse => self.least_error(),
        }
    }

    fn percentile(&self) -> (f32, f32) {
        #[expect(clippy::cast_precision_loss)]
        let tail = self.bins.iter().sum::<u64>() as f64 * TAIL;
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

    /// Sums of squares of the values and of their rounding errors under `affine`, by the histogram.
    pub(super) fn signal_and_noise(&self, affine: Affine) -> (f64, f64) {
        let (mut signal, mut noise) = (0f64, 0f64);
        for (bin, count) in self.bins.iter().enumerate().filter(|(_, count)| **count > 0) {
            let (low, high) = (self.edge(bin), self.edge(bin + 1));
            // Most values of a rectified activation are exactly zero; their bin must not count as noise.
            let value = if low <= 0.0 && high >= 0.0 { 0.0 } else { (low + high) / 2.0 };
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
