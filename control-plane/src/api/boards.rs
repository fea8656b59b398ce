//! Boards.

use super::{
    paging::List,
    problem::{Path, Problem},
};
use crate::app::App;
use axum::{Json, Router, extract::State, routing::get};
use shared::{BoardId, board::Board};
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/boards", get(list)).route("/boards/{board}", get(show))
}

async fn list(State(app): State<Arc<App>>) -> Json<List<Board>> {
    Json(List::whole(app.boards().cloned().collect()))
}

async fn show(State(app): State<Arc<App>>, Path(board): Path<BoardId>) -> Result<Json<Board>, Problem> {
    Ok(Json(app.board(&board)?.clone()))
}
