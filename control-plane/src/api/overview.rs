//! The fleet at a glance.

use super::{
    operation::{Routes, get},
    problem::Problem,
};
use crate::app::{App, overview::Overview};
use axum::{Json, extract::State};
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    Routes::of("Overview")
        .add(get("/overview", "show_overview", "The fleet at a glance").gives::<Overview>(), show)
}

async fn show(State(app): State<Arc<App>>) -> Result<Json<Overview>, Problem> {
    Ok(Json(app.overview().await?))
}
