use crate::{Dataset, Error, open, open_as};
use shared::{
    job::{DataFormat, Reading},
    manifest::Column,
};
use std::{fs, io::Write, path::Path};

fn refusal(path: &Path) -> String {
    open(path, None).unwrap_err().to_string()
}

fn by(path: &Path, label_column: &str) -> Result<Dataset, Error> {
    let reading = Reading { normal: None, label_column: Some(label_column.to_owned()) };
    open_as(path, Some(DataFormat::Csv), &reading)
}

/// Ten rows of each of two labels, the columns 10 and 20 apart.
fn rows() -> String {
    (0..20).map(|row| format!("{},{},{}\n", row * 10, 5 + row % 2 * 20, row % 2)).collect()
}

#[test]
fn a_table_is_read_with_and_without_names_plain_and_packed_and_split_by_content() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain.csv");
    fs::write(&plain, rows()).unwrap();
    let set = open(&plain, None).unwrap();
    assert_eq!((set.schema.format, &set.schema.shape[..]), (DataFormat::Csv, &[2, 1][..]));
    assert_eq!(set.schema.labels, ["0", "1"]);
    assert_eq!((set.train.len(), set.test.len()), (16, 4));
    assert_eq!(set.test.labels.iter().sum::<i64>(), 2);
    assert_eq!(set.schema.columns[1].name, "column 2");
    let named = folder.path().join("named.csv.gz");
    let mut packed =
        flate2::write::GzEncoder::new(fs::File::create(&named).unwrap(), flate2::Compression::fast());
    // In another order, with other line ends, separators and a row of names.
    let text: String = rows().lines().rev().map(|row| format!("{}\r\n", row.replace(',', "; "))).collect();
    write!(packed, "\u{feff}height;\"depth; of water\";kind\r\n{text}").unwrap();
    packed.finish().unwrap();
    let other = open(&named, None).unwrap();
    let names: Vec<&str> = other.schema.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["height", "depth; of water"]);
    let sorted = |set: &Dataset| {
        let rows =
            set.test.samples.chunks(2).map(|row| row.iter().map(|value| value.to_bits()).collect::<Vec<_>>());
        let mut rows: Vec<_> = rows.collect();
        rows.sort();
        rows
    };
    assert_eq!(sorted(&set), sorted(&other));
    // A folder that holds one table, and its name without the ending.
    fs::remove_file(&plain).unwrap();
    assert_eq!(open(folder.path(), None).unwrap(), other);
    assert_eq!(open(&folder.path().join("named"), None).unwrap(), other);
}

#[test]
fn equal_rows_are_on_one_side() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("twice.csv");
    fs::write(&file, rows().repeat(3)).unwrap();
    let set = open(&file, None).unwrap();
    assert_eq!((set.train.len(), set.test.len()), (48, 12));
    for row in set.test.samples.chunks(2) {
        assert!(!set.train.samples.chunks(2).any(|other| other == row));
    }
}

#[test]
fn columns_are_standardised_by_the_training_rows_without_their_tails() {
    let folder = tempfile::tempdir().unwrap();
    let train: String = (0..300)
        .map(|row| format!("{},{},7,{}\n", if row == 9 { 1e9 } else { f64::from(row % 2) }, row % 3, row % 2))
        .collect();
    fs::write(folder.path().join("A_TRAIN.csv"), train).unwrap();
    fs::write(folder.path().join("A_TEST.csv"), "1,-1000,8,0\n").unwrap();
    let set = open(folder.path(), None).unwrap();
    let deviation = |at: usize| 1.0 / set.schema.columns[at].scale;
    assert!((deviation(0) - 0.5).abs() < 1e-3, "{}", deviation(0));
    assert_eq!(set.train.samples[9 * 3], Column::LIMIT);
    // A column that does not vary keeps its unit.
    assert_eq!(set.test.samples[1..], [-Column::LIMIT, 1.0]);
    let first = set.schema.columns[0].standardised(1.0);
    assert_eq!(set.test.samples[0], first);
    let mean: f32 = set.train.samples.iter().skip(1).step_by(3).sum::<f32>() / 300.0;
    assert!(mean.abs() < 1e-5, "{mean}");
}

