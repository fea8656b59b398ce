//! How text becomes a model's input, the same in the forge and on a device: each character of an alphabet is a channel,
//! which is one where that character stands; an empty position is zero in all of them.

use crate::limits;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Stands for no character among tokens.
pub const EMPTY: u8 = u8::MAX;
/// The label of a position that belongs to no slot.
pub const OUTSIDE: &str = "O";
/// Before the name of a slot: the label of its first position.
pub const BEGIN: &str = "B-";
/// Before the name of a slot: the label of its further positions.
pub const INSIDE: &str = "I-";

/// Which end of the input a text stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Align {
    /// At the first position; a text that is too long loses its end.
    Start,
    /// At the last position; a text that is too long loses its beginning.
    End,
}

/// How text becomes the model's input `[alphabet, length]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TextPreprocess {
    /// The characters in the order of the channels, each once.
    pub alphabet: String,
    /// What a character becomes that the alphabet lacks; one of the alphabet.
    pub unknown: char,
    /// Whether letters become small ones first.
    pub lowercase: bool,
    pub align: Align,
}

impl TextPreprocess {
    /// Names what cannot be.
    pub fn validate(&self) -> Result<(), String> {
        let count = self.alphabet.chars().count();
        if !(1..=limits::ALPHABET_MAX).contains(&count) {
            return Err(format!("an alphabet has 1 to {} characters, not {count}", limits::ALPHABET_MAX));
        }
        let tokens = self.encoder().tokens;
        if tokens.len() != count {
            return Err("an alphabet holds each character once".to_owned());
        }
        if !tokens.contains_key(&self.unknown) {
            return Err(format!(
                "the alphabet lacks {:?}, which stands for unknown characters",
                self.unknown
            ));
        }
        Ok(())
    }

    /// Ready to turn texts into tokens.
    pub fn encoder(&self) -> Encoder {
        let tokens: BTreeMap<char, u8> = self.alphabet.chars().zip(0..EMPTY).collect();
        let unknown = tokens.get(&self.unknown).copied().unwrap_or(EMPTY);
        Encoder { tokens, unknown, lowercase: self.lowercase, align: self.align }
    }
}

/// Turns text into tokens, one a character.
#[derive(Clone, Debug)]
pub struct Encoder {
    tokens: BTreeMap<char, u8>,
    unknown: u8,
    lowercase: bool,
    align: Align,
}

impl Encoder {
    /// The token of a character; `None` where the alphabet lacks it.
    pub fn known(&self, character: char) -> Option<u8> {
        let character = if self.lowercase { lower(character) } else { character };
        self.tokens.get(&character).copied()
    }

    /// The token of a character, or that of unknown ones.
    pub fn token(&self, character: char) -> u8 {
        self.known(character).unwrap_or(self.unknown)
    }

    /// The tokens of `text` at their end of `length` positions.
    pub fn window(&self, text: &str, length: usize) -> Vec<u8> {
        match self.align {
            Align::Start => {
                let mut window: Vec<u8> =
                    text.chars().take(length).map(|letter| self.token(letter)).collect();
                window.resize(length, EMPTY);
                window
            }
            Align::End => {
                let mut window: Vec<u8> =
                    text.chars().rev().take(length).map(|letter| self.token(letter)).collect();
                window.resize(length, EMPTY);
                window.reverse();
                window
            }
        }
    }
}

/// The small letter, where that is one character.
pub fn lower(character: char) -> char {
    let mut small = character.to_lowercase();
    match (small.next(), small.next()) {
        (Some(one), None) => one,
        _ => character,
    }
}

/// Adds the input `[channels, length]`, row major, of the tokens of one window.
pub fn one_hot(window: &[u8], channels: usize, into: &mut Vec<f32>) {
    let from = into.len();
    into.resize(from + channels * window.len(), 0.0);
    for (at, token) in window.iter().enumerate() {
        let place = from + usize::from(*token) * window.len() + at;
        if usize::from(*token) < channels
            && let Some(value) = into.get_mut(place)
        {
            *value = 1.0;
        }
    }
}

/// A slot in a text, by positions of characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span {
    pub name: String,
    /// Its first character.
    pub start: usize,
    /// Behind its last character.
    pub end: usize,
}

/// The slots that one label a position spells (BIO, Ramshaw and Marcus 1995). A slot also begins where a position is
/// inside one that nothing began.
pub fn spans<'a>(labels: impl IntoIterator<Item = &'a str>) -> Vec<Span> {
    let mut found: Vec<Span> = Vec::new();
    let mut open = false;
    for (at, label) in labels.into_iter().enumerate() {
        let begun = label.strip_prefix(BEGIN);
        let Some(name) = begun.or_else(|| label.strip_prefix(INSIDE)) else {
            open = false;
            continue;
        };
        match found.last_mut() {
            Some(last) if open && begun.is_none() && last.name == name => last.end = at + 1,
            _ => found.push(Span { name: name.to_owned(), start: at, end: at + 1 }),
        }
        open = true;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(align: Align) -> TextPreprocess {
        TextPreprocess { alphabet: " abc".to_owned(), unknown: ' ', lowercase: true, align }
    }

    #[test]
    fn a_text_stands_at_its_end_of_the_input_and_what_is_too_long_is_cut_at_the_other() {
        let (start, end) = (text(Align::Start).encoder(), text(Align::End).encoder());
        assert_eq!(start.window("aB?", 5), [1, 2, 0, EMPTY, EMPTY]);
        assert_eq!(end.window("aB?", 5), [EMPTY, EMPTY, 1, 2, 0]);
        assert_eq!(start.window("abcabc", 4), [1, 2, 3, 1]);
        assert_eq!(end.window("abcabc", 4), [3, 1, 2, 3]);
        let mut values = vec![9.0];
        one_hot(&[EMPTY, 1, 0], 2, &mut values);
        assert_eq!(values, [9.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn an_alphabet_that_cannot_be_is_refused() {
        text(Align::End).validate().unwrap();
        let broken = |alphabet: &str, unknown| {
            let bad = TextPreprocess { alphabet: alphabet.to_owned(), unknown, ..text(Align::End) };
            bad.validate().unwrap_err()
        };
        assert!(broken("", 'a').contains("1 to 254 characters, not 0"));
        assert!(broken("aa", 'a').contains("each character once"));
        assert!(broken("ab", 'c').contains("lacks 'c'"));
        let long: String = (0..300).filter_map(char::from_u32).collect();
        assert!(broken(&long, 'c').contains("not 300"));
    }

    #[test]
    fn labels_spell_slots_and_a_slot_that_nothing_began_begins_where_it_is() {
        let found = spans(["B-room", "I-room", "O", "I-name", "I-room", "B-room", "B-room"]);
        let span = |name: &str, start, end| Span { name: name.to_owned(), start, end };
        let expected = [
            span("room", 0, 2),
            span("name", 3, 4),
            span("room", 4, 5),
            span("room", 5, 6),
            span("room", 6, 7),
        ];
        assert_eq!(found, expected);
        assert_eq!(spans(["O", "O"]), []);
    }
}
