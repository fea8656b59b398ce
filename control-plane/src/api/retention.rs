//! How long things are kept.

use super::{
    operation::{Routes, get, put},
    problem::{Body, Problem},
};
use crate::app::App;
use axum::{Json, extract::State};
use control_core::retention::Retention;
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    Routes::of("Retention")
        .add(get("/retention", "show_retention", "How long things are kept").gives::<Retention>(), show)
        .add(
            put("/retention", "replace_retention", "Changes how long things are kept")
                .takes::<Retention>()
                .gives::<Retention>(),
            replace,
        )
}

async fn show(State(app): State<Arc<App>>) -> Result<Json<Retention>, Problem> {
    Ok(Json(app.retention().await?))
}

async fn replace(
    State(app): State<Arc<App>>,
    Body(retention): Body<Retention>,
) -> Result<Json<Retention>, Problem> {
    Ok(Json(app.replace_retention(retention).await?))
}
