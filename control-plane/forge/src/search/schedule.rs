//! When a search does what. Every method takes the same number of weight steps for one budget.

use crate::optim;

/// Share of additional weight steps before the architecture moves: young convolutions would lose to skips.
const WARM_UP_SHARE: f64 = 0.2;
/// Share of additional weight steps after the architecture has been decided.
const SETTLE_SHARE: f64 = 0.1;
const WEIGHT_RATE: f64 = 0.05;

/// Weight steps by number, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    /// Steps before the architecture moves.
    pub warm_up: u64,
    /// Steps in which it does.
    pub arch: u64,
    /// All steps; in those that are left it has been decided.
    pub total: u64,
}

impl Schedule {
    /// `arch` is [`shared::job::Budget::search_steps`].
    pub(super) fn new(arch: u32) -> Self {
        let more = |share: f64| (f64::from(arch) * share).ceil() as u64;
        let (warm_up, arch) = (more(WARM_UP_SHARE), u64::from(arch));
        Self { warm_up, arch, total: warm_up + arch + more(SETTLE_SHARE) }
    }

    /// The architecture step that goes with a weight step: 0 in the warm-up, [`Self::arch`] and more once it is over.
    pub(super) fn arch_step(self, step: u64) -> u64 {
        step.saturating_sub(self.warm_up)
    }

    pub(super) fn is_decided(self, step: u64) -> bool {
        self.arch_step(step) >= self.arch
    }

    pub(super) fn moves(self, step: u64) -> bool {
        step >= self.warm_up && !self.is_decided(step)
    }

    /// How far the architecture has come, 0 to 1.
    pub(super) fn position(self, step: u64) -> f64 {
        (self.arch_step(step) as f64 / self.arch as f64).min(1.0)
    }

    /// Learning rate of the weights in a run of `total` steps.
    pub(super) fn rate(step: u64, total: u64) -> f64 {
        optim::one_cycle(WEIGHT_RATE, step, total, 0.1).max(WEIGHT_RATE * 0.02)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_architecture_moves_between_warm_up_and_settling() {
        let schedule = Schedule::new(20);
        assert_eq!(schedule, Schedule { warm_up: 4, arch: 20, total: 26 });
        let moving: Vec<u64> = (0..26).filter(|step| schedule.moves(*step)).collect();
        assert_eq!(moving, (4..24).collect::<Vec<_>>());
        assert_eq!((0..26).filter(|step| schedule.is_decided(*step)).collect::<Vec<_>>(), [24, 25]);
        assert_eq!([0, 4, 14, 24, 25].map(|step| schedule.position(step)), [0.0, 0.0, 0.5, 1.0, 1.0]);
        assert!((0..26).all(|step| Schedule::rate(step, 26) > 0.0));
    }
}
