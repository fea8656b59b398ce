//! Rollouts.

use super::{
    operation::{Routes, get, post},
    paging::{List, Paging},
    problem::{Body, Path, Problem, Query},
};
use crate::app::{App, rollouts::NewRollout};
use axum::{Json, extract::State, http::StatusCode};
use control_core::{
    entity::{Rollout, RolloutSummary},
    rollout::{Order, Preview, Why},
};
use serde::{Deserialize, Serialize};
use shared::{DeviceId, RolloutId};
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    Routes::of("Rollouts")
        .add(
            get("/rollouts", "list_rollouts", "Rollouts with their members in numbers, the newest first")
                .paged()
                .gives::<List<RolloutSummary>>(),
            list,
        )
        .add(
            post("/rollouts", "create_rollout", "Begins to roll a version out")
                .creates()
                .takes::<NewRollout>()
                .gives::<Rollout>()
                .may(&[StatusCode::NOT_FOUND]),
            create,
        )
        .add(
            post("/rollouts/plan", "plan_rollout", "What a rollout would do; nothing is kept")
                .looks()
                .takes::<NewRollout>()
                .gives::<Preview>()
                .may(&[StatusCode::NOT_FOUND, StatusCode::CONFLICT]),
            plan,
        )
        .add(get("/rollouts/{rollout}", "show_rollout", "One rollout").gives::<Rollout>(), show)
        .add(
            post("/rollouts/{rollout}/approve", "approve_rollout", "Lets a wave that needs it begin")
                .takes::<OfWave>()
                .gives::<Rollout>()
                .may(&[StatusCode::CONFLICT]),
            approve,
        )
        .add(
            post(
                "/rollouts/{rollout}/waive",
                "waive_rollout",
                "Lets the gates behind a wave do without more evidence",
            )
            .takes::<OfWave>()
            .gives::<Rollout>()
            .may(&[StatusCode::CONFLICT]),
            waive,
        )
        .add(
            get("/rollouts/{rollout}/why/{device}", "why", "Why a device is where it is in a rollout")
                .gives::<Why>(),
            why,
        )
        .add(
            post("/rollouts/{rollout}/{order}", "order_rollout", "Pauses, resumes or aborts a rollout")
                .gives::<Rollout>()
                .may(&[StatusCode::CONFLICT]),
            order,
        )
}

async fn list(
    State(app): State<Arc<App>>,
    Query(paging): Query<Paging>,
) -> Result<Json<List<RolloutSummary>>, Problem> {
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
#[derive(Debug, Serialize, Deserialize, schemars::JsonSchema)]
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
