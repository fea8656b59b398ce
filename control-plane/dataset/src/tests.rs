use super::*;
use std::{fs, io::Write};

mod bad;
mod streamed;

fn idx(sizes: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, u8::try_from(sizes.len()).unwrap()];
    for size in sizes {
        bytes.extend(size.to_be_bytes());
    }
    bytes.extend(values);
    bytes
}

fn write_mnist(folder: &Path, labels: &[u8]) {
    let count = u32::try_from(labels.len()).unwrap();
    let pixels: Vec<u8> = (0..labels.len() * 6).map(|i| u8::try_from(i % 256).unwrap()).collect();
    for part in ["train", "t10k"] {
        fs::write(folder.join(format!("{part}-images-idx3-ubyte")), idx(&[count, 2, 3], &pixels)).unwrap();
        fs::write(folder.join(format!("{part}-labels-idx1-ubyte")), idx(&[count], labels)).unwrap();
    }
}

fn refusal(path: &Path) -> String {
    open(path, None).unwrap_err().to_string()
}

#[test]
fn reads_idx_plain_and_gzip_alike_but_with_its_own_digest() {
    let (plain, packed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_mnist(plain.path(), &[0, 1, 2, 1]);
    for entry in fs::read_dir(plain.path()).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{}.gz", entry.file_name().to_string_lossy());
        let file = fs::File::create(packed.path().join(name)).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        encoder.write_all(&fs::read(entry.path()).unwrap()).unwrap();
        encoder.finish().unwrap();
    }
    let a = open(plain.path(), None).unwrap();
    let b = open(packed.path(), Some(DataFormat::Idx)).unwrap();
    assert_eq!(a.schema.shape, [1, 2, 3]);
    assert_eq!(a.schema.labels, ["0", "1", "2"]);
    assert_eq!(a.train.labels, [0, 1, 2, 1]);
    assert_eq!(a.train.samples[..3], [0.0, 1.0 / 255.0, 2.0 / 255.0]);
    assert_eq!(a.train, b.train);
    assert_ne!(a.schema.digest, b.schema.digest);
}

#[test]
fn refuses_a_cut_idx_file_at_the_byte_where_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    write_mnist(folder.path(), &[0, 1]);
    let file = folder.path().join("train-images-idx3-ubyte");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 5]).unwrap();
    assert!(refusal(folder.path()).ends_with("byte 23: the file ends here, its header announces 28 bytes"));
    for end in 0..bytes.len() {
        fs::write(&file, &bytes[..end]).unwrap();
        assert!(open(folder.path(), None).is_err(), "{end} bytes were accepted");
    }
}

#[test]
fn refuses_labels_that_do_not_fit_the_images_and_a_set_of_one_class() {
    let folder = tempfile::tempdir().unwrap();
    write_mnist(folder.path(), &[0, 1]);
    fs::write(folder.path().join("train-labels-idx1-ubyte"), idx(&[3], &[0, 1, 1])).unwrap();
    let message = refusal(folder.path());
    assert!(
        message.contains("train-labels-idx1-ubyte, byte 4: 3 labels, but")
            && message.ends_with("has 2 images")
    );
    write_mnist(folder.path(), &[4, 4]);
    assert!(refusal(folder.path()).contains("all training samples have the label \"4\""));
    write_mnist(folder.path(), &[0, 3]);
    assert!(refusal(folder.path()).contains("no sample has the label 1"));
}

#[test]
fn refuses_images_in_place_of_labels() {
    let folder = tempfile::tempdir().unwrap();
    write_mnist(folder.path(), &[0, 1]);
    let images = fs::read(folder.path().join("train-images-idx3-ubyte")).unwrap();
    fs::write(folder.path().join("train-labels-idx1-ubyte"), images).unwrap();
    assert!(refusal(folder.path()).ends_with("magic number 00000803, expected 00000801"));
}

fn write_pair(folder: &Path, extension: &str, train: &str, test: &str) {
    fs::write(folder.join(format!("Waves_TRAIN.{extension}")), train).unwrap();
    fs::write(folder.join(format!("Waves_TEST.{extension}")), test).unwrap();
}

