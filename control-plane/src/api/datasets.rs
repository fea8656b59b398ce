//! Data sets.

use super::{
    paging::{List, Paging},
    problem::{Body, Path, Problem, Query},
};
use crate::app::{App, datasets::NewDataset};
use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use control_core::entity::Dataset;
use shared::DatasetId;
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/datasets", get(list).post(add)).route("/datasets/{dataset}", get(show))
}

async fn list(
    State(app): State<Arc<App>>,
    Query(paging): Query<Paging>,
) -> Result<Json<List<Dataset>>, Problem> {
    let page = paging.page()?;
    Ok(Json(List::new(app.datasets(&page).await?, &page)))
}

async fn add(
    State(app): State<Arc<App>>,
    Body(new): Body<NewDataset>,
) -> Result<(StatusCode, Json<Dataset>), Problem> {
    Ok((StatusCode::CREATED, Json(app.add_dataset(new).await?)))
}

async fn show(State(app): State<Arc<App>>, Path(dataset): Path<DatasetId>) -> Result<Json<Dataset>, Problem> {
    Ok(Json(app.dataset(&dataset).await?))
}
