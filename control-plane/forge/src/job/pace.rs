//! How much of a job fits into the time that it is given. What a step takes is measured on this machine, once: the
//! numbers go into the checkpoint, so that a job that is killed ends as one that was not.

use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Share of the time for the search. More makes no better cell; training makes more of it.
const SEARCH_SHARE: f64 = 0.25;
/// Share of the time behind the search for all teachers together.
const TEACH_SHARE: f64 = 0.5;
/// Share of what is then left for a pretext; the labels have the rest.
const PRETEXT_SHARE: f64 = 0.4;
/// Share of the time behind search and teachers for compression, where it is more than plain INT8.
const COMPRESS_SHARE: f64 = 0.3;
/// What a compression takes at most, in full retrainings: its trials, two full runs of two steps, and trainings with rounding.
const COMPRESS_RUNS: f64 = 6.0;
/// Kept back for loading, quantising, and the checks on the test split.
const RESERVE_SHARE: f64 = 0.12;
const RESERVE_S: f64 = 2.0;
/// Steps that are measured, after one that warms up.
const MEASURED: usize = 3;

/// What the time allows, as far as it has been measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Paced {
    pub(super) search_steps: Option<u32>,
    /// Of each teacher.
    #[serde(default)]
    pub(super) teach_steps: Option<u64>,
    #[serde(default)]
    pub(super) pretext_steps: Option<u64>,
    pub(super) train_steps: Option<u64>,
    /// Of one pass over the training data.
    #[serde(default)]
    pub(super) pass_steps: Option<u64>,
    /// Whether the training ends before its last pass.
    #[serde(default)]
    pub(super) cut_short: bool,
    #[serde(default)]
    pub(super) left_out: LeftOut,
    /// Of a full retraining in a compression.
    #[serde(default)]
    pub(super) compress_steps: Option<u64>,
    /// What became of the budget, for people.
    pub(super) remarks: Vec<String>,
}

/// What the time holds too little of to be of use, and is not begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct LeftOut {
    pub(super) teachers: bool,
    pub(super) pretext: bool,
    pub(super) compression: bool,
}

/// What a search came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Searched {
    /// Architecture steps.
    pub(super) steps: u64,
    /// Cells that were judged, by methods that take no such steps.
    pub(super) judged: u64,
    /// Most steps.
    pub(super) most: u32,
}

/// What the time of a job holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) limit_s: u32,
    /// `None` where nothing is searched.
    pub(super) search: Option<Searched>,
    /// Passes over the training data, and the most of them.
    pub(super) passes: f64,
    pub(super) epochs: u32,
    pub(super) teachers: u32,
    pub(super) left_out: LeftOut,
}

impl Held {
    /// In one line, for people; `took_s` is known at the end.
    pub(super) fn told(&self, took_s: Option<f64>) -> String {
        let mut said = format!("{} s hold ", self.limit_s);
        if let Some(Searched { steps, judged, most }) = self.search {
            said += &match judged {
                0 => format!("{steps} search steps of {most} and "),
                judged => format!("a search that judged {judged} cells and "),
            };
        }
        said += &format!("{:.1} passes over the training data of {}", self.passes, self.epochs);
        let teachers = match self.teachers {
            1 => "the teacher".to_owned(),
            count => format!("the {count} teachers"),
        };
        let left = [
            (self.left_out.teachers, teachers.as_str()),
            (self.left_out.pretext, "the pretext"),
            (self.left_out.compression, "compression beyond INT8"),
        ];
        let left: Vec<&str> = left.into_iter().filter(|(left, _)| *left).map(|(_, what)| what).collect();
        if !left.is_empty() {
            said += &format!("; left out for want of time: {}", left.join(", "));
        }
        if self.passes < 1.0 {
            said += "; not even one pass: give it more time, or expect little of the model";
        }
        if let Some(took_s) = took_s {
            said += &format!("; it took {took_s:.0} s");
        }
        said
    }
}

/// Seconds of one step: the median of some.
pub(super) fn seconds_a_step(mut step: impl FnMut()) -> f64 {
    step();
    let mut times: [f64; MEASURED] = std::array::from_fn(|_| {
        let start = Instant::now();
        step();
        start.elapsed().as_secs_f64()
    });
    times.sort_by(f64::total_cmp);
    times[MEASURED / 2]
}

/// Architecture steps for a search that has `limit_s` for the whole job: at least one, at most `most`.
pub(super) fn search_steps(limit_s: u32, step_s: f64, most: u32) -> u32 {
    let fitting = steps(usable_s(limit_s) * SEARCH_SHARE, step_s, u64::from(most));
    u32::try_from(fitting).unwrap_or(most)
}