#[test]
fn reads_tsv_by_folder_and_by_name_with_labels_in_numeric_order() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), "tsv", "10\t1\t2\n2\t3\t4\n", "2.0\t5\t6\n");
    for path in [folder.path().to_owned(), folder.path().join("Waves")] {
        let set = open(&path, None).unwrap();
        assert_eq!(set.schema.labels, ["2", "10"]);
        assert_eq!(set.schema.shape, [1, 2]);
        assert_eq!(set.train.labels, [1, 0]);
        assert_eq!(set.test, Split { samples: vec![5.0, 6.0], labels: vec![0], ..Split::default() });
    }
}

#[test]
fn refuses_a_bad_tsv_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let good = "1\t1\t2\n2\t3\t4\n";
    for (train, test, part) in [
        ("1\t1\t2\n2\t3\n", good, "Waves_TRAIN.tsv:2: 1 values, the first sample has 2"),
        ("1\t1\t2\n2\t3\tx\n", good, "Waves_TRAIN.tsv:2: value 2 is \"x\", expected a number"),
        ("1\t1\t2\n2\t3\tNaN\n", good, "Waves_TRAIN.tsv:2: value 2 is NaN"),
        ("1\t1\t2\n1\t3\t4\n", good, "all training samples have the label \"1\""),
        (
            good,
            "1\t1\t2\n3\t3\t4\n",
            "Waves_TEST.tsv:2: label \"3\" does not occur in the training split (1, 2)",
        ),
        (good, "1\t1\t2\t3\n", "Waves_TEST.tsv: series have 1 dimensions of 3 values"),
        ("1\n2\n", good, "Waves_TRAIN.tsv:1: expected a label and values"),
        ("", good, "Waves_TRAIN.tsv: the file has no samples"),
    ] {
        write_pair(folder.path(), "tsv", train, test);
        let message = refusal(folder.path());
        assert!(message.contains(part), "{message}");
    }
}

const TS: &str = "# words\n@problemName Waves\n@univariate false\n@classLabel true a b\n@data\n";

#[test]
fn reads_ts_with_several_dimensions() {
    let folder = tempfile::tempdir().unwrap();
    let body = format!("{TS}1,2,3:4,5,6:b\n7,8,9:1,1,1:a\n");
    write_pair(folder.path(), "ts", &body, &body);
    let set = open(folder.path(), None).unwrap();
    assert_eq!(set.schema.shape, [2, 3]);
    assert_eq!(set.train.labels, [1, 0]);
    assert_eq!(set.train.samples[..6], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
}

#[test]
fn refuses_a_bad_ts_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    for (body, part) in [
        (format!("{TS}1,2,3:4,5:a\n"), "TRAIN.ts:6: dimension 1 has 2 values, dimension 0 has 3"),
        (format!("{TS}1,2,3:4,5,6:c\n"), "TRAIN.ts:6: label \"c\" is not one of those in @classLabel (a, b)"),
        (format!("{TS}1,2,3\n"), "TRAIN.ts:6: expected values, a colon and a label"),
        (format!("{TS}1,?,3:4,5,6:a\n"), "TRAIN.ts:6: value 2 is \"?\", expected a number"),
        ("@equalLength false\n@data\n".to_owned(), "TRAIN.ts:1: only series of equal length"),
        ("@problemName x\n".to_owned(), "no line @data"),
        ("1,2:3\n".to_owned(), "TRAIN.ts:1: expected a header line"),
    ] {
        write_pair(folder.path(), "ts", &body, &body);
        let message = refusal(folder.path());
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn refuses_a_set_that_changed_since_it_was_registered() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), "tsv", "1\t1\t2\n2\t3\t4\n", "1\t1\t2\n");
    let digest = Some(open(folder.path(), None).unwrap().schema.digest);
    let reference = DatasetRef {
        path: folder.path().to_owned(),
        format: DataFormat::UcrTsv,
        digest,
        reading: Reading::default(),
    };
    let room = Room { file: folder.path().join("samples.bin"), memory_bytes: u64::MAX };
    open_ref(&reference, &room).unwrap();
    write_pair(folder.path(), "tsv", "1\t1\t2\n2\t3\t5\n", "1\t1\t2\n");
    assert!(matches!(open_ref(&reference, &room), Err(Error::Changed { .. })));
}

