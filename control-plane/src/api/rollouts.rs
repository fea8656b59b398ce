//! Rollouts.

use super::{
    paging::{List, Paging},
    problem::{Body, Path, Problem, Query},
};
use crate::app::{App, rollouts::NewRollout};
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use control_core::{entity::Rollout, rollout::Order};
use shared::RolloutId;
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/rollouts", get(list).post(create))
        .route("/rollouts/{rollout}", get(show))
        .route("/rollouts/{rollout}/{order}", post(order))
}

async fn list(
    State(app): State<Arc<App>>,
    Query(paging): Query<Paging>,
) -> Result<Json<List<Rollout>>, Problem> {
    let page = paging.page()?;
    Ok(Json(List::new(app.rollouts(page).await?, page)))
}

async fn create(
    State(app): State<Arc<App>>,
    Body(new): Body<NewRollout>,
) -> Result<(StatusCode, Json<Rollout>), Problem> {
    Ok((StatusCode::CREATED, Json(app.create_rollout(new).await?)))
}

async fn show(State(app): State<Arc<App>>, Path(rollout): Path<RolloutId>) -> Result<Json<Rollout>, Problem> {
    Ok(Json(app.rollout(rollout).await?))
}

async fn order(
    State(app): State<Arc<App>>,
    Path((rollout, order)): Path<(RolloutId, Order)>,
) -> Result<Json<Rollout>, Problem> {
    Ok(Json(app.order_rollout(rollout, order).await?))
}
