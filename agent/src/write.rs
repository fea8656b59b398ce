//! A model that knows the next character writes a text: one inference a character, as many as were asked for.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use runtime::golden::argmax;
use shared::text::{EMPTY, TextPreprocess, one_hot};

/// What is to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Writing {
    /// Most characters.
    pub characters: usize,
    /// How evenly the next character is drawn: 0 takes the likeliest, 1 draws by the model's probabilities.
    pub temperature: f64,
    /// The same seed writes the same text.
    pub seed: u64,
    /// Texts before which it ends.
    pub stop: Vec<String>,
}

/// Goes on behind `prompt`; gives what was written. `next` runs the model on one input, and fills the probabilities of
/// the alphabet's characters.
///
/// # Errors
/// That of `next`.
pub fn write<E>(
    mut next: impl FnMut(&[f32], &mut Vec<f32>) -> Result<(), E>,
    rule: &TextPreprocess,
    length: usize,
    prompt: &str,
    writing: &Writing,
) -> Result<String, E> {
    let alphabet: Vec<char> = rule.alphabet.chars().collect();
    let mut window = rule.encoder().window(prompt, length);
    let mut rng = ChaCha8Rng::seed_from_u64(writing.seed);
    let (mut input, mut output) = (Vec::new(), Vec::new());
    let mut text = String::new();
    for _ in 0..writing.characters {
        input.clear();
        one_hot(&window, alphabet.len(), &mut input);
        next(&input, &mut output)?;
        let token = draw(&output, writing.temperature, rng.random());
        let Some(letter) = alphabet.get(token) else { break };
        text.push(*letter);
        if let Some(stop) = writing.stop.iter().find(|stop| text.ends_with(stop.as_str())) {
            text.truncate(text.len() - stop.len());
            break;
        }
        window.rotate_left(1);
        if let Some(last) = window.last_mut() {
            *last = u8::try_from(token).unwrap_or(EMPTY);
        }
    }
    Ok(text)
}

/// The place that `at`, 0 to 1, falls on when the probabilities, sharpened by the temperature, lie side by side.
fn draw(probabilities: &[f32], temperature: f64, at: f64) -> usize {
    let best = argmax(probabilities);
    let most = probabilities.get(best).copied().map_or(1.0, f64::from).max(f64::MIN_POSITIVE);
    if temperature <= 0.0 {
        return best;
    }
    // Against the likeliest, so that a low temperature leaves no sum of zeros.
    let weight = |value: &f32| (f64::from(*value).max(0.0) / most).powf(1.0 / temperature);
    let sum: f64 = probabilities.iter().map(weight).sum();
    let mut left = at * sum;
    for (index, value) in probabilities.iter().enumerate() {
        left -= weight(value);
        if left < 0.0 {
            return index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::text::Align;
    use std::convert::Infallible;

    const LENGTH: usize = 3;

    fn rule() -> TextPreprocess {
        TextPreprocess { alphabet: "abc".to_owned(), unknown: 'a', lowercase: false, align: Align::End }
    }

    fn writing(temperature: f64) -> Writing {
        Writing { characters: 6, temperature, seed: 1, stop: Vec::new() }
    }

    /// After each letter the next one of the alphabet is the likeliest.
    fn round(input: &[f32], output: &mut Vec<f32>) -> Result<(), Infallible> {
        let last = (0..3).find(|channel| input[channel * LENGTH + LENGTH - 1] > 0.5);
        *output = vec![0.1; 3];
        output[last.map_or(0, |last| (last + 1) % 3)] = 0.8;
        Ok(())
    }

    #[test]
    fn the_likeliest_text_follows_from_the_end_of_the_prompt_and_stops_where_it_is_told() {
        assert_eq!(write(&mut round, &rule(), LENGTH, "xxb", &writing(0.0)), Ok("cabcab".to_owned()));
        assert_eq!(write(&mut round, &rule(), LENGTH, "", &writing(0.0)), Ok("abcabc".to_owned()));
        let stopped = Writing { stop: vec!["zz".to_owned(), "bc".to_owned()], ..writing(0.0) };
        assert_eq!(write(&mut round, &rule(), LENGTH, "b", &stopped), Ok("ca".to_owned()));
    }

    #[test]
    fn a_seed_repeats_a_text_and_heat_makes_it_wilder() {
        let text = |temperature, seed| {
            let writing = Writing { characters: 200, seed, ..writing(temperature) };
            write(&mut round, &rule(), LENGTH, "a", &writing).unwrap()
        };
        assert_eq!(text(1.0, 3), text(1.0, 3));
        assert_ne!(text(1.0, 3), text(1.0, 4));
        let regular = "bca".repeat(67);
        let off = |found: String| {
            found
                .as_bytes()
                .windows(2)
                .filter(|pair| !regular.contains(std::str::from_utf8(pair).unwrap()))
                .count()
        };
        let (cool, warm, hot) = (off(text(0.3, 3)), off(text(1.0, 3)), off(text(10.0, 3)));
        assert!(cool < warm && warm < hot, "{cool}, {warm}, {hot}");
    }

    #[test]
    fn a_draw_falls_on_the_probabilities_side_by_side() {
        let probabilities = [0.2, 0.5, 0.3];
        assert_eq!(
            [0.0, 0.1, 0.3, 0.6, 0.8, 0.99].map(|at| draw(&probabilities, 1.0, at)),
            [0, 0, 1, 1, 2, 2]
        );
        assert_eq!(draw(&probabilities, 0.0, 0.99), 1);
        assert_eq!(draw(&probabilities, 1e-6, 0.99), 1);
        assert_eq!(draw(&[0.0, 0.0], 1.0, 0.5), 0);
    }
}
