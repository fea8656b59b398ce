//! Which sequence of steps makes a network small: tried cheaply, taken by size and time, kept only within the bound on the
//! accuracy. Every decision is a function of numbers that are the same after a restart.

use serde::{Deserialize, Serialize};
use shared::job::Compression;
use std::fmt;

/// One change of the structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// [`super::prune::prune`] to this share of the multiply-accumulates.
    Prune {
        /// In percent.
        share: u32,
    },
    /// [`super::low_rank::low_rank`] with this share of the energy.
    LowRank {
        /// In percent.
        energy: u32,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prune { share } => write!(f, "pruned to {share} %"),
            Self::LowRank { energy } => write!(f, "low rank of {energy} % energy"),
        }
    }
}

/// Steps one after another, each followed by a retraining.
pub type Sequence = &'static [Step];

/// All that are tried. The first, which changes nothing, is always possible.
const SEQUENCES: [Sequence; 6] = [
    &[],
    &[Step::Prune { share: 75 }],
    &[Step::Prune { share: 50 }],
    &[Step::Prune { share: 30 }],
    &[Step::LowRank { energy: 90 }],
    &[Step::Prune { share: 60 }, Step::LowRank { energy: 90 }],
];

/// Sequences that are run in full before the first one is taken.
pub const FULL_RUNS_MAX: usize = 2;
/// How many times the allowed loss a trial may lose: the full retraining brings part of it back.
const TRIAL_LOSSES: f64 = 3.0;
/// Samples that a trial may lose beyond that: of few, one more or less says nothing.
const TRIAL_SAMPLES: f64 = 1.0;
/// A structure is changed for at least this share less of bytes times microseconds.
const GAIN_MIN: f64 = 0.05;

/// What a job may do to its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Menu {
    /// Changes of the structure; the first changes nothing.
    pub sequences: Vec<Sequence>,
    /// Ways to integers, the cheapest first; FP16 alone where there is none.
    pub endings: &'static [Ending],
}

impl Menu {
    /// What this way to compress allows.
    pub fn of(way: Compression) -> Self {
        let all = Ending::ALL.as_slice();
        let is_allowed = |step: &Step| match (way, step) {
            (Compression::Auto, _) | (Compression::Prune, Step::Prune { .. }) => true,
            (other, Step::LowRank { .. }) => other == Compression::LowRank,
            (_, Step::Prune { .. }) => false,
        };
        let sequences = SEQUENCES.into_iter().filter(|sequence| sequence.iter().all(is_allowed)).collect();
        let endings = match way {
            Compression::Int8 | Compression::Prune | Compression::LowRank | Compression::Auto => all,
            Compression::AdaptiveRounding => &[Ending::Rounded],
            Compression::QuantisationAware => &[Ending::Aware],
            Compression::Fp16 => &[],
        };
        Self { sequences, endings }
    }
}

/// A sequence for people.
pub fn name(sequence: &[Step]) -> String {
    let steps: Vec<String> = sequence.iter().map(ToString::to_string).collect();
    if steps.is_empty() { "structure as trained".to_owned() } else { steps.join(", then ") }
}

/// What a short retraining showed of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Bytes of the weights as INT8.
    pub bytes: u64,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Microseconds on the board, estimated.
    pub us: u64,
    /// Right answers on what is held back, 0 to 1.
    pub accuracy: f32,
    /// Whether it keeps the board's limits.
    pub fits: bool,
}

impl Trial {
    /// What is to be small.
    fn cost(&self) -> f64 {
        self.bytes as f64 * self.us.max(1) as f64
    }
}

/// The bound on the accuracy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// Right answers of the uncompressed network on what is held back, 0 to 1.
    pub whole: f64,
    /// How much of that may be lost, 0 to 1.
    pub loss: f64,
    /// Samples held back.
    pub count: usize,
}

impl Bound {
    /// The least share of right answers that is enough.
    pub fn least(&self) -> f64 {
        self.whole * (1.0 - self.loss)
    }

    /// Whether a form of the network answers well enough.
    pub fn holds(&self, accuracy: f64) -> bool {
        // Accuracies are whole numbers of answers over their count.
        accuracy + 1e-9 >= self.least()
    }

    fn may_hold(&self, trial: &Trial) -> bool {
        let lost = self.whole * self.loss * TRIAL_LOSSES + TRIAL_SAMPLES / self.count.max(1) as f64;
        f64::from(trial.accuracy) + 1e-6 >= self.whole - lost
    }
}

