//! Jobs of the forge: searches and retrainings.

use super::{
    paging::{List, Paging},
    problem::{Body, Path, Problem, Query},
};
use crate::app::{
    App,
    jobs::{NewRetrain, NewSearch, NewTraining},
};
use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::{get, post},
};
use control_core::entity::Job;
use shared::JobId;
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/jobs", get(list))
        .route("/jobs/{job}", get(show))
        .route("/jobs/{job}/cancel", post(cancel))
        .route("/jobs/{job}/plots/{file}", get(plot))
        .route("/searches", post(search))
        .route("/retrains", post(retrain))
        .route("/trainings", post(train))
}

async fn list(State(app): State<Arc<App>>, Query(paging): Query<Paging>) -> Result<Json<List<Job>>, Problem> {
    let page = paging.page()?;
    Ok(Json(List::new(app.jobs(&page).await?, &page)))
}

async fn show(State(app): State<Arc<App>>, Path(job): Path<JobId>) -> Result<Json<Job>, Problem> {
    Ok(Json(app.job(job).await?))
}

async fn cancel(State(app): State<Arc<App>>, Path(job): Path<JobId>) -> Result<Json<Job>, Problem> {
    Ok(Json(app.cancel_job(job).await?))
}

async fn plot(
    State(app): State<Arc<App>>,
    Path((job, file)): Path<(JobId, String)>,
) -> Result<impl IntoResponse, Problem> {
    Ok(([(header::CONTENT_TYPE, "image/svg+xml")], app.plot(job, &file).await?))
}

async fn search(
    State(app): State<Arc<App>>,
    Body(new): Body<NewSearch>,
) -> Result<(StatusCode, Json<Job>), Problem> {
    Ok((StatusCode::ACCEPTED, Json(app.start_search(new).await?)))
}

async fn retrain(
    State(app): State<Arc<App>>,
    Body(new): Body<NewRetrain>,
) -> Result<(StatusCode, Json<Job>), Problem> {
    Ok((StatusCode::ACCEPTED, Json(app.start_retrain(new).await?)))
}

async fn train(
    State(app): State<Arc<App>>,
    Body(new): Body<NewTraining>,
) -> Result<(StatusCode, Json<Job>), Problem> {
    Ok((StatusCode::ACCEPTED, Json(app.start_training(new).await?)))
}
