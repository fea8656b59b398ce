//! Bounds on a share that hold at every look, however often and whenever somebody looks.
//!
//! Of independent trials with one probability p, the chance that `(n + 1) Bin(s; n, p)` is ever at or below `e`, at
//! whatever n, is at most `e` (Robbins 1970, "Statistical methods related to the law of the iterated logarithm"): it is
//! one over the likelihood ratio of the uniform mixture to p, a martingale, which Ville's inequality bounds. The bounds
//! here use half of `e`, and stay on one side of the mode and the mean of the posterior, so that at least half of the
//! mixture lies beyond the bound: then the statement holds for trials whose probability changes, too, as long as each
//! given all before is on the stated side.

/// Halvings of an interval until nothing smaller matters.
const HALVINGS: usize = 60;
/// More trials than this are not asked of anybody.
const NEEDED_MAX: u64 = 1_000_000_000;

/// The share is above this, except with probability `error` over all looks together; zero without a hit.
pub(super) fn lower(hits: u64, of: u64, error: f64) -> f64 {
    let hits = hits.min(of);
    if hits == 0 {
        return 0.0;
    }
    let (s, n) = (hits as f64, of as f64);
    let top = (s / n).min((s + 1.0) / (n + 2.0));
    let target = (error / 2.0).ln();
    let ways = (n + 1.0).ln() + libm::lgamma(n + 1.0) - libm::lgamma(s + 1.0) - libm::lgamma(n - s + 1.0);
    let ln = |p: f64| ways + s * p.ln() + if hits == of { 0.0 } else { (n - s) * (-p).ln_1p() };
    if ln(top) <= target {
        return top;
    }
    // Rises up to the observed share.
    let (mut low, mut high) = (0.0, top);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if ln(middle) <= target {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// The share is below this, except with probability `error` over all looks together; one where all hit.
pub(super) fn upper(hits: u64, of: u64, error: f64) -> f64 {
    1.0 - lower(of.saturating_sub(hits), of, error)
}

/// Trials without a hit after which the share is at most `limit` by [`upper`]; none where no number is enough.
pub(super) fn needed(limit: f64, error: f64) -> Option<u64> {
    let enough = |of: u64| upper(0, of, error) <= limit;
    let mut high = 1;
    while !enough(high) {
        high *= 2;
        if high > NEEDED_MAX {
            return None;
        }
    }
    let mut low = high / 2;
    while low + 1 < high {
        let middle = u64::midpoint(low, high);
        if enough(middle) { high = middle } else { low = middle }
    }
    Some(high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn without_a_trial_nothing_is_known() {
        assert_eq!((lower(0, 0, 0.05), upper(0, 0, 0.05)), (0.0, 1.0));
        assert_eq!((lower(0, 50, 0.05), upper(50, 50, 0.05)), (0.0, 1.0));
    }

    #[test]
    fn the_bound_is_where_the_formula_says() {
        // 41 trials without a hit: 42 (1 - p)^41 = 0.025.
        let expected = 1.0 - (0.025_f64 / 42.0).powf(1.0 / 41.0);
        assert!((upper(0, 41, 0.05) - expected).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn bounds_enclose_the_share_and_close_in(of in 1u64..5000, share in 0.0f64..=1.0, error in 0.001f64..0.5) {
            let hits = (share * of as f64).round() as u64;
            let share = hits as f64 / of as f64;
            let (low, high) = (lower(hits, of, error), upper(hits, of, error));
            prop_assert!(0.0 <= low && low <= share + 1e-12 && share <= high + 1e-12 && high <= 1.0, "{low} {high}");
            let (low_10, high_10) = (lower(hits * 10, of * 10, error), upper(hits * 10, of * 10, error));
            prop_assert!(high_10 - low_10 <= high - low + 1e-9);
            prop_assert!(lower(hits, of, error / 2.0) <= low + 1e-12);
        }

        #[test]
        fn needed_is_the_first_number_that_is_enough(limit in 0.001f64..0.9, error in 0.001f64..0.5) {
            let of = needed(limit, error).unwrap();
            prop_assert!(upper(0, of, error) <= limit);
            prop_assert!(of == 1 || upper(0, of - 1, error) > limit);
        }
    }

    /// Share of runs in which the true share is ever outside a bound, looked at after every trial.
    fn ever_wrong(seed: u64, share: impl Fn(u64) -> f64, side: impl Fn(u64, u64) -> bool) -> f64 {
        const RUNS: u64 = 400;
        const TRIALS: u64 = 1500;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let wrong = (0..RUNS).filter(|_| {
            let mut hits = 0;
            (1..=TRIALS).any(|of| {
                hits += u64::from(random.random_bool(share(of)));
                // Looks come at growing distances: a bound that holds at all holds at these.
                (of < 64 || of % 16 == 0) && side(hits, of)
            })
        });
        wrong.count() as f64 / RUNS as f64
    }

    #[test]
    fn the_stated_probability_holds_over_all_looks() {
        for (seed, share) in [(1, 0.02), (2, 0.3), (3, 0.5), (4, 0.97)] {
            for error in [0.05, 0.2] {
                let above = ever_wrong(seed, |_| share, |hits, of| lower(hits, of, error) > share);
                let below = ever_wrong(seed, |_| share, |hits, of| upper(hits, of, error) < share);
                // Three standard deviations of 400 runs.
                let allowed = error + 3.0 * (error * (1.0 - error) / 400.0).sqrt();
                assert!(above <= allowed && below <= allowed, "{share} {error}: {above} {below}");
            }
        }
    }

    #[test]
    fn it_holds_for_a_share_that_changes_below_the_limit() {
        let limit = 0.2;
        let share = |of: u64| if of % 200 < 100 { 0.01 } else { limit };
        let wrong = ever_wrong(5, share, |hits, of| lower(hits, of, 0.1) > limit);
        assert!(wrong <= 0.1 + 3.0 * (0.09_f64 / 400.0).sqrt(), "{wrong}");
    }
}
