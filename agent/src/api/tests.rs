use super::*;
use crate::{
    clock::wall,
    testing::{GOLDEN, loaded},
};
use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode},
};
use proptest::prelude::*;
use runtime::Golden;
use serde_json::{Value, json};
use tower::ServiceExt;

const ELEMENTS: usize = 64;
const BODY_MAX: usize = 64 * 1024;

struct Agent {
    router: Router,
    api: Arc<Api>,
    golden: Golden,
    _folder: tempfile::TempDir,
}

const LIMITS: Limits =
    Limits { threads: 2, queue_max: 4, body_bytes_max: BODY_MAX, bodies_bytes_max: 4 * BODY_MAX };

impl Agent {
    fn new() -> Self {
        Self::with(LIMITS)
    }

    fn with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("s"), 1000).unwrap();
        Self::on(store, folder, limits)
    }

    fn on(store: Store, folder: tempfile::TempDir, limits: Limits) -> Self {
        let store = Arc::new(store);
        let models = Arc::new(Models::default());
        models.slot(&"default".parse().unwrap(), wall()).swap(Some(Arc::new(loaded(2))), wall());
        let shared = Arc::new(updater::Shared::default());
        let api = Arc::new(Api::new(models, store, shared, limits, vec!["tract"], Instant::now()));
        let golden = Golden::read(GOLDEN).unwrap();
        Self { router: router(api.clone()), api, golden, _folder: folder }
    }

    async fn ask(&self, request: Request<Body>) -> (StatusCode, HeaderMap, Vec<u8>) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts.status, parts.headers, to_bytes(body, usize::MAX).await.unwrap().to_vec())
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let (status, _, body) = self.ask(Request::get(path).body(Body::empty()).unwrap()).await;
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let request = Request::post(path).body(Body::from(body.to_string())).unwrap();
        let (status, _, body) = self.ask(request).await;
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// Sends JSON followed by raw bytes.
    async fn post_binary(&self, head: &Value, raw: &[u8]) -> (StatusCode, HeaderMap, Vec<u8>) {
        let head = head.to_string();
        let request = Request::post("/v2/models/default/infer")
            .header("Inference-Header-Content-Length", head.len())
            .body(Body::from([head.as_bytes(), raw].concat()))
            .unwrap();
        self.ask(request).await
    }

    async fn error(&self, body: Value) -> String {
        let (status, answer) = self.post("/v2/models/default/infer", &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        answer["error"].as_str().unwrap().to_owned()
    }

    fn sample(&self, index: usize) -> &[f32] {
        &self.golden.input()[index * ELEMENTS..][..ELEMENTS]
    }

    fn is_golden(&self, index: usize, row: &[f32]) {
        for (got, expected) in row.iter().zip(&self.golden.output()[index * 3..][..3]) {
            assert!((got - expected).abs() < 0.05, "{got} for {expected}");
        }
    }
}

