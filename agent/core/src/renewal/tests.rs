use super::*;
use proptest::prelude::*;

const DAY_MS: u64 = 86_400_000;
const START: Timestamp = Timestamp(1_790_000_000_000);

fn week(from: Timestamp) -> Lifetime {
    Lifetime { not_before: from, not_after: from.plus_ms(7 * DAY_MS) }
}

fn at(ms: u64) -> Now {
    Now { wall: START.plus_ms(ms), monotonic: Timestamp(ms) }
}

/// Looks as often as it is told until it shall renew; when that is.
fn first_try(renewal: &Renewal, mut ms: u64, clock: impl Fn(u64) -> Now) -> u64 {
    for _ in 0..10_000 {
        match renewal.wait_ms(clock(ms)) {
            0 => return ms,
            wait_ms => ms += wait_ms,
        }
    }
    panic!("never");
}

proptest! {
    #[test]
    fn a_renewal_is_due_between_two_thirds_and_three_quarters_of_the_life(seed: u64, days in 1u64..=90) {
        let lifetime = Lifetime { not_before: START, not_after: START.plus_ms(days * DAY_MS) };
        let renewal = Renewal::new(lifetime, seed);
        let due_ms = first_try(&renewal, 0, at);
        let life_ms = days * DAY_MS;
        prop_assert!(due_ms >= life_ms / 3 * 2 && due_ms <= life_ms / 4 * 3, "{} of {}", due_ms, life_ms);
        prop_assert_eq!(renewal.standing(at(due_ms)), Standing::Due);
        prop_assert_eq!(renewal.standing(at(due_ms - 1)), Standing::Fresh);
    }

    #[test]
    fn no_clock_however_wrong_makes_it_renew_without_end(seed: u64, wall in prop_oneof![
        0u64..u64::MAX / 2,
        START.0..START.0 + 8 * DAY_MS,
    ]) {
        let clock = |ms: u64| Now { wall: Timestamp(wall).plus_ms(ms), monotonic: Timestamp(ms) };
        let mut renewal = Renewal::new(week(START), seed);
        let mut ms = 0;
        let mut tries = 0;
        while ms < 70 * DAY_MS {
            ms = first_try(&renewal, ms, clock);
            // The server's clock is right: its certificates follow each other.
            renewal.renewed(week(START.plus_ms(ms)), clock(ms));
            tries += 1;
        }
        // The first may come at once; each after that is there for half a week at least.
        prop_assert!(tries <= 2 + 70 * 2 / 7, "{} renewals", tries);
    }

    #[test]
    fn between_two_tries_is_never_less_than_the_first_wait_and_never_more_than_an_hour(seed: u64, fails in 1u32..40) {
        let mut renewal = Renewal::new(week(START), seed);
        let mut ms = first_try(&renewal, 0, at);
        for _ in 0..fails {
            renewal.failed(at(ms));
            let wait_ms = renewal.wait_ms(at(ms));
            prop_assert!((RETRY_MS / 2..=RETRY_MS_MAX).contains(&wait_ms), "{}", wait_ms);
            ms = first_try(&renewal, ms, at);
        }
    }
}

#[test]
fn a_clock_before_the_certificate_or_after_it_is_no_reason_not_to_try() {
    let renewal = Renewal::new(week(START), 1);
    let past = Now { wall: Timestamp(0), monotonic: Timestamp(0) };
    assert_eq!((renewal.wait_ms(past), renewal.standing(past)), (0, Standing::Due));
    let late = at(8 * DAY_MS);
    assert_eq!((renewal.wait_ms(late), renewal.standing(late)), (0, Standing::Expired));
}

#[test]
fn after_the_expiry_it_goes_on_trying() {
    let mut renewal = Renewal::new(week(START), 1);
    let mut ms = 8 * DAY_MS;
    let mut tries = 0;
    while ms < 9 * DAY_MS {
        ms = first_try(&renewal, ms, at);
        renewal.failed(at(ms));
        tries += 1;
    }
    assert!((24..60).contains(&tries), "{tries}");
}

#[test]
fn a_clock_that_is_put_right_is_noticed_within_an_hour() {
    let renewal = Renewal::new(week(START), 1);
    // Five days on, and the clock says it is the first.
    assert!(renewal.wait_ms(at(0)) <= LOOK_MS);
    assert_eq!(renewal.wait_ms(Now { wall: START.plus_ms(6 * DAY_MS), monotonic: Timestamp(LOOK_MS) }), 0);
}

#[test]
fn a_device_whose_clock_stands_still_renews_by_the_other_one() {
    let mut renewal = Renewal::new(week(START), 1);
    renewal.renewed(week(START), at(0));
    let stands = |ms: u64| Now { wall: START.plus_ms(1), monotonic: Timestamp(ms) };
    let due_ms = first_try(&renewal, 0, stands);
    assert!((4 * DAY_MS..6 * DAY_MS).contains(&due_ms), "{due_ms}");
}

#[test]
fn two_devices_do_not_come_at_one_moment() {
    let due = |seed| first_try(&Renewal::new(week(START), seed), 0, at);
    assert_ne!(due(1), due(2));
    assert_eq!(due(1), due(1));
}
