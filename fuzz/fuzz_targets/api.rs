//! Requests to the local API: a byte that chooses the path, two for the length of the JSON where binary tensors follow
//! it (more than there is: no such header), then the body. A client's bytes never make the agent fail.

#![no_main]

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode},
};
use edgewright_agent::{
    api::{Api, Limits, router},
    clock::wall,
    models::{Loaded, Models},
    store::Store,
    updater,
};
use edgewright_fuzz::folder;
use libfuzzer_sys::fuzz_target;
use runtime::{Error, Golden, Runnable, TensorInfo};
use serde_json::Value;
use shared::{
    Digest, ModelVersionId, Timestamp,
    manifest::{Lineage, Manifest, Preprocess, Task, TensorSpec},
    wire::VersionRef,
};
use std::{
    sync::{Arc, LazyLock},
    time::Instant,
};
use tokio::runtime::Runtime;
use tower::ServiceExt;
use uuid::Uuid;

const BODY_BYTES_MAX: usize = 1 << 20;
const HEADER_LENGTH: &str = "inference-header-content-length";
const PATHS: [&str; 4] = [
    "/v2/models/default/infer",
    "/v2/models/tiny/versions/v1.2/infer",
    "/v2/models/default/feedback",
    "/v2/repository/index",
];
const ELEMENTS: usize = 4;
const CLASSES: usize = 3;

/// Answers at once, and holds requests to what they must be when they reach a model.
#[derive(Debug)]
struct Tiny {
    input: TensorInfo,
    output: TensorInfo,
}

impl Runnable for Tiny {
    fn runtime(&self) -> &'static str {
        "tract"
    }

    fn input(&self) -> &TensorInfo {
        &self.input
    }

    fn output(&self) -> &TensorInfo {
        &self.output
    }

    fn run_into(&self, input: &[f32], batch: usize, output: &mut Vec<f32>) -> Result<(), Error> {
        assert!(batch > 0 && input.len() == batch * ELEMENTS, "{} values in {batch} samples", input.len());
        assert!(input.iter().all(|value| value.is_finite()), "a value that is no number reached the model");
        output.clear();
        output.extend(input.chunks_exact(ELEMENTS).flat_map(|sample| [sample[0], 0.5, 0.25]));
        Ok(())
    }
}

fn loaded() -> Loaded {
    let spec = |name: &str, shape: &[usize]| TensorSpec { name: name.to_owned(), shape: shape.to_vec() };
    let info = |spec: &TensorSpec| TensorInfo { name: spec.name.clone(), shape: spec.shape.clone() };
    let (input, output) = (spec("input", &[1, 2, 2]), spec("probabilities", &[CLASSES]));
    let runnable = Arc::new(Tiny { input: info(&input), output: info(&output) });
    let manifest = Manifest {
        format: 1,
        model: "tiny".parse().expect("a name"),
        version: "v1.2".parse().expect("a version"),
        version_id: ModelVersionId(Uuid::from_u128(2)),
        task: Task::ImageClassification,
        board: "x86-64".parse().expect("a board"),
        created_at: Timestamp(0),
        input,
        output,
        preprocess: Preprocess::linear(1.0 / 255.0, 0.0),
        labels: ["low", "mid", "high"].map(str::to_owned).to_vec(),
        heads: Vec::new(),
        alarm: None,
        golden_tolerance: 0.05,
        files: Vec::new(),
        lineage: Lineage { dataset: Digest::of(b"d"), job: None, seed: 0, parent: None },
    };
    let version = VersionRef {
        model: manifest.model.clone(),
        version: manifest.version,
        version_id: manifest.version_id,
        bundle: Digest::of(b"bundle"),
    };
    let golden = Golden::new(vec![1, 2, 2], vec![0.0; ELEMENTS], vec![0.0, 0.5, 0.25]).expect("golden");
    Loaded { version, manifest, runnable, golden, measured_us: 0.0 }
}

struct Agent {
    runtime: Runtime,
    router: Router,
}

static AGENT: LazyLock<Agent> = LazyLock::new(|| {
    let store = Store::open(&folder().join("store"), 100).expect("a store opens");
    let models = Arc::new(Models::default());
    models.slot(&"default".parse().expect("a slot"), wall()).swap(Some(Arc::new(loaded())), wall());
    let limits =
        Limits { threads: 1, queue_max: 1, body_bytes_max: BODY_BYTES_MAX, bodies_bytes_max: BODY_BYTES_MAX };
    let shared = Arc::new(updater::Shared::default());
    let api = Api::new(models, Arc::new(store), shared, limits, vec!["tract"], Instant::now());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    Agent { runtime: runtime.expect("an executor"), router: router(Arc::new(api)) }
});

fn ask(path: &str, json_bytes: Option<usize>, body: &[u8]) -> (StatusCode, HeaderMap, Vec<u8>) {
    let mut request = Request::post(path);
    if let Some(length) = json_bytes {
        request = request.header(HEADER_LENGTH, length);
    }
    let request = request.body(Body::from(body.to_vec())).expect("a request");
    AGENT.runtime.block_on(async {
        let response = AGENT.router.clone().oneshot(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a body");
        (head.status, head.headers, body.to_vec())
    })
}

/// The answer's shape says how many values it holds.
fn check_inference(headers: &HeaderMap, body: &[u8]) {
    let head = headers.get(HEADER_LENGTH).map(|length| {
        length.to_str().ok().and_then(|length| length.parse().ok()).expect("a length in the answer")
    });
    let (json, raw) = body.split_at(head.unwrap_or(body.len()));
    let answer: Value = serde_json::from_slice(json).expect("an answer is JSON");
    let output = &answer["outputs"][0];
    let shape = output["shape"].as_array().expect("a shape").iter();
    let values: u64 = shape.map(|size| size.as_u64().expect("a size")).product();
    match output["data"].as_array() {
        Some(data) => assert!(raw.is_empty() && data.len() as u64 == values),
        None => {
            assert_eq!(output["parameters"]["binary_data_size"].as_u64(), Some(raw.len() as u64));
            assert!(output["datatype"] == "BYTES" || raw.len() as u64 == 4 * values);
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&[path, low, high], body)) = bytes.split_first_chunk::<3>() else { return };
    let path = PATHS[usize::from(path) % PATHS.len()];
    let length = usize::from(u16::from_le_bytes([low, high]));
    let (status, headers, answer) = ask(path, (length <= body.len()).then_some(length), body);
    match status {
        StatusCode::OK if path.ends_with("/infer") => check_inference(&headers, &answer),
        StatusCode::OK | StatusCode::ACCEPTED => {}
        status => {
            assert!(status.is_client_error(), "{status}: {}", String::from_utf8_lossy(&answer));
            let problem: Value = serde_json::from_slice(&answer).expect("a refusal is JSON");
            assert!(problem["error"].is_string(), "{problem}");
        }
    }
});
