//! Batches of text: tokens in memory, channels only in a batch.

use crate::{
    answer::{Answer, NO_LABEL},
    data::Split,
    params::strides,
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use shared::text::EMPTY;
use tch::{Kind, Tensor};

/// Share of samples whose beginning is blanked, so that a model also writes on from a short text.
const BLANKED: f64 = 0.1;
/// Share of characters of a sentence that become another one.
const TYPOS: f64 = 0.01;

/// How text is changed at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Not at all.
    Nothing,
    /// Inside a sample alone.
    Inside,
    /// A running text is also cut into samples elsewhere.
    InsideAndCut,
}

/// Samples of text.
#[derive(Debug)]
pub(super) struct Windows {
    tokens: Vec<u8>,
    labels: Vec<u8>,
    starts: Vec<u32>,
    classes: Vec<i64>,
    channels: usize,
    length: usize,
    answer: Answer,
    /// `[256, channels]`: one row a token, [`EMPTY`] and all beyond the channels without a one.
    rows: Tensor,
}

impl Windows {
    pub(super) fn new(split: &Split, [channels, length]: [usize; 2], answer: Answer) -> Self {
        let mut rows = vec![0f32; 256 * channels];
        for token in 0..channels.min(256) {
            rows[token * channels + token] = 1.0;
        }
        let text = &split.text;
        Self {
            tokens: text.tokens.clone(),
            labels: text.labels.clone(),
            starts: text.starts.clone(),
            classes: split.labels.clone(),
            channels,
            length,
            answer,
            rows: Tensor::from_slice(&rows).reshape([256, channels as i64]),
        }
    }

    /// Channels-last samples `[B, channels, 1, length]` and their labels, as [`Answer`] takes them, on the processor.
    pub(super) fn batch(&self, indices: &[i64], change: Change, rng: &mut ChaCha8Rng) -> (Tensor, Tensor) {
        let mut tokens: Vec<u8> = Vec::with_capacity(indices.len() * self.length);
        let mut labels: Vec<i64> = Vec::with_capacity(indices.len() * (self.length + 1));
        for index in indices {
            let index = usize::try_from(*index).unwrap_or(0);
            let start = self.start(index, change, rng);
            let from = tokens.len();
            tokens.extend_from_slice(&self.tokens[start..start + self.length]);
            let window = &mut tokens[from..];
            let blank = if change == Change::Nothing { 0 } else { self.change(window, rng) };
            if !self.answer.is_causal() {
                labels.push(self.classes[index]);
            }
            let said = self.labels[start..start + self.length].iter().enumerate();
            labels.extend(said.map(|(at, label)| match *label {
                EMPTY => NO_LABEL,
                _ if at + 1 < blank => NO_LABEL,
                label => i64::from(label),
            }));
        }
        let size = [indices.len() as i64, self.channels as i64, 1, self.length as i64];
        let index = Tensor::from_slice(&tokens).to_kind(Kind::Int64);
        let rows = self.rows.index_select(0, &index);
        let x = rows.as_strided(size, strides(&size), None);
        (x, Tensor::from_slice(&labels).reshape([indices.len() as i64, -1]))
    }

    fn start(&self, index: usize, change: Change, rng: &mut ChaCha8Rng) -> usize {
        let start = self.starts[index] as usize;
        if change != Change::InsideAndCut || !self.answer.is_causal() {
            return start;
        }
        let last = self.tokens.len() - self.length;
        (start + rng.random_range(0..self.length)).min(last)
    }

    /// Changes a window, and says how many of its positions were blanked.
    fn change(&self, window: &mut [u8], rng: &mut ChaCha8Rng) -> usize {
        if self.answer.is_causal() {
            let blank = if rng.random_bool(BLANKED) { rng.random_range(1..window.len()) } else { 0 };
            window[..blank].fill(EMPTY);
            return blank;
        }
        for token in window.iter_mut().filter(|token| **token != EMPTY) {
            if rng.random_bool(TYPOS) {
                *token = rng.random_range(0..self.channels.min(256)) as u8;
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data::Text,
        params::to_vec,
        seeds::{self, Purpose},
    };

    const LENGTH: usize = 8;

    /// Forty tokens of four, five windows.
    fn split() -> Split {
        let tokens: Vec<u8> = (0..40u32).map(|at| (at * at / 3 % 4) as u8).collect();
        let labels = tokens[1..].iter().copied().chain([EMPTY]).collect();
        let starts: Vec<u32> = (0..4).map(|window| window * LENGTH as u32).collect();
        let classes = starts.iter().map(|start| i64::from(tokens[*start as usize + LENGTH])).collect();
        Split { labels: classes, text: Text { tokens, labels, starts }, ..Split::default() }
    }

    fn draw(windows: &Windows, change: Change, step: u64) -> (Vec<f32>, Vec<i64>) {
        let mut rng = seeds::stream(3, Purpose::Augment, step);
        let (x, labels) = windows.batch(&[2, 0, 1, 3], change, &mut rng);
        let flat = labels.reshape([-1]);
        let mut values = vec![0i64; flat.numel()];
        let count = values.len();
        flat.copy_data(&mut values, count);
        (to_vec(&x), values)
    }

    #[test]
    fn a_batch_holds_what_a_device_makes_of_the_same_tokens() {
        let split = split();
        let windows = Windows::new(&split, [4, LENGTH], Answer::Next);
        let (x, labels) = draw(&windows, Change::Nothing, 0);
        let mut expected = Vec::new();
        [2, 0, 1, 3].into_iter().for_each(|sample| split.values(sample, &[4, LENGTH], &mut expected));
        assert_eq!(x, expected);
        let next: Vec<i64> = split.text.tokens[17..25].iter().map(|token| i64::from(*token)).collect();
        assert_eq!(labels[..LENGTH], next);
        let whole = Windows::new(&split, [4, LENGTH], Answer::ClassAndSlots { slots: 4 });
        let (_, labels) = draw(&whole, Change::Nothing, 0);
        assert_eq!((labels[0], &labels[1..=LENGTH]), (split.labels[2], &next[..]));
    }

    #[test]
    fn changed_text_repeats_by_seed_and_its_labels_stay_true() {
        let windows = Windows::new(&split(), [4, LENGTH], Answer::Next);
        let mut blanked = 0;
        for step in 0..50 {
            let (x, labels) = draw(&windows, Change::InsideAndCut, step);
            assert_eq!((x.clone(), labels.clone()), draw(&windows, Change::InsideAndCut, step));
            for (sample, labels) in x.chunks(4 * LENGTH).zip(labels.chunks(LENGTH)) {
                let token = |at: usize| (0..4).find(|channel| sample[channel * LENGTH + at] > 0.5);
                for at in 1..LENGTH {
                    match token(at) {
                        Some(token) => assert!(labels[at - 1] == token as i64),
                        None => blanked += usize::from(labels[at - 1] == NO_LABEL),
                    }
                }
            }
        }
        assert!(blanked > 10, "{blanked}");
    }
}
