//! A client of the agent's local API: the Open Inference Protocol, v2, with the binary tensor extension.

use anyhow::{Context, Result, bail};
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
        let bytes: Vec<u8> = input.iter().flat_map(|value| value.to_le_bytes()).collect();
        let header = json!({
            "inputs": [{
                "name": "input", "datatype": "FP32", "shape": shape,
                "parameters": { "binary_data_size": bytes.len() },
            }],
            "outputs": [{ "name": "probabilities", "parameters": { "binary_data": true } }],
        })
        .to_string();
        let mut body = Vec::with_capacity(header.len() + bytes.len());
        body.extend_from_slice(header.as_bytes());
        body.extend_from_slice(&bytes);
        let mut answer = self
            .agent
            .post(format!("{}/v2/models/{model}/infer", self.base))
            .header("Inference-Header-Content-Length", header.len().to_string())
            .content_type("application/octet-stream")
            .send(body.as_slice())
            .context("sending an inference")?;
        let status = answer.status();
        let split = answer
            .headers()
            .get("Inference-Header-Content-Length")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.parse::<usize>().ok());
        let bytes = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()
            .context("reading an inference")?;
        if status != 200 {
            bail!("inference answered {status}: {}", String::from_utf8_lossy(&bytes));
        }
        let split = split.context("the answer has no Inference-Header-Content-Length")?;
        let tail = bytes.get(split..).context("the answer is shorter than its header says")?;
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
