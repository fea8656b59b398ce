use super::*;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|class| format!("c{class}")).collect()
}

fn split(labels: &[i64]) -> Split {
    Split { labels: labels.to_vec(), ..Split::default() }
}

/// What is said of samples of one channel, each a text of bytes, with their labels.
fn said(train: &[(&str, i64)], test: &[(&str, i64)], classes: usize) -> Vec<String> {
    let mut examiner = Examiner::default();
    for (samples, testing) in [(train, false), (test, true)] {
        samples.iter().for_each(|(sample, _)| examiner.see(Row::Bytes(sample.as_bytes()), 1, testing));
    }
    let labels =
        |samples: &[(&str, i64)]| split(&samples.iter().map(|(_, label)| *label).collect::<Vec<_>>());
    let splits = [labels(train), labels(test)];
    examiner.remarks(Task::SeriesClassification, &names(classes), splits.each_ref())
}

#[test]
fn a_sound_set_has_nothing_said_of_it() {
    assert_eq!(said(&[("ab", 0), ("cd", 1), ("ef", 1)], &[("gh", 0), ("ij", 1)], 2), Vec::<String>::new());
}

#[test]
fn test_samples_that_were_trained_on_are_counted_and_the_first_is_named() {
    let found =
        said(&[("ab", 0), ("cd", 1), ("ab", 0)], &[("xx", 1), ("cd", 1), ("ab", 0), ("ab", 0), ("yy", 0)], 2);
    assert_eq!(
        found,
        [
            "3 of 5 test samples are training samples too, bit for bit, such as test sample 1 and training sample 1 (from 0): \
          the accuracy counts what was learned by heart"
        ]
    );
}

#[test]
fn samples_with_several_labels_are_counted_in_and_across_the_splits() {
    let found = said(&[("ab", 0), ("cd", 1), ("ab", 1)], &[("cd", 0), ("ef", 1)], 2);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("1 of 2 test samples are training samples too"), "{found:?}");
    assert_eq!(
        found[1],
        "4 samples are alike bit for bit and have different labels, such as training sample 0 (\"c0\") and training sample 2 \
         (\"c1\"): no model gets them all right"
    );
}

#[test]
fn rare_and_missing_classes_are_named_with_their_shares() {
    let train: Vec<(String, i64)> =
        (0..97).map(|sample| (format!("s{sample}"), if sample < 90 { 1 } else { sample % 2 * 2 })).collect();
    let train: Vec<(&str, i64)> = train.iter().map(|(sample, label)| (sample.as_str(), *label)).collect();
    let found = said(&train, &[("t1", 1), ("t2", 1)], 3);
    assert_eq!(
        found,
        [
            "unbalanced classes: 92.8 % of the training samples have the label \"c1\", 3.1 % the label \"c2\": rare ones weigh \
             more in training, and the balanced accuracy is measured too",
            "2 of 3 classes have no test sample: c0, c2: how well they are told is not measured",
        ]
    );
    // Twelve templates of one intent, one of the other, are what languages are like: it is said, not made up for.
    let intents = unbalanced(&names(2), &[0, 0, 0, 0, 0, 1], Task::IntentSlots).unwrap();
    assert!(intents.ends_with("16.7 % the label \"c1\""), "{intents}");
}

#[test]
fn channels_that_never_change_are_named_and_lists_are_short() {
    let mut examiner = Examiner::default();
    for sample in 0..3u8 {
        let row: Vec<f32> =
            (0..20u8).map(|at| f32::from(if at < 2 { sample + at } else { at / 2 })).collect();
        examiner.see(Row::Floats(&row), 10, false);
    }
    examiner.see(Row::Floats(&[9.0; 20]), 10, true);
    let splits = [split(&[0, 1, 1]), split(&[0, 1])];
    let found = examiner.remarks(Task::SeriesClassification, &names(2), splits.each_ref());
    assert_eq!(
        found,
        [
            "9 of 10 channels never change in the training samples and tell nothing: 1 (always 1), 2 (always 2), 3 (always 3), \
          4 (always 4), 5 (always 5), and 4 more"
        ]
    );
}

#[test]
fn remarks_are_bounded_each_and_together() {
    let many: Vec<String> = (0..40).map(|at| format!("{at}\n{}", "x".repeat(2000))).collect();
    let kept = bounded(many);
    assert_eq!(kept.len(), limits::DATASET_REMARKS_MAX);
    assert_eq!(kept.last().unwrap(), "and 29 more remarks");
    assert!(kept.iter().all(|one| one.len() <= limits::REASON_BYTES_MAX && !one.contains('\n')));
    let few = vec!["a".to_owned(); limits::DATASET_REMARKS_MAX];
    assert_eq!(bounded(few.clone()), few);
    let long = vec!["n".repeat(500); 9];
    assert!(listed(long.iter().map(String::as_str)).len() < 400);
}
