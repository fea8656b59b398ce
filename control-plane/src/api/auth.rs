//! What a request shows of who sends it: a bearer token, or a token in the page's cookie.

use axum::http::{HeaderMap, header};

/// The page's cookie.
pub const COOKIE: &str = "edgewright";
/// A request by cookie that changes something has this header: a form of another site cannot send it.
pub(super) const GUARD: &str = "x-edgewright";

/// A token, and how it came.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) token: &'a str,
    pub(super) by_cookie: bool,
}

/// The token that a request shows, if any.
pub(super) fn shown(headers: &HeaderMap) -> Option<Shown<'_>> {
    let bearer = bearer(headers).map(|token| Shown { token, by_cookie: false });
    bearer.or_else(|| cookie(headers).map(|token| Shown { token, by_cookie: true }))
}

/// The same, however it came.
pub fn token_of(headers: &HeaderMap) -> Option<&str> {
    shown(headers).map(|shown| shown.token)
}

/// Does the request have the header that no other site can send?
pub(super) fn is_guarded(headers: &HeaderMap) -> bool {
    headers.get(GUARD).is_some_and(|value| value.as_bytes() == b"1")
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get(header::COOKIE)?.to_str().ok()?;
    cookies
        .split(';')
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, v)| v)
}

/// A cookie that scripts cannot read and other sites cannot use.
pub fn set_cookie(token: &str, life_s: u64) -> String {
    format!("{COOKIE}={token}; HttpOnly; Secure; SameSite=Strict; Path=/; Max-Age={life_s}")
}
