//! What a model of intents and slots is measured by: softmax regression on hashed n-grams of characters, of the sentence
//! for its intent, of the surroundings of a character for its slot.

use anyhow::{Context, Result};
use dataset::{Dataset, Split};
use shared::text::{EMPTY, Span, spans};

/// Buckets that n-grams are hashed into.
const BUCKETS: usize = 1 << 16;
/// Longest n-gram.
const GRAM_MAX: usize = 4;
/// Characters on either side of one that its slot is told by.
const AROUND: usize = 8;
/// Passes over the training split, at a rate that falls to zero.
const PASSES: usize = 5;
const RATE: f32 = 0.5;

/// How the baseline does on the test split, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    pub accuracy: f64,
    pub slot_f1: f64,
}

/// Trains on the training split of a data set of intents and slots, and measures on its test split.
///
/// # Errors
/// It is no such data set.
pub fn score(set: &Dataset) -> Result<Score> {
    let head = set.schema.heads.first().context("the data set has no slots")?;
    let length = *set.schema.shape.last().context("the data set's samples have no shape")?;
    let mut intents = Regression::new(set.schema.labels.len());
    let mut slots = Regression::new(head.labels.len());
    let steps = (PASSES * set.train.len()).max(1);
    for step in 0..steps {
        // A stride that shares no factor with most counts walks through them in another order than the file's.
        let sample = (step * 7919) % set.train.len();
        let rate = RATE * (1.0 - step as f32 / steps as f32);
        let tokens = used(&set.train, sample, length);
        intents.learn(&of_sentence(tokens), set.train.labels[sample] as usize, rate);
        for (at, label) in set.train.text.window_labels(sample, length).iter().enumerate().take(tokens.len())
        {
            slots.learn(&of_place(tokens, at), usize::from(*label), rate);
        }
    }
    let (mut right, mut found, mut there, mut both) = (0usize, 0usize, 0usize, 0usize);
    for sample in 0..set.test.len() {
        let tokens = used(&set.test, sample, length);
        right += usize::from(intents.best(&of_sentence(tokens)) as i64 == set.test.labels[sample]);
        let name = |label: usize| head.labels.get(label).map_or("", String::as_str);
        let said: Vec<Span> = spans((0..tokens.len()).map(|at| name(slots.best(&of_place(tokens, at)))));
        let labels = &set.test.text.window_labels(sample, length)[..tokens.len()];
        let true_ones: Vec<Span> = spans(labels.iter().map(|label| name(usize::from(*label))));
        found += said.len();
        there += true_ones.len();
        both += said.iter().filter(|span| true_ones.contains(span)).count();
    }
    Ok(Score {
        accuracy: right as f64 / set.test.len().max(1) as f64,
        slot_f1: 2.0 * both as f64 / (found + there).max(1) as f64,
    })
}

/// The tokens of a sentence without the empty ones behind it.
fn used(split: &Split, sample: usize, length: usize) -> &[u8] {
    let window = split.text.window(sample, length);
    let count = window.iter().take_while(|token| **token != EMPTY).count();
    &window[..count]
}

/// FNV-1a.
fn bucket(kind: u64, gram: &[u8]) -> usize {
    let fold = |hash: u64, byte: u64| (hash ^ byte).wrapping_mul(0x0100_0000_01b3);
    let hash = gram.iter().fold(fold(0xcbf2_9ce4_8422_2325, kind), |hash, byte| fold(hash, u64::from(*byte)));
    (hash ^ (hash >> 32)) as usize % BUCKETS
}

fn of_sentence(tokens: &[u8]) -> Vec<usize> {
    (1..=GRAM_MAX).flat_map(|n| tokens.windows(n).map(move |gram| bucket(n as u64, gram))).collect()
}

fn of_place(tokens: &[u8], at: usize) -> Vec<usize> {
    let mut features = Vec::new();
    for start in at.saturating_sub(AROUND)..(at + AROUND + 1).min(tokens.len()) {
        for n in 1..=GRAM_MAX {
            if let Some(gram) = tokens.get(start..start + n) {
                features.push(bucket(((start + AROUND - at) * 8 + n) as u64, gram));
            }
        }
    }
    features
}

/// Softmax regression on features that are there or not.
struct Regression {
    classes: usize,
    /// One row a bucket.
    weights: Vec<f32>,
}

impl Regression {
    fn new(classes: usize) -> Self {
        Self { classes, weights: vec![0.0; BUCKETS * classes] }
    }

    /// Each feature weighs as much as makes their squares one.
    fn scores(&self, features: &[usize]) -> Vec<f32> {
        let weight = 1.0 / (features.len().max(1) as f32).sqrt();
        let mut scores = vec![0.0; self.classes];
        for feature in features {
            let row = &self.weights[feature * self.classes..][..self.classes];
            scores.iter_mut().zip(row).for_each(|(score, row)| *score += row * weight);
        }
        scores
    }

    fn learn(&mut self, features: &[usize], class: usize, rate: f32) {
        let mut off = self.scores(features);
        let most = off.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        off.iter_mut().for_each(|score| *score = (*score - most).exp());
        let sum: f32 = off.iter().sum();
        off.iter_mut().for_each(|score| *score /= sum);
        if let Some(score) = off.get_mut(class) {
            *score -= 1.0;
        }
        let step = rate / (features.len().max(1) as f32).sqrt();
        for feature in features {
            let row = &mut self.weights[feature * self.classes..][..self.classes];
            row.iter_mut().zip(&off).for_each(|(weight, off)| *weight -= off * step);
        }
    }

    fn best(&self, features: &[usize]) -> usize {
        runtime::golden::argmax(&self.scores(features))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_learns_intents_and_slots_that_follow_from_the_letters() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("home.json");
        let text = r#"{"intents": {
            "On": {"data": [{"sentences": ["turn on the {area} light", "{area} light on", "light the {area}"]}]},
            "Play": {"data": [{"sentences": ["play music in the {area}", "music in the {area} now", "some music {area}"]}]}
        }}"#;
        std::fs::write(&file, text).unwrap();
        let found = score(&dataset::open(&file, None).unwrap()).unwrap();
        assert!(found.accuracy > 0.9 && found.slot_f1 > 0.3, "{found:?}");
    }
}