fn request(data: &[f32], shape: &[usize]) -> Value {
    json!({"inputs": [{"name": "input", "shape": shape, "datatype": "FP32", "data": data}]})
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

fn raw_floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn health_metadata_and_index_follow_the_protocol() {
    let agent = Agent::new();
    for path in [
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/default/ready",
        "/v2/models/shapes/versions/v1.2/ready",
    ] {
        assert_eq!(agent.get(path).await.0, StatusCode::OK, "{path}");
    }
    assert_eq!(agent.get("/v2/health/live").await.1, json!({"live": true}));
    assert_eq!(agent.get("/v2/health/ready").await.1, json!({"ready": true}));
    assert_eq!(agent.get("/v2/models/default/ready").await.1, json!({"name": "default", "ready": true}));
    let (_, server) = agent.get("/v2").await;
    assert_eq!(server["name"], "edgewright-agent");
    assert!(server["extensions"].as_array().unwrap().contains(&json!("binary_tensor_data")));
    for path in ["/v2/models/default", "/v2/models/shapes", "/v2/models/shapes/versions/v1.2"] {
        let (status, model) = agent.get(path).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(model["versions"], json!(["v1.2"]));
        assert_eq!(model["inputs"], json!([{"name": "input", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]));
        assert_eq!(
            model["outputs"],
            json!([{"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}])
        );
    }
    let (_, index) = agent.post("/v2/repository/index", &json!({})).await;
    assert_eq!(index, json!([{"name": "default", "version": "v1.2", "state": "READY", "reason": ""}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_404_with_what_is() {
    let agent = Agent::new();
    let (status, answer) = agent.get("/v2/models/nope").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(answer["error"].as_str().unwrap().contains("there are: default"));
    let (status, answer) =
        agent.post("/v2/models/default/versions/v9.9/infer", &request(agent.sample(0), &[1, 1, 8, 8])).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(answer["error"].as_str().unwrap().contains("v1.2"));
    assert_eq!(agent.get("/v3").await.0, StatusCode::NOT_FOUND);
    let (status, answer) = agent.get("/v2/models/default/infer").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(answer["error"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn json_in_and_json_out_gives_the_golden_answers_and_the_id_back() {
    let agent = Agent::new();
    let mut body = request(&agent.golden.input()[..2 * ELEMENTS], &[2, 1, 8, 8]);
    body["id"] = json!("request-7");
    let (status, answer) = agent.post("/v2/models/shapes/infer", &body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!((&answer["id"], &answer["model_version"]), (&json!("request-7"), &json!("v1.2")));
    assert_eq!(answer["outputs"][0]["shape"], json!([2, 3]));
    let values = floats(&answer["outputs"][0]["data"]);
    agent.is_golden(0, &values[..3]);
    agent.is_golden(1, &values[3..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_sample_may_leave_the_batch_out_and_nest_its_data() {
    let agent = Agent::new();
    let rows: Vec<_> = agent.sample(3).chunks(8).map(<[f32]>::to_vec).collect();
    let body = json!({"inputs": [{"name": "input", "shape": [1, 8, 8], "datatype": "FP32", "data": [rows]}]});
    let (status, answer) = agent.post("/v2/models/default/infer", &body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    agent.is_golden(3, &floats(&answer["outputs"][0]["data"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_tensors_go_in_and_come_out() {
    let agent = Agent::new();
    let raw: Vec<u8> = agent.sample(2).iter().flat_map(|value| value.to_le_bytes()).collect();
    for by_request in [true, false] {
        let mut head = json!({"inputs": [{"name": "input", "shape": [1, 1, 8, 8], "datatype": "FP32",
            "parameters": {"binary_data_size": raw.len()}}]});
        if by_request {
            head["parameters"] = json!({"binary_data_output": true});
        } else {
            head["outputs"] = json!([{"name": "probabilities", "parameters": {"binary_data": true}}]);
        }
        let (status, headers, body) = agent.post_binary(&head, &raw).await;
        assert_eq!(status, StatusCode::OK);
        let length: usize = headers["inference-header-content-length"].to_str().unwrap().parse().unwrap();
        let answer: Value = serde_json::from_slice(&body[..length]).unwrap();
        assert_eq!(answer["outputs"][0]["parameters"]["binary_data_size"], json!(12));
        assert!(answer["outputs"][0].get("data").is_none());
        agent.is_golden(2, &raw_floats(&body[length..]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_bytes_are_scaled_as_the_manifest_says() {
    let agent = Agent::new();
    let bytes: Vec<u8> = agent.sample(5).iter().map(|value| (value * 255.0).round() as u8).collect();
    let head = json!({"inputs": [{"name": "input", "shape": [1, 1, 8, 8], "datatype": "UINT8",
        "parameters": {"binary_data_size": bytes.len()}}]});
    let (status, _, body) = agent.post_binary(&head, &bytes).await;
    assert_eq!(status, StatusCode::OK);
    let answer: Value = serde_json::from_slice(&body).unwrap();
    agent.is_golden(5, &floats(&answer["outputs"][0]["data"]));
    let body =
        json!({"inputs": [{"name": "input", "shape": [1, 1, 8, 8], "datatype": "UINT8", "data": bytes}]});
    let (_, answer) = agent.post("/v2/models/default/infer", &body).await;
    agent.is_golden(5, &floats(&answer["outputs"][0]["data"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_best_classes_come_as_value_index_label() {
    let agent = Agent::new();
    let mut body = request(agent.sample(4), &[1, 1, 8, 8]);
    body["outputs"] = json!([{"name": "probabilities", "parameters": {"classification": 2}}]);
    let (_, answer) = agent.post("/v2/models/default/infer", &body).await;
    let output = &answer["outputs"][0];
    assert_eq!((&output["datatype"], &output["shape"]), (&json!("BYTES"), &json!([1, 2])));
    let best = output["data"][0].as_str().unwrap();
    assert!(best.ends_with(":2:high"), "{best}");
    body["outputs"][0]["parameters"]["binary_data"] = json!(true);
    body["outputs"][0]["parameters"]["classification"] = json!(1);
    let (status, headers, body) = agent
        .ask(Request::post("/v2/models/default/infer").body(Body::from(body.to_string())).unwrap())
        .await;
    assert_eq!(status, StatusCode::OK);
    let length: usize = headers["inference-header-content-length"].to_str().unwrap().parse().unwrap();
    let text = &body[length..];
    assert_eq!(u32::from_le_bytes(text[..4].try_into().unwrap()) as usize, text.len() - 4);
    assert_eq!(&text[4..], best.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_is_named() {
    let agent = Agent::new();
    let good = request(agent.sample(0), &[1, 1, 8, 8]);
    let with = |path: &str, value: Value| {
        let mut body = good.clone();
        *body.pointer_mut(path).unwrap() = value;
        body
    };
    assert!(agent.error(with("/inputs/0/name", json!("image"))).await.contains("\"image\" is unknown"));
    assert!(agent.error(with("/inputs/0/shape", json!([1, 8, 9]))).await.contains("[N,1,8,8]"));
    assert!(agent.error(with("/inputs/0/shape", json!([0, 1, 8, 8]))).await.contains("shape"));
    assert!(
        agent
            .error(with("/inputs/0/shape", json!([2, 1, 8, 8])))
            .await
            .contains("64 values are given, the shape needs 128")
    );
    assert!(agent.error(with("/inputs/0/shape", json!([u64::MAX, 1, 8, 8]))).await.contains("values"));
    assert!(agent.error(with("/inputs/0/datatype", json!("INT64"))).await.contains("FP32"));
    assert!(agent.error(with("/inputs/0/data", json!(["x"]))).await.contains("array of numbers"));
    assert!(agent.error(with("/inputs/0/data", json!(vec![1e300; ELEMENTS]))).await.contains("not finite"));
    assert!(agent.error(with("/inputs", json!([]))).await.contains("takes one"));
    assert!(agent.error(json!({"inputs": 3})).await.contains("not an inference request"));
    let mut body = good.clone();
    body["outputs"] = json!([{"name": "logits"}]);
    assert!(agent.error(body).await.contains("\"logits\" is unknown"));
    let mut body = good.clone();
    body["id"] = json!("x".repeat(1000));
    assert!(agent.error(body).await.contains("id has at most"));
    let mut body = good.clone();
    body["inputs"][0]["datatype"] = json!("UINT8");
    body["inputs"][0]["data"] = json!(vec![256; ELEMENTS]);
    assert!(agent.error(body).await.contains("256 is no UINT8"));
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_sizes_that_do_not_fit_are_refused() {
    let agent = Agent::new();
    let head = |size: u64| {
        json!({"inputs": [{"name": "input", "shape": [1, 1, 8, 8], "datatype": "FP32",
            "parameters": {"binary_data_size": size}}]})
    };
    for (size, sent) in [(256, 255), (255, 256), (4, 4), (u64::MAX, 256), (256, 0)] {
        let (status, _, body) = agent.post_binary(&head(size), &vec![0; sent]).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{size} {sent}");
        assert!(serde_json::from_slice::<Value>(&body).unwrap()["error"].is_string());
    }
    let (status, _, _) = agent.post_binary(&request(agent.sample(0), &[1, 1, 8, 8]), b"more").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let nan: Vec<u8> = std::iter::repeat_n(f32::NAN.to_le_bytes(), ELEMENTS).flatten().collect();
    let (status, _, _) = agent.post_binary(&head(256), &nan).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    for length in ["-1", "x", "99999999", ""] {
        let request = Request::post("/v2/models/default/infer")
            .header("Inference-Header-Content-Length", length)
            .body(Body::from("{}"))
            .unwrap();
        assert_eq!(agent.ask(request).await.0, StatusCode::BAD_REQUEST, "{length:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_cap_is_refused() {
    let agent = Agent::new();
    let request =
        Request::post("/v2/models/default/infer").body(Body::from(vec![b' '; BODY_MAX + 1])).unwrap();
    let (status, _, body) = agent.ask(request).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(String::from_utf8_lossy(&body).contains(&BODY_MAX.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_may_wait_are_refused_with_503() {
    let agent = Agent::with(Limits {
        threads: 1,
        queue_max: 0,
        body_bytes_max: BODY_MAX,
        bodies_bytes_max: BODY_MAX,
    });
    let held = agent.api.gate.enter().await.unwrap();
    let body = request(agent.sample(0), &[1, 1, 8, 8]);
    let (status, answer) = agent.post("/v2/models/default/infer", &body).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer["error"].as_str().unwrap().contains("try again"));
    drop(held);
    assert_eq!(agent.post("/v2/models/default/infer", &body).await.0, StatusCode::OK);
    assert_eq!(agent.api.gate.waiting.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_wait_for_room_in_memory_before_they_are_read() {
    let agent = Agent::with(Limits {
        threads: 1,
        queue_max: 0,
        body_bytes_max: BODY_MAX,
        bodies_bytes_max: BODY_MAX,
    });
    let ask = |announced: usize| {
        let body = request(agent.sample(0), &[1, 1, 8, 8]).to_string();
        let request = Request::post("/v2/models/default/infer")
            .header("content-length", announced.max(body.len()))
            .body(Body::from(body))
            .unwrap();
        agent.ask(request)
    };
    let held = agent.api.gate.room_for(body::places(BODY_MAX - 8 * 1024)).await.unwrap();
    assert_eq!(ask(0).await.0, StatusCode::OK, "a small body fits beside the others");
    assert_eq!(ask(9 * 1024).await.0, StatusCode::SERVICE_UNAVAILABLE);
    drop(held);
    assert_eq!(ask(9 * 1024).await.0, StatusCode::OK);
    // One that does not say how long it is may be as long as allowed.
    let held = agent.api.gate.room_for(1).await.unwrap();
    let body = request(agent.sample(0), &[1, 1, 8, 8]);
    assert_eq!(agent.post("/v2/models/default/infer", &body).await.0, StatusCode::SERVICE_UNAVAILABLE);
    drop(held);
    assert_eq!(agent.post("/v2/models/default/infer", &body).await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_cap_is_refused_by_its_length_alone() {
    let agent = Agent::new();
    let request = Request::post("/v2/models/default/infer").header("content-length", BODY_MAX + 1);
    assert_eq!(agent.ask(request.body(Body::empty()).unwrap()).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_batch_is_answered_in_its_order() {
    let agent = Agent::new();
    let samples = agent.golden.samples();
    let batch = 15 * samples + 1;
    let bytes: Vec<u8> = (0..batch)
        .flat_map(|index| agent.sample(index % samples).to_vec())
        .map(|value| (value * 255.0).round() as u8)
        .collect();
    let head = json!({"inputs": [{"name": "input", "shape": [batch, 1, 8, 8], "datatype": "UINT8",
        "parameters": {"binary_data_size": bytes.len()}}]});
    let (status, _, body) = agent.post_binary(&head, &bytes).await;
    assert_eq!(status, StatusCode::OK);
    let answer: Value = serde_json::from_slice(&body).unwrap();
    let values = floats(&answer["outputs"][0]["data"]);
    assert_eq!(values.len(), batch * 3);
    for (index, row) in values.chunks(3).enumerate() {
        agent.is_golden(index % samples, row);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn null_stands_for_nothing() {
    let agent = Agent::new();
    let mut body = request(agent.sample(1), &[1, 1, 8, 8]);
    body["parameters"] = Value::Null;
    body["outputs"] = Value::Null;
    body["id"] = Value::Null;
    body["inputs"][0]["parameters"] = Value::Null;
    let (status, answer) = agent.post("/v2/models/default/infer", &body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    body["outputs"] = json!([{"name": "probabilities", "parameters": null}]);
    assert_eq!(agent.post("/v2/models/default/infer", &body).await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_database_the_agent_answers_and_refuses_feedback() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sled");
    Store::open(&path, 1000).unwrap().persist(&agent_core::update::Saved::default(), &[]).unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::write(&path, "in the way").unwrap();
    let agent = Agent::on(Store::open(&path, 1000).unwrap(), folder, LIMITS);
    let body = request(agent.sample(0), &[1, 1, 8, 8]);
    assert_eq!(agent.post("/v2/models/default/infer", &body).await.0, StatusCode::OK);
    let (status, answer) = agent.post("/v2/models/default/feedback", &json!({"kind": "click"})).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer["error"].as_str().unwrap().contains("database"), "{answer}");
    let (_, status) = agent.get("/status").await;
    assert!(status["store_trouble"].as_str().unwrap().contains("database"), "{status}");
    let (_, _, text) = agent.ask(Request::get("/metrics").body(Body::empty()).unwrap()).await;
    assert!(String::from_utf8(text).unwrap().contains("edgewright_store_up 0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_is_in_the_outbox_when_it_is_accepted() {
    let agent = Agent::new();
    let path = "/v2/models/default/feedback";
    let body = json!({"request_id": "request-7", "kind": "correction", "label": "mid"});
    let (status, answer) = agent.post(path, &body).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    let device = "cam-01".parse().unwrap();
    let outgoing = agent.api.store.outgoing::<shared::wire::Feedback>(&device).unwrap().unwrap();
    let batch = shared::wire::Batch::<shared::wire::Feedback>::decode(&outgoing.payload, &device).unwrap();
    assert_eq!(batch.records[0].id.to_string(), answer["id"].as_str().unwrap());
    assert_eq!(batch.records[0].label.as_deref(), Some("mid"));
    for bad in [
        json!({"kind": "like"}),
        json!({"kind": "correction"}),
        json!({"kind": "dwell"}),
        json!({"kind": "click", "x": 1}),
        json!([]),
    ] {
        assert_eq!(agent.post(path, &bad).await.0, StatusCode::BAD_REQUEST, "{bad}");
    }
    assert_eq!(agent.api.store.depth().feedback, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_statistics_and_status_count_what_was_asked() {
    let agent = Agent::new();
    for _ in 0..3 {
        agent
            .post("/v2/models/default/infer", &request(&agent.golden.input()[..2 * ELEMENTS], &[2, 1, 8, 8]))
            .await;
    }
    let (_, _, text) = agent.ask(Request::get("/metrics").body(Body::empty()).unwrap()).await;
    let text = String::from_utf8(text).unwrap();
    for line in [
        "edgewright_requests_total{slot=\"default\"} 3",
        "edgewright_requests_failed_total{slot=\"default\"} 0",
        "edgewright_inference_us_bucket{slot=\"default\",le=\"+Inf\"} 3",
        "edgewright_inference_seconds_count{slot=\"default\"} 3",
        "edgewright_mqtt_connected 0",
        "edgewright_outbox_records{kind=\"event\"} 0",
        "runtime=\"tract\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let value = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}{{slot=\"default\"}} ")));
        line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
    };
    // Each inference loses less than a microsecond in the histogram's sum, and nothing in the exact one.
    let lost_us = value("edgewright_inference_seconds_sum") * 1e6 - value("edgewright_inference_us_sum");
    assert!((-0.001..3.0).contains(&lost_us), "{lost_us} us are lost of 3 inferences");
    let (_, statistics) = agent.get("/v2/models/default/stats").await;
    let model = &statistics["model_stats"][0];
    assert_eq!((&model["execution_count"], &model["inference_count"]), (&json!(3), &json!(6)));
    let (status, answer) = agent.get("/status").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["connected"], json!(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_answers_while_no_version_is_loaded() {
    let agent = Agent::new();
    agent.api.models.all()[0].swap(None, wall());
    assert_eq!(agent.get("/v2/health/ready").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(agent.get("/v2/health/live").await.0, StatusCode::OK);
    let (status, _) = agent.post("/v2/models/default/infer", &request(agent.sample(0), &[1, 1, 8, 8])).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (_, index) = agent.post("/v2/repository/index", &json!({})).await;
    assert_eq!(index[0]["state"], "UNAVAILABLE");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn hostile_bodies_get_an_error_and_never_more(
        body in prop::collection::vec(any::<u8>(), 0..400),
        length in prop::option::of(0usize..500),
        start in prop::sample::select(vec!["", "{\"inputs\":[", "{\"inputs\":[{\"name\":\"input\",\"shape\":["]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let agent = Agent::new();
        let body = [start.as_bytes(), &body].concat();
        let mut request = Request::post("/v2/models/default/infer");
        if let Some(length) = length {
            request = request.header("Inference-Header-Content-Length", length);
        }
        let (status, _, answer) = runtime.block_on(agent.ask(request.body(Body::from(body)).unwrap()));
        prop_assert_eq!(status, StatusCode::BAD_REQUEST);
        prop_assert!(serde_json::from_slice::<Value>(&answer).unwrap()["error"].is_string());
    }
}

mod table;
mod text;
