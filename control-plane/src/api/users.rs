//! Users.

use super::{
    operation::{Routes, delete, get, patch, post},
    paging::{List, Paging},
    problem::{Body, Path, Problem, Query},
};
use crate::app::{
    App,
    access::{ChangeUser, NewUser},
};
use axum::{Json, extract::State, http::StatusCode};
use control_core::access::User;
use shared::UserName;
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    Routes::of("Users")
        .add(get("/users", "list_users", "Users by name").paged().gives::<List<User>>(), list)
        .add(
            post("/users", "create_user", "Adds a user")
                .creates()
                .takes::<NewUser>()
                .gives::<User>()
                .secret(),
            create,
        )
        .add(get("/users/{user}", "show_user", "One user").gives::<User>(), show)
        .add(
            patch("/users/{user}", "change_user", "Changes a user's role or password, or disables the user")
                .takes::<ChangeUser>()
                .gives::<User>()
                .secret()
                .may(&[StatusCode::CONFLICT]),
            change,
        )
        .add(
            delete("/users/{user}", "delete_user", "Removes a user with sessions and tokens")
                .empty()
                .may(&[StatusCode::CONFLICT]),
            remove,
        )
}

async fn list(
    State(app): State<Arc<App>>,
    Query(paging): Query<Paging>,
) -> Result<Json<List<User>>, Problem> {
    let page = paging.page()?;
    Ok(Json(List::new(app.users(&page).await?, &page)))
}

async fn create(
    State(app): State<Arc<App>>,
    Body(new): Body<NewUser>,
) -> Result<(StatusCode, Json<User>), Problem> {
    Ok((StatusCode::CREATED, Json(app.create_user(&new).await?)))
}

async fn show(State(app): State<Arc<App>>, Path(user): Path<UserName>) -> Result<Json<User>, Problem> {
    Ok(Json(app.user(&user).await?))
}

async fn change(
    State(app): State<Arc<App>>,
    Path(user): Path<UserName>,
    Body(change): Body<ChangeUser>,
) -> Result<Json<User>, Problem> {
    Ok(Json(app.change_user(&user, &change).await?))
}

async fn remove(State(app): State<Arc<App>>, Path(user): Path<UserName>) -> Result<StatusCode, Problem> {
    app.delete_user(&user).await?;
    Ok(StatusCode::NO_CONTENT)
}
