//! How a device behaves: drawn once from the seed and its number, so that a run can be repeated and its outcome reckoned.

use shared::{Timestamp, backoff::Jitter};

/// Shares of the fleet, 0 to 1, that behave badly in one way or another.
#[derive(Clone, Copy, Debug, Default, PartialEq, clap::Args)]
pub struct Faults {
    /// Share of devices whose network comes and goes
    #[arg(long = "offline", value_name = "P", default_value_t = 0.0, value_parser = share)]
    pub offline: f64,
    /// Share of devices on which everything takes seconds
    #[arg(long = "slow", value_name = "P", default_value_t = 0.0, value_parser = share)]
    pub slow: f64,
    /// Share of devices on which no version gives its golden outputs
    #[arg(long = "failing-selftest", value_name = "P", default_value_t = 0.0, value_parser = share)]
    pub failing_selftest: f64,
    /// Share of devices on which every version fails its trial
    #[arg(long = "failing-trial", value_name = "P", default_value_t = 0.0, value_parser = share)]
    pub failing_trial: f64,
    /// Share of devices whose clock is wrong, by a day or by decades
    #[arg(long = "bad-clock", value_name = "P", default_value_t = 0.0, value_parser = share)]
    pub bad_clock: f64,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(format!("{text:?} is no share, allowed are 0 to 1")),
    }
}

/// One device's behaviour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Character {
    pub comes_and_goes: bool,
    pub is_slow: bool,
    /// Before anything else goes wrong with a version.
    pub fails_selftest: bool,
    pub fails_trial: bool,
    /// How far its wall clock is ahead, negative where it is behind.
    pub clock_ahead_ms: i64,
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// In the seventies, as of a board without a battery; a day either way; ten years on.
const CLOCKS_MS: [i64; 4] = [-50 * 365 * DAY_MS, -DAY_MS, DAY_MS, 10 * 365 * DAY_MS];

impl Character {
    /// That of device `number` in a fleet with these faults.
    pub fn draw(faults: &Faults, seed: u64, number: u64) -> Self {
        let mut lots = Jitter::new(seed ^ Jitter::new(number).next_u64());
        // Each is drawn whatever the others are: another share of one fault leaves the others as they were.
        let mut is = |share: f64| unit(&mut lots) < share;
        let (comes_and_goes, is_slow) = (is(faults.offline), is(faults.slow));
        let (fails_selftest, fails_trial) = (is(faults.failing_selftest), is(faults.failing_trial));
        let bad_clock = is(faults.bad_clock);
        let clock = usize::try_from(lots.next_u64() % CLOCKS_MS.len() as u64).unwrap_or(0);
        let clock_ahead_ms = if bad_clock { CLOCKS_MS[clock] } else { 0 };
        Self { comes_and_goes, is_slow, fails_selftest, fails_trial, clock_ahead_ms }
    }

    /// Does every version end well on it?
    pub fn is_healthy(&self) -> bool {
        !self.fails_selftest && !self.fails_trial
    }

    /// What its wall clock shows.
    pub fn wall(&self, now: Timestamp) -> Timestamp {
        Timestamp(now.0.saturating_add_signed(self.clock_ahead_ms))
    }
}

/// The next number from 0 to below 1.
#[expect(clippy::cast_precision_loss)]
pub fn unit(lots: &mut Jitter) -> f64 {
    (lots.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// The next of `from..to` milliseconds.
pub fn between_ms(lots: &mut Jitter, from: u64, to: u64) -> u64 {
    from + lots.next_u64() % (to.saturating_sub(from)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_kept_and_the_seed_says_who() {
        let faults = Faults { failing_trial: 0.1, bad_clock: 0.5, ..Faults::default() };
        let fleet =
            |seed| (1..=4000).map(|number| Character::draw(&faults, seed, number)).collect::<Vec<_>>();
        let drawn = fleet(7);
        assert_eq!(drawn, fleet(7));
        assert_ne!(drawn, fleet(8));
        let count = |is: &dyn Fn(&Character) -> bool| drawn.iter().filter(|one| is(one)).count();
        assert!((320..480).contains(&count(&|one| one.fails_trial)));
        assert!((1850..2150).contains(&count(&|one| one.clock_ahead_ms != 0)));
        assert_eq!(count(&|one| one.fails_selftest || one.is_slow || one.comes_and_goes), 0);
        assert_eq!(count(&Character::is_healthy) + count(&|one| one.fails_trial), 4000);
    }

    #[test]
    fn more_of_one_fault_leaves_the_others_where_they_were() {
        let some = Faults { failing_trial: 0.1, ..Faults::default() };
        let more = Faults { offline: 0.3, slow: 0.3, failing_selftest: 0.2, ..some };
        for number in 1..500 {
            let fails = |faults| Character::draw(&faults, 3, number).fails_trial;
            assert_eq!(fails(some), fails(more));
        }
    }

    #[test]
    fn a_clock_before_the_epoch_shows_the_epoch() {
        let character = Character { clock_ahead_ms: i64::MIN, ..Character::default() };
        assert_eq!(character.wall(Timestamp(1_700_000_000_000)), Timestamp(0));
        assert_eq!(Character::default().wall(Timestamp(5)), Timestamp(5));
        assert_eq!(share("1.5").unwrap_err(), "\"1.5\" is no share, allowed are 0 to 1");
        assert_eq!(share("0.25"), Ok(0.25));
    }
}
