//! Devices, their tokens and events, and what was refused.

use super::{
    paging::{List, Paging},
    problem::{Body, Path, Problem, Query},
};
use crate::app::{
    App, DeviceFilter, Error,
    enrol::{CreatedToken, NewToken},
    versions::VersionName,
};
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post, put},
};
use control_core::entity::{Device, DeviceEvent, DeviceState, SecurityEvent, Token};
use shared::{BoardId, DeviceId};
use std::{collections::BTreeMap, sync::Arc};

/// Longest text to search for.
const SEARCH_BYTES_MAX: usize = 256;
/// Most labels to ask for at one time.
const LABELS_ASKED_MAX: usize = 16;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/devices", get(list))
        .route("/devices/{device}", get(show))
        .route("/devices/{device}/events", get(events))
        .route("/devices/{device}/labels", put(label))
        .route("/devices/{device}/revoke", post(revoke))
        .route("/events", get(all_events))
        .route("/security-events", get(security_events))
        .route("/tokens", get(tokens).post(create_token))
}

async fn list(
    State(app): State<Arc<App>>,
    Query(asked): Query<Vec<(String, String)>>,
) -> Result<Json<List<Device>>, Problem> {
    let (filter, paging) = asked_for(&app, asked).await?;
    let page = paging.page()?;
    Ok(Json(List::new(app.devices(&filter, &page).await?, &page)))
}

/// Which devices a request asks for. `label` may come again and again, anything else once.
async fn asked_for(app: &App, asked: Vec<(String, String)>) -> Result<(DeviceFilter, Paging), Problem> {
    let mut filter = DeviceFilter::default();
    let mut paging = Paging::default();
    let wrong = |key: &str, reason: &dyn std::fmt::Display| {
        Problem::new(StatusCode::BAD_REQUEST, format!("{key}: {reason}"))
    };
    for (key, value) in asked {
        match key.as_str() {
            "limit" => paging.limit = Some(value.parse::<u32>().map_err(|error| wrong(&key, &error))?),
            "cursor" => paging.cursor = Some(value),
            "search" if value.len() > SEARCH_BYTES_MAX || value.contains('\0') => {
                return Err(wrong(&key, &format!("at most {SEARCH_BYTES_MAX} bytes of text")));
            }
            // Nothing is part of everything.
            "search" => filter.search = Some(value).filter(|value| !value.is_empty()),
            "board" => filter.board = Some(value.parse::<BoardId>().map_err(|error| wrong(&key, &error))?),
            "online" => filter.online = Some(value.parse::<bool>().map_err(|error| wrong(&key, &error))?),
            "state" => filter.state = Some(value.parse::<DeviceState>().map_err(|error| wrong(&key, &error))?),
            "version" => {
                let name = value.parse::<VersionName>().map_err(|error| wrong(&key, &error))?;
                let version = app.version(&name).await.map_err(|error| match error {
                    Error::NotFound(text) => wrong(&key, &text),
                    error => error.into(),
                })?;
                filter.version = Some(version.id);
            }
            "label" => {
                let pair = value.split_once('=').filter(|_| !value.contains('\0'));
                let (name, wanted) = pair.ok_or_else(|| wrong(&key, &"expected KEY=VALUE"))?;
                filter.labels.insert(name.to_owned(), wanted.to_owned());
                if filter.labels.len() > LABELS_ASKED_MAX {
                    return Err(wrong(&key, &format!("at most {LABELS_ASKED_MAX} of them")));
                }
            }
            _ => {}
        }
    }
    Ok((filter, paging))
}

async fn show(State(app): State<Arc<App>>, Path(device): Path<DeviceId>) -> Result<Json<Device>, Problem> {
    Ok(Json(app.device(&device).await?))
}

async fn events(
    State(app): State<Arc<App>>,
    Path(device): Path<DeviceId>,
    Query(paging): Query<Paging>,
) -> Result<Json<List<DeviceEvent>>, Problem> {
    let page = paging.page()?;
    Ok(Json(List::new(app.device_events(Some(&device), &page).await?, &page)))
}

async fn all_events(
    State(app): State<Arc<App>>,
    Query(paging): Query<Paging>,
) -> Result<Json<List<DeviceEvent>>, Problem> {
    let page = paging.page()?;
    Ok(Json(List::new(app.device_events(None, &page).await?, &page)))
}

async fn security_events(
    State(app): State<Arc<App>>,
    Query(paging): Query<Paging>,
) -> Result<Json<List<SecurityEvent>>, Problem> {
    let page = paging.page()?;
    Ok(Json(List::new(app.security_events(&page).await?, &page)))
}

async fn label(
    State(app): State<Arc<App>>,
    Path(device): Path<DeviceId>,
    Body(labels): Body<BTreeMap<String, String>>,
) -> Result<Json<Device>, Problem> {
    Ok(Json(app.label_device(&device, labels).await?))
}

async fn revoke(State(app): State<Arc<App>>, Path(device): Path<DeviceId>) -> Result<Json<Device>, Problem> {
    Ok(Json(app.revoke_device(&device).await?))
}

async fn tokens(
    State(app): State<Arc<App>>,
    Query(paging): Query<Paging>,
) -> Result<Json<List<Token>>, Problem> {
    let page = paging.page()?;
    Ok(Json(List::new(app.tokens(&page).await?, &page)))
}

async fn create_token(
    State(app): State<Arc<App>>,
    Body(new): Body<NewToken>,
) -> Result<(StatusCode, Json<CreatedToken>), Problem> {
    Ok((StatusCode::CREATED, Json(app.create_token(new).await?)))
}
