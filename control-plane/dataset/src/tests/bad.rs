//! Bad data, each kind in each format that can have it: refused with its place, or said.

use super::*;
use image::{GrayImage, Luma};

fn remarks(path: &Path) -> Vec<String> {
    let said = inspect(path, None, &Reading::default()).unwrap().remarks;
    assert_eq!(open(path, None).unwrap().schema.remarks, said);
    said
}

fn series(rows: &[(&str, &str)], dots: bool) -> String {
    let line = |(values, label): &(&str, &str)| match dots {
        true => format!("{values}:{label}\n"),
        false => format!("{label}\t{}\n", values.replace(',', "\t")),
    };
    let body: String = rows.iter().map(line).collect();
    if dots { format!("@data\n{body}") } else { body }
}

/// Writes a pair of series and gives the folder.
fn pair(dots: bool, train: &[(&str, &str)], test: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let extension = if dots { "ts" } else { "tsv" };
    write_pair(folder.path(), extension, &series(train, dots), &series(test, dots));
    folder
}

fn picture(folder: &Path, name: &str, value: u8) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    GrayImage::from_fn(3, 3, |x, _| Luma([if x == 1 { value } else { 255 - value }])).save(path).unwrap();
}

#[test]
fn images_of_another_size_for_testing_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_mnist(folder.path(), &[0, 1]);
    let images = folder.path().join("t10k-images-idx3-ubyte");
    fs::write(&images, idx(&[2, 3, 2], &[0; 12])).unwrap();
    assert!(refusal(folder.path()).ends_with(
        "t10k-images-idx3-ubyte: images have the shape [1, 3, 2], those for training have [1, 2, 3]"
    ));
    // Floats are another type of IDX.
    fs::write(&images, [&[0, 0, 0x0d, 3][..], &[0; 24]].concat()).unwrap();
    assert!(refusal(folder.path()).ends_with("magic number 00000d03, expected 00000803 or 00000804"));
}

#[test]
fn values_that_are_no_finite_numbers_are_refused_with_their_line_however_they_are_written() {
    for dots in [false, true] {
        let good = [("1,2", "a"), ("3,4", "b")];
        for (bad, said) in [
            ("3,NaN", "value 2 is NaN"),
            ("nan,1", "value 1 is NaN"),
            ("inf,1", "value 1 is inf"),
            ("1,-Infinity", "value 2 is -inf"),
            ("1,1e39", "value 2 is inf"),
            ("1,?", "value 2 is \"?\""),
            ("1,", "value 2 is \"\""),
        ] {
            for (train, test, file, line) in
                [(&[good[0], (bad, "b")], &good, "TRAIN", 2), (&good, &[good[0], (bad, "b")], "TEST", 2)]
            {
                let folder = pair(dots, train, test);
                let message = refusal(folder.path());
                let line = line + usize::from(dots);
                let place = format!("_{file}.{}:{line}: {said}", if dots { "ts" } else { "tsv" });
                assert!(message.contains(&place), "{message} has no {place}");
            }
        }
    }
}

