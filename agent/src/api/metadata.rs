//! What models there are, their inputs and outputs, and what they counted.

use super::{Api, ApiError};
use crate::models::{Loaded, Serving};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::Serialize;
use shared::manifest::TensorSpec;
use std::sync::Arc;

#[derive(Serialize)]
pub(super) struct ServerMetadata {
    name: &'static str,
    version: &'static str,
    extensions: [&'static str; 4],
}

#[derive(Serialize)]
pub(super) struct Live {
    live: bool,
}

/// Of the server, or of a model.
#[derive(Serialize)]
pub(super) struct Ready {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    ready: bool,
}

#[derive(Serialize)]
pub(super) struct ModelMetadata {
    name: String,
    versions: Vec<String>,
    platform: String,
    inputs: Vec<TensorMetadata>,
    outputs: Vec<TensorMetadata>,
}

#[derive(Serialize)]
struct TensorMetadata {
    name: String,
    datatype: &'static str,
    shape: Vec<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<InputParameters>,
}

/// What else an input may be.
#[derive(Serialize)]
#[serde(untagged)]
enum InputParameters {
    /// A text may stand in its place.
    Text {
        /// The datatype of such a tensor; its shape is `[N]`.
        text: &'static str,
        /// Characters that the model reads.
        characters: usize,
    },
    /// It is a row of a table, as it is, with these columns; its shape may also be `[N, columns]`.
    Columns { columns: Vec<String> },
}

#[derive(Serialize)]
pub(super) struct IndexEntry {
    name: String,
    version: String,
    state: &'static str,
    reason: String,
}

/// Triton's statistics form, as far as there are figures.
#[derive(Serialize)]
pub(super) struct Statistics {
    model_stats: Vec<ModelStatistics>,
}

#[derive(Serialize)]
struct ModelStatistics {
    name: String,
    version: String,
    last_inference: u64,
    inference_count: u64,
    execution_count: u64,
    inference_stats: InferenceStatistics,
}

#[derive(Serialize)]
struct InferenceStatistics {
    success: Duration,
    fail: Duration,
    compute_infer: Duration,
}

#[derive(Serialize)]
struct Duration {
    count: u64,
    ns: u64,
}

pub(super) async fn server() -> Json<ServerMetadata> {
    Json(ServerMetadata {
        name: "edgewright-agent",
        version: env!("CARGO_PKG_VERSION"),
        extensions: ["binary_tensor_data", "classification", "model_repository", "statistics"],
    })
}

pub(super) async fn live() -> Json<Live> {
    Json(Live { live: true })
}

/// Ready once a model answers.
pub(super) async fn ready(State(api): State<Arc<Api>>) -> (StatusCode, Json<Ready>) {
    let ready = api.models.all().iter().any(|serving| serving.current().is_some());
    (status(ready), Json(Ready { name: None, ready }))
}

pub(super) async fn index(State(api): State<Arc<Api>>) -> Json<Vec<IndexEntry>> {
    let entry = |serving: &Arc<Serving>| match serving.current() {
        Some(loaded) => IndexEntry {
            name: serving.slot.to_string(),
            version: loaded.version.version.to_string(),
            state: "READY",
            reason: String::new(),
        },
        None => IndexEntry {
            name: serving.slot.to_string(),
            version: String::new(),
            state: "UNAVAILABLE",
            reason: "no version answers yet".to_owned(),
        },
    };
    Json(api.models.all().iter().map(entry).collect())
}

pub(super) async fn model(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<ModelMetadata>, ApiError> {
    find(&api, &name, None).map(|(_, loaded)| describe(&name, &loaded))
}

pub(super) async fn version(
    State(api): State<Arc<Api>>,
    Path((name, version)): Path<(String, String)>,
) -> Result<Json<ModelMetadata>, ApiError> {
    find(&api, &name, Some(&version)).map(|(_, loaded)| describe(&name, &loaded))
}

pub(super) async fn model_ready(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> (StatusCode, Json<Ready>) {
    let ready = find(&api, &name, None).is_ok();
    (status(ready), Json(Ready { name: Some(name), ready }))
}

pub(super) async fn version_ready(
    State(api): State<Arc<Api>>,
    Path((name, version)): Path<(String, String)>,
) -> (StatusCode, Json<Ready>) {
    let ready = find(&api, &name, Some(&version)).is_ok();
    (status(ready), Json(Ready { name: Some(name), ready }))
}

pub(super) async fn all_statistics(State(api): State<Arc<Api>>) -> Json<Statistics> {
    let slots = api.models.all();
    let count = |serving: &Arc<Serving>| Some(count(serving.slot.as_str(), serving, &*serving.current()?));
    Json(Statistics { model_stats: slots.iter().filter_map(count).collect() })
}

pub(super) async fn statistics(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<Statistics>, ApiError> {
    let (serving, loaded) = find(&api, &name, None)?;
    Ok(Json(Statistics { model_stats: vec![count(&name, &serving, &loaded)] }))
}

pub(super) async fn version_statistics(
    State(api): State<Arc<Api>>,
    Path((name, version)): Path<(String, String)>,
) -> Result<Json<Statistics>, ApiError> {
    let (serving, loaded) = find(&api, &name, Some(&version))?;
    Ok(Json(Statistics { model_stats: vec![count(&name, &serving, &loaded)] }))
}

/// The slot and the version that answer to `name`, a slot's or a model's. A version is named by its label
/// (`v1.3`) or its UUID.
pub(super) fn find(
    api: &Api,
    name: &str,
    version: Option<&str>,
) -> Result<(Arc<Serving>, Arc<Loaded>), ApiError> {
    let shown: String = name.chars().take(80).collect();
    let Some((serving, loaded)) = api.models.find(name) else {
        let ready: Vec<_> = api.models.all().iter().map(|serving| serving.slot.to_string()).collect();
        let there = if ready.is_empty() { "none yet".to_owned() } else { ready.join(", ") };
        return Err(ApiError::NotFound(format!("no model {shown:?} answers here; there are: {there}")));
    };
    let has = &loaded.version;
    match version {
        Some(asked) if asked != has.version.to_string() && asked != has.version_id.to_string() => {
            let asked: String = asked.chars().take(80).collect();
            Err(ApiError::NotFound(format!("model {shown:?} has version {}, not {asked:?}", has.version)))
        }
        _ => Ok((serving, loaded)),
    }
}

fn status(ready: bool) -> StatusCode {
    if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn describe(name: &str, loaded: &Loaded) -> Json<ModelMetadata> {
    let tensor = |spec: &TensorSpec, parameters: Option<InputParameters>| TensorMetadata {
        name: spec.name.clone(),
        datatype: "FP32",
        shape: std::iter::once(-1).chain(spec.shape.iter().map(|&size| size as i64)).collect(),
        parameters,
    };
    let manifest = &loaded.manifest;
    let parameters = if manifest.preprocess.text.is_some() {
        let characters = manifest.input.shape.last().copied().unwrap_or(0);
        Some(InputParameters::Text { text: super::text::BYTES, characters })
    } else if manifest.preprocess.columns.is_empty() {
        None
    } else {
        let columns = manifest.preprocess.columns.iter().map(|column| column.name.clone()).collect();
        Some(InputParameters::Columns { columns })
    };
    Json(ModelMetadata {
        name: name.to_owned(),
        versions: vec![loaded.version.version.to_string()],
        platform: format!("onnx_{}", loaded.runnable.runtime()),
        inputs: vec![tensor(&manifest.input, parameters)],
        outputs: vec![tensor(&manifest.output, None)],
    })
}

fn count(name: &str, serving: &Serving, loaded: &Loaded) -> ModelStatistics {
    let meter = serving.meter();
    let answered = meter.requests - meter.failed;
    let ns = u64::try_from(meter.busy.as_nanos()).unwrap_or(u64::MAX);
    ModelStatistics {
        name: name.to_owned(),
        version: loaded.version.version.to_string(),
        last_inference: meter.last_at.map_or(0, |at| at.0),
        inference_count: meter.samples,
        execution_count: answered,
        inference_stats: InferenceStatistics {
            success: Duration { count: answered, ns },
            fail: Duration { count: meter.failed, ns: 0 },
            compute_infer: Duration { count: answered, ns },
        },
    }
}
