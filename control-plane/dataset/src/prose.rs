//! Plain text, to learn to write: one `.txt` file, or a folder of them.
//!
//! What lies around a text of Project Gutenberg is cut off: all up to a line that begins with `*** START OF` (or with
//! `*END*THE SMALL PRINT`), and all from a line that begins with `*** END OF`, `End of Project Gutenberg` or
//! `End of the Project Gutenberg`. Line ends become `\n`.
//!
//! The last tenth of each file, from a line's beginning, is held out: nothing is trained on it.

mod repeated;

use super::{Error, Place, Raw, Split, Text, read_file};
use shared::{
    digest::Hasher,
    job::DataFormat,
    manifest::Task,
    text::{Align, EMPTY, Encoder, TextPreprocess},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Characters that a model reads to know the next one.
pub const CONTEXT: usize = 64;
/// Most characters of an alphabet that is found in a text; the rarest beyond it are unknown ones.
pub const ALPHABET_MAX: usize = 128;
/// Most places of the held-out text that a model is measured at, evenly spaced.
pub const PLACES_MAX: usize = 4096;
/// Most characters of all files.
pub const CHARACTERS_MAX: usize = 256 << 20;
/// Of so many parts of a file the last one is held out.
const PARTS: usize = 10;

const STARTS: [&str; 2] = ["*** START OF", "*END*THE SMALL PRINT"];
const ENDS: [&str; 3] = ["*** END OF", "End of Project Gutenberg", "End of the Project Gutenberg"];

/// The text of all files to train on, and what is held out.
struct Halves {
    train: String,
    test: String,
}

/// Reads the files in their order.
pub(super) fn read(files: &[PathBuf], hasher: &mut Hasher) -> Result<Raw, Error> {
    let origin = files.first().cloned().unwrap_or_default();
    let Halves { train, test } = halves(files, hasher)?;
    let least = 2 * (CONTEXT + 1);
    for (text, what, least) in [(&train, "to train on", least), (&test, "held out", CONTEXT + 1)] {
        let count = text.chars().take(least).count();
        if count < least {
            let message =
                format!("{count} characters are {what}, at least {least} are needed: give more text");
            return Err(Error::bad(&origin, Place::File, message));
        }
    }
    let text = alphabet(&train);
    let encoder = text.encoder();
    let train = stream(&train, &encoder);
    let test = stream(&test, &encoder);
    let unknown = test.labels.iter().filter(|label| **label == EMPTY).count().saturating_sub(1);
    let mut remarks = vec![format!(
        "the last tenth of each of {} files is held out, {} characters",
        files.len(),
        test.tokens.len()
    )];
    if unknown > 0 {
        remarks.push(format!("{unknown} characters that are held out do not occur among those to train on"));
    }
    let windows = (train.tokens.len() - 1) / CONTEXT;
    let places = (test.tokens.len() - CONTEXT).min(PLACES_MAX);
    // The last character has none behind it.
    let room = test.tokens.len() - CONTEXT;
    let train_starts: Vec<u32> = (0..windows).map(|window| (window * CONTEXT) as u32).collect();
    let test_starts: Vec<u32> = (0..places).map(|place| (place * room / places) as u32).collect();
    let repeated = repeated::repeated(&train.tokens, &test.tokens, &test_starts);
    if repeated > 0 {
        remarks.push(format!(
            "{repeated} of {places} places that are measured stand behind {CONTEXT} characters that are trained on word for \
             word: the accuracy counts what was learned by heart"
        ));
    }
    let split = |mut text: Text, starts: Vec<u32>| {
        text.starts = starts;
        let last = |start: &u32| i64::from(text.labels[*start as usize + CONTEXT - 1]);
        Split { labels: text.starts.iter().map(last).collect(), text, ..Split::default() }
    };
    let labels = text.alphabet.chars().map(String::from).collect::<Vec<_>>();
    Ok(Raw {
        format: DataFormat::Text,
        task: Task::TextGeneration,
        shape: vec![labels.len(), CONTEXT],
        labels,
        heads: Vec::new(),
        text: Some(text),
        remarks,
        origin,
        train: split(train, train_starts),
        test: split(test, test_starts),
    })
}

/// The text that is held out of the files, as it is measured on.
pub(super) fn held_out(files: &[PathBuf]) -> Result<String, Error> {
    Ok(halves(files, &mut Hasher::new())?.test)
}

fn halves(files: &[PathBuf], hasher: &mut Hasher) -> Result<Halves, Error> {
    let mut found = Halves { train: String::new(), test: String::new() };
    for path in files {
        let whole = decode(path, read_file(path, hasher)?)?;
        let text = without_frame(&whole);
        let cut = cut(text);
        for (into, part) in [(&mut found.train, &text[..cut]), (&mut found.test, &text[cut..])] {
            into.push_str(part);
            if !part.is_empty() && !part.ends_with('\n') {
                into.push('\n');
            }
        }
        if found.train.len() + found.test.len() > CHARACTERS_MAX {
            let message =
                format!("with this file the text is over {CHARACTERS_MAX} bytes, the most that is read");
            return Err(Error::bad(path, Place::File, message));
        }
    }
    Ok(found)
}

/// UTF-8 without a mark before it and with one kind of line end.
fn decode(path: &Path, bytes: Vec<u8>) -> Result<String, Error> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let byte = error.utf8_error().valid_up_to();
        Error::bad(path, Place::Byte(byte), "not UTF-8: expected plain text")
    })?;
    let is_text = |letter: char| !letter.is_control() || matches!(letter, '\n' | '\r' | '\t' | '\u{c}');
    if let Some((byte, letter)) = text.char_indices().find(|(_, letter)| !is_text(*letter)) {
        let message = format!("the control character {:#x}: expected plain text", u32::from(letter));
        return Err(Error::bad(path, Place::Byte(byte), message));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text.replace("\r\n", "\n").replace(['\r', '\u{c}'], "\n"))
}

