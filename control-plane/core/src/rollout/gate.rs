//! Gates: what must be shown by those that have the version before more get it.
//!
//! A gate is a sequential test of one share. Its bounds hold at all looks together (Robbins' confidence sequence), so it may be
//! looked at whenever something comes in: it stops a version whose share is within the limit with probability at most
//! `false_stop`, and opens on one whose share is beyond it with probability at most `false_open`.

use super::{
    WAIT_MS_MAX,
    bounds::{lower, needed, upper},
    evidence::Sample,
};
use serde::{Deserialize, Serialize};
use shared::wire::TrialPolicy;
use std::fmt;

/// Most gates of one policy.
const GATES_MAX: usize = 16;
/// Most that a gate may ask of a wave.
const WAVE_MIN_MAX: u64 = 1_000_000_000;
/// An error probability above this is no statement.
const ERROR_MAX: f64 = 0.5;

/// What a gate looks at: the share of something among many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Devices that committed, of those that finished.
    InstallSuccess,
    /// Devices that are online and have not started again too often, some time after they committed.
    Health,
    /// Windows of telemetry whose 99th percentile is over a bound.
    Latency,
    /// Requests that failed.
    ErrorRate,
    /// Impressions with a click.
    Ctr,
    /// Impressions with a conversion.
    Conversion,
    /// Requests of trials on which the version before agreed.
    Agreement,
    /// Impressions with a correction: answers that no longer fit what users mean.
    Drift,
}

impl Signal {
    /// Is more of it better?
    fn is_good(self) -> bool {
        match self {
            Self::InstallSuccess | Self::Health | Self::Ctr | Self::Conversion | Self::Agreement => true,
            Self::Latency | Self::ErrorRate | Self::Drift => false,
        }
    }

    /// Is it known of the version before, too?
    fn is_comparable(self) -> bool {
        match self {
            Self::ErrorRate | Self::Ctr | Self::Conversion | Self::Drift => true,
            Self::InstallSuccess | Self::Health | Self::Latency | Self::Agreement => false,
        }
    }

    /// Is one device one trial of the test?
    pub(super) fn counts_devices(self) -> bool {
        match self {
            Self::InstallSuccess | Self::Health => true,
            Self::Latency
            | Self::ErrorRate
            | Self::Ctr
            | Self::Conversion
            | Self::Agreement
            | Self::Drift => false,
        }
    }

    /// Comes it from what users say?
    pub fn is_feedback(self) -> bool {
        match self {
            Self::Ctr | Self::Conversion | Self::Drift => true,
            Self::InstallSuccess | Self::Health | Self::Latency | Self::ErrorRate | Self::Agreement => false,
        }
    }

    /// The wire's word.
    fn word(self) -> &'static str {
        match self {
            Self::InstallSuccess => "install_success",
            Self::Health => "health",
            Self::Latency => "latency",
            Self::ErrorRate => "error_rate",
            Self::Ctr => "ctr",
            Self::Conversion => "conversion",
            Self::Agreement => "agreement",
            Self::Drift => "drift",
        }
    }

    /// What hits are, and of what.
    fn hits(self) -> (&'static str, &'static str) {
        match self {
            Self::InstallSuccess => ("committed", "devices"),
            Self::Health => ("are well", "devices"),
            Self::Latency => ("are slow", "windows"),
            Self::ErrorRate => ("failed", "requests"),
            Self::Ctr => ("were clicked", "impressions"),
            Self::Conversion => ("were converted", "impressions"),
            Self::Agreement => ("agree", "requests"),
            Self::Drift => ("were corrected", "impressions"),
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Whose evidence counts for a wave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// That of all waves that have begun: one test for the whole rollout.
    #[default]
    Rollout,
    /// That of the wave alone: one test a wave, which share `false_stop` equally.
    Wave,
}

/// What happens where a gate has not decided in its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// The rollout is paused, for a person to decide.
    #[default]
    Pause,
    Stop,
    Open,
}

/// One gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Gate {
    pub signal: Signal,
    /// Least share, for signals of which more is better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Largest share, for signals of which less is better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// The share may be so much worse than that of the version before, on the same devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worse_by_max: Option<f64>,
    /// Largest probability that a version within the limit is stopped.
    #[serde(default = "error_default")]
    pub false_stop: f64,
    /// Largest probability that the gate opens on a version beyond the limit.
    #[serde(default = "error_default")]
    pub false_open: f64,
    #[serde(default)]
    pub scope: Scope,
    /// The first wave, from 1, behind which it has to open; before, it only stops.
    #[serde(default = "one")]
    pub from_wave: u32,
    /// The wave itself has to show at least so many.
    #[serde(default = "one_many")]
    pub wave_min: u64,
    /// It has so long to decide once its wave is through.
    #[serde(default = "wait_default")]
    pub wait_ms: u64,
    #[serde(default)]
    pub then: Then,
    /// For `latency`: bound on the 99th percentile of a window, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_us_max: Option<u64>,
    /// For `health`: a device is looked at so long after it committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<u64>,
    /// For `health`: starts of the agent until then that are accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts_max: Option<u32>,
    /// For what users say: an impression counts so long after it came, click or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle_ms: Option<u64>,
    /// With `worse_by_max`: records of the version before count that came so long before the rollout was made, or since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_ms: Option<u64>,
}

