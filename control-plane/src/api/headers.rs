//! What every answer says beside what it gives: that browsers shall be careful with it.

use super::problem;
use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::Response,
};

/// For a year; a browser heeds it only where it trusts the certificate.
const STRICT_TRANSPORT: &str = "max-age=31536000";
/// Of what is no page.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";
/// Of pages: scripts, styles, pictures and requests only of this server.
const OWN_ONLY: &str = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; \
    form-action 'self'; frame-ancestors 'none'";

/// Completes an answer; what a handler has said itself stays.
pub(super) async fn complete(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    problem::place(&mut response, &path);
    let headers = response.headers_mut();
    let is_page =
        headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    let mut say = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    say(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    say(header::REFERRER_POLICY, "no-referrer");
    say(header::STRICT_TRANSPORT_SECURITY, STRICT_TRANSPORT);
    say(header::CONTENT_SECURITY_POLICY, if is_page { OWN_ONLY } else { NOTHING });
    if path.starts_with("/api/") || is_page {
        say(header::CACHE_CONTROL, "no-store");
    }
    response
}
