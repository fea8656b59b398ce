//! Boards, and the latencies that their devices measured.

use super::{
    operation::{Routes, get, post},
    paging::List,
    problem::{Body, Path, Problem},
};
use crate::app::{App, profiles::NewProfile};
use axum::{Json, extract::State, http::StatusCode};
use control_core::profile::BoardProfile;
use shared::{BoardId, board::Board};
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    Routes::of("Boards")
        .add(get("/boards", "list_boards", "Boards that models can be made for").gives::<List<Board>>(), list)
        .add(get("/boards/{board}", "show_board", "One board").gives::<Board>(), show)
        .add(
            get("/boards/{board}/profile", "show_board_profile", "What devices of the board have measured")
                .gives::<BoardProfile>(),
            show_profile,
        )
        .add(
            post("/boards/{board}/profile", "profile_board", "Has devices of the board measure")
                .accepted()
                .takes::<NewProfile>()
                .gives::<BoardProfile>(),
            profile,
        )
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