fn error_default() -> f64 {
    0.05
}

fn one() -> u32 {
    1
}

fn one_many() -> u64 {
    1
}

fn wait_default() -> u64 {
    60 * 60 * 1000
}

/// What a gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Open,
    Stop,
    /// More has to be seen.
    More,
}

/// A gate at one look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reading {
    /// Place in the policy, from 0.
    pub gate: usize,
    pub signal: Signal,
    /// From 0.
    pub wave: u32,
    pub verdict: Verdict,
    pub hits: u64,
    pub of: u64,
    /// With the numbers, for people.
    pub text: String,
}

impl Gate {
    /// A gate on `signal` with a limit of its own kind, and defaults.
    pub fn new(signal: Signal, limit: f64) -> Self {
        Self {
            signal,
            min: signal.is_good().then_some(limit),
            max: (!signal.is_good()).then_some(limit),
            worse_by_max: None,
            false_stop: error_default(),
            false_open: error_default(),
            scope: Scope::default(),
            from_wave: one(),
            wave_min: one_many(),
            wait_ms: wait_default(),
            then: Then::default(),
            p99_us_max: (signal == Signal::Latency).then_some(1),
            after_ms: None,
            restarts_max: None,
            settle_ms: None,
            before_ms: None,
        }
    }

    /// When a device is looked at after it committed; a minute where nothing is said.
    pub(super) fn after_ms(&self) -> u64 {
        self.after_ms.unwrap_or(60_000)
    }

    pub(super) fn restarts_max(&self) -> u32 {
        self.restarts_max.unwrap_or(1)
    }

    /// When an impression counts: after a minute for clicks and corrections, after five for conversions.
    pub fn settle_ms(&self) -> u64 {
        self.settle_ms.unwrap_or(if self.signal == Signal::Conversion { 300_000 } else { 60_000 })
    }

    /// How far back the version before is looked at: a day where nothing is said.
    pub fn before_ms(&self) -> u64 {
        self.before_ms.unwrap_or(24 * 60 * 60 * 1000)
    }

    fn limits(&self) -> usize {
        [self.min, self.max, self.worse_by_max].iter().flatten().count()
    }

    fn validate(&self, at: usize, waves: usize, trial: &TrialPolicy) -> Result<(), String> {
        let signal = self.signal;
        let bad = |what: String| Err(format!("policy.gates[{at}], {signal}: {what}"));
        let own = if signal.is_good() { "min" } else { "max" };
        let also = if signal.is_comparable() { " or `worse_by_max`" } else { "" };
        let foreign = if signal.is_good() { self.max } else { self.min };
        if self.limits() != 1 || foreign.is_some() || (self.worse_by_max.is_some() && !signal.is_comparable())
        {
            return bad(format!("takes one limit, `{own}`{also}"));
        }
        for (name, share) in [("min", self.min), ("max", self.max), ("worse_by_max", self.worse_by_max)] {
            if let Some(share) = share
                && !(share > 0.0 && share < 1.0)
            {
                return bad(format!("{name} is {share}, allowed are shares over 0 and below 1"));
            }
        }
        for (name, error) in [("false_stop", self.false_stop), ("false_open", self.false_open)] {
            if !(error > 0.0 && error <= ERROR_MAX) {
                return bad(format!("{name} is {error}, allowed are over 0 to {ERROR_MAX}"));
            }
        }
        if self.from_wave == 0 || self.from_wave as usize > waves {
            return bad(format!("from_wave is {}, allowed are 1 to {waves}", self.from_wave));
        }
        if !(1..=WAVE_MIN_MAX).contains(&self.wave_min) {
            return bad(format!("wave_min is {}, allowed are 1 to {WAVE_MIN_MAX}", self.wave_min));
        }
        let times = [
            ("wait_ms", Some(self.wait_ms), true),
            ("p99_us_max", self.p99_us_max, signal == Signal::Latency),
            ("after_ms", self.after_ms, signal == Signal::Health),
            ("settle_ms", self.settle_ms, signal.is_feedback()),
            ("before_ms", self.before_ms, self.worse_by_max.is_some()),
        ];
        for (name, value, applies) in times {
            let Some(value) = value else { continue };
            if !applies {
                return bad(format!("{name} is nothing that it takes; leave it out"));
            }
            let least = u64::from(matches!(name, "wait_ms" | "p99_us_max" | "before_ms"));
            if !(least..=WAIT_MS_MAX).contains(&value) {
                return bad(format!("{name} is {value}, allowed are {least} to {WAIT_MS_MAX}"));
            }
        }
        if signal == Signal::Latency && self.p99_us_max.is_none() {
            return bad("needs `p99_us_max`, microseconds over which a window is slow".to_owned());
        }
        if self.restarts_max.is_some() && signal != Signal::Health {
            return bad("restarts_max is nothing that it takes; leave it out".to_owned());
        }
        let (name, late_ms) = match signal {
            Signal::Health => ("after_ms", self.after_ms()),
            Signal::Ctr | Signal::Conversion | Signal::Drift => ("settle_ms", self.settle_ms()),
            Signal::InstallSuccess | Signal::Latency | Signal::ErrorRate | Signal::Agreement => ("", 0),
        };
        if late_ms >= self.wait_ms {
            return bad(format!(
                "wait_ms is {}, with {name} = {late_ms} nothing is there in time; at least {}",
                self.wait_ms,
                late_ms + 1
            ));
        }
        if signal == Signal::Agreement && (trial.agreement_permille_min.is_none() || trial.duration_ms == 0) {
            return bad(
                "the trial does not ask the version before; set trial.agreement_permille_min".to_owned()
            );
        }
        if needed(self.room(), self.false_open / self.sides()).is_none() {
            return bad("no number of observations is enough; choose a limit farther from 0 and 1".to_owned());
        }
        Ok(())
    }

