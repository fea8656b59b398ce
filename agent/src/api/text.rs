//! Requests of text: a BYTES tensor, one text a sample, for models whose manifest says how text becomes their input.
//!
//! What a model of intents and slots answers is `intent` (a name), `intent_probability` and `slots` (a JSON array of name,
//! place in characters, and value, one a sample). What writes text answers the probabilities of the next character, or
//! with the parameter `max_tokens` the `text` that it goes on with.

use super::{
    ApiError,
    infer::{Answered, LONG_US, bad, cut, elements_of, send},
    protocol::{InferRequest, InputTensor, OutputData, RequestParameters, Stop},
};
use crate::{
    clock::wall,
    models::{Loaded, Serving},
    write::{Writing, write},
};
use axum::response::Response;
use runtime::golden::argmax;
use serde::Serialize;
use shared::{
    limits,
    manifest::Task,
    text::{EMPTY, TextPreprocess, one_hot, spans},
};
use std::time::Instant;

/// The datatype of text.
pub(super) const BYTES: &str = "BYTES";
const TEMPERATURE_DEFAULT: f64 = 0.7;
const TEMPERATURE_MAX: f64 = 10.0;
/// Most texts that end what is written, and the most bytes of each.
const STOPS_MAX: usize = 4;
const STOP_BYTES_MAX: usize = 64;

const INTENT: &str = "intent";
const PROBABILITY: &str = "intent_probability";
const SLOTS: &str = "slots";
const TEXT: &str = "text";

/// The texts of a request, and the model's rule for them.
pub(super) struct Texts<'l> {
    texts: Vec<String>,
    rule: &'l TextPreprocess,
    length: usize,
}

/// Reads the texts; `None` where the request is of numbers.
pub(super) fn read<'l>(
    request: &InferRequest<'_>,
    binary: &[u8],
    loaded: &'l Loaded,
) -> Result<Option<Texts<'l>>, ApiError> {
    let [input] = request.inputs.as_slice() else { return Ok(None) };
    if input.datatype != BYTES {
        return Ok(None);
    }
    let manifest = &loaded.manifest;
    let (Some(rule), [_, length]) = (&manifest.preprocess.text, &manifest.input.shape[..]) else {
        return Err(bad("this model takes numbers, no BYTES; use FP32 or UINT8"));
    };
    if input.name != manifest.input.name {
        let known = &manifest.input.name;
        return Err(bad(&format!("input {:?} is unknown, the model takes {known:?}", cut(&input.name))));
    }
    let texts = match (input.parameters.binary_data_size, input.data) {
        (Some(size), None) => of_binary(size, binary)?,
        (None, Some(_)) if !binary.is_empty() => {
            return Err(bad("bytes follow the JSON, but no input has binary_data_size"));
        }
        (None, Some(data)) => of_json(data.get())?,
        _ => return Err(bad("an input has data or binary_data_size, one of them")),
    };
    check(input, &texts)?;
    // As many values as any other request.
    elements_of(loaded, texts.len())?;
    Ok(Some(Texts { texts, rule, length: *length }))
}

fn of_json(data: &str) -> Result<Vec<String>, ApiError> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Nested {
        Flat(Vec<String>),
        Rows(Vec<Vec<String>>),
    }
    let nested = serde_json::from_str(data)
        .map_err(|_| bad("the input's data is no array of texts, such as [\"turn on the light\"]"))?;
    Ok(match nested {
        Nested::Flat(texts) => texts,
        Nested::Rows(rows) => rows.into_iter().flatten().collect(),
    })
}

/// Elements of a BYTES tensor: each its length, little endian, and UTF-8.
fn of_binary(size: u64, binary: &[u8]) -> Result<Vec<String>, ApiError> {
    if size != binary.len() as u64 {
        return Err(bad(&format!("binary_data_size is {size}, {} bytes follow the JSON", binary.len())));
    }
    let mut texts = Vec::new();
    let mut rest = binary;
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let Some((text, behind)) = behind.split_at_checked(length) else { break };
        let text = std::str::from_utf8(text).map_err(|_| bad("a text of the input is no UTF-8"))?;
        texts.push(text.to_owned());
        rest = behind;
    }
    if rest.is_empty() {
        Ok(texts)
    } else {
        Err(bad("the input's bytes are no texts, each behind its length"))
    }
}

