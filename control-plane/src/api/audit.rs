//! The audit log.

use super::{
    operation::{Routes, get},
    paging::{List, Paging},
    problem::{Problem, Query},
};
use crate::app::{App, audit::AuditFilter};
use axum::{Json, extract::State};
use control_core::access::AuditEntry;
use serde::Deserialize;
use shared::Timestamp;
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    Routes::of("Audit").add(
        get("/audit", "list_audit", "Who changed what, the newest first")
            .paged()
            .query::<String>("user", "Only of this user")
            .query::<String>("operation", "Only of this operation, as in `create_rollout`")
            .query::<Timestamp>("since", "Not before")
            .query::<Timestamp>("until", "Not after")
            .gives::<List<AuditEntry>>(),
        list,
    )
}

#[derive(Debug, Deserialize)]
struct Filter {
    user: Option<String>,
    operation: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

async fn list(
    State(app): State<Arc<App>>,
    Query(filter): Query<Filter>,
    Query(paging): Query<Paging>,
) -> Result<Json<List<AuditEntry>>, Problem> {
    let Filter { user, operation, since, until } = filter;
    let page = paging.page()?;
    let entries = app.audit(&AuditFilter { user, operation, since, until }, &page).await?;
    Ok(Json(List::new(entries, &page)))
}
