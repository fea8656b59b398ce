//! Templates of sentences as Home Assistant keeps them: one JSON file a language with `intents`, each with `data` that
//! lists `sentences`, `expansion_rules`, and `lists` of slot values.
//!
//! Of each template so many different sentences are made as there are, [`SENTENCES_MAX`] at most; draws come from the
//! template's SHA-256, so that a file always makes the same sentences. A list without values (rooms and devices are a
//! home's own) is filled from a vocabulary of this crate.

use super::{
    Sentence,
    grammar::{Meaning, Part, Rules, make, parse},
    raw, words,
};
use crate::{Error, Place, Raw, read_file};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use shared::{Digest, digest::Hasher, job::DataFormat};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Most sentences made of one template.
pub const SENTENCES_MAX: usize = 16;
/// Draws for each sentence that is wanted; the same sentence may come again.
const DRAWS: usize = 3;
/// Most templates of a file.
const TEMPLATES_MAX: usize = 100_000;

#[derive(Deserialize)]
struct File {
    intents: BTreeMap<String, Intent>,
    #[serde(default)]
    lists: BTreeMap<String, List>,
    #[serde(default)]
    expansion_rules: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Intent {
    data: Vec<Data>,
}

#[derive(Deserialize)]
struct Data {
    sentences: Vec<String>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    values: Vec<Value>,
    range: Option<Range>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Plain(String),
    Mapped {
        #[serde(rename = "in")]
        said: String,
    },
}

#[derive(Deserialize)]
struct Range {
    from: i64,
    to: i64,
    #[serde(default = "one")]
    step: i64,
    #[serde(default)]
    fractions: Option<String>,
}

fn one() -> i64 {
    1
}

/// Where the values of a list come from.
enum Source {
    Values(Vec<Part>),
    Range(Range),
}

struct Home {
    rules: Rules,
    lists: BTreeMap<String, Source>,
}

impl Meaning for Home {
    fn rule(&self, name: &str) -> Option<&Part> {
        self.rules.get(name)
    }

    fn value(&self, list: &str, rng: &mut ChaCha8Rng) -> Part {
        match self.lists.get(list) {
            Some(Source::Values(values)) if !values.is_empty() => {
                values[rng.random_range(0..values.len())].clone()
            }
            Some(Source::Range(range)) => Part::Text(number(range, rng)),
            _ => Part::Text(words::draw(list, rng)),
        }
    }
}

fn number(range: &Range, rng: &mut ChaCha8Rng) -> String {
    let step = range.step.max(1);
    let steps = range.to.saturating_sub(range.from).max(0) / step;
    let value = range.from.saturating_add(rng.random_range(0..=steps).saturating_mul(step));
    let half = range.fractions.as_deref() == Some("halves") && rng.random_bool(0.2);
    if half { format!("{value}.5") } else { value.to_string() }
}

pub(crate) fn read(path: &Path, hasher: &mut Hasher) -> Result<Raw, Error> {
    let bytes = read_file(path, hasher)?;
    let file: File = serde_json::from_slice(&bytes).map_err(|error| {
        let message = format!("expected intents with data and sentences, lists and expansion_rules: {error}");
        Error::bad(path, Place::Line(error.line()), message)
    })?;
    let bad = |message: String| Error::bad(path, Place::File, message);
    let home = home(&file).map_err(bad)?;
    let templates = file.intents.iter().flat_map(|(intent, Intent { data })| {
        data.iter().flat_map(|data| &data.sentences).map(move |template| (intent, template))
    });
    let mut sentences = Vec::new();
    for (count, (intent, template)) in templates.enumerate() {
        if count == TEMPLATES_MAX {
            return Err(bad(format!("more than {TEMPLATES_MAX} sentences, the most that are taken")));
        }
        let made = made(template, &home)
            .map_err(|reason| bad(format!("intent {intent:?}, sentence {template:?}: {reason}")))?;
        sentences.extend(made.into_iter().map(|made| Sentence { intent: intent.clone(), ..made }));
    }
    raw(DataFormat::IntentJson, path, sentences)
}

fn home(file: &File) -> Result<Home, String> {
    let mut rules = Rules::new();
    for (name, template) in &file.expansion_rules {
        let part = parse(template).map_err(|reason| format!("rule <{name}>, {template:?}: {reason}"))?;
        rules.insert(name.clone(), part);
    }
    let mut lists = BTreeMap::new();
    for (name, list) in &file.lists {
        let source = match &list.range {
            Some(range) => {
                let Range { from, to, step, .. } = *range;
                Source::Range(Range { from, to, step, fractions: range.fractions.clone() })
            }
            None => {
                let said = list.values.iter().map(|value| match value {
                    Value::Plain(said) | Value::Mapped { said } => said,
                });
                let values = said.map(|said| parse(said)).collect::<Result<Vec<Part>, String>>();
                Source::Values(values.map_err(|reason| format!("list {{{name}}}: {reason}"))?)
            }
        };
        lists.insert(name.clone(), source);
    }
    Ok(Home { rules, lists })
}

/// Different sentences of one template.
fn made(template: &str, home: &Home) -> Result<Vec<Sentence>, String> {
    let part = parse(template)?;
    let mut rng = ChaCha8Rng::from_seed(*Digest::of(template.as_bytes()).as_bytes());
    let mut known = BTreeSet::new();
    let mut sentences = Vec::new();
    for _ in 0..SENTENCES_MAX * DRAWS {
        let made = make(&part, home, &mut rng)?;
        if !made.text.is_empty() && known.insert(made.text.clone()) {
            let (intent, template) = (String::new(), template.to_owned());
            sentences.push(Sentence { text: made.text, intent, template, slots: made.slots });
        }
        if sentences.len() == SENTENCES_MAX {
            break;
        }
    }
    Ok(sentences)
}
