//! Logging in and out, and who one is.

use super::{
    auth::{self, set_cookie},
    operation::{Routes, get, post},
    peer::Peer,
    problem::{Body, Problem},
};
use crate::app::{
    App,
    access::{Login, Me, Principal, Session},
};
use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use shared::limits::SESSION_MS;
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    Routes::of("Session")
        .add(
            post("/login", "login", "Begins a session, for a cookie and as a token")
                .takes::<Login>()
                .gives::<Session>()
                .secret()
                .may(&[StatusCode::UNAUTHORIZED]),
            login,
        )
        .add(post("/logout", "logout", "Ends the session").empty(), logout)
        .add(get("/me", "acting_user", "Who one is").gives::<Me>(), me)
}

async fn login(
    State(app): State<Arc<App>>,
    peer: Peer,
    Body(login): Body<Login>,
) -> Result<Response, Problem> {
    let session = app.login(&login, peer.address).await?;
    let by =
        Principal { user: session.user.clone(), role: session.role, expires_at: Some(session.expires_at) };
    let cookie = set_cookie(session.token.reveal(), SESSION_MS / 1000);
    let mut response = ([(header::SET_COOKIE, cookie)], Json(session)).into_response();
    response.extensions_mut().insert(by);
    Ok(response)
}

async fn logout(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    if let Some(token) = auth::token_of(&headers) {
        app.logout(token).await?;
    }
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, set_cookie("", 0))]).into_response())
}

async fn me(Extension(principal): Extension<Principal>) -> Json<Me> {
    let Principal { user, role, expires_at } = principal;
    Json(Me { user, role, expires_at })
}
