use super::*;
use proptest::prelude::{ProptestConfig, prop_assert, proptest};

fn observer(values: &[f32]) -> Observer {
    let mut observer = Observer::default();
    observer.extend(values);
    observer.count(values);
    observer
}

/// A bell of 20,000 values within two, and a single one far out.
fn bell_with_an_outlier() -> Vec<f32> {
    let bell = (0..20_000u16).map(|index| {
        let share = |step: u16| f32::from(index.wrapping_mul(step) % 1000) / 1000.0 - 0.5;
        share(7) + share(331) + share(77) + share(13)
    });
    bell.chain([40.0]).collect()
}

#[test]
fn rules_that_leave_out_outliers_give_narrower_ranges() {
    let observer = observer(&bell_with_an_outlier());
    let high = |rule| observer.range(rule).1;
    assert!((high(Calibrator::MinMax) - 40.0).abs() < 1e-6);
    assert!(high(Calibrator::Percentile { tail_ppm: 100 }) < 3.0);
    assert!(
        high(Calibrator::Percentile { tail_ppm: 1000 }) <= high(Calibrator::Percentile { tail_ppm: 100 })
    );
    assert!(high(Calibrator::Entropy) < 10.0, "{}", high(Calibrator::Entropy));
    assert!(high(Calibrator::Mse) < 40.0);
}

#[test]
fn the_entropy_rule_keeps_the_whole_of_an_even_distribution() {
    let even: Vec<f32> = (0..4096u16).map(|index| f32::from(index) / 4096.0).collect();
    let (low, high) = observer(&even).range(Calibrator::Entropy);
    assert!(low.abs() < 1e-3 && high > 0.95, "{low} to {high}");
}

#[test]
fn each_rule_has_a_name_of_its_own() {
    let names: Vec<String> = Calibrator::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(
        names,
        ["min-max", "percentile 99.999", "percentile 99.99", "percentile 99.9", "mse", "entropy"]
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_rule_stays_within_what_was_seen(values in proptest::collection::vec(-100f32..100.0, 1..200)) {
        let observer = observer(&values);
        let (least, most) = observer.range(Calibrator::MinMax);
        for rule in Calibrator::ALL {
            let (low, high) = observer.range(rule);
            let slack = (most - least) * 1e-5 + 1e-6;
            prop_assert!(low.min(0.0) >= least.min(0.0) - slack && high.max(0.0) <= most.max(0.0) + slack, "{rule}: {low} to {high}");
            prop_assert!(Affine::from_range(low.min(high), high.max(low)).is_ok());
        }
    }
}
