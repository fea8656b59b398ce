//! What stands in lists that a file leaves to the home or to whoever speaks.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

const AREAS: [&str; 24] = [
    "kitchen",
    "living room",
    "bedroom",
    "bathroom",
    "garage",
    "hallway",
    "office",
    "dining room",
    "attic",
    "basement",
    "nursery",
    "guest room",
    "laundry room",
    "garden",
    "porch",
    "study",
    "playroom",
    "pantry",
    "master bedroom",
    "balcony",
    "workshop",
    "closet",
    "entrance",
    "library",
];
const FLOORS: [&str; 8] = [
    "ground floor",
    "first floor",
    "second floor",
    "top floor",
    "upstairs",
    "downstairs",
    "main level",
    "cellar",
];
const NAMES: [&str; 40] = [
    "ceiling light",
    "desk lamp",
    "tv",
    "coffee maker",
    "front door",
    "back door",
    "heater",
    "fan",
    "speaker",
    "radio",
    "robot vacuum",
    "thermostat",
    "garage door",
    "bedside lamp",
    "christmas tree",
    "aquarium",
    "printer",
    "dishwasher",
    "washing machine",
    "sprinkler",
    "water pump",
    "reading light",
    "left window",
    "right curtain",
    "kitchen blinds",
    "air purifier",
    "humidifier",
    "kettle",
    "game console",
    "doorbell",
    "night light",
    "spotlights",
    "chandelier",
    "sofa lamp",
    "patio heater",
    "pool pump",
    "oven",
    "toaster",
    "alarm",
    "lawn mower",
];
const WORDS: [&str; 60] = [
    "milk", "bread", "eggs", "apples", "pizza", "laundry", "tea", "pasta", "workout", "meeting", "homework",
    "rice", "dinner", "is", "ready", "call", "mom", "the", "big", "small", "red", "blue", "old", "new",
    "jazz", "summer", "night", "love", "river", "song", "best", "of", "party", "dog", "walk", "cake",
    "cheese", "butter", "paint", "fence", "book", "doctor", "school", "bus", "turkey", "soup", "nap",
    "break", "stretch", "plants", "water", "coffee", "paper", "soap", "bananas", "two", "three", "for", "my",
    "garden",
];
/// Most words of what somebody says freely.
const FREE_WORDS_MAX: usize = 4;

/// A value of the list with this name.
pub(super) fn draw(list: &str, rng: &mut ChaCha8Rng) -> String {
    let one = |words: &[&str], rng: &mut ChaCha8Rng| words[rng.random_range(0..words.len())].to_owned();
    match list {
        "area" => one(&AREAS, rng),
        "floor" => one(&FLOORS, rng),
        "name" => one(&NAMES, rng),
        _ => {
            let count = rng.random_range(1..=FREE_WORDS_MAX);
            let words: Vec<String> = (0..count).map(|_| one(&WORDS, rng)).collect();
            words.join(" ")
        }
    }
}
