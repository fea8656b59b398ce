//! How close the answers of one model are to those of another.

use runtime::golden::argmax;

/// Most decibels that are reported: no noise at all.
const DECIBELS_MAX: f64 = 200.0;

/// How close an INT8 model is to the f32 one over some samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Closeness {
    /// Signal to noise of the output, in decibels; at most 200.
    pub sqnr_db: f64,
    /// Share of samples with the same top class, 0 to 1.
    pub agreement: f64,
    /// Largest difference of an output value.
    pub difference_max: f32,
}

/// Signal to noise in decibels, at most 200 and at least -200.
pub fn decibels(signal: f64, noise: f64) -> f64 {
    if noise <= 0.0 {
        DECIBELS_MAX
    } else {
        (10.0 * (signal / noise).log10()).clamp(-DECIBELS_MAX, DECIBELS_MAX)
    }
}

/// Of answers of `classes` values each, one after another; both of the same length.
pub fn compare(reference: &[f32], found: &[f32], classes: usize) -> Closeness {
    let (mut signal, mut noise, mut same, mut rows) = (0f64, 0f64, 0usize, 0usize);
    let mut difference_max = 0f32;
    for (expected, got) in reference.chunks_exact(classes).zip(found.chunks_exact(classes)) {
        rows += 1;
        same += usize::from(argmax(expected) == argmax(got));
        for (a, b) in expected.iter().zip(got) {
            signal += f64::from(*a).powi(2);
            noise += f64::from(a - b).powi(2);
            // A NaN must not pass as no difference.
            difference_max = if (a - b).is_nan() { f32::INFINITY } else { difference_max.max((a - b).abs()) };
        }
    }
    if noise.is_nan() {
        noise = f64::INFINITY;
    }
    #[expect(clippy::cast_precision_loss)]
    let agreement = same as f64 / rows.max(1) as f64;
    Closeness { sqnr_db: decibels(signal, noise), agreement, difference_max }
}
