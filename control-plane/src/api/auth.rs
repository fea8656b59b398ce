//! Who may use the API: whoever shows the administrator's token, as a bearer or in the page's cookie.

use super::problem::Problem;
use crate::app::App;
use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::Next,
    response::Response,
};
use std::sync::Arc;

/// The page's cookie.
pub const COOKIE: &str = "edgewright";

/// The token that a request shows, if any.
pub fn token_of(headers: &HeaderMap) -> Option<&str> {
    bearer(headers).or_else(|| cookie(headers))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ").map(str::trim)
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get(header::COOKIE)?.to_str().ok()?;
    cookies
        .split(';')
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, v)| v)
}

/// Lets a request pass that shows the token. The cookie is good for looking only, so that another site's form
/// cannot change anything.
pub(super) async fn require(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let looks = matches!(*request.method(), Method::GET | Method::HEAD);
    let token = bearer(request.headers()).or_else(|| cookie(request.headers()).filter(|_| looks));
    match token {
        Some(token) if app.is_admin(token) => Ok(next.run(request).await),
        Some(_) => Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "the token is wrong; context.json in the server's data folder has it",
        )),
        None => Err(Problem::new(StatusCode::UNAUTHORIZED, "a token is needed: Authorization: Bearer TOKEN")),
    }
}
