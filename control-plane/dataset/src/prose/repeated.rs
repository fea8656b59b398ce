//! Held-out text that is trained on elsewhere.

use super::CONTEXT;
use std::collections::HashMap;

/// Multiplier of the rolling hash (Karp and Rabin 1987); what it finds is compared.
const BASE: u64 = 0x9e37_79b9_7f4a_7c15;
/// Bits by which most of a text is passed over.
const FILTER_BITS: u32 = 16;

/// How many of the windows of `test` that begin at `starts`, [`CONTEXT`] tokens each, occur in `train`.
pub(super) fn repeated(train: &[u8], test: &[u8], starts: &[u32]) -> usize {
    let mut wanted: HashMap<u64, Vec<&[u8]>> = HashMap::new();
    let mut filter = vec![false; 1 << FILTER_BITS];
    for start in starts {
        if let Some(window) = test.get(*start as usize..).and_then(|rest| rest.get(..CONTEXT)) {
            let hash = window.iter().fold(0, add);
            filter[slot(hash)] = true;
            wanted.entry(hash).or_default().push(window);
        }
    }
    let leaving = (1..CONTEXT).fold(1u64, |power, _| power.wrapping_mul(BASE));
    let mut found = 0;
    let mut hash = train.iter().take(CONTEXT).fold(0, add);
    for (at, window) in train.windows(CONTEXT).enumerate() {
        if filter[slot(hash)]
            && let Some(alike) = wanted.get_mut(&hash)
        {
            let count = alike.len();
            alike.retain(|one| *one != window);
            found += count - alike.len();
        }
        if let Some(next) = train.get(at + CONTEXT) {
            hash = add(hash.wrapping_sub(value(&window[0]).wrapping_mul(leaving)), next);
        }
    }
    found
}

fn value(token: &u8) -> u64 {
    u64::from(*token) + 1
}

fn add(hash: u64, token: &u8) -> u64 {
    hash.wrapping_mul(BASE).wrapping_add(value(token))
}

fn slot(hash: u64) -> usize {
    (hash >> (u64::BITS - FILTER_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_window_that_occurs_and_no_other() {
        let train: Vec<u8> = (0..2000u32).map(|at| (at * at % 251 / 3) as u8).collect();
        let other: Vec<u8> = (0..500u32).map(|at| (at * 7 % 83) as u8).collect();
        let test = [&train[700..900], &other[..]].concat();
        let starts: Vec<u32> = (0..600).collect();
        let slow = starts
            .iter()
            .filter(|start| {
                let window = &test[**start as usize..][..CONTEXT];
                train.windows(CONTEXT).any(|one| one == window)
            })
            .count();
        assert!((137..200).contains(&slow), "{slow}");
        assert_eq!(repeated(&train, &test, &starts), slow);
        assert_eq!(repeated(&train[..CONTEXT - 1], &test, &starts), 0);
    }
}
