//! `POST …/feedback`: what users did with an answer, accepted once it is on disk.

use super::{Api, ApiError, body, metadata::find, protocol::ID_BYTES_MAX};
use crate::clock::wall;
use axum::{
    Json,
    extract::{self, Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use shared::wire::{Feedback, FeedbackKind};
use std::sync::Arc;
use uuid::Uuid;

/// Longest label of a correction.
const LABEL_BYTES_MAX: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    request_id: Option<String>,
    kind: FeedbackKind,
    value: Option<f64>,
    label: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Accepted {
    id: Uuid,
}

pub(super) async fn feedback(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    request: extract::Request,
) -> Result<(StatusCode, Json<Accepted>), ApiError> {
    let body = body::read(&api, request).await?;
    let request: Request = serde_json::from_slice(&body)
        .map_err(|error| ApiError::BadRequest(format!("not feedback: {error}")))?;
    check(&request).map_err(ApiError::BadRequest)?;
    let (serving, loaded) = find(&api, &name, None)?;
    let feedback = Feedback {
        id: Uuid::now_v7(),
        at: wall(),
        slot: serving.slot.clone(),
        version_id: loaded.version.version_id,
        request_id: request.request_id,
        kind: request.kind,
        value: request.value,
        label: request.label,
    };
    let id = feedback.id;
    api.store.put_durably(vec![feedback]).await?;
    api.updater.outbox.notify_one();
    Ok((StatusCode::ACCEPTED, Json(Accepted { id })))
}

fn check(request: &Request) -> Result<(), String> {
    let long = |text: &Option<String>, max: usize| text.as_ref().is_some_and(|text| text.len() > max);
    if long(&request.request_id, ID_BYTES_MAX) {
        return Err(format!("request_id has at most {ID_BYTES_MAX} bytes"));
    }
    if long(&request.label, LABEL_BYTES_MAX) {
        return Err(format!("label has at most {LABEL_BYTES_MAX} bytes"));
    }
    if request.value.is_some_and(|value| !value.is_finite()) {
        return Err("value is a finite number".to_owned());
    }
    match request.kind {
        FeedbackKind::Correction if request.label.is_none() => Err("a correction needs a label".to_owned()),
        FeedbackKind::Dwell if request.value.is_none() => {
            Err("dwell needs a value in milliseconds".to_owned())
        }
        _ => Ok(()),
    }
}
