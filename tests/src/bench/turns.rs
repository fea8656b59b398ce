//! Measurements of contenders that take turns on one machine, so that whatever else it does meets all alike.

use super::spread::Spread;
use anyhow::{Context, Result, ensure};

/// What each contender measured, turn after turn.
#[derive(Clone, Debug)]
pub struct Turns {
    /// One list a contender, one list a turn.
    values: Vec<Vec<Vec<f64>>>,
}

impl Turns {
    /// For a fixed number of contenders, known by their index.
    pub fn new(contenders: usize) -> Self {
        Self { values: vec![Vec::new(); contenders] }
    }

    /// The order of the next round among the first `contenders`: the one that begins is another in each round.
    pub fn order(&self, contenders: usize) -> impl Iterator<Item = usize> + use<> {
        let first = self.values.first().map_or(0, Vec::len);
        (0..contenders).map(move |place| (first + place) % contenders)
    }

    /// Adds a contender's turn of this round.
    ///
    /// # Errors
    /// A turn without a measurement, or with one that is no duration.
    pub fn push(&mut self, contender: usize, turn: Vec<f64>) -> Result<()> {
        let sound = !turn.is_empty() && turn.iter().all(|value| value.is_finite() && *value > 0.0);
        ensure!(sound, "contender {contender} measured {turn:?}");
        self.values[contender].push(turn);
        Ok(())
    }

    /// Measurements of the contender that has fewest.
    pub fn count(&self) -> usize {
        self.values.iter().map(|turns| turns.iter().map(Vec::len).sum()).min().unwrap_or(0)
    }

    /// Of all measurements of one contender.
    pub fn spread(&self, contender: usize) -> Result<Spread> {
        Spread::of(&self.values[contender].concat()).context("nothing was measured")
    }

    /// One contender divided by another: of each round the medians' ratio, so that what disturbs one round counts
    /// once and hits both.
    pub fn ratio(&self, contender: usize, other: usize) -> Result<Spread> {
        let median = |turn: &Vec<f64>| Spread::of(turn).map(|spread| spread.median);
        let rounds = self.values[contender].iter().zip(&self.values[other]);
        let ratios: Option<Vec<f64>> = rounds.map(|(a, b)| Some(median(a)? / median(b)?)).collect();
        ratios.as_deref().and_then(Spread::of).context("nothing was measured")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_begins_with_another_contender() {
        let mut turns = Turns::new(3);
        let mut order = Vec::new();
        for _ in 0..4 {
            for contender in turns.order(3) {
                order.push(contender);
                turns.push(contender, vec![1.0, 2.0]).unwrap();
            }
        }
        assert_eq!(order, [0, 1, 2, 1, 2, 0, 2, 0, 1, 0, 1, 2]);
        assert_eq!((turns.count(), turns.spread(2).unwrap().count), (8, 8));
    }

    #[test]
    fn a_slow_round_slows_both_and_leaves_their_ratio() {
        let mut turns = Turns::new(2);
        for slow in [1.0, 1.0, 10.0] {
            turns.push(0, vec![slow * 2.0; 5]).unwrap();
            turns.push(1, vec![slow * 4.0; 5]).unwrap();
        }
        let ratio = turns.ratio(0, 1).unwrap();
        assert_eq!((ratio.low, ratio.median, ratio.high, ratio.count), (0.5, 0.5, 0.5, 3));
        assert_eq!(turns.spread(0).unwrap().high, 20.0);
    }

    #[test]
    fn a_turn_that_measured_nothing_or_no_duration_is_an_error() {
        for turn in [vec![], vec![1.0, f64::NAN], vec![0.0]] {
            assert!(Turns::new(1).push(0, turn).is_err());
        }
        assert!(Turns::new(1).spread(0).is_err());
        assert!(Turns::new(2).ratio(0, 1).is_err());
    }
}