    /// How far the limit is from the best that can be.
    fn room(&self) -> f64 {
        match (self.min, self.max, self.worse_by_max) {
            (Some(min), _, _) => 1.0 - min,
            (None, Some(max), _) => max,
            (None, None, Some(worse)) => worse / 2.0,
            (None, None, None) => 0.0,
        }
    }

    /// Samples between which an error probability is shared.
    fn sides(&self) -> f64 {
        if self.worse_by_max.is_some() { 2.0 } else { 1.0 }
    }

    /// Observations, all of them good, before it opens. With `worse_by_max` so many of each version are enough where
    /// nothing or everything hits.
    pub fn needed(&self) -> u64 {
        needed(self.room(), self.false_open / self.sides()).unwrap_or(u64::MAX).max(self.wave_min)
    }

    /// The test. `tests` share what may be stopped wrongly.
    pub(super) fn judge(&self, sample: Sample, before: Sample, tests: u32) -> (Verdict, String) {
        let stop = self.false_stop / f64::from(tests.max(1)) / self.sides();
        let open = self.false_open / self.sides();
        let bounds = |sample: Sample, error| {
            (lower(sample.hits, sample.of, error), upper(sample.hits, sample.of, error))
        };
        let ((stop_low, stop_high), (low, high)) = (bounds(sample, stop), bounds(sample, open));
        let limits = match self.worse_by_max {
            // Where the version before may be at most, and where it is at least.
            Some(worse) => {
                let ((stop_before_low, stop_before_high), (before_low, before_high)) =
                    (bounds(before, stop), bounds(before, open));
                if self.signal.is_good() {
                    (before_high - worse, stop_before_low - worse)
                } else {
                    (before_low + worse, stop_before_high + worse)
                }
            }
            None => {
                let limit = self.min.or(self.max).unwrap_or_default();
                (limit, limit)
            }
        };
        let (open_limit, stop_limit) = limits;
        let (opens, stops) = if self.signal.is_good() {
            (low >= open_limit, stop_high < stop_limit)
        } else {
            (high <= open_limit, stop_low > stop_limit)
        };
        let verdict = match (stops, opens && sample.of > 0) {
            (true, _) => Verdict::Stop,
            (false, true) => Verdict::Open,
            (false, false) => Verdict::More,
        };
        (verdict, self.describe(sample, before, (low, high)))
    }

    fn describe(&self, sample: Sample, before: Sample, (low, high): (f64, f64)) -> String {
        let (hit, of) = self.signal.hits();
        let sure = percent(1.0 - self.false_open);
        let seen = format!(
            "{}: {} of {} {of} {hit}, a share of {} to {} ({sure} sure)",
            self.signal,
            sample.hits,
            sample.of,
            percent(low),
            percent(high)
        );
        match (self.min, self.max, self.worse_by_max) {
            (Some(min), _, _) => format!("{seen}; at least {} is asked", percent(min)),
            (None, Some(max), _) => format!("{seen}; at most {} is allowed", percent(max)),
            (None, None, Some(worse)) => format!(
                "{seen}; {} of {} of the version before; at most {} worse is allowed",
                before.hits,
                before.of,
                percent(worse)
            ),
            (None, None, None) => seen,
        }
    }
}

/// Names the field that is out of range and what is allowed.
pub(super) fn validate(gates: &[Gate], waves: usize, trial: &TrialPolicy) -> Result<(), String> {
    if gates.len() > GATES_MAX {
        return Err(format!("policy.gates has {} gates, at most {GATES_MAX}", gates.len()));
    }
    for (at, gate) in gates.iter().enumerate() {
        gate.validate(at, waves, trial)?;
        let twice = gates.iter().take(at).any(|before| before.signal == gate.signal);
        if twice && gate.signal == Signal::Health {
            return Err(format!("policy.gates[{at}] is a second one on health; at most one"));
        }
    }
    Ok(())
}

pub(super) fn percent(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests;