#[test]
fn the_column_of_labels_is_the_last_or_the_one_that_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.csv");
    let text: String =
        (0..20).map(|row| format!("{},{}\n", if row % 2 == 0 { "on" } else { "off" }, row)).collect();
    fs::write(&file, format!("state,level\n{text}")).unwrap();
    for column in ["state", "1"] {
        let set = by(&file, column).unwrap();
        assert_eq!(
            (&set.schema.labels[..], &set.schema.columns[0].name[..]),
            (&["off", "on"].map(String::from)[..], "level")
        );
    }
    assert!(refusal(&file).ends_with("a.csv:2: column 1 is \"on\", expected a finite number"));
    assert!(
        by(&file, "3")
            .unwrap_err()
            .to_string()
            .ends_with("a.csv:1: no column \"3\" for the labels, there are state, level")
    );
    fs::write(&file, text).unwrap();
    assert_eq!(by(&file, "1").unwrap().schema.columns[0].name, "column 2");
    assert!(
        by(&file, "state")
            .unwrap_err()
            .to_string()
            .ends_with("no column \"state\" for the labels, there are 1 to 2")
    );
    let series = folder.path().join("W");
    for part in ["TRAIN", "TEST"] {
        fs::write(folder.path().join(format!("W_{part}.tsv")), "1\t1\n2\t2\n").unwrap();
    }
    let reading = Reading { normal: None, label_column: Some("1".to_owned()) };
    let error = open_as(&series, None, &reading).unwrap_err().to_string();
    assert!(error.ends_with("only the labels of a .csv table are in a column that can be named"), "{error}");
}

#[test]
fn what_is_no_number_or_no_table_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.csv");
    let long = format!("1,2,0\n{},2,1\n", "1".repeat(1 << 20));
    for (text, said) in [
        ("a,b,c\n1,2,0\n1,NaN,1\n", "a.csv:3: column 2 is \"NaN\", expected a finite number"),
        ("1,2,0\n\n1,inf,1\n", "a.csv:3: column 2 is \"inf\", expected a finite number"),
        ("1,2,0\r\n\r\n1,inf,1\r\n", "a.csv:3: column 2 is \"inf\", expected a finite number"),
        ("1,2,0\n1,inf,1", "a.csv:2: column 2 is \"inf\", expected a finite number"),
        ("1,2,0\n1,1e39,1\n", "a.csv:2: column 2 is \"1e39\", expected a finite number"),
        ("1,2,0\n1,,1\n", "a.csv:2: column 2 is \"\", expected a finite number"),
        ("1,2,0\n1,2\n", "a.csv:2: 2 fields, the first row has 3"),
        ("1,x,0\n1,2,1\n", "a.csv:1: column 2 is \"x\", expected a finite number"),
        ("1,2,0\n1,2,\n", "a.csv:2: \"\" is no label, expected 1 to 64 bytes"),
        (
            "1\n2\n",
            "a.csv:1: 1 columns, expected one of labels and 1 to 1024 of numbers, separated by commas, semicolons or tabs",
        ),
        ("a,,c\n1,2,3\n", "a.csv:1: column 2 has no name of 1 to 64 bytes: \"\""),
        ("a,b,c\n", "a.csv: the table has no rows"),
        ("", "a.csv: the table has no rows"),
        ("1,\"2\n3\",0\n", "a.csv:1: a quoted field goes over the end of its line"),
        (
            "1,2,0\n3,4,0\n5,6,0\n",
            "a.csv: all training samples have the label \"0\": a classifier needs at least two classes",
        ),
        (&long, "a.csv:2: a line of more than 1048576 bytes"),
    ] {
        fs::write(&file, text).unwrap();
        let message = refusal(&file);
        assert!(message.ends_with(said), "{message}");
    }
    let packed = folder.path().join("b.csv.gz");
    fs::write(&packed, "no gzip").unwrap();
    assert!(refusal(&packed).contains("b.csv.gz: the gzip data is damaged"));
    assert!(refusal(folder.path()).contains("2 tables are in this folder: name one"));
    for (part, names) in [("TRAIN", "a,b"), ("TEST", "b,a")] {
        fs::write(folder.path().join(format!("P_{part}.csv")), format!("{names},c\n1,2,0\n3,4,1\n")).unwrap();
    }
    assert!(refusal(folder.path()).ends_with("P_TEST.csv: its columns are b, a, those for training a, b"));
    assert!(refusal(&folder.path().join("none")).contains("or a .csv table"));
}

proptest::proptest! {
    #[test]
    fn any_table_is_read_within_the_limits_or_refused(
        bytes in proptest::collection::vec("[-0-9.eE,;\t\"\na]{0,6}", 0..60), packed in proptest::prelude::any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let text = bytes.concat();
        let file = folder.path().join(if packed { "a.csv.gz" } else { "a.csv" });
        if packed {
            let mut packer = flate2::write::GzEncoder::new(fs::File::create(&file).unwrap(), flate2::Compression::fast());
            packer.write_all(text.as_bytes()).unwrap();
            packer.finish().unwrap();
        } else {
            fs::write(&file, text).unwrap();
        }
        if let Ok(set) = open(&file, None) {
            let count = set.schema.columns.len();
            for split in [&set.train, &set.test] {
                proptest::prop_assert_eq!(split.samples.len(), split.len() * count);
                proptest::prop_assert!(split.samples.iter().all(|value| value.abs() <= Column::LIMIT));
            }
        }
    }
}