/// Packs `bytes` as gzip.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn unpacks_a_gzip_file_only_as_far_as_its_header_announces() {
    let folder = tempfile::tempdir().unwrap();
    write_mnist(folder.path(), &[0, 1]);
    fs::remove_file(folder.path().join("train-images-idx3-ubyte")).unwrap();
    let packed = folder.path().join("train-images-idx3-ubyte.gz");
    fs::write(&packed, gzip(&idx(&[2, 2, 3], &[7; 12]))).unwrap();
    open(folder.path(), None).unwrap();
    // 64 MiB of zeros in 64 KiB; what announces more than is allowed is not unpacked at all.
    fs::write(&packed, gzip(&idx(&[2, 2, 3], &vec![0; 64 << 20]))).unwrap();
    let message = refusal(folder.path());
    assert!(message.ends_with("byte 28: the file goes on, its header announces 28 bytes"), "{message}");
    fs::write(&packed, gzip(&idx(&[5_000_000, 4000, 4000], &[0; 12]))).unwrap();
    assert!(refusal(folder.path()).contains("values, the most that is read"));
    fs::write(&packed, &gzip(&idx(&[2, 2, 3], &[7; 12]))[..20]).unwrap();
    assert!(refusal(folder.path()).contains("the gzip data is damaged"));
}

#[test]
fn a_label_is_the_same_class_however_it_is_spelled_and_numbers_come_before_text() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), "tsv", "9\t1\n10.0\t1\n1a\t1\n1e1\t1\n-0\t1\n1e300\t1\n", "0\t1\n");
    let set = open(folder.path(), None).unwrap();
    assert_eq!(set.schema.labels, ["0", "9", "10", "1e300", "1a"]);
    assert_eq!(set.train.labels, [1, 2, 4, 2, 0, 3]);
    assert_eq!(set.test.labels, [0]);
    let folder = tempfile::tempdir().unwrap();
    let body = "@classLabel true 1.0 2\n@data\n1,2:1\n3,4:1.0\n5,6:2.00\n";
    write_pair(folder.path(), "ts", body, body);
    let set = open(folder.path(), None).unwrap();
    assert_eq!(set.schema.labels, ["1", "2"]);
    assert_eq!(set.train.labels, [0, 0, 1]);
}

#[test]
fn refuses_too_many_classes_at_the_line_where_they_are_and_lists_few() {
    let folder = tempfile::tempdir().unwrap();
    let many: String = (0..limits::LABELS_MAX + 500).map(|label| format!("{label}\t1\n")).collect();
    write_pair(folder.path(), "tsv", &many, "1\t1\n");
    let message = refusal(folder.path());
    assert!(
        message.ends_with("TRAIN.tsv:10001: more than 10000 classes, the most that are taken"),
        "{message}"
    );
    let some: String = (0..limits::LABELS_MAX).map(|label| format!("{label}\t1\n")).collect();
    write_pair(folder.path(), "tsv", &some, "x\t1\n");
    let message = refusal(folder.path());
    assert!(
        message.ends_with(
            "(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, … 10000 in all)"
        )
    );
}

#[test]
fn refuses_a_sample_beyond_the_limits_before_it_is_read_whole() {
    let folder = tempfile::tempdir().unwrap();
    // More dimensions than the first sample, and what follows is no number: the count is refused first.
    let body = format!("{TS}1,2:3,4:a\n1,2:3,4:5,6:x:b\n");
    write_pair(folder.path(), "ts", &body, &body);
    assert!(refusal(folder.path()).ends_with("TRAIN.ts:7: more than the 2 dimensions of the first sample"));
    let long = "1\t1\t2\n2\t1\t2\tx\tx\n";
    fs::remove_file(folder.path().join("Waves_TRAIN.ts")).unwrap();
    write_pair(folder.path(), "tsv", long, long);
    assert!(refusal(folder.path()).contains("TRAIN.tsv:2: 4 values, the first sample has 2"));
}

