//! Jobs of the forge: searches and retrainings.

use super::{
    operation::{Routes, get, post},
    paging::{List, Paging},
    problem::{Body, Path, Problem, Query},
};
use crate::app::{
    App,
    jobs::{NewRetrain, NewSearch, NewTraining},
};
use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use control_core::entity::Job;
use shared::JobId;
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    Routes::of("Jobs")
        .add(get("/jobs", "list_jobs", "Jobs, the newest first").paged().gives::<List<Job>>(), list)
        .add(get("/jobs/{job}", "show_job", "One job").gives::<Job>(), show)
        .add(
            post("/jobs/{job}/cancel", "cancel_job", "Ends a job")
                .gives::<Job>()
                .may(&[StatusCode::CONFLICT]),
            cancel,
        )
        .add(
            get("/jobs/{job}/plots/{file}", "show_job_plot", "A picture of how a job went")
                .gives_other("image/svg+xml"),
            plot,
        )
        .add(
            post("/searches", "start_search", "Searches an architecture and trains what it finds")
                .accepted()
                .takes::<NewSearch>()
                .gives::<Job>()
                .may(&[StatusCode::NOT_FOUND, StatusCode::BAD_GATEWAY]),
            search,
        )
        .add(
            post("/retrains", "start_retraining", "Trains a version's architecture anew")
                .accepted()
                .takes::<NewRetrain>()
                .gives::<Job>()
                .may(&[StatusCode::NOT_FOUND, StatusCode::BAD_GATEWAY]),
            retrain,
        )
        .add(
            post("/trainings", "start_training", "Trains a network that a search judged")
                .accepted()
                .takes::<NewTraining>()
                .gives::<Job>()
                .may(&[StatusCode::NOT_FOUND, StatusCode::BAD_GATEWAY]),
            train,
        )
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
