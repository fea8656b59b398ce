//! Sentences with an intent and slots: as they are, or made from templates.
//!
//! What is made of one template is alike, so the split is by template: of each intent's templates, in the order of their
//! SHA-256, the first fifth is tested on (one at least, where there are two or more), the others are trained on. A
//! sentence that both sides give by different templates is trained on alone.

pub(super) mod assistant;
mod grammar;
pub(super) mod jsonl;
mod words;

use super::{Error, Place, Raw, SAMPLES_MAX, Split, Text, examine, prose};
use shared::{
    Digest,
    job::DataFormat,
    manifest::{Head, Task},
    text::{Align, BEGIN, EMPTY, INSIDE, OUTSIDE, Span, TextPreprocess, lower},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Name of the head that labels positions.
pub const SLOTS: &str = "slots";
/// Most characters of a sentence that a model reads.
pub const LENGTH_MAX: usize = 96;
/// Most names of slots.
pub const SLOT_NAMES_MAX: usize = 100;
/// Of so many templates of an intent one is tested on.
const PARTS: usize = 5;
/// A sentence's length is rounded up to a multiple of it.
const LENGTH_STEP: usize = 8;

/// One sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sentence {
    text: String,
    intent: String,
    /// What it was made of, or could have been.
    template: String,
    /// In the order of the text, by characters, none inside another.
    slots: Vec<Span>,
}

/// A data set of `sentences`.
fn raw(format: DataFormat, origin: &Path, sentences: Vec<Sentence>) -> Result<Raw, Error> {
    let bad = |message: String| Error::bad(origin, Place::File, message);
    if sentences.is_empty() || sentences.len() > SAMPLES_MAX {
        return Err(bad(format!("{} sentences, allowed are 1 to {SAMPLES_MAX}", sentences.len())));
    }
    let intents: BTreeSet<&str> = sentences.iter().map(|sentence| sentence.intent.as_str()).collect();
    if let (Some(only), 1) = (intents.first(), intents.len()) {
        return Err(Error::one_class(origin, only));
    }
    let names: BTreeSet<&str> =
        sentences.iter().flat_map(|sentence| &sentence.slots).map(|slot| slot.name.as_str()).collect();
    if names.len() > SLOT_NAMES_MAX {
        return Err(bad(format!("{} names of slots, at most {SLOT_NAMES_MAX} are taken", names.len())));
    }
    let tested = tested(&sentences);
    let (test, train): (Vec<&Sentence>, Vec<&Sentence>) =
        sentences.iter().partition(|sentence| tested.contains(sentence.template.as_str()));
    let mut remarks = vec![said_of_split(&train, &test)];
    let known: BTreeSet<&str> = train.iter().map(|sentence| sentence.text.as_str()).collect();
    let count = test.len();
    let test: Vec<&Sentence> = test.into_iter().filter(|one| !known.contains(one.text.as_str())).collect();
    if test.len() < count {
        let both = count - test.len();
        remarks.push(format!(
            "{both} sentences came of templates on both sides, and were taken out of the test"
        ));
    }
    if train.is_empty() || test.is_empty() {
        return Err(bad(
            "no intent has two templates: nothing can be tested that was not trained on".to_owned()
        ));
    }
    remarks.extend(said_of_doubts(&train));
    let longest = train.iter().map(|sentence| sentence.text.chars().count()).max().unwrap_or(1);
    let length = longest.min(LENGTH_MAX).next_multiple_of(LENGTH_STEP);
    let all: String = train.iter().flat_map(|sentence| sentence.text.chars().map(lower)).collect();
    let TextPreprocess { alphabet, unknown, .. } = prose::alphabet(&all);
    let text = TextPreprocess { alphabet, unknown, lowercase: true, align: Align::Start };
    let labels: Vec<String> = intents.iter().map(|intent| (*intent).to_owned()).collect();
    let mut marks = vec![OUTSIDE.to_owned()];
    marks.extend(names.iter().flat_map(|name| [format!("{BEGIN}{name}"), format!("{INSIDE}{name}")]));
    let rules = Rules { text: &text, length, intents: &labels, marks: &marks };
    let (train, test) = (rules.split(&train), rules.split(&test));
    let heads = vec![Head { name: SLOTS.to_owned(), labels: marks.clone(), positions: length }];
    Ok(Raw {
        format,
        task: Task::IntentSlots,
        shape: vec![text.alphabet.chars().count(), length],
        labels,
        heads,
        text: Some(text),
        remarks,
        origin: origin.to_owned(),
        train,
        test,
    })
}

