//! Data sets.

use super::{
    operation::{Routes, get, post},
    paging::{List, Paging},
    problem::{Body, Path, Problem, Query},
};
use crate::app::{App, datasets::NewDataset};
use axum::{Json, extract::State, http::StatusCode};
use control_core::entity::Dataset;
use shared::DatasetId;
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    Routes::of("Data sets")
        .add(get("/datasets", "list_datasets", "Data sets by id").paged().gives::<List<Dataset>>(), list)
        .add(
            post("/datasets", "add_dataset", "Registers a data set, or looks at it anew")
                .creates()
                .takes::<NewDataset>()
                .gives::<Dataset>()
                .may(&[StatusCode::BAD_GATEWAY]),
            add,
        )
        .add(get("/datasets/{dataset}", "show_dataset", "One data set").gives::<Dataset>(), show)
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
