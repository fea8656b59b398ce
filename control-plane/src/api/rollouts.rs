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
use control_core::{
    entity::Rollout,
    rollout::{Order, Preview, Why},
};
use serde::{Deserialize, Serialize};
use shared::{DeviceId, RolloutId};
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/rollouts", get(list).post(create))
        .route("/rollouts/plan", post(plan))
        .route("/rollouts/{rollout}", get(show))
        .route("/rollouts/{rollout}/approve", post(approve))
        .route("/rollouts/{rollout}/waive", post(waive))
        .route("/rollouts/{rollout}/why/{device}", get(why))
        .route("/rollouts/{rollout}/{order}", post(order))
}

async fn list(
    State(app): State<Arc<App>>,
    Query(paging): Query<Paging>,
) -> Result<Json<List<Rollout>>, Problem> {
    let page = paging.page()?;
    Ok(Json(List::new(app.rollouts(&page).await?, &page)))
}

async fn create(
    State(app): State<Arc<App>>,
    Body(new): Body<NewRollout>,
) -> Result<(StatusCode, Json<Rollout>), Problem> {
    Ok((StatusCode::CREATED, Json(app.create_rollout(new).await?)))
}

/// What a rollout would do: who would be asked when, and what speaks against it. Nothing is kept.
async fn plan(State(app): State<Arc<App>>, Body(new): Body<NewRollout>) -> Result<Json<Preview>, Problem> {
    Ok(Json(app.plan_rollout(new).await?))
}

/// The wave, from 0, that an operator speaks of; none is the one that waits.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfWave {
    #[serde(default)]
    pub wave: Option<u32>,
}

async fn approve(
    State(app): State<Arc<App>>,
    Path(rollout): Path<RolloutId>,
    Body(OfWave { wave }): Body<OfWave>,
) -> Result<Json<Rollout>, Problem> {
    Ok(Json(app.order_rollout(rollout, Order::Approve { wave }).await?))
}

async fn waive(
    State(app): State<Arc<App>>,
    Path(rollout): Path<RolloutId>,
    Body(OfWave { wave }): Body<OfWave>,
) -> Result<Json<Rollout>, Problem> {
    Ok(Json(app.order_rollout(rollout, Order::Waive { wave }).await?))
}

async fn why(
    State(app): State<Arc<App>>,
    Path((rollout, device)): Path<(RolloutId, DeviceId)>,
) -> Result<Json<Why>, Problem> {
    Ok(Json(app.why(rollout, &device).await?))
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
