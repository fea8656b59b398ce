use super::*;
use crate::{held_out, open};
use std::fs;

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

fn lines(word: &str, count: usize) -> String {
    (0..count).map(|line| format!("{word} {line}\n")).collect()
}

#[test]
fn the_last_tenth_of_each_file_is_held_out_and_no_window_reaches_into_it() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "b.txt", &lines("beta", 100));
    write(folder.path(), "a.txt", &lines("alpha", 100));
    write(folder.path(), "ignored.md", "# no text");
    let set = open(folder.path(), None).unwrap();
    let schema = &set.schema;
    assert_eq!((schema.format, schema.task), (DataFormat::Text, Task::TextGeneration));
    assert_eq!(schema.shape, [schema.labels.len(), CONTEXT]);
    let text = schema.text.clone().unwrap();
    text.validate().unwrap();
    assert_eq!((text.alphabet.as_str(), text.unknown), ("\n 0123456789abehlpt", 'a'));
    let held = held_out(folder.path()).unwrap();
    assert!(held.starts_with("alpha 91\n") && held.ends_with("beta 99\n"), "{held}");
    let letters: Vec<char> = text.alphabet.chars().collect();
    let written = |tokens: &[u8]| tokens.iter().map(|token| letters[usize::from(*token)]).collect::<String>();
    assert_eq!(written(&set.test.text.tokens), held);
    let train = written(&set.train.text.tokens);
    assert!(!train.contains("alpha 91") && train.contains("alpha 90\nbeta 0\n"), "{train}");
    // Each token's label is the next one.
    for split in [&set.train, &set.test] {
        let Text { tokens, labels, starts } = &split.text;
        assert_eq!(labels[..labels.len() - 1], tokens[1..]);
        assert_eq!(starts.len(), split.labels.len());
        for (start, label) in starts.iter().zip(&split.labels) {
            assert_eq!(i64::from(tokens[*start as usize + CONTEXT]), *label);
        }
    }
}

#[test]
fn what_frames_a_text_of_project_gutenberg_is_cut_off() {
    let body = lines("word", 3);
    for (before, after) in [
        (
            "Title\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\n",
            "*** END OF THE PROJECT GUTENBERG\nlicence\n",
        ),
        ("*END*THE SMALL PRINT! FOR PUBLIC DOMAIN*\n", "End of Project Gutenberg's X\n*** END OF\n"),
        ("", ""),
    ] {
        assert_eq!(without_frame(&format!("{before}{body}{after}")), body);
    }
    assert_eq!(without_frame("*** END OF\nx"), "");
}

#[test]
fn a_file_that_is_no_text_or_too_short_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.txt");
    let refusal = || open(&file, None).unwrap_err().to_string();
    fs::write(&file, b"ab\xff").unwrap();
    assert!(refusal().ends_with("x.txt, byte 2: not UTF-8: expected plain text"), "{}", refusal());
    fs::write(&file, "ab\0c").unwrap();
    assert!(refusal().ends_with("byte 2: the control character 0x0: expected plain text"), "{}", refusal());
    fs::write(&file, "short").unwrap();
    assert!(refusal().contains("characters are to train on, at least 130 are needed"), "{}", refusal());
    fs::write(&file, "").unwrap();
    assert!(refusal().contains("0 characters are to train on"), "{}", refusal());
}

#[test]
fn a_character_that_only_the_held_out_text_has_is_nobodys_label_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "x.txt", &(lines("word", 200) + &lines("w\u{e9}rd", 15)));
    let set = open(&folder.path().join("x.txt"), Some(DataFormat::Text)).unwrap();
    assert!(!set.schema.text.unwrap().alphabet.contains('\u{e9}'));
    assert!(set.test.text.labels.iter().filter(|label| **label == EMPTY).count() > 10);
    assert!(
        set.schema.remarks[1].contains("do not occur among those to train on"),
        "{:?}",
        set.schema.remarks
    );
}
