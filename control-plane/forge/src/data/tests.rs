use super::*;
use std::{fs, io::Write};

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
        assert_eq!(set.test, Split { samples: vec![5.0, 6.0], labels: vec![0] });
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
    let reference = DatasetRef { path: folder.path().to_owned(), format: DataFormat::UcrTsv, digest };
    open_ref(&reference).unwrap();
    write_pair(folder.path(), "tsv", "1\t1\t2\n2\t3\t5\n", "1\t1\t2\n");
    assert!(matches!(open_ref(&reference), Err(Error::Changed { .. })));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(0u8..=255, 0..200), which in 0usize..3) {
        let folder = tempfile::tempdir().unwrap();
        write_mnist(folder.path(), &[0, 1]);
        match which {
            0 => fs::write(folder.path().join("train-images-idx3-ubyte"), &bytes).unwrap(),
            1 => fs::write(folder.path().join("train-labels-idx1-ubyte"), &bytes).unwrap(),
            _ => {
                fs::remove_file(folder.path().join("train-images-idx3-ubyte")).unwrap();
                let mut text = TS.as_bytes().to_vec();
                text.extend(&bytes);
                fs::write(folder.path().join("Waves_TRAIN.ts"), text).unwrap();
                fs::write(folder.path().join("Waves_TEST.ts"), &bytes).unwrap();
            }
        }
        proptest::prop_assert!(open(folder.path(), None).is_err());
    }
}
