use super::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn sample(hits: u64, of: u64) -> Sample {
    Sample { hits, of }
}

fn verdict(gate: &Gate, hits: u64, of: u64) -> Verdict {
    gate.judge(sample(hits, of), Sample::default(), 1).0
}

#[test]
fn opens_on_enough_that_is_good_and_stops_on_enough_that_is_bad() {
    let errors = Gate::new(Signal::ErrorRate, 0.02);
    let needed = errors.needed();
    assert_eq!(verdict(&errors, 0, needed - 1), Verdict::More);
    assert_eq!(verdict(&errors, 0, needed), Verdict::Open);
    assert_eq!(verdict(&errors, 40, 400), Verdict::Stop);
    assert_eq!(verdict(&errors, 8, 400), Verdict::More, "two in a hundred is the limit itself");
    let ctr = Gate::new(Signal::Ctr, 0.3);
    assert_eq!(verdict(&ctr, 0, 0), Verdict::More);
    assert_eq!(verdict(&ctr, 450, 1000), Verdict::Open);
    assert_eq!(verdict(&ctr, 150, 1000), Verdict::Stop);
    let (_, text) = ctr.judge(sample(450, 1000), Sample::default(), 1);
    assert!(text.starts_with("ctr: 450 of 1000 impressions were clicked, a share of "), "{text}");
    assert!(text.contains("(95 % sure)") && text.ends_with("at least 30 % is asked"), "{text}");
}

#[test]
fn a_share_is_compared_with_that_of_the_version_before() {
    let gate = Gate { max: None, worse_by_max: Some(0.02), ..Gate::new(Signal::ErrorRate, 0.5) };
    let judge = |new, before| gate.judge(new, before, 1).0;
    assert_eq!(judge(sample(30, 3000), sample(0, 0)), Verdict::More, "nothing to compare with");
    assert_eq!(judge(sample(400, 20_000), sample(400, 20_000)), Verdict::Open);
    assert_eq!(judge(sample(500, 5000), sample(100, 5000)), Verdict::Stop);
    assert_eq!(judge(sample(4, 50), sample(100, 5000)), Verdict::More);
    let ctr = Gate { min: None, worse_by_max: Some(0.05), ..Gate::new(Signal::Ctr, 0.5) };
    assert_eq!(ctr.judge(sample(6000, 20_000), sample(6000, 20_000), 1).0, Verdict::Open);
    assert_eq!(ctr.judge(sample(500, 5000), sample(1500, 5000), 1).0, Verdict::Stop);
}

/// Of many rollouts of a version with such a share, each looked at after every batch until its gate decides: the shares
/// that were stopped and opened.
fn decided(gate: &Gate, seed: u64, share: f64, before: Option<f64>) -> (f64, f64) {
    const RUNS: u32 = 300;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (mut stopped, mut opened) = (0, 0);
    for _ in 0..RUNS {
        let (mut new, mut old) = (Sample::default(), Sample::default());
        for _ in 0..80 {
            for (sample, share) in [(&mut new, Some(share)), (&mut old, before)] {
                let Some(share) = share else { continue };
                let batch = random.random_range(1..60);
                sample.of += batch;
                sample.hits += (0..batch).map(|_| u64::from(random.random_bool(share))).sum::<u64>();
            }
            match gate.judge(new, old, 1).0 {
                Verdict::More => continue,
                Verdict::Stop => stopped += 1,
                Verdict::Open => opened += 1,
            }
            break;
        }
    }
    (f64::from(stopped) / f64::from(RUNS), f64::from(opened) / f64::from(RUNS))
}