/// The sequences to run in full, the best first; the one that changes nothing is the last. `trials` has one entry for each
/// of [`Menu::sequences`], `None` where its steps change nothing.
pub fn order(trials: &[Option<Trial>], bound: &Bound) -> Vec<usize> {
    let plain = trials.first().copied().flatten();
    let allowed = plain.map_or(f64::INFINITY, |plain| plain.cost() * (1.0 - GAIN_MIN));
    let mut better: Vec<(f64, usize)> = trials
        .iter()
        .enumerate()
        .skip(1)
        .filter_map(|(index, trial)| Some((index, trial.as_ref()?)))
        .filter(|(_, trial)| trial.fits && bound.may_hold(trial) && trial.cost() <= allowed)
        .map(|(index, trial)| (trial.cost(), index))
        .collect();
    better.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    better.truncate(FULL_RUNS_MAX);
    better.into_iter().map(|(_, index)| index).chain([0]).collect()
}

/// Why a trial is not among those that are run in full.
pub fn refusal(trial: Option<&Trial>, plain: Option<&Trial>, bound: &Bound) -> String {
    match (trial, plain) {
        (None, _) => "it changes nothing".to_owned(),
        (Some(trial), _) if !trial.fits => "it breaks a limit of the board".to_owned(),
        (Some(trial), _) if !bound.may_hold(trial) => format!(
            "{:.4} right after a short retraining, at least {:.4} are needed in the end",
            trial.accuracy,
            bound.least()
        ),
        (Some(trial), Some(plain)) if trial.cost() > plain.cost() * (1.0 - GAIN_MIN) => {
            "hardly smaller and faster".to_owned()
        }
        _ => "others are smaller and faster".to_owned(),
    }
}

/// How a network's numbers become small, in the order in which it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// INT8 after training.
    PostTraining,
    /// The same with channels equalised and biases corrected.
    Corrected,
    /// The same with every weight's rounding learned.
    Rounded,
    /// Training with rounding.
    Aware,
}

impl Ending {
    /// The next to try where one costs too much.
    pub const ALL: [Self; 4] = [Self::PostTraining, Self::Corrected, Self::Rounded, Self::Aware];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(bytes: u64, us: u64, accuracy: f32) -> Option<Trial> {
        Some(Trial { bytes, macs: 1, us, accuracy, fits: true })
    }

    const BOUND: Bound = Bound { whole: 0.9, loss: 0.01, count: 1000 };

    #[test]
    fn the_smallest_and_fastest_within_reach_of_the_bound_comes_first_and_the_plain_one_last() {
        let trials = [
            trial(1000, 100, 0.9),
            trial(800, 80, 0.895),
            trial(500, 60, 0.88),
            trial(300, 40, 0.7),
            None,
            trial(700, 70, 0.9),
        ];
        assert_eq!(order(&trials, &BOUND), [2, 5, 0]);
        let told = |index: usize| refusal(trials[index].as_ref(), trials[0].as_ref(), &BOUND);
        assert_eq!(told(1), "others are smaller and faster");
        assert_eq!(told(3), "0.7000 right after a short retraining, at least 0.8910 are needed in the end");
        assert_eq!(told(4), "it changes nothing");
        let large = trials.map(|trial| trial.map(|trial| Trial { fits: false, ..trial }));
        assert_eq!(order(&large, &BOUND), [0]);
        assert_eq!(refusal(large[2].as_ref(), trials[0].as_ref(), &BOUND), "it breaks a limit of the board");
    }

    #[test]
    fn a_structure_that_gains_nothing_is_left_as_it_was_trained() {
        let trials = [trial(1000, 100, 0.9), trial(990, 100, 0.9), None, None, trial(900, 120, 0.9), None];
        assert_eq!(order(&trials, &BOUND), [0]);
        assert_eq!(refusal(trials[4].as_ref(), trials[0].as_ref(), &BOUND), "hardly smaller and faster");
        assert_eq!(order(&[], &BOUND), [0]);
    }

    #[test]
    fn the_bound_is_a_share_of_what_the_whole_network_answers_right() {
        assert!(BOUND.holds(0.891) && !BOUND.holds(0.890));
        assert!(Bound { loss: 0.0, ..BOUND }.holds(0.9));
    }

    #[test]
    fn who_names_one_way_gets_no_other() {
        let menu = |way| Menu::of(way);
        assert_eq!(menu(Compression::Auto).sequences, SEQUENCES);
        assert_eq!(menu(Compression::Prune).sequences, SEQUENCES[..4]);
        assert_eq!(menu(Compression::LowRank).sequences, [SEQUENCES[0], SEQUENCES[4]]);
        for way in [Compression::AdaptiveRounding, Compression::QuantisationAware, Compression::Fp16] {
            assert_eq!(menu(way).sequences, [SEQUENCES[0]]);
        }
        assert_eq!(menu(Compression::QuantisationAware).endings, [Ending::Aware]);
        assert_eq!(menu(Compression::Fp16).endings, []);
    }

    #[test]
    fn a_sequence_reads_as_what_was_done() {
        assert_eq!(name(SEQUENCES[0]), "structure as trained");
        assert_eq!(name(SEQUENCES[5]), "pruned to 60 %, then low rank of 90 % energy");
    }
}
