//! Devices, their tokens and events, and what was refused.

use super::{
    operation::{Routes, get, post, put},
    paging::{List, Paging},
    problem::{Body, Path, Problem, Query},
};
use crate::app::{
    App, DeviceFilter, Error,
    enrol::{CreatedToken, NewToken},
    versions::VersionName,
};
use axum::{Json, extract::State, http::StatusCode};
use control_core::entity::{Device, DeviceEvent, DeviceState, SecurityEvent, Token};
use shared::{BoardId, DeviceId};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Longest text to search for.
const SEARCH_BYTES_MAX: usize = 256;
/// Most labels to ask for at one time.
const LABELS_ASKED_MAX: usize = 16;

pub(super) fn routes() -> Routes {
    Routes::of("Devices")
        .add(
            get("/devices", "list_devices", "Devices by id")
                .paged()
                .query::<String>("search", "Part of an id or of a label's value")
                .query::<BoardId>("board", "Only of this board")
                .query::<bool>("online", "Only those that are connected, or only those that are not")
                .repeated_query::<String>("label", "Only with this label, as in `site=lab`")
                .query::<VersionName>("version", "Only those that shall run this version")
                .query::<String>("group", "Only those of this group")
                .query::<DeviceState>("state", "Only those that are so far")
                .gives::<List<Device>>(),
            list,
        )
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
    let mut seen = BTreeSet::new();
    for (key, value) in asked {
        if key != "label" && !seen.insert(key.clone()) {
            return Err(wrong(&key, &"given more than once"));
        }
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
            "state" => {
                filter.state = Some(value.parse::<DeviceState>().map_err(|error| wrong(&key, &error))?);
            }
            "group" => {
                let group = app.group(&value).await.map_err(|error| match error {
                    Error::NotFound(text) => wrong(&key, &text),
                    error => error.into(),
                })?;
                filter.group = Some(group.selector);
            }
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