/// The templates that are tested on.
fn tested(sentences: &[Sentence]) -> BTreeSet<&str> {
    let mut of_intent: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    // A template that several intents have belongs to the first of them.
    let mut owner: BTreeMap<&str, &str> = BTreeMap::new();
    for Sentence { intent, template, .. } in sentences {
        let first = owner.entry(template).or_insert(intent);
        of_intent.entry(first).or_default().insert(template);
    }
    let mut tested = BTreeSet::new();
    for templates in of_intent.into_values().filter(|templates| templates.len() > 1) {
        let mut order: Vec<&str> = templates.into_iter().collect();
        order.sort_by_key(|template| Digest::of(template.as_bytes()));
        let count = (order.len() / PARTS).max(1);
        tested.extend(order.into_iter().take(count));
    }
    tested
}

fn said_of_split(train: &[&Sentence], test: &[&Sentence]) -> String {
    let count = |side: &[&Sentence]| {
        side.iter().map(|sentence| sentence.template.as_str()).collect::<BTreeSet<&str>>().len()
    };
    let tested: BTreeSet<&str> = test.iter().map(|sentence| sentence.intent.as_str()).collect();
    let untested: BTreeSet<&str> = train
        .iter()
        .map(|sentence| sentence.intent.as_str())
        .filter(|intent| !tested.contains(intent))
        .collect();
    let mut said = format!(
        "split by template: {} templates to train on, {} to test on, none on both sides",
        count(train),
        count(test)
    );
    if !untested.is_empty() {
        let untested = examine::listed(untested.into_iter());
        said.push_str(&format!("; with one template alone and not tested: {untested}"));
    }
    said
}

/// Warns of sentences that nobody can get right.
fn said_of_doubts(train: &[&Sentence]) -> Option<String> {
    let mut meant: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for sentence in train {
        meant.entry(&sentence.text).or_default().insert(&sentence.intent);
    }
    let doubtful = meant.iter().filter(|(_, intents)| intents.len() > 1).count();
    let (text, _) = meant.iter().find(|(_, intents)| intents.len() > 1)?;
    let text = examine::shown(text);
    Some(format!("{doubtful} sentences have several intents, such as {text}: no model gets them all right"))
}

/// How sentences become samples.
struct Rules<'a> {
    text: &'a TextPreprocess,
    length: usize,
    intents: &'a [String],
    marks: &'a [String],
}

impl Rules<'_> {
    fn split(&self, sentences: &[&Sentence]) -> Split {
        let encoder = self.text.encoder();
        let mut split = Split::default();
        let mut text = Text::default();
        for sentence in sentences {
            let intent = self.intents.binary_search(&sentence.intent).unwrap_or(0);
            split.labels.push(intent as i64);
            text.starts.push(u32::try_from(text.tokens.len()).unwrap_or(u32::MAX));
            let window = encoder.window(&sentence.text, self.length);
            text.labels.extend(self.marks_of(sentence, &window));
            text.tokens.extend(window);
        }
        split.text = text;
        split
    }

    /// The label of each position.
    fn marks_of(&self, sentence: &Sentence, window: &[u8]) -> Vec<u8> {
        let outside = |token: &u8| if *token == EMPTY { EMPTY } else { 0 };
        let mut marks: Vec<u8> = window.iter().map(outside).collect();
        for Span { name, start, end } in &sentence.slots {
            let begin = format!("{BEGIN}{name}");
            let Some(begin) = self.marks.iter().position(|mark| *mark == begin) else { continue };
            for (at, mark) in marks.iter_mut().enumerate().take(*end).skip(*start) {
                // Behind each begin stands its inside.
                let label = begin + usize::from(at > *start);
                *mark = u8::try_from(label).unwrap_or(0);
            }
        }
        marks
    }
}

#[cfg(test)]
mod tests;