/// What Project Gutenberg frames, or all of it.
fn without_frame(text: &str) -> &str {
    let mut from = 0;
    let mut to = text.len();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if STARTS.iter().any(|mark| line.starts_with(mark)) && to == text.len() {
            from = at + line.len();
        } else if to == text.len() && at >= from && ENDS.iter().any(|mark| line.starts_with(mark)) {
            to = at;
        }
        at += line.len();
    }
    text.get(from..to).unwrap_or_default()
}

/// The byte from which on a text is held out.
fn cut(text: &str) -> usize {
    let target = text.len() - text.len() / PARTS;
    let rest = text.char_indices().map(|(byte, _)| byte).find(|byte| *byte >= target).unwrap_or(text.len());
    text[rest..].find('\n').map_or(rest, |line| rest + line + 1)
}

/// The most frequent characters, in their order.
pub(super) fn alphabet(text: &str) -> TextPreprocess {
    let mut counts: BTreeMap<char, usize> = BTreeMap::new();
    for letter in text.chars() {
        *counts.entry(letter).or_default() += 1;
    }
    let mut ranked: Vec<(char, usize)> = counts.into_iter().collect();
    // Stable: of equally frequent ones the first by its number.
    ranked.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    ranked.truncate(ALPHABET_MAX);
    let unknown = ranked.first().map_or(' ', |(letter, _)| *letter);
    let mut letters: Vec<char> = ranked.into_iter().map(|(letter, _)| letter).collect();
    letters.sort_unstable();
    TextPreprocess { alphabet: letters.into_iter().collect(), unknown, lowercase: false, align: Align::End }
}

/// Tokens, each labelled by the character behind it; [`EMPTY`] where the alphabet lacks that one or there is none.
fn stream(text: &str, encoder: &Encoder) -> Text {
    let tokens: Vec<u8> = text.chars().map(|letter| encoder.token(letter)).collect();
    let next = text.chars().skip(1).map(|letter| encoder.known(letter).unwrap_or(EMPTY));
    let labels = next.chain([EMPTY]).take(tokens.len()).collect();
    Text { tokens, labels, starts: Vec::new() }
}

#[cfg(test)]
mod tests;