#[test]
fn opens_and_stops_wrongly_as_rarely_as_it_says() {
    let errors = [(0.05, 0.05), (0.2, 0.1)];
    for (at, (false_stop, false_open)) in errors.into_iter().enumerate() {
        let gate = Gate { false_stop, false_open, ..Gate::new(Signal::ErrorRate, 0.05) };
        let seed = at as u64 * 10;
        // Three standard deviations of 300 runs.
        let allowed = |error: f64| error + 3.0 * (error * (1.0 - error) / 300.0).sqrt();
        // Just within the limit, and just beyond it: where a wrong decision is nearest.
        let (stopped, _) = decided(&gate, seed, 0.05, None);
        assert!(stopped <= allowed(false_stop), "{stopped}");
        let (_, opened) = decided(&gate, seed + 1, 0.0501, None);
        assert!(opened <= allowed(false_open), "{opened}");
        // Far from it the right decision comes in time.
        assert!(decided(&gate, seed + 2, 0.01, None).1 > 0.95);
        assert!(decided(&gate, seed + 3, 0.15, None).0 > 0.95);
        let gate = Gate { max: None, worse_by_max: Some(0.1), ..gate };
        let (stopped, _) = decided(&gate, seed + 4, 0.3, Some(0.2));
        assert!(stopped <= allowed(false_stop), "{stopped}");
        let (_, opened) = decided(&gate, seed + 5, 0.3001, Some(0.2));
        assert!(opened <= allowed(false_open), "{opened}");
    }
}

#[test]
fn every_field_out_of_range_is_named_with_what_is_allowed() {
    let trial = TrialPolicy::default();
    let good = Gate::new(Signal::ErrorRate, 0.02);
    validate(std::slice::from_ref(&good), 2, &trial).unwrap();
    let ctr = Gate::new(Signal::Ctr, 0.1);
    let health = Gate::new(Signal::Health, 0.9);
    for (gate, says) in [
        (Gate { max: None, ..good.clone() }, "takes one limit, `max` or `worse_by_max`"),
        (Gate { min: Some(0.1), ..good.clone() }, "takes one limit"),
        (Gate { worse_by_max: Some(0.1), ..good.clone() }, "takes one limit"),
        (Gate { max: Some(0.0), ..good.clone() }, "max is 0, allowed are shares over 0 and below 1"),
        (Gate { max: Some(f64::NAN), ..good.clone() }, "max is NaN"),
        (Gate { max: Some(1e-12), ..good.clone() }, "no number of observations is enough"),
        (Gate { false_stop: 0.0, ..good.clone() }, "false_stop is 0, allowed are over 0 to 0.5"),
        (Gate { false_open: 0.6, ..good.clone() }, "false_open is 0.6"),
        (Gate { from_wave: 0, ..good.clone() }, "from_wave is 0, allowed are 1 to 2"),
        (Gate { from_wave: 3, ..good.clone() }, "from_wave is 3"),
        (Gate { wave_min: 0, ..good.clone() }, "wave_min is 0"),
        (Gate { wait_ms: 0, ..good.clone() }, "wait_ms is 0, allowed are 1 to"),
        (Gate { wait_ms: WAIT_MS_MAX + 1, ..good.clone() }, "wait_ms is"),
        (Gate { p99_us_max: Some(5), ..good.clone() }, "p99_us_max is nothing that it takes"),
        (Gate { settle_ms: Some(5), ..good.clone() }, "settle_ms is nothing that it takes"),
        (Gate { before_ms: Some(5), ..good.clone() }, "before_ms is nothing that it takes"),
        (Gate { restarts_max: Some(5), ..good.clone() }, "restarts_max is nothing that it takes"),
        (Gate { p99_us_max: None, ..Gate::new(Signal::Latency, 0.1) }, "needs `p99_us_max`"),
        (Gate { wait_ms: 60_000, ..ctr }, "with settle_ms = 60000 nothing is there in time; at least 60001"),
        (Gate { after_ms: Some(WAIT_MS_MAX), ..health.clone() }, "nothing is there in time"),
    ] {
        let error = validate(&[gate], 2, &trial).unwrap_err();
        assert!(error.starts_with("policy.gates[0], ") && error.contains(says), "{error}");
    }
    let twice = validate(&[health.clone(), health], 2, &trial).unwrap_err();
    assert!(twice.contains("a second one on health"), "{twice}");
    let silent = TrialPolicy { agreement_permille_min: None, ..trial };
    let error = validate(&[Gate::new(Signal::Agreement, 0.9)], 2, &silent).unwrap_err();
    assert!(error.contains("trial.agreement_permille_min"), "{error}");
}