/// The shape is `[N]` or `[N, 1]`.
fn check(input: &InputTensor<'_>, texts: &[String]) -> Result<(), ApiError> {
    let count = match *input.shape {
        [count] | [count, 1] => count,
        _ => return Err(bad("a tensor of texts has the shape [N] or [N,1]")),
    };
    if count == 0 || count != texts.len() as u64 {
        return Err(bad(&format!("{} texts are given, the shape needs {count}", texts.len())));
    }
    match texts.iter().find(|text| text.len() > limits::TEXT_BYTES_MAX) {
        Some(long) => Err(bad(&format!(
            "a text has {} bytes, at most {} are taken",
            long.len(),
            limits::TEXT_BYTES_MAX
        ))),
        None => Ok(()),
    }
}

/// What is wanted of texts.
pub(super) enum Wanted {
    /// The output as it is.
    Probabilities,
    /// These outputs, and whether each is binary.
    Understanding(Vec<(&'static str, bool)>),
    Writing(Writing, bool),
}

/// What the request asks for.
pub(super) fn wanted(
    request: &InferRequest<'_>,
    texts: &Texts<'_>,
    loaded: &Loaded,
) -> Result<Wanted, ApiError> {
    let binary = |asked: Option<bool>| asked.unwrap_or(request.parameters.binary_data_output);
    let only_probabilities =
        matches!(request.outputs.as_slice(), [output] if output.name == loaded.manifest.output.name);
    let writing = writing(&request.parameters, texts.texts.len())?;
    let known: &[&'static str] = match (loaded.manifest.task, &writing) {
        (Task::IntentSlots, None) if only_probabilities => return Ok(Wanted::Probabilities),
        (Task::IntentSlots, None) => &[INTENT, PROBABILITY, SLOTS],
        (Task::TextGeneration, Some(_)) => &[TEXT],
        (_, None) => return Ok(Wanted::Probabilities),
        (_, Some(_)) => return Err(bad("max_tokens is for models that write text; this one does not")),
    };
    let mut chosen = Vec::new();
    for output in &request.outputs {
        let Some(name) = known.iter().find(|name| **name == output.name) else {
            return Err(bad(&format!(
                "output {:?} is unknown, there are {}",
                cut(&output.name),
                known.join(", ")
            )));
        };
        chosen.push((*name, binary(output.parameters.binary_data)));
    }
    if chosen.is_empty() {
        chosen = known.iter().map(|name| (*name, binary(None))).collect();
    }
    Ok(match writing {
        Some(writing) => Wanted::Writing(writing, chosen.first().is_some_and(|(_, binary)| *binary)),
        None => Wanted::Understanding(chosen),
    })
}

fn writing(parameters: &RequestParameters, texts: usize) -> Result<Option<Writing>, ApiError> {
    let Some(asked) = parameters.max_tokens else { return Ok(None) };
    let most = limits::GENERATED_CHARACTERS_MAX / texts.max(1);
    let characters = usize::try_from(asked).ok().filter(|asked| (1..=most).contains(asked));
    let characters = characters.ok_or_else(|| {
        bad(&format!("max_tokens is {asked}, allowed are 1 to {most} for each of {texts} texts"))
    })?;
    let temperature = parameters.temperature.unwrap_or(TEMPERATURE_DEFAULT);
    if !(0.0..=TEMPERATURE_MAX).contains(&temperature) {
        return Err(bad(&format!("temperature is {temperature}, allowed are 0 to {TEMPERATURE_MAX}")));
    }
    let stop = match parameters.stop.clone() {
        None => Vec::new(),
        Some(Stop::One(text)) => vec![text],
        Some(Stop::Several(texts)) => texts,
    };
    if stop.len() > STOPS_MAX || stop.iter().any(|text| text.is_empty() || text.len() > STOP_BYTES_MAX) {
        return Err(bad(&format!("stop is at most {STOPS_MAX} texts of 1 to {STOP_BYTES_MAX} bytes")));
    }
    Ok(Some(Writing { characters, temperature, seed: parameters.seed.unwrap_or(0), stop }))
}

impl Texts<'_> {
    /// The model's input, one sample a text.
    pub(super) fn values(&self, loaded: &Loaded) -> (Vec<f32>, usize) {
        let channels = loaded.manifest.input.shape.first().copied().unwrap_or(0);
        let encoder = self.rule.encoder();
        let mut values = Vec::with_capacity(self.texts.len() * channels * self.length);
        for text in &self.texts {
            one_hot(&encoder.window(text, self.length), channels, &mut values);
        }
        (values, self.texts.len())
    }
}

/// Intent and slots.
pub(super) fn understand(
    name: &str,
    request: &InferRequest<'_>,
    loaded: &Loaded,
    texts: &Texts<'_>,
    wanted: &[(&'static str, bool)],
    output: &[f32],
) -> Result<Response, ApiError> {
    let manifest = &loaded.manifest;
    let rows = || output.chunks_exact(manifest.output.elements().max(1));
    let count = texts.texts.len();
    let likely: Vec<(usize, f32)> = rows()
        .map(|row| {
            let best = argmax(&row[..manifest.labels.len().min(row.len())]);
            (best, row.get(best).copied().unwrap_or(0.0))
        })
        .collect();
    let probabilities: Vec<f32> = likely.iter().map(|(_, probability)| *probability).collect();
    let mut answered = Vec::new();
    for (name, binary) in wanted {
        let (datatype, content) = match *name {
            INTENT => {
                let label =
                    |(best, _): &(usize, f32)| manifest.labels.get(*best).cloned().unwrap_or_default();
                (BYTES, OutputData::Texts(likely.iter().map(label).collect()))
            }
            PROBABILITY => ("FP32", OutputData::Floats(&probabilities)),
            _ => {
                let found = rows().zip(&texts.texts).map(|(row, text)| slots(loaded, texts, row, text));
                (BYTES, OutputData::Texts(found.collect::<Result<_, _>>()?))
            }
        };
        answered.push(Answered { name, datatype, shape: vec![count], content, binary: *binary });
    }
    send(name, request, loaded, answered)
}

/// A slot of a text, by characters.
#[derive(Serialize)]
struct Slot {
    name: String,
    start: usize,
    end: usize,
    value: String,
}

/// The slots of one text as JSON.
fn slots(loaded: &Loaded, texts: &Texts<'_>, row: &[f32], text: &str) -> Result<String, ApiError> {
    let mut found = Vec::new();
    if let Some(head) = loaded.manifest.heads.first() {
        let behind = row.get(loaded.manifest.labels.len()..).unwrap_or_default();
        let window = texts.rule.encoder().window(text, texts.length);
        let used = window.iter().take_while(|token| **token != EMPTY).count();
        let label = |at: usize| {
            let column: Vec<f32> = behind.iter().skip(at).step_by(head.positions.max(1)).copied().collect();
            head.labels.get(argmax(&column)).map_or("", String::as_str)
        };
        for span in spans((0..used.min(head.positions)).map(label)) {
            let value = text.chars().skip(span.start).take(span.end - span.start).collect();
            found.push(Slot { name: span.name, start: span.start, end: span.end, value });
        }
    }
    serde_json::to_string(&found).map_err(|error| ApiError::Internal(error.to_string()))
}

/// Has the model go on with each text.
pub(super) fn go_on(
    name: &str,
    request: &InferRequest<'_>,
    (serving, loaded): (&Serving, &Loaded),
    texts: &Texts<'_>,
    (writing, binary): (&Writing, bool),
) -> Result<Response, ApiError> {
    let all = || {
        texts.texts.iter().enumerate().map(|(index, prompt)| {
            let writing = Writing { seed: writing.seed.wrapping_add(index as u64), ..writing.clone() };
            write_one(serving, loaded, texts, prompt, &writing)
        })
    };
    let long = loaded.measured_us * (texts.texts.len() * writing.characters) as f64 > LONG_US;
    let written: Vec<String> =
        if long { tokio::task::block_in_place(|| all().collect::<Result<_, _>>()) } else { all().collect() }?;
    let shape = vec![written.len()];
    let content = OutputData::Texts(written);
    send(name, request, loaded, vec![Answered { name: TEXT, datatype: BYTES, shape, content, binary }])
}

fn write_one(
    serving: &Serving,
    loaded: &Loaded,
    texts: &Texts<'_>,
    prompt: &str,
    writing: &Writing,
) -> Result<String, ApiError> {
    let start = Instant::now();
    let mut steps = 0;
    let mut first: Option<(Vec<f32>, Vec<f32>)> = None;
    let mut next = |input: &[f32], output: &mut Vec<f32>| -> Result<(), runtime::Error> {
        steps += 1;
        loaded.runnable.run_into(input, 1, output)?;
        first.get_or_insert_with(|| (input.to_vec(), output.clone()));
        Ok(())
    };
    let result = write(&mut next, texts.rule, texts.length, prompt, writing);
    // As much as one inference took: that is what a version is judged by.
    let each = start.elapsed() / steps.max(1);
    serving.record(loaded, steps as usize, result.is_ok().then_some(each), wall());
    if let Some((input, output)) = first {
        serving.offer_to_former(loaded, &input, 1, &output);
    }
    result.map_err(|error| ApiError::Internal(error.to_string()))
}
