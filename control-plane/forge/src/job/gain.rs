//! Whether a search still has something to gain, by how its accuracy went.

/// Looks at the accuracy that a trend is taken from.
const LOOKS: usize = 6;
/// A search is not ended before this share of its steps.
const SHARE_MIN: f64 = 0.5;
/// A gain in accuracy that is worth the steps that are left.
const GAIN_MIN: f64 = 0.002;

/// What the accuracy would gain in the steps that are left, if it went on as over the last looks `(step, accuracy)`: the
/// slope of their least-squares line, where it rises, times the steps, plus how far they scatter about it. `None` while
/// that cannot be said.
pub(super) fn expected(looks: &[(u64, f32)], step: u64, total: u64) -> Option<f64> {
    let last = looks.len().checked_sub(LOOKS).and_then(|from| looks.get(from..))?;
    let count = last.len() as f64;
    let mean = |value: &dyn Fn(&(u64, f32)) -> f64| last.iter().map(value).sum::<f64>() / count;
    let (x_mean, y_mean) = (mean(&|look| look.0 as f64), mean(&|look| f64::from(look.1)));
    let covariance = mean(&|look| (look.0 as f64 - x_mean) * (f64::from(look.1) - y_mean));
    let variance = mean(&|look| (look.0 as f64 - x_mean).powi(2));
    if variance <= 0.0 {
        return None;
    }
    let slope = covariance / variance;
    let line = |step: u64| y_mean + slope * (step as f64 - x_mean);
    let scatter = mean(&|look| (f64::from(look.1) - line(look.0)).powi(2)).sqrt();
    Some(slope.max(0.0) * total.saturating_sub(step) as f64 + scatter)
}

/// Whether the rest of a search can be left out.
pub(super) fn is_over(looks: &[(u64, f32)], step: u64, total: u64) -> bool {
    step < total
        && step as f64 >= total as f64 * SHARE_MIN
        && expected(looks, step, total).is_some_and(|gain| gain < GAIN_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(accuracy: impl Fn(u64) -> f32) -> Vec<(u64, f32)> {
        (1..=8).map(|look| (look * 20, accuracy(look))).collect()
    }

    #[test]
    fn a_search_that_still_gains_or_still_scatters_goes_on() {
        let rising = looks(|look| 0.5 + 0.02 * look as f32);
        assert!((expected(&rising, 160, 260).unwrap() - 0.1).abs() < 1e-4);
        assert!(!is_over(&rising, 160, 260));
        let scattered = looks(|look| 0.9 + 0.02 * (look % 2) as f32);
        assert!(!is_over(&scattered, 160, 260));
    }

    #[test]
    fn one_that_stands_still_or_falls_is_over_but_not_in_its_first_half() {
        let level = looks(|_| 0.97);
        assert!(is_over(&level, 160, 260));
        assert!(!is_over(&level, 160, 400));
        assert!(is_over(&looks(|look| 0.99 - 0.005 * look as f32), 160, 260));
        // There is nothing left to leave out, and too little to judge by.
        assert!(!is_over(&level, 260, 260));
        assert!(!is_over(&level[..5], 160, 260));
    }
}
