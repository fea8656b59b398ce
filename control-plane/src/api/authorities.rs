//! The fleet's CAs.

use super::{
    operation::{Routes, get, post},
    paging::List,
    problem::{Body, Problem},
};
use crate::app::{
    App,
    authorities::{AuthorityStatus, Retirement},
};
use axum::{Json, extract::State, http::StatusCode};
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    Routes::of("Authorities")
        .add(
            get("/authorities", "list_authorities", "The fleet's CAs, the oldest first")
                .gives::<List<AuthorityStatus>>(),
            list,
        )
        .add(
            post("/authorities", "rotate_authority", "Adds a CA, which issues to devices from now on")
                .creates()
                .gives::<List<AuthorityStatus>>(),
            rotate,
        )
        .add(
            post("/authorities/retire", "retire_authorities", "Retires all CAs but the newest")
                .takes::<Retirement>()
                .gives::<List<AuthorityStatus>>()
                .may(&[StatusCode::CONFLICT]),
            retire,
        )
}

fn all(authorities: Vec<AuthorityStatus>) -> Json<List<AuthorityStatus>> {
    Json(List::whole(authorities))
}

async fn list(State(app): State<Arc<App>>) -> Result<Json<List<AuthorityStatus>>, Problem> {
    Ok(all(app.authorities().await?))
}

async fn rotate(State(app): State<Arc<App>>) -> Result<(StatusCode, Json<List<AuthorityStatus>>), Problem> {
    Ok((StatusCode::CREATED, all(app.rotate_authority().await?)))
}

async fn retire(
    State(app): State<Arc<App>>,
    Body(retirement): Body<Retirement>,
) -> Result<Json<List<AuthorityStatus>>, Problem> {
    Ok(all(app.retire_authorities(retirement).await?))
}