/// Steps for each of `count` teachers after `spent_s` of the job's `limit_s`: at least one, at most `most`.
pub(super) fn teach_steps(limit_s: u32, spent_s: f64, count: u32, step_s: f64, most: u64) -> u64 {
    let each_s = (usable_s(limit_s) - spent_s) * TEACH_SHARE / f64::from(count.max(1));
    steps(each_s, step_s, most)
}

/// Steps for a pretext after `spent_s` of the job's `limit_s`: at least one, at most `most`.
pub(super) fn pretext_steps(limit_s: u32, spent_s: f64, step_s: f64, most: u64) -> u64 {
    steps((usable_s(limit_s) - spent_s) * PRETEXT_SHARE, step_s, most)
}

/// Steps for a training after `spent_s` of the job's `limit_s`: at least one, at most `most`.
pub(super) fn train_steps(limit_s: u32, spent_s: f64, step_s: f64, most: u64) -> u64 {
    steps(usable_s(limit_s) - spent_s, step_s, most)
}

/// Seconds for compression after `spent_s` of the job's `limit_s` for search and teachers.
pub(super) fn compress_s(limit_s: u32, spent_s: f64) -> f64 {
    (usable_s(limit_s) - spent_s).max(0.0) * COMPRESS_SHARE
}

/// Steps for each full retraining of a compression after `spent_s` of the job's `limit_s`: at least one, at most `most`.
pub(super) fn compress_steps(limit_s: u32, spent_s: f64, step_s: f64, most: u64) -> u64 {
    steps((usable_s(limit_s) - spent_s) / COMPRESS_RUNS, step_s, most)
}

fn steps(time_s: f64, step_s: f64, most: u64) -> u64 {
    let fitting = (time_s.max(0.0) / step_s.max(f64::MIN_POSITIVE)).floor();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let fitting = fitting as u64;
    fitting.clamp(1, most.max(1))
}

fn usable_s(limit_s: u32) -> f64 {
    let limit_s = f64::from(limit_s);
    (limit_s * (1.0 - RESERVE_SHARE) - RESERVE_S).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_fill_the_time_and_no_more() {
        assert_eq!(search_steps(1000, 0.1, 100_000), 2195);
        assert_eq!(train_steps(1000, 220.0, 0.1, 100_000), 6580);
        // Half of what the search leaves, for both.
        assert_eq!(teach_steps(1000, 78.0, 2, 0.1, 100_000), 2000);
        assert_eq!(pretext_steps(1000, 78.0, 0.1, 100_000), 3200);
        // A sixth of what is left for each full retraining; the training gave up three tenths for that.
        assert!((compress_s(1000, 78.0) - 240.0).abs() < 1e-9);
        assert_eq!(compress_steps(1000, 638.0, 0.1, 100_000), 400);
        // The budget stays the most that is done.
        assert_eq!((search_steps(1000, 0.1, 200), train_steps(1000, 0.0, 0.1, 300)), (200, 300));
        // Too little for anything, and steps too short to be measured.
        assert_eq!((search_steps(10, 9.0, 200), train_steps(10, 60.0, 1.0, 300)), (1, 1));
        assert_eq!((search_steps(10, 0.0, 200), train_steps(10, 0.0, 0.0, 300)), (200, 300));
    }

    #[test]
    fn what_became_of_the_time_is_one_line() {
        let left_out = LeftOut { teachers: true, pretext: false, compression: true };
        let search = Some(Searched { steps: 3, judged: 0, most: 1000 });
        let held = Held { limit_s: 10, search, passes: 0.25, epochs: 60, teachers: 2, left_out };
        assert_eq!(
            held.told(Some(12.3)),
            "10 s hold 3 search steps of 1000 and 0.2 passes over the training data of 60; left out for want of time: the 2 \
             teachers, compression beyond INT8; not even one pass: give it more time, or expect little of the model; it took \
             12 s"
        );
        let judged = Some(Searched { steps: 0, judged: 7, most: 1000 });
        let held = Held { search: judged, passes: 4.0, left_out: LeftOut::default(), ..held };
        assert_eq!(
            held.told(None),
            "10 s hold a search that judged 7 cells and 4.0 passes over the training data of 60"
        );
    }

    #[test]
    fn the_first_step_is_not_measured() {
        let mut steps = 0;
        let seconds = seconds_a_step(|| steps += 1);
        assert_eq!(steps, 1 + MEASURED);
        assert!(seconds >= 0.0);
    }
}
