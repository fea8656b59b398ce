//! Sentences as they are, one JSON object a line:
//!
//! ```json
//! {"text": "turn on the kitchen light", "intent": "turn_on", "slots": [{"start": 12, "end": 19, "name": "area"}]}
//! ```
//!
//! `start` and `end` count characters. `template` names what the sentence was made of; where it is missing, it is the
//! text with each slot's name in its place.

use super::{Sentence, raw};
use crate::{Error, Place, Raw, read_file};
use serde::Deserialize;
use shared::{digest::Hasher, job::DataFormat, text::Span};
use std::path::Path;

/// Longest sentence in characters.
const TEXT_CHARACTERS_MAX: usize = 4096;
/// Longest name of an intent or a slot in bytes.
const NAME_BYTES_MAX: usize = 64;

#[derive(Deserialize)]
struct Line {
    text: String,
    intent: String,
    #[serde(default)]
    slots: Vec<Slot>,
    template: Option<String>,
}

#[derive(Deserialize)]
struct Slot {
    start: usize,
    end: usize,
    name: String,
    value: Option<String>,
}

pub(crate) fn read(path: &Path, hasher: &mut Hasher) -> Result<Raw, Error> {
    let bytes = read_file(path, hasher)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let byte = error.utf8_error().valid_up_to();
        Error::bad(path, Place::Byte(byte), "not UTF-8: expected lines of JSON")
    })?;
    let mut sentences = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let bad = |message: String| Error::bad(path, Place::Line(number), message);
        let line: Line = serde_json::from_str(line).map_err(|error| {
            bad(format!("expected {{\"text\", \"intent\", \"slots\"}} as one JSON object: {error}"))
        })?;
        sentences.push(sentence(line).map_err(bad)?);
    }
    raw(DataFormat::IntentJsonl, path, sentences)
}

fn sentence(line: Line) -> Result<Sentence, String> {
    let letters: Vec<char> = line.text.chars().collect();
    if !(1..=TEXT_CHARACTERS_MAX).contains(&letters.len()) {
        return Err(format!("text has {} characters, allowed are 1 to {TEXT_CHARACTERS_MAX}", letters.len()));
    }
    let named = |what: &str, name: &str| match name.len() {
        1..=NAME_BYTES_MAX => Ok(()),
        bytes => Err(format!("the name of {what} has {bytes} bytes, allowed are 1 to {NAME_BYTES_MAX}")),
    };
    named("the intent", &line.intent)?;
    let mut slots = line.slots;
    slots.sort_by_key(|slot| slot.start);
    let mut template = String::new();
    let mut at = 0;
    for Slot { start, end, name, value } in &slots {
        named("a slot", name)?;
        let inside = (*start >= at && start < end).then(|| letters.get(*start..*end)).flatten();
        let Some(inside) = inside else {
            return Err(format!(
                "slot {name:?} is {start} to {end} of a text of {} characters: slots lie in it one behind the other",
                letters.len()
            ));
        };
        let found: String = inside.iter().collect();
        if let Some(value) = value.as_ref().filter(|value| **value != found) {
            return Err(format!("slot {name:?} is {value:?}, but {start} to {end} of the text is {found:?}"));
        }
        template.extend(&letters[at..*start]);
        template.push_str(&format!("{{{name}}}"));
        at = *end;
    }
    template.extend(&letters[at..]);
    let slots = slots.into_iter().map(|slot| Span { name: slot.name, start: slot.start, end: slot.end });
    Ok(Sentence {
        slots: slots.collect(),
        template: line.template.unwrap_or(template),
        text: line.text,
        intent: line.intent,
    })
}
