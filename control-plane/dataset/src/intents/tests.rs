use super::{
    grammar::{Meaning, Part, make, parse},
    *,
};
use crate::open;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::{fs, path::PathBuf};

/// `<thing>` is a light or a lamp, `<again>` is itself; every list holds `red [hot]`.
struct Small(BTreeMap<String, Part>);

impl Small {
    fn new() -> Self {
        let rules = [("thing", "(light|lamp)"), ("again", "<again>")];
        Self(rules.map(|(name, rule)| (name.to_owned(), parse(rule).unwrap())).into())
    }
}

impl Meaning for Small {
    fn rule(&self, name: &str) -> Option<&Part> {
        self.0.get(name)
    }

    fn value(&self, _: &str, _: &mut ChaCha8Rng) -> Part {
        parse("red [hot]").unwrap()
    }
}

/// Every sentence that 200 draws make, with its slots as `name=value`.
fn all(template: &str) -> Vec<String> {
    let part = parse(template).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut found = BTreeSet::new();
    for _ in 0..200 {
        let made = make(&part, &Small::new(), &mut rng).unwrap();
        let mut text = made.text.clone();
        for Span { name, start, end } in &made.slots {
            let value: String = made.text.chars().skip(*start).take(end - start).collect();
            text.push_str(&format!(" {name}={value}"));
        }
        found.insert(text);
    }
    found.into_iter().collect()
}

#[test]
fn a_template_gives_all_its_sentences_and_no_other() {
    assert_eq!(all("turn [it] on"), ["turn it on", "turn on"]);
    assert_eq!(all("(a|b c)[s]!"), ["a!", "as!", "b c!", "b cs!"]);
    assert_eq!(
        all("go (up;[very] fast)"),
        ["go fast up", "go up fast", "go up very fast", "go very fast up"]
    );
    assert_eq!(all("<thing> off"), ["lamp off", "light off"]);
    assert_eq!(
        all("make it {color:shade} now"),
        ["make it red hot now shade=red hot", "make it red now shade=red"]
    );
    assert_eq!(all("\u{e9} {color}"), ["\u{e9} red color=red", "\u{e9} red hot color=red hot"]);
    assert_eq!(all("[[a] b]"), ["", "a b", "b"]);
    assert_eq!(all(r"1\|2 \[x\]"), ["1|2 [x]"]);
}

#[test]
fn a_template_that_is_none_is_refused_with_its_place() {
    let refusal = |template: &str| parse(template).unwrap_err();
    assert_eq!(refusal("a (b"), "what byte 2 opens is not closed");
    assert_eq!(refusal("a b)"), "')' at byte 3 closes nothing");
    assert_eq!(refusal("(a]"), "']' at byte 2 closes nothing");
    assert_eq!(refusal("{a"), "what byte 0 opens is not closed");
    assert_eq!(refusal("<a b>"), "\"a b\" at byte 1 is no name");
    assert!(refusal(&"(".repeat(5000)).contains("deeper than 32"));
    assert!(refusal(&"a".repeat(10_000)).contains("10000 bytes"));
    let made = |template: &str| {
        make(&parse(template).unwrap(), &Small::new(), &mut ChaCha8Rng::seed_from_u64(1)).unwrap_err()
    };
    assert_eq!(made("<other>"), "there is no rule <other>");
    assert!(made("<again>").contains("deeper than 32"));
}

fn jsonl(lines: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("home.jsonl");
    fs::write(&file, lines.join("\n")).unwrap();
    (folder, file)
}

