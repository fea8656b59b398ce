//! Whether a version has proved itself: the rule of [`shared::wire::TrialPolicy`] over what was counted.

use crate::latency::Histogram;
use shared::wire::TrialPolicy;

/// What was seen of a version while its trial ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    pub requests: u64,
    pub failed: u64,
    /// Requests that were also asked of the version before.
    pub compared: u64,
    /// Of those, the ones on which both gave the same top label.
    pub agreed: u64,
    /// Of one inference.
    pub latency: Histogram,
}

/// What the statistics say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Too early to tell.
    Undecided,
    Passed,
    /// The trial is over and nobody asked: the golden inputs decide.
    AskGolden,
    /// With the numbers.
    Failed(String),
}

/// Judges a trial; `ended` once its time is over.
pub fn judge(policy: &TrialPolicy, statistics: &Statistics, ended: bool) -> Verdict {
    if (ended || statistics.requests >= policy.requests_min)
        && let Some(broken) = broken_bound(policy, statistics, ended)
    {
        return Verdict::Failed(broken);
    }
    match (ended, statistics.requests) {
        (false, _) => Verdict::Undecided,
        (true, 0) => Verdict::AskGolden,
        (true, _) => Verdict::Passed,
    }
}

fn broken_bound(policy: &TrialPolicy, statistics: &Statistics, ended: bool) -> Option<String> {
    let Statistics { requests, failed, compared, agreed, latency } = statistics;
    if failed.saturating_mul(1000) > requests.saturating_mul(policy.failed_permille_max.into()) {
        let allowed = policy.failed_permille_max;
        return Some(format!("{failed} of {requests} requests failed, allowed are {allowed} in a thousand"));
    }
    if let (Some(p99_us), Some(max_us)) = (latency.quantile_us(0.99), policy.latency_p99_us_max)
        && p99_us > max_us
    {
        return Some(format!("p99 of {requests} inferences is {p99_us} us, allowed are {max_us} us"));
    }
    let enough = ended || *compared >= policy.requests_min.max(1);
    if let (Some(min), true) = (policy.agreement_permille_min, enough && *compared > 0)
        && agreed.saturating_mul(1000) < compared.saturating_mul(min.into())
    {
        return Some(format!(
            "agrees with the version before on {agreed} of {compared} requests, at least {min} in a thousand are asked"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy() -> TrialPolicy {
        TrialPolicy {
            duration_ms: 1000,
            requests_min: 20,
            failed_permille_max: 10,
            latency_p99_us_max: Some(1000),
            agreement_permille_min: Some(700),
        }
    }

    fn seen(requests: u64, failed: u64, compared: u64, agreed: u64) -> Statistics {
        Statistics { requests, failed, compared, agreed, latency: Histogram::new() }
    }

    #[test]
    fn fails_at_once_when_enough_requests_break_a_bound() {
        assert!(matches!(judge(&policy(), &seen(20, 1, 0, 0), false), Verdict::Failed(_)));
        assert_eq!(judge(&policy(), &seen(19, 19, 0, 0), false), Verdict::Undecided);
        assert!(matches!(judge(&policy(), &seen(20, 0, 20, 13), false), Verdict::Failed(_)));
        assert_eq!(judge(&policy(), &seen(20, 0, 20, 14), false), Verdict::Undecided);
    }

    #[test]
    fn few_compared_requests_condemn_only_at_the_end() {
        assert_eq!(judge(&policy(), &seen(200, 0, 2, 0), false), Verdict::Undecided);
        assert!(matches!(judge(&policy(), &seen(200, 0, 2, 0), true), Verdict::Failed(_)));
    }

    #[test]
    fn at_the_end_few_requests_are_enough_to_fail() {
        assert!(matches!(judge(&policy(), &seen(1, 1, 0, 0), true), Verdict::Failed(_)));
        assert_eq!(judge(&policy(), &seen(1, 0, 0, 0), true), Verdict::Passed);
    }

    #[test]
    fn without_a_request_the_golden_inputs_decide() {
        assert_eq!(judge(&policy(), &seen(0, 0, 0, 0), true), Verdict::AskGolden);
    }

    #[test]
    fn a_slow_version_fails_with_its_numbers() {
        let mut statistics = seen(20, 0, 0, 0);
        (0..20).for_each(|_| statistics.latency.record(5000));
        let Verdict::Failed(why) = judge(&policy(), &statistics, false) else { panic!("passed") };
        assert!(why.contains("p99") && why.contains("1000"), "{why}");
    }

    proptest! {
        #[test]
        fn passing_needs_every_bound_kept(requests in 0u64..100, failed in 0u64..100, compared in 0u64..100, agreed in 0u64..100) {
            let (failed, agreed) = (failed.min(requests), agreed.min(compared));
            let kept = failed * 1000 <= requests * 10 && (compared == 0 || agreed * 1000 >= compared * 700);
            match judge(&policy(), &seen(requests, failed, compared, agreed), true) {
                Verdict::Passed => prop_assert!(kept && requests > 0),
                Verdict::AskGolden => prop_assert!(kept && requests == 0),
                Verdict::Failed(_) => prop_assert!(!kept),
                Verdict::Undecided => prop_assert!(false, "a trial that has ended is decided"),
            }
        }
    }
}
