//! The null runtime: takes every model and runs none; how that ends is up to the device's character.

use super::character::{Character, between_ms};
use agent_core::{trial::Statistics, update::SlotInput};
use shared::{
    Digest,
    backoff::Jitter,
    wire::{Refusal, VersionRef},
};

/// What it is called in reports.
pub const NAME: &str = "null";
/// What a slow device takes for a step.
const SLOW_MS: (u64, u64) = (2_000, 10_000);
/// Requests of a trial.
const REQUESTS: u64 = 40;
const LATENCY_US: u64 = 800;

/// How long the device takes for a step that loads or runs a model.
pub fn takes_ms(character: &Character, lots: &mut Jitter) -> u64 {
    if character.is_slow { between_ms(lots, SLOW_MS.0, SLOW_MS.1) } else { 0 }
}

/// The golden inputs were run.
pub fn tested(character: &Character, bundle: Digest) -> SlotInput {
    if character.fails_selftest {
        let detail = "the golden outputs differ on every runtime (simulated)".to_owned();
        return SlotInput::TestRefused { bundle, reason: Refusal::GoldenMismatch, detail };
    }
    SlotInput::Tested { bundle, runtime: NAME.to_owned() }
}

/// The version answers.
pub fn activated(bundle: Digest) -> SlotInput {
    SlotInput::Activated { bundle, runtime: NAME.to_owned() }
}

/// The time of a trial is over; `fallback` is the version before, if there is one.
pub fn concluded(character: &Character, bundle: Digest, fallback: Option<&VersionRef>) -> SlotInput {
    let mut statistics = Statistics { requests: REQUESTS, ..Statistics::default() };
    if character.fails_trial {
        statistics.failed = REQUESTS;
    } else {
        (0..REQUESTS).for_each(|_| statistics.latency.record(LATENCY_US));
        let compared = if fallback.is_some() { REQUESTS } else { 0 };
        (statistics.compared, statistics.agreed) = (compared, compared);
    }
    SlotInput::TrialConcluded { bundle, statistics: Box::new(statistics), golden: Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_core::trial::{Verdict, judge};
    use shared::wire::TrialPolicy;

    #[test]
    fn a_trial_passes_the_usual_policy_unless_the_device_fails_all() {
        for fails_trial in [false, true] {
            let character = Character { fails_trial, ..Character::default() };
            let SlotInput::TrialConcluded { statistics, .. } = concluded(&character, Digest::of(b"b"), None)
            else {
                panic!("no end of a trial")
            };
            let verdict = judge(&TrialPolicy::default(), &statistics, true);
            assert_eq!(matches!(verdict, Verdict::Failed(_)), fails_trial, "{verdict:?}");
        }
    }

    #[test]
    fn only_slow_devices_take_time() {
        let slow = Character { is_slow: true, ..Character::default() };
        let mut lots = Jitter::new(1);
        assert_eq!(takes_ms(&Character::default(), &mut lots), 0);
        assert!((0..100).all(|_| (SLOW_MS.0..SLOW_MS.1).contains(&takes_ms(&slow, &mut lots))));
    }
}
