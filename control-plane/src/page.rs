//! The status page: one page, made on the server, that refreshes itself.

mod style;
mod view;

use crate::{
    api::{Peer, Problem, set_cookie, token_of},
    app::{
        App, Page,
        access::{Login, Secret},
    },
};
use axum::{
    Form, Router,
    extract::State,
    http::{HeaderMap, header},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use serde::Deserialize;
use shared::{UserName, limits::SESSION_MS};
use std::sync::Arc;

/// Devices, rollouts, jobs and events that are shown.
const SHOWN: u32 = 50;
/// Data sets that are shown.
const DATASETS_SHOWN: u32 = 20;

/// The page's routes.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/", get(show)).route("/login", post(login))
}

#[derive(Debug, Deserialize)]
struct Token {
    token: Option<String>,
}

async fn show(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    let known = match token_of(&headers) {
        Some(token) => app.principal(token).await?.is_some(),
        None => false,
    };
    if !known {
        return Ok(Html(view::login(None).into_string()).into_response());
    }
    let page = Page { limit: SHOWN, offset: 0 };
    let shown = view::Shown {
        status: app.status().await?,
        devices: app.devices(page).await?,
        rollouts: app.rollouts(Page { limit: 6, offset: 0 }).await?,
        jobs: app.jobs(Page { limit: 4, offset: 0 }).await?,
        datasets: app.datasets(Page { limit: DATASETS_SHOWN, offset: 0 }).await?,
        events: app.device_events(None, Page { limit: 20, offset: 0 }).await?,
        security: app.security_events(Page { limit: 5, offset: 0 }).await?,
        now: crate::app::now(),
    };
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'",
        ),
    ];
    Ok((headers, Html(view::page(&shown).into_string())).into_response())
}

/// Exchanges the administrator's token for the cookie of a session. It comes in a form only, never in an address: those
/// stay in histories and logs.
async fn login(State(app): State<Arc<App>>, peer: Peer, Form(form): Form<Token>) -> Response {
    let token = form.token.unwrap_or_default();
    let login = Login { user: UserName::administrator(), password: Secret::new(token.trim()) };
    let Ok(session) = app.login(&login, peer.address).await else {
        return Html(view::login(Some("That token is wrong.")).into_string()).into_response();
    };
    let cookie = set_cookie(session.token.reveal(), SESSION_MS / 1000);
    ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response()
}
