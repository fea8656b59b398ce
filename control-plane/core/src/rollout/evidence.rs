//! What gates are judged by.

use super::{
    Member, MemberState, Policy,
    gate::{Gate, Reading, Scope, Signal, Verdict},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// So many of so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    pub hits: u64,
    pub of: u64,
}

impl Sample {
    fn plus(self, other: Self) -> Self {
        Self { hits: self.hits.saturating_add(other.hits), of: self.of.saturating_add(other.of) }
    }
}

/// What was stored for one gate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Of the version, by the wave of the device that said so.
    pub waves: BTreeMap<u32, Sample>,
    /// Of what was in the slot before, on any member.
    pub before: Sample,
}

/// What is known beside the members: of each gate of the policy, in its order, what was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    Stored(Vec<Stored>),
    /// As good as it can be: for a look at what would come.
    Favourable,
}

impl Default for Evidence {
    fn default() -> Self {
        Self::Stored(Vec::new())
    }
}

/// What a wave has shown to a gate.
fn of_wave(gate: &Gate, stored: Option<&Stored>, members: &[Member], wave: u32) -> Sample {
    let members = || members.iter().filter(|member| member.wave == wave);
    let count = |state| members().filter(|member| member.state == state).count() as u64;
    match gate.signal {
        Signal::InstallSuccess => {
            let (hits, failed) = (count(MemberState::Committed), count(MemberState::Failed));
            Sample { hits, of: hits + failed }
        }
        Signal::Health => {
            let looked_at = members().filter_map(|member| member.healthy);
            looked_at.fold(Sample::default(), |sum, well| sum.plus(Sample { hits: u64::from(well), of: 1 }))
        }
        Signal::Agreement => {
            let trials = members().filter_map(|member| member.trial);
            trials.fold(Sample::default(), |sum, trial| {
                sum.plus(Sample { hits: trial.agreed.min(trial.compared), of: trial.compared })
            })
        }
        Signal::Latency | Signal::ErrorRate | Signal::Ctr | Signal::Conversion | Signal::Drift => {
            let sample = stored.and_then(|stored| stored.waves.get(&wave)).copied().unwrap_or_default();
            Sample { hits: sample.hits.min(sample.of), of: sample.of }
        }
    }
}

/// Reads every gate behind `wave`.
pub(super) fn read(policy: &Policy, evidence: &Evidence, members: &[Member], wave: u32) -> Vec<Reading> {
    let waves = u32::try_from(policy.waves.len()).unwrap_or(u32::MAX);
    let read = |(at, gate): (usize, &Gate)| {
        let stored = match evidence {
            Evidence::Stored(stored) => stored.get(at),
            Evidence::Favourable if gate.signal.counts_devices() => None,
            Evidence::Favourable => return assumed(at, gate, wave),
        };
        let own = of_wave(gate, stored, members, wave);
        let (sample, tests) = match gate.scope {
            Scope::Wave => (own, waves),
            Scope::Rollout => {
                let before = (0..wave).map(|wave| of_wave(gate, stored, members, wave));
                (before.fold(own, Sample::plus), 1)
            }
        };
        let before = stored.map(|stored| stored.before).unwrap_or_default();
        let (mut verdict, mut text) = gate.judge(sample, before, tests);
        let shows = members.iter().any(|member| member.wave == wave && member.state != MemberState::Skipped);
        match verdict {
            Verdict::Open if shows && own.of < gate.wave_min => {
                verdict = Verdict::More;
                text = format!("{text}; wave {} has shown {} of {}", wave + 1, own.of, gate.wave_min);
            }
            // A wave in which nobody is left has nothing to show.
            Verdict::More if !shows => verdict = Verdict::Open,
            Verdict::Open | Verdict::Stop | Verdict::More => {}
        }
        Reading { gate: at, signal: gate.signal, wave, verdict, hits: sample.hits, of: sample.of, text }
    };
    policy.gates.iter().enumerate().map(read).collect()
}

fn assumed(at: usize, gate: &Gate, wave: u32) -> Reading {
    let text = format!("{}: taken as good", gate.signal);
    Reading { gate: at, signal: gate.signal, wave, verdict: Verdict::Open, hits: 0, of: 0, text }
}