#[test]
fn a_training_split_of_one_class_is_refused_and_a_test_split_of_one_is_told() {
    let both = [("1,2", "a"), ("3,4", "b")];
    for dots in [false, true] {
        let folder = pair(dots, &both[..1], &both[..1]);
        assert!(refusal(folder.path()).contains("all training samples have the label \"a\""));
        let folder = pair(dots, &both, &[("5,6", "b")]);
        assert_eq!(
            remarks(folder.path()),
            ["1 of 2 classes have no test sample: a: how well they are told is not measured"]
        );
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [("train/a/0.png", 1), ("train/b/0.png", 2), ("test/b/0.png", 3)] {
        picture(folder.path(), name, value);
    }
    assert!(remarks(folder.path())[0].starts_with("1 of 2 classes have no test sample: a"));
    fs::remove_file(folder.path().join("train/b/0.png")).unwrap();
    assert!(refusal(folder.path()).ends_with("class \"b\" (number 1) has no image for training"));
    let folder = tempfile::tempdir().unwrap();
    write_mnist(folder.path(), &[0, 1, 2]);
    fs::write(folder.path().join("t10k-labels-idx1-ubyte"), idx(&[3], &[1, 1, 1])).unwrap();
    assert!(
        remarks(folder.path())
            .iter()
            .any(|remark| remark.starts_with("2 of 3 classes have no test sample: 0, 2"))
    );
}

#[test]
fn samples_on_both_sides_are_told_in_every_format() {
    let leak = |path: &Path, count: &str| {
        let said = remarks(path);
        let found = said.iter().any(|remark| {
            remark.starts_with(&format!("{count} test samples are training samples too, bit for bit"))
        });
        assert!(found, "{said:?}");
    };
    let folder = tempfile::tempdir().unwrap();
    // The same files on both sides.
    write_mnist(folder.path(), &[0, 1, 2]);
    leak(folder.path(), "3 of 3");
    for dots in [false, true] {
        let train = [("1,2", "a"), ("3,4", "b")];
        let folder = pair(dots, &train, &[("9,9", "a"), ("3,4.0", "b"), ("3,5", "b")]);
        leak(folder.path(), "1 of 3");
    }
    let folder = tempfile::tempdir().unwrap();
    for class in 0..2u8 {
        for at in 0..3 {
            picture(folder.path(), &format!("train/{class}/{at}.png"), class * 50 + at);
            picture(folder.path(), &format!("test/{class}/{at}.png"), class * 50 + at + 2);
        }
    }
    leak(folder.path(), "2 of 6");
}

#[test]
fn the_same_sample_under_two_labels_and_unbalanced_classes_are_told() {
    for dots in [false, true] {
        let rows: Vec<String> = (0..20).map(|at| format!("{at},{}", at * at)).collect();
        let mut train: Vec<(&str, &str)> = rows.iter().map(|row| (row.as_str(), "often")).collect();
        train.extend([("1,1", "rare"), ("7,7", "rare")]);
        let folder = pair(dots, &train, &[("5,5", "often"), ("8,8", "rare")]);
        assert_eq!(
            remarks(folder.path()),
            [
                "2 samples are alike bit for bit and have different labels, such as training sample 1 (\"often\") and training \
                 sample 20 (\"rare\"): no model gets them all right",
                "unbalanced classes: 90.9 % of the training samples have the label \"often\", 9.1 % the label \"rare\": rare ones \
                 weigh more in training, and the balanced accuracy is measured too",
            ]
        );
    }
}

#[test]
fn a_channel_that_never_changes_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let body = format!("{TS}1,2,3:5,5,5:b\n7,8,9:5,5,5:a\n");
    let test = format!("{TS}1,2,4:5,5,5:b\n7,8,4:5,6,5:a\n");
    write_pair(folder.path(), "ts", &body, &test);
    assert_eq!(
        remarks(folder.path()),
        ["1 of 2 channels never change in the training samples and tell nothing: 1 (always 5)"]
    );
}

#[test]
fn labels_that_a_file_declares_and_no_training_sample_has_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let head = "@classLabel true a b c 10 9\n@data\n";
    let body = |at: u8| format!("{head}1,{at}:b\n7,{at}8:a\n");
    write_pair(folder.path(), "ts", &body(1), &body(2));
    assert_eq!(
        remarks(folder.path()),
        ["@classLabel names labels that no training sample has, and no model learns: 9, 10, c"]
    );
}

#[test]
fn held_out_text_that_is_trained_on_elsewhere_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let text: String = (0..400).map(|line| format!("line {line} of {}\n", line * line)).collect();
    fs::write(folder.path().join("a.txt"), &text).unwrap();
    assert_eq!(remarks(folder.path()).len(), 1);
    // The end of one file stands in the midst of another.
    let other = format!("{}{}", &text[text.len() - 900..], "x ".repeat(700));
    fs::write(folder.path().join("b.txt"), other).unwrap();
    let said = remarks(folder.path());
    let leak = said.iter().find(|remark| remark.contains("trained on word for word"));
    assert!(leak.is_some_and(|leak| !leak.starts_with("0 of")), "{said:?}");
}

#[test]
fn sentences_on_both_sides_are_taken_out_of_the_test_and_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.jsonl");
    let line = |template: &str, text: &str, intent: &str| {
        format!(r#"{{"text":"{text}","intent":"{intent}","template":"{template}"}}"#) + "\n"
    };
    // Of five templates of each intent one is tested; all of one intent give one sentence that is the same.
    let body: String = (0..5)
        .flat_map(|at| {
            let (same, own) = (format!("t{at}"), format!("u{at}"));
            [
                line(&same, "everywhere", "a"),
                line(&same, &format!("only {at}"), "a"),
                line(&own, &format!("other {at}"), "b"),
            ]
        })
        .collect();
    fs::write(&file, body).unwrap();
    let said = remarks(&file);
    let told = "1 sentences came of templates on both sides, and were taken out of the test";
    assert!(said.iter().any(|remark| remark == told), "{said:?}");
}
