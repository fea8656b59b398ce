use super::*;
use crate::models::Loaded;
use runtime::{Runnable, TensorInfo};
use shared::{
    manifest::{Head, Preprocess, Task, TensorSpec},
    text::{Align, TextPreprocess},
};

const ALPHABET: &str = " abcdef";
const LENGTH: usize = 6;

/// Answers by its input alone: the character behind the last one in the alphabet, or an intent by the first character,
/// and the slot `letter` wherever an `a` or a `b` behind it stands.
#[derive(Debug)]
struct Reader {
    input: TensorInfo,
    output: TensorInfo,
    writes: bool,
}

impl Reader {
    fn new(writes: bool) -> Self {
        let info = |name: &str, shape: Vec<usize>| TensorInfo { name: name.to_owned(), shape };
        let outputs = if writes { ALPHABET.len() } else { 2 + 3 * LENGTH };
        let input = info("input", vec![ALPHABET.len(), LENGTH]);
        Self { input, output: info("probabilities", vec![outputs]), writes }
    }

    fn answer(&self, input: &[f32]) -> Vec<f32> {
        let at = |place: usize| (0..ALPHABET.len()).find(|channel| input[channel * LENGTH + place] > 0.5);
        let mut row = vec![0.0; self.output.shape[0]];
        if self.writes {
            row[(at(LENGTH - 1).unwrap_or(0) + 1) % ALPHABET.len()] = 1.0;
            return row;
        }
        row[usize::from(at(0) == Some(1))] = 1.0;
        for place in 0..LENGTH {
            let label = match at(place) {
                Some(1) => 1,
                Some(2) => 2,
                _ => 0,
            };
            row[2 + label * LENGTH + place] = 1.0;
        }
        row
    }
}

impl Runnable for Reader {
    fn runtime(&self) -> &'static str {
        "tract"
    }

    fn input(&self) -> &TensorInfo {
        &self.input
    }

    fn output(&self) -> &TensorInfo {
        &self.output
    }

    fn run_into(&self, input: &[f32], batch: usize, output: &mut Vec<f32>) -> Result<(), runtime::Error> {
        assert_eq!(input.len(), batch * self.input.elements());
        output.clear();
        output.extend(input.chunks_exact(self.input.elements()).flat_map(|one| self.answer(one)));
        Ok(())
    }
}

fn agent(writes: bool) -> Agent {
    let agent = Agent::new();
    let mut loaded: Loaded = loaded(2);
    let spec = |name: &str, shape: Vec<usize>| TensorSpec { name: name.to_owned(), shape };
    let reader = Reader::new(writes);
    let manifest = &mut loaded.manifest;
    manifest.input = spec("input", reader.input.shape.clone());
    manifest.output = spec("probabilities", reader.output.shape.clone());
    let rule = TextPreprocess {
        alphabet: ALPHABET.to_owned(),
        unknown: ' ',
        lowercase: !writes,
        align: if writes { Align::End } else { Align::Start },
    };
    manifest.preprocess = Preprocess::of_text(rule);
    if writes {
        manifest.task = Task::TextGeneration;
        manifest.labels = ALPHABET.chars().map(String::from).collect();
    } else {
        manifest.task = Task::IntentSlots;
        manifest.labels = ["other", "starts"].map(str::to_owned).to_vec();
        let labels = ["O", "B-letter", "I-letter"].map(str::to_owned).to_vec();
        manifest.heads = vec![Head { name: "slots".to_owned(), labels, positions: LENGTH }];
    }
    loaded.runnable = Arc::new(reader);
    agent.api.models.slot(&"default".parse().unwrap(), wall()).swap(Some(Arc::new(loaded)), wall());
    agent
}

