//! Boards, and the latencies that their devices measured.

use super::{
    paging::List,
    problem::{Body, Path, Problem},
};
use crate::app::{App, profiles::NewProfile};
use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use control_core::profile::BoardProfile;
use shared::{BoardId, board::Board};
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/boards", get(list))
        .route("/boards/{board}", get(show))
        .route("/boards/{board}/profile", get(show_profile).post(profile))
}

async fn list(State(app): State<Arc<App>>) -> Json<List<Board>> {
    Json(List::whole(app.boards().cloned().collect()))
}

async fn show(State(app): State<Arc<App>>, Path(board): Path<BoardId>) -> Result<Json<Board>, Problem> {
    Ok(Json(app.board(&board)?.clone()))
}

async fn show_profile(
    State(app): State<Arc<App>>,
    Path(board): Path<BoardId>,
) -> Result<Json<BoardProfile>, Problem> {
    Ok(Json(app.board_profile(&board).await?))
}

async fn profile(
    State(app): State<Arc<App>>,
    Path(board): Path<BoardId>,
    Body(new): Body<NewProfile>,
) -> Result<(StatusCode, Json<BoardProfile>), Problem> {
    Ok((StatusCode::ACCEPTED, Json(app.profile_board(&board, &new).await?)))
}
