//! The fleet's CAs.

use super::{
    paging::List,
    problem::{Body, Problem},
};
use crate::app::{
    App,
    authorities::{AuthorityStatus, Retirement},
};
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/authorities", get(list).post(rotate)).route("/authorities/retire", post(retire))
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
