//! What a browser is shown: the dashboard, and at `/status` one page that is made on the server, works without scripts and
//! refreshes itself.

mod dashboard;
mod style;
mod view;

use crate::{
    api::{COOKIE, Problem, no_such_page, token_of},
    app::{App, Page},
};
use axum::{
    Form, Router,
    extract::State,
    http::{HeaderMap, Method, Uri, header},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use serde::Deserialize;
use std::sync::Arc;

/// Devices, rollouts, jobs and events that are shown.
const SHOWN: u32 = 50;
/// Data sets that are shown.
const DATASETS_SHOWN: u32 = 20;

/// The routes of the status page.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/status", get(show)).route("/status/login", post(login))
}

/// What no route takes: a file or a view of the dashboard for whoever reads, a problem for everybody else.
pub async fn fallback(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let reads = matches!(method, Method::GET | Method::HEAD);
    match dashboard::answer(uri.path(), &headers).filter(|_| reads) {
        Some(response) => response,
        None => no_such_page().await.into_response(),
    }
}

#[derive(Debug, Deserialize)]
struct Token {
    token: Option<String>,
}

async fn show(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    if !token_of(&headers).is_some_and(|token| app.is_admin(token)) {
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

/// Exchanges a token for a cookie that scripts cannot read. It comes in a form only, never in an address: those stay in
/// histories and logs.
async fn login(State(app): State<Arc<App>>, Form(form): Form<Token>) -> Response {
    let token = form.token.unwrap_or_default();
    let token = token.trim();
    if !app.is_admin(token) {
        return Html(view::login(Some("That token is wrong.")).into_string()).into_response();
    }
    let cookie = format!("{COOKIE}={token}; HttpOnly; Secure; SameSite=Strict; Path=/; Max-Age=604800");
    ([(header::SET_COOKIE, cookie)], Redirect::to("/status")).into_response()
}
