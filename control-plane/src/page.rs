//! What a browser is shown: the dashboard, and at `/status` one page that is made on the server, works without scripts and
//! refreshes itself.

mod dashboard;
mod style;
mod view;

use crate::{
    api::{Peer, Problem, no_such_page, set_cookie, token_of},
    app::{
        App, DeviceFilter, Page,
        access::{Login, Secret},
    },
};
use axum::{
    Form, Router,
    extract::State,
    http::{HeaderMap, Method, Uri, header},
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
    token: Option<Secret>,
}

async fn show(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    let known = match token_of(&headers) {
        Some(token) => app.principal(token).await?.is_some(),
        None => false,
    };
    if !known {
        return Ok(Html(view::login(None).into_string()).into_response());
    }
    let mut rollouts = Vec::new();
    for rollout in app.rollouts(&Page::first(6)).await? {
        let is_open = !rollout.status.state.is_final();
        let whole = if is_open { Some(app.rollout(rollout.id).await?) } else { None };
        rollouts.push((rollout, whole));
    }
    let shown = view::Shown {
        status: app.status().await?,
        devices: app.devices(&DeviceFilter::default(), &Page::first(SHOWN)).await?,
        rollouts,
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

/// Exchanges the administrator's token for the cookie of a session. It comes in a form only, never in an address: those
/// stay in histories and logs.
async fn login(State(app): State<Arc<App>>, peer: Peer, Form(form): Form<Token>) -> Response {
    let token = form.token.unwrap_or_else(|| Secret::new(""));
    let password = Secret::new(token.reveal().trim());
    let login = Login { user: UserName::administrator(), password };
    let Ok(session) = app.login(&login, peer.address).await else {
        return Html(view::login(Some("That token is wrong.")).into_string()).into_response();
    };
    let cookie = set_cookie(session.token.reveal(), SESSION_MS / 1000);
    ([(header::SET_COOKIE, cookie)], Redirect::to("/status")).into_response()
}
