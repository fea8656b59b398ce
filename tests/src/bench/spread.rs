//! Medians and spreads of repeated measurements.

use serde::Serialize;

/// Median and the middle half of a set of measurements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    /// A quarter of the measurements are below.
    pub low: f64,
    /// A quarter of the measurements are above.
    pub high: f64,
    pub count: usize,
}

impl Spread {
    /// Of any number of measurements; zeros of none.
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at =
            |share: usize| sorted.get(sorted.len().saturating_sub(1) * share / 4).copied().unwrap_or(0.0);
        Self { median: at(2), low: at(1), high: at(3), count: sorted.len() }
    }

    /// `median (low-high)`.
    pub fn text(&self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$}-{:.digits$})", self.median, self.low, self.high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_quarters_of_five() {
        let spread = Spread::of(&[5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!((spread.low, spread.median, spread.high, spread.count), (2.0, 3.0, 4.0, 5));
        assert_eq!(Spread::of(&[]).median, 0.0);
    }
}
