//! Sets in a file hold what sets in memory hold, bit for bit.

use super::*;
use crate::Room;
use image::{GrayImage, Luma, Rgb, RgbImage};

fn same_in_memory_and_in_a_file(path: &Path) -> Dataset {
    let folder = tempfile::tempdir().unwrap();
    let whole = open(path, None).unwrap();
    let count = (whole.train.samples.len() + whole.test.samples.len()) as u64;
    for memory_bytes in [0, count * 4 - 1, count * 2] {
        let room = Room { file: folder.path().join("samples.bin"), memory_bytes };
        let stored = open_within(path, None, &room).unwrap();
        assert_eq!(stored.schema, whole.schema);
        for (a, b) in [(&stored.train, &whole.train), (&stored.test, &whole.test)] {
            assert!(a.stored.is_some() && a.samples.is_empty());
            assert_eq!(a.labels, b.labels);
            let values = |split: &Split| {
                let mut values = Vec::new();
                (0..split.len() + 2).for_each(|at| split.values(at, &whole.schema.shape, &mut values));
                values.iter().map(|value: &f32| value.to_bits()).collect::<Vec<u32>>()
            };
            assert_eq!(values(a), values(b));
            assert_eq!(values(&a.part(&[1, 0, 77])), values(&b.part(&[1, 0, 77])));
        }
        fs::remove_file(room.file).unwrap();
    }
    let room = Room { file: folder.path().join("samples.bin"), memory_bytes: count * 4 };
    assert_eq!(open_within(path, None, &room).unwrap(), whole);
    assert!(!room.file.exists());
    assert_eq!(inspect(path, None, &Reading::default()).unwrap(), whole.schema);
    whole
}

#[test]
fn images_of_idx_files_of_one_channel_and_of_three() {
    let folder = tempfile::tempdir().unwrap();
    write_mnist(folder.path(), &[0, 1, 2, 1]);
    same_in_memory_and_in_a_file(folder.path());
    for part in ["train", "t10k"] {
        let pixels: Vec<u8> = (0..4 * 2 * 3 * 3).map(|at| u8::try_from(at * 3).unwrap()).collect();
        let file = folder.path().join(format!("{part}-images-idx3-ubyte"));
        fs::write(file, idx(&[4, 2, 3, 3], &pixels)).unwrap();
    }
    let set = same_in_memory_and_in_a_file(folder.path());
    assert_eq!(set.schema.shape, [3, 2, 3]);
    let first: Vec<f32> = [0u8, 9, 18, 27, 36, 45, 3].iter().map(|value| f32::from(*value) / 255.0).collect();
    assert_eq!(set.train.samples[..7], first);
}

#[test]
fn folders_of_images_with_a_split_of_their_own_and_with_ours() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: String, at: u8| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        GrayImage::from_fn(5, 4, |x, y| Luma([at ^ u8::try_from(x * 31 + y * 7).unwrap()]))
            .save(path)
            .unwrap();
    };
    for at in 0..24u8 {
        write(format!("{}/{at}.png", if at % 2 == 0 { "a" } else { "b" }), at);
    }
    same_in_memory_and_in_a_file(folder.path());
    let ours = RgbImage::from_fn(5, 4, |x, y| Rgb([u8::try_from(x).unwrap(), u8::try_from(y).unwrap(), 9]));
    ours.save(folder.path().join("b/colour.png")).unwrap();
    let set = same_in_memory_and_in_a_file(folder.path());
    assert_eq!(set.schema.shape, [3, 4, 5]);
    for class in ["a", "b"] {
        for part in ["train", "test"] {
            (0..3).for_each(|at| write(format!("{part}/{class}/{at}.png"), at * 5));
        }
    }
    let set = same_in_memory_and_in_a_file(folder.path());
    assert_eq!((set.schema.shape.as_slice(), set.test.len()), (&[1, 4, 5][..], 6));
}

#[test]
fn series_of_either_format() {
    let folder = tempfile::tempdir().unwrap();
    let lines = |from: i32| -> String {
        (from..from + 9).map(|at| format!("{}\t{}\t-0\t1e-40\n", at % 3, at as f32 / 7.0)).collect()
    };
    write_pair(folder.path(), "tsv", &lines(0), &lines(20));
    same_in_memory_and_in_a_file(folder.path());
    let folder = tempfile::tempdir().unwrap();
    let body = format!("{TS}1,2,3:4,5,6:b\n7,8,9:1,1,1:a\n7,8,9:2,2,2:a\n");
    write_pair(folder.path(), "ts", &body, &body);
    same_in_memory_and_in_a_file(folder.path());
}
