//! A set of which one label is normal: what is learned from is normal, and all other samples are there to be found.

use super::{Error, Place, Raw, Split, series};
use shared::{
    job::DataFormat,
    manifest::{ANOMALY_LABELS, Task},
};

/// Fewest normal samples for training: some of them are held back to draw the line by.
pub const NORMAL_MIN: usize = 50;

/// `raw` with its samples as normal ones and anomalies. Anomalies of the training split go to the test split, as far as that
/// has fewer of them than normal samples; the others are left out.
///
/// # Errors
/// No sample with that label, too few of them, or samples that are no numbers.
pub(super) fn regroup(raw: Raw, normal: &str) -> Result<Raw, Error> {
    let bad = |message: String| Error::bad(&raw.origin, Place::File, message);
    if raw.text.is_some() || raw.format == DataFormat::Npy {
        return Err(bad("anomalies are found in images, series and tables, not in text".to_owned()));
    }
    let same = |label: &String| label == normal || *label == series::canonical(normal);
    let Some(class) = raw.labels.iter().position(same) else {
        let known = series::shown(&raw.labels);
        return Err(bad(format!(
            "no sample has the label {normal:?} that shall be normal, there are {known}"
        )));
    };
    let is_normal = |label: &i64| usize::try_from(*label) == Ok(class);
    let count = |split: &Split| split.labels.iter().filter(|label| is_normal(label)).count();
    let (to_train, to_test) = (count(&raw.train), count(&raw.test));
    if to_train < NORMAL_MIN {
        return Err(bad(format!(
            "{to_train} training samples have the label {normal:?}: at least {NORMAL_MIN} normal ones are needed"
        )));
    }
    if to_test == 0 {
        return Err(bad(format!("no test sample has the label {normal:?}: false alarms cannot be counted")));
    }
    let (mut train, mut test) = (Split::default(), Split::default());
    let add = |from: &Split, index: usize, label: i64, into: &mut Split| {
        from.values(index, &raw.shape, &mut into.samples);
        into.labels.push(label);
    };
    for (index, label) in raw.test.labels.iter().enumerate() {
        add(&raw.test, index, i64::from(!is_normal(label)), &mut test);
    }
    let there = test.len() - to_test;
    let mut moved = 0;
    for (index, label) in raw.train.labels.iter().enumerate() {
        if is_normal(label) {
            add(&raw.train, index, 0, &mut train);
        } else if there + moved < to_test {
            add(&raw.train, index, 1, &mut test);
            moved += 1;
        }
    }
    let left_out = raw.train.len() - to_train - moved;
    let mut remarks = raw.remarks;
    remarks.push(match there + moved {
        0 => format!("{normal:?} is normal; the set holds no anomaly: what is found is measured on made ones"),
        anomalies => format!(
            "{normal:?} is normal; {to_test} normal samples and {anomalies} anomalies test, {moved} of them from the \
             training split, of which {left_out} anomalies are left out"
        ),
    });
    let (task, labels) = (Task::AnomalyDetection, ANOMALY_LABELS.map(str::to_owned).to_vec());
    Ok(Raw { task, labels, remarks, train, test, ..raw })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dataset, open_as};
    use shared::job::Reading;
    use std::{fs, path::Path};

    fn reading(normal: &str) -> Reading {
        Reading { normal: Some(normal.to_owned()), label_column: None }
    }

    /// A pair of series files; `train` and `test` give counts of samples with the labels 1, 2 and 3.
    fn pair(folder: &Path, train: [usize; 3], test: [usize; 3]) {
        for (part, counts) in [("TRAIN", train), ("TEST", test)] {
            let mut text = String::new();
            for (label, count) in (1..).zip(counts) {
                for at in 0..count {
                    text.push_str(&format!("{label}\t{at}\t{label}\n"));
                }
            }
            fs::write(folder.join(format!("Waves_{part}.tsv")), text).unwrap();
        }
    }

    fn read(folder: &Path, normal: &str) -> Result<Dataset, Error> {
        open_as(folder, None, &reading(normal))
    }

    #[test]
    fn only_normal_samples_are_trained_on_and_anomalies_test_as_far_as_there_are_normal_ones() {
        let folder = tempfile::tempdir().unwrap();
        pair(folder.path(), [60, 9, 0], [10, 3, 2]);
        let set = read(folder.path(), "1.0").unwrap();
        assert_eq!(
            (set.schema.task, &set.schema.labels[..]),
            (Task::AnomalyDetection, &["normal", "anomaly"].map(String::from)[..])
        );
        assert_eq!(set.train.labels, vec![0; 60]);
        let anomalies = set.test.labels.iter().filter(|label| **label == 1).count();
        assert_eq!((set.test.len(), anomalies), (20, 10));
        // Each with its own values: the second one is the label that it had.
        for (values, label) in set.test.samples.chunks(2).zip(&set.test.labels) {
            assert_eq!(values[1] > 1.0, *label == 1);
        }
        assert!(
            set.schema.remarks[0]
                .ends_with("5 of them from the training split, of which 4 anomalies are left out")
        );
        assert_eq!(set.schema.reading, reading("1.0"));
        let plain = crate::open(folder.path(), None);
        // Label 3 is only in the test split.
        assert!(plain.unwrap_err().to_string().contains("does not occur in the training split"));
    }

    #[test]
    fn a_set_without_anomalies_is_taken_and_one_without_enough_normal_samples_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        pair(folder.path(), [50, 0, 0], [9, 0, 0]);
        let set = read(folder.path(), "1").unwrap();
        assert_eq!((set.train.len(), set.test.len(), set.schema.labels.len()), (50, 9, 2));
        assert!(set.schema.remarks[0].contains("holds no anomaly"));
        let refused = |train, test, normal, said: &str| {
            pair(folder.path(), train, test);
            let error = read(folder.path(), normal).unwrap_err().to_string();
            assert!(error.ends_with(said), "{error}");
        };
        refused(
            [60, 1, 0],
            [9, 9, 0],
            "4",
            "no sample has the label \"4\" that shall be normal, there are 1, 2",
        );
        refused(
            [49, 1, 0],
            [9, 9, 0],
            "1",
            "49 training samples have the label \"1\": at least 50 normal ones are needed",
        );
        refused(
            [50, 1, 0],
            [0, 9, 0],
            "1",
            "no test sample has the label \"1\": false alarms cannot be counted",
        );
        let text = folder.path().join("a.txt");
        fs::write(&text, "some words of a text\n".repeat(200)).unwrap();
        let error = open_as(&text, None, &reading("1")).unwrap_err().to_string();
        assert!(error.ends_with("anomalies are found in images, series and tables, not in text"), "{error}");
    }

    #[test]
    fn the_same_files_with_another_normal_label_are_another_set() {
        let folder = tempfile::tempdir().unwrap();
        pair(folder.path(), [60, 60, 0], [9, 9, 0]);
        let digest = |normal| read(folder.path(), normal).unwrap().schema.digest;
        assert_ne!(digest("1"), digest("2"));
        assert_ne!(digest("1"), crate::open(folder.path(), None).unwrap().schema.digest);
    }
}
