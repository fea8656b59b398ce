//! The status page: one page, made on the server, that refreshes itself.

mod style;
mod view;

use crate::{
    api::{COOKIE, Problem, token_of},
    app::{App, DeviceFilter, Page},
};
use axum::{
    Form, Router,
    extract::State,
    http::{HeaderMap, header},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use serde::Deserialize;
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
    if !token_of(&headers).is_some_and(|token| app.is_admin(token)) {
        return Ok(Html(view::login(None).into_string()).into_response());
    }
    let shown = view::Shown {
        status: app.status().await?,
        devices: app.devices(&DeviceFilter::default(), &Page::first(SHOWN)).await?,
        rollouts: app.rollouts(&Page::first(6)).await?,
        jobs: app.jobs(&Page::first(4)).await?,
        datasets: app.datasets(&Page::first(DATASETS_SHOWN)).await?,
        events: app.device_events(None, &Page::first(20)).await?,
        security: app.security_events(&Page::first(5)).await?,
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
    ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response()
}