fn texts(texts: &[&str]) -> Value {
    json!({"inputs": [{"name": "input", "shape": [texts.len()], "datatype": "BYTES", "data": texts}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentence_is_answered_by_its_intent_and_its_slots() {
    let agent = agent(false);
    let (status, answer) = agent.post("/v2/models/default/infer", &texts(&["Ab ca", "c"])).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let output = |name: &str| {
        answer["outputs"].as_array().unwrap().iter().find(|output| output["name"] == name).unwrap()["data"]
            .clone()
    };
    assert_eq!(output("intent"), json!(["starts", "other"]));
    assert_eq!(output("intent_probability"), json!([1.0, 1.0]));
    let slots: Value = serde_json::from_str(output("slots")[0].as_str().unwrap()).unwrap();
    assert_eq!(
        slots,
        json!([
            {"name": "letter", "start": 0, "end": 2, "value": "Ab"},
            {"name": "letter", "start": 4, "end": 5, "value": "a"},
        ])
    );
    assert_eq!(output("slots")[1], "[]");
    // One output alone, and binary.
    let mut body = texts(&["a"]);
    body["outputs"] = json!([{"name": "intent", "parameters": {"binary_data": true}}]);
    let request = Request::post("/v2/models/default/infer").body(Body::from(body.to_string())).unwrap();
    let (_, headers, bytes) = agent.ask(request).await;
    let head: usize = headers["inference-header-content-length"].to_str().unwrap().parse().unwrap();
    assert_eq!(&bytes[head..], b"\x06\0\0\0starts");
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_may_come_binary_and_numbers_are_taken_as_before() {
    let agent = agent(false);
    let head = json!({"inputs": [{"name": "input", "shape": [2, 1], "datatype": "BYTES",
        "parameters": {"binary_data_size": 10}}]});
    let (status, _, body) = agent.post_binary(&head, b"\x01\0\0\0c\x01\0\0\0a").await;
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &answer["outputs"][0]["data"]), (StatusCode::OK, &json!(["other", "starts"])));
    let mut asked = texts(&["a"]);
    asked["outputs"] = json!([{"name": "probabilities"}]);
    let (_, by_text) = agent.post("/v2/models/default/infer", &asked).await;
    let mut values = vec![0.0; ALPHABET.len() * LENGTH];
    values[LENGTH] = 1.0;
    let (_, by_numbers) = agent.post("/v2/models/default/infer", &request(&values, &[1, 7, 6])).await;
    assert_eq!(by_text["outputs"], by_numbers["outputs"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_writes_gives_the_next_character_or_goes_on() {
    let agent = agent(true);
    let mut body = texts(&["abc"]);
    body["outputs"] = json!([{"name": "probabilities", "parameters": {"classification": 1}}]);
    let (_, answer) = agent.post("/v2/models/default/infer", &body).await;
    assert_eq!(answer["outputs"][0]["data"], json!(["1.000000:4:d"]));
    let mut body = texts(&["abc", "e"]);
    body["parameters"] = json!({"max_tokens": 5, "temperature": 0.5, "seed": 7});
    let (status, answer) = agent.post("/v2/models/default/infer", &body).await;
    assert_eq!((status, &answer["outputs"][0]["name"]), (StatusCode::OK, &json!("text")));
    assert_eq!(answer["outputs"][0]["data"], json!(["def a", "f abc"]));
    body["parameters"]["stop"] = json!("f ");
    let (_, answer) = agent.post("/v2/models/default/infer", &body).await;
    assert_eq!(answer["outputs"][0]["data"], json!(["de", ""]));
    let (_, described) = agent.get("/v2/models/default").await;
    assert_eq!(described["inputs"][0]["parameters"], json!({"text": "BYTES", "characters": 6}));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_of_text_is_named() {
    let writer = agent(true);
    let with = |key: &str, value: Value| {
        let mut body = texts(&["a", "b"]);
        body["parameters"] = json!({"max_tokens": 2});
        body["parameters"][key] = value;
        body
    };
    assert!(writer.error(with("max_tokens", json!(0))).await.contains("allowed are 1 to 2048 for each of 2"));
    assert!(writer.error(with("max_tokens", json!(2049))).await.contains("max_tokens is 2049"));
    assert!(writer.error(with("temperature", json!(-1.0))).await.contains("allowed are 0 to 10"));
    assert!(writer.error(with("stop", json!([""]))).await.contains("1 to 64 bytes"));
    let mut body = texts(&["a"]);
    body["inputs"][0]["shape"] = json!([2]);
    assert!(writer.error(body.clone()).await.contains("1 texts are given, the shape needs 2"));
    body["inputs"][0]["data"] = json!([1]);
    assert!(writer.error(body).await.contains("no array of texts"));
    let reader = agent(false);
    let mut body = texts(&["a"]);
    body["parameters"] = json!({"max_tokens": 2});
    assert!(reader.error(body.clone()).await.contains("this one does not"));
    body["parameters"] = json!({});
    body["outputs"] = json!([{"name": "words"}]);
    assert!(
        reader
            .error(body)
            .await
            .contains("\"words\" is unknown, there are intent, intent_probability, slots")
    );
    assert!(Agent::new().error(texts(&["a"])).await.contains("this model takes numbers"));
    for raw in [&b"\x09\0\0\0a"[..], b"\x01\0\0", b"\x01\0\0\0\xff"] {
        let head = json!({"inputs": [{"name": "input", "shape": [1], "datatype": "BYTES",
            "parameters": {"binary_data_size": raw.len()}}]});
        assert_eq!(reader.post_binary(&head, raw).await.0, StatusCode::BAD_REQUEST);
    }
}
