//! Status for whoever has the token, and liveness for everybody.

use super::problem::Problem;
use crate::app::{App, Status};
use axum::{Json, Router, extract::State, routing::get};
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/status", get(status))
}

pub(super) fn open_routes() -> Router<Arc<App>> {
    Router::new().route("/healthz", get(|| async { "ok" }))
}

async fn status(State(app): State<Arc<App>>) -> Result<Json<Status>, Problem> {
    Ok(Json(app.status().await?))
}
