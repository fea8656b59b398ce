//! Templates of sentences in the grammar of Home Assistant's intents (hassil): `[optional]`, `(one|of|these)`,
//! `(all;of;these)` in any order, `<rule>`, `{list:slot}` or `{list}`, and `\` before a character that is meant as it is.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use shared::text::Span;
use std::collections::BTreeMap;

/// Longest template in bytes.
pub(super) const TEMPLATE_BYTES_MAX: usize = 8192;
/// How deep brackets, rules and lists may lie in each other.
pub(super) const DEPTH_MAX: usize = 32;
/// Most parts that one sentence is made of.
const PARTS_MAX: usize = 1000;

/// A template, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Sequence(Vec<Part>),
    /// One of them.
    Choice(Vec<Part>),
    /// All of them, in any order.
    Permutation(Vec<Part>),
    Optional(Box<Part>),
    Rule(String),
    Slot {
        list: String,
        name: String,
    },
}

/// What rules and lists mean.
pub(super) trait Meaning {
    /// The template of a rule.
    fn rule(&self, name: &str) -> Option<&Part>;
    /// One value of a list, as a template.
    fn value(&self, list: &str, rng: &mut ChaCha8Rng) -> Part;
}

/// Reads a template.
///
/// # Errors
/// A sentence that says what is wrong and where, in bytes.
pub(super) fn parse(template: &str) -> Result<Part, String> {
    if template.len() > TEMPLATE_BYTES_MAX {
        return Err(format!("a template of {} bytes, at most {TEMPLATE_BYTES_MAX} are read", template.len()));
    }
    let mut reader = Reader { text: template, at: 0 };
    let part = reader.group(None, 0)?;
    Ok(part)
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let letter = self.text.get(self.at..)?.chars().next()?;
        self.at += letter.len_utf8();
        Some(letter)
    }

    /// What stands up to `end`, or to the end of the template.
    fn group(&mut self, end: Option<char>, depth: usize) -> Result<Part, String> {
        if depth > DEPTH_MAX {
            return Err(format!("brackets lie deeper than {DEPTH_MAX} in each other"));
        }
        let opened = self.at;
        let mut permuted = Vec::new();
        let mut choices = Vec::new();
        let mut sequence = Vec::new();
        let mut text = String::new();
        loop {
            let letter = self.next();
            if let Some(plain) = match letter {
                Some('\\') => self.next(),
                Some('(' | ')' | '[' | ']' | '{' | '}' | '<' | '>' | '|' | ';') | None => None,
                plain => plain,
            } {
                text.push(plain);
                continue;
            }
            if !text.is_empty() {
                sequence.push(Part::Text(std::mem::take(&mut text)));
            }
            match letter {
                Some('(') => sequence.push(self.group(Some(')'), depth + 1)?),
                Some('[') => sequence.push(Part::Optional(Box::new(self.group(Some(']'), depth + 1)?))),
                Some('<') => sequence.push(Part::Rule(self.name('>')?)),
                Some('{') => {
                    let inside = self.name('}')?;
                    let (list, name) = inside.split_once(':').unwrap_or((&inside, &inside));
                    sequence.push(Part::Slot { list: list.to_owned(), name: name.to_owned() });
                }
                Some('|') => choices.push(one(std::mem::take(&mut sequence), Part::Sequence)),
                Some(';') => {
                    choices.push(one(std::mem::take(&mut sequence), Part::Sequence));
                    permuted.push(one(std::mem::take(&mut choices), Part::Choice));
                }
                found if found == end => {
                    choices.push(one(sequence, Part::Sequence));
                    permuted.push(one(choices, Part::Choice));
                    return Ok(one(permuted, Part::Permutation));
                }
                Some(other) => return Err(format!("{other:?} at byte {} closes nothing", self.at - 1)),
                None => {
                    return Err(format!("what byte {} opens is not closed", opened.saturating_sub(1)));
                }
            }
        }
    }

    fn name(&mut self, end: char) -> Result<String, String> {
        let opened = self.at;
        let rest = self.text.get(opened..).unwrap_or_default();
        let Some((name, _)) = rest.split_once(end) else {
            return Err(format!("what byte {} opens is not closed", opened - 1));
        };
        let fits = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-' | ':');
        if name.is_empty() || !name.chars().all(fits) {
            return Err(format!("{name:?} at byte {opened} is no name"));
        }
        self.at = opened + name.len() + end.len_utf8();
        Ok(name.to_owned())
    }
}

