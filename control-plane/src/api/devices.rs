//! Devices, their tokens and events, and what was refused.

use super::{
    paging::{List, Paging},
    problem::{Body, Path, Problem, Query},
};
use crate::app::{
    App,
    enrol::{CreatedToken, NewToken},
};
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post, put},
};
use control_core::entity::{Device, DeviceEvent, SecurityEvent, Token};
use shared::DeviceId;
use std::{collections::BTreeMap, sync::Arc};

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
    Query(paging): Query<Paging>,
) -> Result<Json<List<Device>>, Problem> {
    let page = paging.page()?;
    Ok(Json(List::new(app.devices(page).await?, page)))
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
    Ok(Json(List::new(app.device_events(Some(&device), page).await?, page)))
}

async fn all_events(
    State(app): State<Arc<App>>,
    Query(paging): Query<Paging>,
) -> Result<Json<List<DeviceEvent>>, Problem> {
    let page = paging.page()?;
    Ok(Json(List::new(app.device_events(None, page).await?, page)))
}

async fn security_events(
    State(app): State<Arc<App>>,
    Query(paging): Query<Paging>,
) -> Result<Json<List<SecurityEvent>>, Problem> {
    let page = paging.page()?;
    Ok(Json(List::new(app.security_events(page).await?, page)))
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
    Ok(Json(List::new(app.tokens(page).await?, page)))
}

async fn create_token(
    State(app): State<Arc<App>>,
    Body(new): Body<NewToken>,
) -> Result<(StatusCode, Json<CreatedToken>), Problem> {
    Ok((StatusCode::CREATED, Json(app.create_token(new).await?)))
}
