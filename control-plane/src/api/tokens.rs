//! API tokens: for programs that act for a user.

use super::{
    operation::{Routes, delete, get, post},
    paging::{List, Paging},
    problem::{Body, Path, Problem, Query},
};
use crate::app::{
    App,
    access::{NewApiToken, NewTokenGiven, Principal},
};
use axum::{Extension, Json, extract::State, http::StatusCode};
use control_core::access::ApiToken;
use std::sync::Arc;
use uuid::Uuid;

pub(super) fn routes() -> Routes {
    Routes::of("API tokens")
        .add(
            get("/tokens", "list_api_tokens", "API tokens, the newest first")
                .paged()
                .gives::<List<ApiToken>>(),
            list,
        )
        .add(
            post("/tokens", "create_api_token", "Makes an API token; its secret is shown only now")
                .creates()
                .takes::<NewApiToken>()
                .gives::<NewTokenGiven>()
                .secret(),
            create,
        )
        .add(delete("/tokens/{id}", "delete_api_token", "Removes an API token").empty(), remove)
}

async fn list(
    State(app): State<Arc<App>>,
    Query(paging): Query<Paging>,
) -> Result<Json<List<ApiToken>>, Problem> {
    let page = paging.page()?;
    Ok(Json(List::new(app.api_tokens(&page).await?, &page)))
}

async fn create(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    Body(new): Body<NewApiToken>,
) -> Result<(StatusCode, Json<NewTokenGiven>), Problem> {
    Ok((StatusCode::CREATED, Json(app.create_api_token(&principal, &new).await?)))
}

async fn remove(State(app): State<Arc<App>>, Path(id): Path<Uuid>) -> Result<StatusCode, Problem> {
    app.delete_api_token(id).await?;
    Ok(StatusCode::NO_CONTENT)
}