#[test]
fn a_line_that_is_no_sentence_is_refused_with_its_number() {
    let good = r#"{"text":"on","intent":"a"}"#;
    for (bad, part) in [
        ("{", "home.jsonl:2: expected {\"text\", \"intent\", \"slots\"} as one JSON object"),
        (r#"{"text":"on"}"#, "missing field `intent`"),
        (r#"{"text":"","intent":"a"}"#, "text has 0 characters"),
        (r#"{"text":"on","intent":""}"#, "the name of the intent has 0 bytes"),
        (
            r#"{"text":"on","intent":"a","slots":[{"start":1,"end":9,"name":"x"}]}"#,
            "slot \"x\" is 1 to 9 of a text of 2",
        ),
        (r#"{"text":"on","intent":"a","slots":[{"start":1,"end":1,"name":"x"}]}"#, "one behind the other"),
        (
            r#"{"text":"on","intent":"a","slots":[{"start":0,"end":2,"name":"x"},{"start":1,"end":2,"name":"y"}]}"#,
            "slot \"y\" is 1 to 2",
        ),
        (
            r#"{"text":"on","intent":"a","slots":[{"start":0,"end":2,"name":"x","value":"off"}]}"#,
            "slot \"x\" is \"off\", but 0 to 2 of the text is \"on\"",
        ),
    ] {
        let (_folder, file) = jsonl(&[good, bad]);
        let found = open(&file, None).unwrap_err().to_string();
        assert!(found.contains(part), "{found}");
    }
    let (_folder, file) = jsonl(&[good]);
    assert!(open(&file, None).unwrap_err().to_string().contains("all training samples have the label \"a\""));
    let (_folder, file) = jsonl(&[good, r#"{"text":"off","intent":"b"}"#]);
    assert!(open(&file, None).unwrap_err().to_string().contains("no intent has two templates"));
}

#[test]
fn the_template_of_a_sentence_is_its_text_without_values_and_lies_on_one_side_alone() {
    let line = |verb: &str, room: &str, intent: &str| {
        let start = verb.chars().count() + 1;
        let end = start + room.chars().count();
        let slots = format!(r#"[{{"start":{start},"end":{end},"name":"room"}}]"#);
        format!(r#"{{"text":"{verb} {room}","intent":"{intent}","slots":{slots}}}"#)
    };
    let mut lines = Vec::new();
    for (intent, verbs) in
        [("light", ["Light", "illuminate", "brighten"]), ("dark", ["darken", "dim", "shade"])]
    {
        for verb in verbs {
            lines.extend(["kitchen", "B\u{e4}r"].map(|room| line(verb, room, intent)));
        }
    }
    let (_folder, file) = jsonl(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let set = open(&file, None).unwrap();
    let schema = &set.schema;
    assert_eq!((schema.format, schema.task), (DataFormat::IntentJsonl, Task::IntentSlots));
    assert_eq!(schema.labels, ["dark", "light"]);
    assert_eq!(schema.heads[0].labels, ["O", "B-room", "I-room"]);
    assert_eq!((set.train.len(), set.test.len()), (8, 4));
    assert!(
        schema.remarks[0]
            .starts_with("split by template: 4 templates to train on, 2 to test on, none on both")
    );
    let text = schema.text.clone().unwrap();
    let letters: Vec<char> = text.alphabet.chars().collect();
    let length = schema.shape[1];
    assert_eq!(schema.shape, [letters.len(), schema.heads[0].positions]);
    let read = |split: &Split, sample: usize| {
        let window = split.text.window(sample, length).iter().filter(|token| **token != EMPTY);
        let text: String = window.map(|token| letters[usize::from(*token)]).collect();
        let marks = split.text.window_labels(sample, length).to_vec();
        (text, marks)
    };
    let verbs = |split: &Split| -> BTreeSet<String> {
        (0..split.len()).map(|sample| read(split, sample).0.split(' ').next().unwrap().to_owned()).collect()
    };
    assert!(verbs(&set.train).is_disjoint(&verbs(&set.test)));
    for split in [&set.train, &set.test] {
        for sample in 0..split.len() {
            let (text, marks) = read(split, sample);
            let start = text.find(' ').unwrap() + 1;
            let count = text.chars().count();
            let expected: Vec<u8> = (0..length)
                .map(|at| match at {
                    _ if at >= count => EMPTY,
                    _ if at < start => 0,
                    _ if at == start => 1,
                    _ => 2,
                })
                .collect();
            assert_eq!(marks, expected, "{text}");
        }
    }
}

#[test]
fn templates_of_an_assistant_are_made_into_sentences_that_always_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("en.json");
    let text = r#"{
        "language": "en",
        "intents": {
            "On": {"data": [{"sentences": ["turn on [<the>] {area}", "<the> {area} on", "light up {area}"]}]},
            "Set": {"data": [{"sentences": ["set {level:brightness}[ percent]", "{level:brightness} please"]}]},
            "Off": {"data": [{"sentences": ["turn off"], "response": "x"}]}
        },
        "lists": {"level": {"range": {"from": 10, "to": 20, "step": 5}}},
        "expansion_rules": {"the": "(the|my)"}
    }"#;
    fs::write(&file, text).unwrap();
    let set = open(&file, None).unwrap();
    assert_eq!(set, open(&file, Some(DataFormat::IntentJson)).unwrap());
    assert_eq!(set.schema.labels, ["Off", "On", "Set"]);
    assert_eq!(set.schema.heads[0].labels, ["O", "B-area", "I-area", "B-brightness", "I-brightness"]);
    assert!(
        set.schema.remarks[0].ends_with("with one template alone and not tested: Off"),
        "{:?}",
        set.schema.remarks
    );
    assert!(set.train.len() > 20 && set.test.len() >= 3, "{} and {}", set.train.len(), set.test.len());
    for (from, to, part) in [
        ("(the|my)", "(the", "rule <the>, \"(the\": what byte 0 opens is not closed"),
        ("<the> {area} on", "<a> on", "intent \"On\", sentence \"<a> on\": there is no rule <a>"),
        ("\"sentences\"", "\"words\"", "en.json:4: expected intents with data and sentences"),
    ] {
        fs::write(&file, text.replace(from, to)).unwrap();
        let found = open(&file, None).unwrap_err().to_string();
        assert!(found.contains(part), "{found}");
    }
}
