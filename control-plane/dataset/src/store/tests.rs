use super::*;
use crate::{Room, open_ref, open_within};
use shared::job::{DataFormat, DatasetRef, Reading};

/// A pair of series of two values; a third sample, of the training split, is `third`.
fn write_set(folder: &Path, third: &str) -> DatasetRef {
    fs::write(folder.join("S_TRAIN.tsv"), format!("1\t1\t2\n2\t3\t4\n{third}\n")).unwrap();
    fs::write(folder.join("S_TEST.tsv"), "2\t7\t8\n").unwrap();
    let digest = Some(crate::inspect(folder, None, &Reading::default()).unwrap().digest);
    DatasetRef { path: folder.to_owned(), format: DataFormat::UcrTsv, digest, reading: Reading::default() }
}

fn room(folder: &Path) -> Room {
    Room { file: folder.join("samples.bin"), memory_bytes: 0 }
}

#[test]
fn a_file_is_taken_up_again_without_what_it_was_made_from_unless_that_is_another_set() {
    let folder = tempfile::tempdir().unwrap();
    let room = room(folder.path());
    let reference = write_set(folder.path(), "1\t5\t6");
    let made = open_ref(&reference, &room).unwrap();
    assert!(made.train.samples.is_empty() && made.train.stored.is_some());
    fs::remove_file(folder.path().join("S_TRAIN.tsv")).unwrap();
    let again = open_ref(&reference, &room).unwrap();
    assert_eq!(again, made);
    // Another set is registered: what lies there is not it.
    let other = write_set(folder.path(), "1\t5\t7");
    let set = open_ref(&other, &room).unwrap();
    let mut values = Vec::new();
    set.train.values(2, &[1, 2], &mut values);
    assert_eq!(values, [5.0, 7.0]);
}

#[test]
fn a_file_that_was_cut_or_changed_is_made_again_whatever_is_wrong_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let room = room(folder.path());
    let reference = write_set(folder.path(), "1\t5\t6");
    let made_from = reference.digest.unwrap();
    let made = open_ref(&reference, &room).unwrap();
    let bytes = fs::read(&room.file).unwrap();
    assert!(open(&room.file, made_from).is_some());
    for end in (0..bytes.len()).step_by(7).chain([bytes.len() - 1]) {
        fs::write(&room.file, &bytes[..end]).unwrap();
        assert!(open(&room.file, made_from).is_none(), "{end} of {} bytes were taken", bytes.len());
    }
    for at in (0..56).chain(bytes.len() - 60..bytes.len()) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x40;
        fs::write(&room.file, &bytes).unwrap();
        assert!(open(&room.file, made_from).is_none(), "a change of byte {at} was taken");
    }
    // What a kill leaves behind is in nobody's way.
    fs::write(room.file.with_extension("tmp"), "half").unwrap();
    assert_eq!(open_ref(&reference, &room).unwrap(), made);
    assert!(!room.file.with_extension("tmp").exists());
}

#[test]
fn a_full_disk_is_said_in_words_and_nothing_stays_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let room = room(folder.path());
    let reference = write_set(folder.path(), "1\t5\t6");
    // Every write to this device finds no space.
    std::os::unix::fs::symlink("/dev/full", room.file.with_extension("tmp")).unwrap();
    let error = open_ref(&reference, &room).unwrap_err();
    assert!(matches!(error, Error::Store { .. }), "{error}");
    assert!(error.to_string().contains("free some of the disk and start again"), "{error}");
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("No space left on device"), "{why}");
    assert!(!room.file.exists() && fs::symlink_metadata(room.file.with_extension("tmp")).is_err());
}

#[test]
fn a_set_that_is_refused_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    write_set(folder.path(), "1\t5\t6");
    fs::write(folder.path().join("S_TEST.tsv"), "3\t7\t8\n").unwrap();
    let room = room(folder.path());
    assert!(open_within(folder.path(), None, &room).unwrap_err().to_string().contains("does not occur"));
    assert!(!room.file.exists() && !room.file.with_extension("tmp").exists());
}

#[test]
fn what_cannot_be_read_back_is_said_once_and_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let room = room(folder.path());
    let set = open_ref(&write_set(folder.path(), "1\t5\t6"), &room).unwrap();
    let mut values = Vec::new();
    set.train.values(1, &[1, 2], &mut values);
    assert_eq!((&values[..], set.train.failure().is_none()), (&[3.0, 4.0][..], true));
    let file = fs::OpenOptions::new().write(true).open(&room.file).unwrap();
    file.set_len(VALUES_AT + 4).unwrap();
    values.clear();
    set.train.values(1, &[1, 2], &mut values);
    assert_eq!(values, [0.0, 0.0]);
    assert!(matches!(set.train.failure(), Some(Error::Io { path, .. }) if path == room.file));
    assert!(set.train.part(&[0]).failure().is_some());
}

#[test]
fn a_part_of_a_part_is_of_the_samples_that_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let set = open_ref(&write_set(folder.path(), "1\t5\t6"), &room(folder.path())).unwrap();
    let part = set.train.part(&[2, 1, 9]).part(&[1, 0]);
    let mut values = Vec::new();
    (0..3).for_each(|sample| part.values(sample, &[1, 2], &mut values));
    assert_eq!((values, part.labels), (vec![3.0, 4.0, 5.0, 6.0], vec![1, 0]));
}
