//! Groups of devices.

use super::{
    operation::{Routes, delete, get, post, put},
    paging::{List, Paging},
    problem::{Body, Path, Problem, Query},
};
use crate::app::{
    App, Keyed,
    groups::{ChangeGroup, NewGroup},
};
use axum::{Json, extract::State, http::StatusCode};
use control_core::entity::Group;
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    Routes::of("Groups")
        .add(get("/groups", "list_groups", "Groups by name").paged().gives::<List<Group>>(), list)
        .add(
            post("/groups", "create_group", "Makes a group").creates().takes::<NewGroup>().gives::<Group>(),
            create,
        )
        .add(get("/groups/{group}", "show_group", "One group").gives::<Group>(), show)
        .add(
            put("/groups/{group}", "replace_group", "Has a group name other devices")
                .takes::<ChangeGroup>()
                .gives::<Group>(),
            replace,
        )
        .add(delete("/groups/{group}", "delete_group", "Removes a group; its devices stay").empty(), remove)
}

impl Keyed for Group {
    fn key(&self) -> String {
        self.name.clone()
    }
}

async fn list(
    State(app): State<Arc<App>>,
    Query(paging): Query<Paging>,
) -> Result<Json<List<Group>>, Problem> {
    let page = paging.page()?;
    Ok(Json(List::new(app.groups(&page).await?, &page)))
}

async fn create(
    State(app): State<Arc<App>>,
    Body(new): Body<NewGroup>,
) -> Result<(StatusCode, Json<Group>), Problem> {
    Ok((StatusCode::CREATED, Json(app.create_group(new).await?)))
}

async fn show(State(app): State<Arc<App>>, Path(group): Path<String>) -> Result<Json<Group>, Problem> {
    Ok(Json(app.group(&group).await?))
}

async fn replace(
    State(app): State<Arc<App>>,
    Path(group): Path<String>,
    Body(change): Body<ChangeGroup>,
) -> Result<Json<Group>, Problem> {
    Ok(Json(app.replace_group(&group, change).await?))
}

async fn remove(State(app): State<Arc<App>>, Path(group): Path<String>) -> Result<StatusCode, Problem> {
    app.remove_group(&group).await?;
    Ok(StatusCode::NO_CONTENT)
}