#[test]
fn an_error_quotes_a_file_without_its_control_characters() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), "tsv", "a\u{7}\t1\nb\t2\n", "c\t1\n");
    assert!(refusal(folder.path()).ends_with("does not occur in the training split (a , b)"));
}

/// Files of a set whose training images are missing, each holding `bytes` in some place.
fn write_hostile(folder: &Path, bytes: &[u8], which: usize) {
    write_mnist(folder, &[0, 1]);
    let images = folder.join("train-images-idx3-ubyte");
    let after = |head: &[u8]| [head, bytes].concat();
    match which {
        0 => fs::write(&images, bytes).unwrap(),
        1 => fs::write(folder.join("train-labels-idx1-ubyte"), bytes).unwrap(),
        2 => {
            fs::remove_file(&images).unwrap();
            fs::write(folder.join("train-images-idx3-ubyte.gz"), bytes).unwrap();
        }
        3 => {
            // Packed well, damaged inside.
            fs::remove_file(&images).unwrap();
            fs::write(folder.join("train-images-idx3-ubyte.gz"), gzip(&after(&[0, 0, 8, 3]))).unwrap();
        }
        4 => {
            fs::remove_file(&images).unwrap();
            fs::write(folder.join("Waves_TRAIN.ts"), after(TS.as_bytes())).unwrap();
            fs::write(folder.join("Waves_TEST.ts"), bytes).unwrap();
        }
        _ => {
            fs::remove_file(&images).unwrap();
            fs::write(folder.join("Waves_TRAIN.tsv"), after(b"1\t1\t2\n2\t3\t4\n")).unwrap();
            fs::write(folder.join("Waves_TEST.tsv"), bytes).unwrap();
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(0u8..=255, 0..200), which in 0usize..6) {
        let folder = tempfile::tempdir().unwrap();
        write_hostile(folder.path(), &bytes, which);
        proptest::prop_assert!(open(folder.path(), None).is_err());
    }

    #[test]
    fn any_text_in_place_of_labels_and_values_is_read_or_refused(
        rows in proptest::collection::vec(("[-+0-9.eEax]{1,4}", "[-0-9.eE?]{0,3}"), 1..40),
        dots in proptest::prelude::any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let line = |(label, value): &(String, String)| {
            if dots { format!("{value}:{label}\n") } else { format!("{label}\t{value}\n") }
        };
        let body: String = rows.iter().map(line).collect();
        let (extension, body) = if dots { ("ts", format!("@data\n{body}")) } else { ("tsv", body) };
        write_pair(folder.path(), extension, &body, &body);
        if let Ok(set) = open(folder.path(), None) {
            let distinct: std::collections::HashSet<&String> = set.schema.labels.iter().collect();
            proptest::prop_assert_eq!(distinct.len(), set.schema.labels.len());
            proptest::prop_assert_eq!(set.train.len(), rows.len());
        }
    }

    #[test]
    fn labels_of_numbers_and_text_have_one_order(labels in proptest::collection::vec("[0-9a]{1,3}", 25..60)) {
        // A sort by an order that contradicts itself may panic from about twenty elements on.
        let folder = tempfile::tempdir().unwrap();
        let body: String = labels.iter().map(|label| format!("{label}\t1\n")).collect();
        write_pair(folder.path(), "tsv", &body, &body);
        let found = open(folder.path(), None).map(|set| set.schema.labels).unwrap_or_default();
        let texts = found.iter().position(|label| label.parse::<f64>().is_err()).unwrap_or(found.len());
        proptest::prop_assert!(found[texts..].is_sorted());
        proptest::prop_assert!(found[..texts].is_sorted_by_key(|label| label.parse::<f64>().unwrap_or(f64::NAN)));
    }
}
