//! A client of the agent's local API: the Open Inference Protocol, v2, with the binary tensor extension.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

/// Keeps its connections alive between requests.
#[derive(Clone, Debug)]
pub struct Client {
    agent: ureq::Agent,
    base: String,
}

const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

impl Client {
    /// A client of the API on loopback port `port`.
    pub fn new(port: u16) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(REQUEST_LIMIT))
            .http_status_as_error(false)
            .build();
        Self { agent: config.into(), base: format!("http://127.0.0.1:{port}") }
    }

    /// Does the server answer at all?
    pub fn is_live(&self) -> bool {
        self.get_text("/v2/health/live").is_ok()
    }

    /// A page's text; anything but 200 is an error.
    pub fn get_text(&self, path: &str) -> Result<String> {
        let mut answer =
            self.agent.get(format!("{}{path}", self.base)).call().with_context(|| path.to_owned())?;
        let status = answer.status();
        let text = answer.body_mut().read_to_string().with_context(|| path.to_owned())?;
        if status == 200 { Ok(text) } else { bail!("{path} answered {status}: {text}") }
    }

    /// A page's JSON.
    pub fn get_json(&self, path: &str) -> Result<Value> {
        serde_json::from_str(&self.get_text(path)?).with_context(|| path.to_owned())
    }

    /// Posts JSON; gives the status and the answer's JSON.
    pub fn post_json(&self, path: &str, body: &Value) -> Result<(u16, Value)> {
        let mut answer = self
            .agent
            .post(format!("{}{path}", self.base))
            .content_type("application/json")
            .send(serde_json::to_vec(body)?.as_slice())
            .with_context(|| path.to_owned())?;
        let text = answer.body_mut().read_to_string().with_context(|| path.to_owned())?;
        let value = if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? };
        Ok((answer.status().as_u16(), value))
    }

    /// One inference with binary tensors in both directions. `shape` includes the batch.
    pub fn infer(&self, model: &str, shape: &[usize], input: &[f32]) -> Result<Vec<f32>> {
        self.send(&Request::binary(model, shape, input)?)?.output()
    }

    /// Sends an inference and reads the whole answer, whatever it says.
    pub fn send(&self, request: &Request) -> Result<Answer> {
        let mut sending = self.agent.post(format!("{}{}", self.base, request.path));
        if let Some(length) = request.header_bytes {
            sending = sending.header(HEADER_LENGTH, length.to_string());
        }
        let content =
            if request.header_bytes.is_some() { "application/octet-stream" } else { "application/json" };
        let mut answer =
            sending.content_type(content).send(request.body.as_slice()).context("sending an inference")?;
        let header_bytes = answer.headers().get(HEADER_LENGTH).and_then(|value| value.to_str().ok());
        let header_bytes = header_bytes.and_then(|value| value.parse().ok());
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let body = body.context("reading an inference")?;
        Ok(Answer { status: answer.status().as_u16(), header_bytes, body })
    }
}

/// Gives the length of the JSON in front of binary tensors.
const HEADER_LENGTH: &str = "Inference-Header-Content-Length";

/// An inference whose body is written already.
#[derive(Clone, Debug)]
pub struct Request {
    path: String,
    /// Length of the JSON in front of binary tensors; none where all is JSON.
    header_bytes: Option<usize>,
    body: Vec<u8>,
}

impl Request {
    /// With binary tensors in both directions. `shape` includes the batch.
    pub fn binary(model: &str, shape: &[usize], input: &[f32]) -> Result<Self> {
        let header = json!({
            "inputs": [{
                "name": "input", "datatype": "FP32", "shape": shape,
                "parameters": { "binary_data_size": input.len() * 4 },
            }],
            "outputs": [{ "name": "probabilities", "parameters": { "binary_data": true } }],
        });
        let mut body = serde_json::to_vec(&header)?;
        let header_bytes = Some(body.len());
        body.extend(input.iter().flat_map(|value| value.to_le_bytes()));
        Ok(Self { path: infer_path(model), header_bytes, body })
    }

    /// With JSON in both directions, each value in as few digits as name it. `shape` includes the batch.
    pub fn json(model: &str, shape: &[usize], input: &[f32]) -> Result<Self> {
        #[derive(Serialize)]
        struct Body<'a> {
            inputs: [Input<'a>; 1],
        }
        #[derive(Serialize)]
        struct Input<'a> {
            name: &'static str,
            datatype: &'static str,
            shape: &'a [usize],
            data: &'a [f32],
        }
        let body = Body { inputs: [Input { name: "input", datatype: "FP32", shape, data: input }] };
        Ok(Self { path: infer_path(model), header_bytes: None, body: serde_json::to_vec(&body)? })
    }
}

fn infer_path(model: &str) -> String {
    format!("/v2/models/{model}/infer")
}

/// What came back for a [`Request`].
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    header_bytes: Option<usize>,
    body: Vec<u8>,
}

impl Answer {
    /// The one output's values; an error where the answer is one.
    pub fn output(&self) -> Result<Vec<f32>> {
        #[derive(Deserialize)]
        struct Body {
            outputs: [Output; 1],
        }
        #[derive(Deserialize)]
        struct Output {
            data: Vec<f32>,
        }
        if self.status != 200 {
            bail!("inference answered {}: {}", self.status, String::from_utf8_lossy(&self.body));
        }
        let Some(header) = self.header_bytes else {
            let Body { outputs: [output] } =
                serde_json::from_slice(&self.body).context("reading an inference's JSON")?;
            return Ok(output.data);
        };
        let tail = self.body.get(header..).context("the answer is shorter than its header says")?;
        Ok(tail.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }
}

/// The index of the largest value; zero of nothing.
pub fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_request_holds_each_value_in_as_few_digits_as_name_it() {
        let request = Request::json("m", &[1, 2], &[0.2, 1.0]).unwrap();
        let text = String::from_utf8(request.body).unwrap();
        assert!(text.ends_with("\"shape\":[1,2],\"data\":[0.2,1.0]}]}"), "{text}");
        assert_eq!((request.path.as_str(), request.header_bytes), ("/v2/models/m/infer", None));
    }

    #[test]
    fn a_binary_request_is_json_with_the_values_behind_it() {
        let request = Request::binary("m", &[1, 2], &[0.5, 2.0]).unwrap();
        let (json, values) = request.body.split_at(request.header_bytes.unwrap());
        let json: Value = serde_json::from_slice(json).unwrap();
        assert_eq!(json["inputs"][0]["parameters"]["binary_data_size"], values.len());
        assert_eq!(values, [0.5f32.to_le_bytes(), 2.0f32.to_le_bytes()].concat());
    }

    #[test]
    fn answers_are_read_from_json_and_from_bytes_and_refusals_are_errors() {
        let json = br#"{"model_name":"m","outputs":[{"name":"p","data":[0.25,0.75]}]}"#;
        let answer = |status, header_bytes, body: &[u8]| Answer { status, header_bytes, body: body.to_vec() };
        assert_eq!(answer(200, None, json).output().unwrap(), [0.25, 0.75]);
        let binary = [b"{}".as_slice(), &0.5f32.to_le_bytes()].concat();
        assert_eq!(answer(200, Some(2), &binary).output().unwrap(), [0.5]);
        assert!(answer(200, Some(9), &binary).output().is_err());
        let error = answer(400, None, b"{\"error\":\"no\"}").output().unwrap_err().to_string();
        assert!(error.contains("400") && error.contains("no"), "{error}");
    }
}
