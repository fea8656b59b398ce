//! Devices, their tokens and events, and what was refused.

use super::{
    operation::{Routes, get, post, put},
    paging::{List, Paging},
    problem::{Body, Path, Problem, Query},
};
use crate::app::{
    App,
    enrol::{CreatedToken, NewToken},
};
use axum::{Json, extract::State, http::StatusCode};
use control_core::entity::{Device, DeviceEvent, SecurityEvent, Token};
use shared::DeviceId;
use std::{collections::BTreeMap, sync::Arc};

pub(super) fn routes() -> Routes {
    Routes::of("Devices")
        .add(get("/devices", "list_devices", "Devices by id").paged().gives::<List<Device>>(), list)
        .add(get("/devices/{device}", "show_device", "One device").gives::<Device>(), show)
        .add(
            get("/devices/{device}/events", "list_device_events", "What a device told, the newest first")
                .paged()
                .gives::<List<DeviceEvent>>(),
            events,
        )
        .add(
            put("/devices/{device}/labels", "label_device", "Replaces a device's labels")
                .takes::<BTreeMap<String, String>>()
                .gives::<Device>(),
            label,
        )
        .add(
            post("/devices/{device}/revoke", "revoke_device", "Refuses a device's certificates from now on")
                .gives::<Device>(),
            revoke,
        )
        .add(
            get("/events", "list_events", "What all devices told, the newest first")
                .paged()
                .gives::<List<DeviceEvent>>(),
            all_events,
        )
        .add(
            get("/security-events", "list_security_events", "What was refused, the newest first")
                .paged()
                .gives::<List<SecurityEvent>>(),
            security_events,
        )
        .add(
            get(
                "/enrolment-tokens",
                "list_enrolment_tokens",
                "Tokens with which devices enrol, the newest first",
            )
            .paged()
            .gives::<List<Token>>(),
            tokens,
        )
        .add(
            post(
                "/enrolment-tokens",
                "create_enrolment_token",
                "Makes a token with which a device enrols once",
            )
            .creates()
            .takes::<NewToken>()
            .gives::<CreatedToken>()
            .secret(),
            create_token,
        )
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