/// One part as it is, several together.
fn one(mut parts: Vec<Part>, together: fn(Vec<Part>) -> Part) -> Part {
    if parts.len() == 1 { parts.remove(0) } else { together(parts) }
}

/// A sentence made of a template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) text: String,
    pub(super) slots: Vec<Span>,
    characters: usize,
    parts: usize,
}

/// Makes one sentence: each choice and each optional part is drawn.
///
/// # Errors
/// A rule that is not there, or too many parts in each other or behind each other.
pub(super) fn make(part: &Part, meaning: &dyn Meaning, rng: &mut ChaCha8Rng) -> Result<Made, String> {
    let mut made = Made::default();
    made.add(part, meaning, rng, 0)?;
    let kept = made.text.trim_end().len();
    made.text.truncate(kept);
    Ok(made)
}

impl Made {
    fn add(
        &mut self,
        part: &Part,
        meaning: &dyn Meaning,
        rng: &mut ChaCha8Rng,
        depth: usize,
    ) -> Result<(), String> {
        self.parts += 1;
        if depth > DEPTH_MAX {
            return Err(format!("rules and lists lie deeper than {DEPTH_MAX} in each other"));
        }
        if self.parts > PARTS_MAX || self.text.len() > TEMPLATE_BYTES_MAX {
            return Err(format!("a sentence of over {PARTS_MAX} parts or {TEMPLATE_BYTES_MAX} bytes"));
        }
        match part {
            Part::Text(text) => self.push(text),
            Part::Sequence(parts) => {
                for part in parts {
                    self.add(part, meaning, rng, depth + 1)?;
                }
            }
            Part::Choice(parts) => {
                if let Some(part) = parts.get(rng.random_range(0..parts.len().max(1))) {
                    self.add(part, meaning, rng, depth + 1)?;
                }
            }
            Part::Permutation(parts) => {
                let mut left: Vec<&Part> = parts.iter().collect();
                while !left.is_empty() {
                    let part = left.remove(rng.random_range(0..left.len()));
                    self.push(" ");
                    self.add(part, meaning, rng, depth + 1)?;
                    self.push(" ");
                }
            }
            Part::Optional(part) => {
                if rng.random() {
                    self.add(part, meaning, rng, depth + 1)?;
                }
            }
            Part::Rule(name) => {
                let rule = meaning.rule(name).ok_or_else(|| format!("there is no rule <{name}>"))?;
                self.add(rule, meaning, rng, depth + 1)?;
            }
            Part::Slot { list, name } => {
                let mut value = Self { parts: self.parts, ..Self::default() };
                value.add(&meaning.value(list, rng), meaning, rng, depth + 1)?;
                self.parts = value.parts;
                let start = self.characters;
                self.push(value.text.trim_end());
                if self.characters > start {
                    self.slots.push(Span { name: name.clone(), start, end: self.characters });
                }
            }
        }
        Ok(())
    }

    /// Adds text; of several spaces one stays, and none at the beginning.
    fn push(&mut self, text: &str) {
        for letter in text.chars() {
            let letter = if letter.is_whitespace() { ' ' } else { letter };
            if letter == ' ' && (self.text.is_empty() || self.text.ends_with(' ')) {
                continue;
            }
            self.text.push(letter);
            self.characters += 1;
        }
    }
}

/// Rules by name.
pub(super) type Rules = BTreeMap<String, Part>;
