//! Incidents.

use super::{
    operation::{Routes, get, post},
    paging::{List, Paging},
    problem::{Path, Problem, Query},
};
use crate::app::{App, Keyed, access::Principal};
use axum::{Extension, Json, extract::State};
use control_core::incident::Incident;
use serde::Deserialize;
use std::sync::Arc;
use uuid::Uuid;

pub(super) fn routes() -> Routes {
    Routes::of("Incidents")
        .add(
            get("/incidents", "list_incidents", "What somebody should look at, the newest first")
                .query::<bool>("open", "Only those that are open, or only those that are closed")
                .paged()
                .gives::<List<Incident>>(),
            list,
        )
        .add(get("/incidents/{incident}", "show_incident", "One incident").gives::<Incident>(), show)
        .add(
            post(
                "/incidents/{incident}/acknowledge",
                "acknowledge_incident",
                "Says that somebody looks at it",
            )
            .gives::<Incident>(),
            acknowledge,
        )
        .add(
            post(
                "/incidents/{incident}/resolve",
                "resolve_incident",
                "Closes it, whether or not its cause is gone",
            )
            .gives::<Incident>(),
            resolve,
        )
}

impl Keyed for Incident {
    fn key(&self) -> String {
        self.id.to_string()
    }
}

#[derive(Debug, Deserialize)]
struct Asked {
    #[serde(default)]
    open: Option<bool>,
    #[serde(default)]
    limit: Option<u32>,
    #[serde(default)]
    cursor: Option<String>,
}

async fn list(
    State(app): State<Arc<App>>,
    Query(asked): Query<Asked>,
) -> Result<Json<List<Incident>>, Problem> {
    let page = Paging { limit: asked.limit, cursor: asked.cursor }.page()?;
    Ok(Json(List::new(app.incidents(asked.open, &page).await?, &page)))
}

async fn show(State(app): State<Arc<App>>, Path(id): Path<Uuid>) -> Result<Json<Incident>, Problem> {
    Ok(Json(app.incident(id).await?))
}

async fn acknowledge(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<Uuid>,
) -> Result<Json<Incident>, Problem> {
    Ok(Json(app.acknowledge_incident(id, &principal.user.to_string()).await?))
}

async fn resolve(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<Uuid>,
) -> Result<Json<Incident>, Problem> {
    Ok(Json(app.resolve_incident(id, &principal.user.to_string()).await?))
}
