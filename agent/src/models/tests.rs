use super::*;
use crate::{clock::wall, testing::loaded};

fn name() -> SlotName {
    "default".parse().unwrap()
}

fn counts(closed: &[window::Closed]) -> Vec<(u128, u64)> {
    closed.iter().map(|closed| (closed.version_id.0.as_u128(), closed.requests)).collect()
}

#[test]
fn a_request_counts_for_the_version_that_answered_it_also_when_it_ends_after_a_swap() {
    let models = Models::default();
    let serving = models.slot(&name(), wall());
    let (old, new) = (Arc::new(loaded(1)), Arc::new(loaded(2)));
    assert!(serving.swap(Some(old.clone()), wall()).is_empty());
    let took = Some(Duration::from_micros(5));
    serving.record(&old, 1, took, wall());
    assert_eq!(counts(&serving.swap(Some(new.clone()), wall())), [(1, 1)]);
    serving.record(&old, 1, took, wall());
    serving.record(&new, 1, took, wall());
    serving.record(&old, 1, None, wall());
    assert_eq!(counts(&serving.roll_window(wall())), [(1, 2), (2, 1)]);
    assert!(serving.roll_window(wall()).is_empty());
}

#[test]
fn a_slot_that_is_taken_away_gives_its_last_window() {
    let models = Models::default();
    let serving = models.slot(&name(), wall());
    let version = Arc::new(loaded(1));
    serving.swap(Some(version.clone()), wall());
    serving.record(&version, 1, None, wall());
    assert_eq!(counts(&models.remove(&name(), wall())), [(1, 1)]);
    assert!(models.all().is_empty());
    assert!(models.remove(&name(), wall()).is_empty());
}

#[test]
fn threads_that_make_slots_at_once_lose_none() {
    let models = Models::default();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let models = &models;
            scope.spawn(move || {
                for index in 0..50 {
                    let name = format!("s{}", (index + thread) % 50).parse().unwrap();
                    let made = models.slot(&name, wall());
                    assert!(Arc::ptr_eq(&made, &models.slot(&name, wall())));
                }
            });
        }
    });
    let names: Vec<_> = models.all().iter().map(|serving| serving.slot.clone()).collect();
    assert_eq!(names.len(), 50);
    assert!(names.is_sorted());
}
