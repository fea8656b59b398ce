//! Status for whoever has the token, and liveness for everybody.

use super::{
    operation::{Routes, get},
    problem::Problem,
};
use crate::app::{App, Status};
use axum::{Json, extract::State};
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    Routes::of("Server")
        .add(get("/status", "show_status", "The control plane at a glance").gives::<Status>(), status)
        .add(
            get("/healthz", "health", "Whether the server answers")
                .at_root()
                .gives_other("text/plain; charset=utf-8"),
            || async { "ok" },
        )
}

async fn status(State(app): State<Arc<App>>) -> Result<Json<Status>, Problem> {
    Ok(Json(app.status().await?))
}
