//! The time that expiry is measured by: what signed metadata says, carried on by a clock that only counts.
//!
//! A board's wall clock may show 1970 or 2106, may step, or may not be there. None of it reaches this module: the
//! time is the latest signed time that was seen, plus what a monotonic clock has counted since. Metadata that the
//! offline keys signed (root, targets) is taken at its word. What the online keys signed (timestamp, snapshot)
//! counts up to the expiry of the root, so that a stolen online key cannot push the time beyond what the offline keys
//! vouch for; a root that replaces the online keys takes back what the old ones said.
//!
//! Time in which the device was off is not counted, so the time may lag behind the real one until the device hears
//! something newer. It runs ahead of what was signed by what the clock counted, and no more.

use serde::{Deserialize, Serialize};
use shared::{Digest, Timestamp};

/// What accepted metadata says about the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedTime {
    /// The latest time that the offline keys signed.
    pub offline: Timestamp,
    /// The latest time that the online keys signed, at most the expiry of the root.
    pub online: Timestamp,
    /// Stands for the set of online keys.
    pub online_keys: Digest,
}

impl SignedTime {
    /// The later of the two.
    #[cfg(test)]
    pub(crate) fn latest(&self) -> Timestamp {
        self.offline.max(self.online)
    }
}

/// What a device keeps of the time over a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    offline: Timestamp,
    online: Timestamp,
    online_keys: Option<Digest>,
}

/// The time that expiry is measured by. It goes back in one case alone: a root with other online keys.
#[derive(Clone, Debug)]
pub struct TrustedTime {
    /// As of `uptime_ms`.
    at: Saved,
    uptime_ms: u64,
}

impl TrustedTime {
    /// Goes on from `saved`. Every `uptime_ms` here and below is of one monotonic clock of this boot, in
    /// milliseconds; where it begins does not matter.
    pub fn restore(saved: Saved, uptime_ms: u64) -> Self {
        Self { at: saved, uptime_ms }
    }

    /// Takes in what accepted metadata says.
    pub fn observe(&mut self, signed: SignedTime, uptime_ms: u64) {
        let mut at = self.saved(uptime_ms);
        if at.online_keys != Some(signed.online_keys) {
            at.online = Timestamp(0);
            at.online_keys = Some(signed.online_keys);
        }
        at.offline = at.offline.max(signed.offline);
        at.online = at.online.max(signed.online);
        self.at = at;
        self.uptime_ms = self.uptime_ms.max(uptime_ms);
    }

    /// The time.
    pub fn now(&self, uptime_ms: u64) -> Timestamp {
        let at = self.saved(uptime_ms);
        at.offline.max(at.online)
    }

    /// What to keep over a restart.
    pub fn saved(&self, uptime_ms: u64) -> Saved {
        let since_ms = uptime_ms.saturating_sub(self.uptime_ms);
        // A time that was never signed does not begin to run.
        let later = |time: Timestamp| if time.0 == 0 { time } else { time.plus_ms(since_ms) };
        Saved { offline: later(self.at.offline), online: later(self.at.online), ..self.at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn signed(offline: u64, online: u64, keys: u8) -> SignedTime {
        SignedTime {
            offline: Timestamp(offline),
            online: Timestamp(online),
            online_keys: Digest::from([keys; 32]),
        }
    }

    #[test]
    fn runs_on_from_the_latest_signed_time() {
        let mut time = TrustedTime::restore(Saved::default(), 500);
        assert_eq!(time.now(900), Timestamp(0));
        time.observe(signed(10_000, 12_000, 1), 1_000);
        assert_eq!(time.now(1_000), Timestamp(12_000));
        assert_eq!(time.now(4_000), Timestamp(15_000));
        time.observe(signed(20_000, 12_000, 1), 4_000);
        assert_eq!(time.now(4_500), Timestamp(20_500));
    }

    #[test]
    fn goes_on_over_a_restart_with_another_monotonic_clock() {
        let mut time = TrustedTime::restore(Saved::default(), 0);
        time.observe(signed(10_000, 12_000, 1), 100_000);
        let text = serde_json::to_string(&time.saved(103_000)).unwrap();
        let time = TrustedTime::restore(serde_json::from_str(&text).unwrap(), 7);
        assert_eq!(time.now(7), Timestamp(15_000));
        assert_eq!(time.now(8), Timestamp(15_001));
    }

    #[test]
    fn other_online_keys_take_back_what_the_stolen_ones_said() {
        let mut time = TrustedTime::restore(Saved::default(), 0);
        time.observe(signed(10_000, 900_000, 1), 0);
        assert_eq!(time.now(1_000), Timestamp(901_000));
        time.observe(signed(11_000, 0, 2), 1_000);
        assert_eq!(time.now(1_000), Timestamp(11_000), "one second after 10,000 and the new root agree");
        time.observe(signed(11_000, 13_000, 2), 2_000);
        assert_eq!(time.now(2_000), Timestamp(13_000));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Observe(u64, u64, u8),
        Restart(u64),
        Pass(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (any::<u64>(), any::<u64>(), 0u8..3).prop_map(|(a, b, keys)| Step::Observe(a, b, keys)),
            (0u64..1_000_000, 0u64..1_000_000, 0u8..3).prop_map(|(a, b, keys)| Step::Observe(a, b, keys)),
            any::<u64>().prop_map(Step::Restart),
            (0u64..1_000_000).prop_map(Step::Pass),
        ];
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        #[test]
        fn never_goes_back_but_for_other_online_keys(steps in steps()) {
            let mut uptime_ms = 0u64;
            let mut time = TrustedTime::restore(Saved::default(), uptime_ms);
            for step in steps {
                let (before, at) = (time.now(uptime_ms), time.saved(uptime_ms));
                let mut floor = before;
                match step {
                    Step::Observe(offline, online, keys) => {
                        let signed = signed(offline, online, keys);
                        if at.online_keys != Some(signed.online_keys) {
                            floor = at.offline;
                        }
                        time.observe(signed, uptime_ms);
                        prop_assert_eq!(time.now(uptime_ms), floor.max(signed.latest()));
                    }
                    Step::Restart(begin_ms) => {
                        time = TrustedTime::restore(at, begin_ms);
                        uptime_ms = begin_ms;
                        prop_assert_eq!(time.now(uptime_ms), before);
                    }
                    Step::Pass(ms) => {
                        uptime_ms = uptime_ms.saturating_add(ms);
                        prop_assert!(time.now(uptime_ms).since_ms(before) <= ms);
                    }
                }
                prop_assert!(time.now(uptime_ms) >= floor);
            }
        }

        #[test]
        fn a_monotonic_clock_that_lies_cannot_turn_it_back(
            first in any::<u64>(), second in any::<u64>(), offline in any::<u64>(),
        ) {
            let mut time = TrustedTime::restore(Saved::default(), first);
            time.observe(signed(offline, 0, 0), first);
            let before = time.now(first);
            time.observe(signed(0, 0, 0), second);
            prop_assert!(time.now(second) >= before);
        }
    }
}
