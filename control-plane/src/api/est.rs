//! Enrolment over secure transport (RFC 7030) under `/.well-known/est`, for any client of it: `openssl` and `curl`
//! are enough. Answers to errors are one line of plain text.

use super::{
    operation::{Operation, Routes, get, post},
    peer::Peer,
    problem::Problem,
};
use crate::app::{self, App, enrol::Credentials};
use axum::{
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use std::sync::Arc;
use trust::est;

/// Largest body: a request as base64.
const BODY_BYTES_MAX: usize = 32 * 1024;
const CHALLENGE: &str = "Basic realm=\"edgewright: device id and enrolment token\", charset=\"UTF-8\"";

pub(super) fn routes() -> Routes {
    let refused = [StatusCode::CONFLICT, StatusCode::UNSUPPORTED_MEDIA_TYPE, StatusCode::SERVICE_UNAVAILABLE];
    let at_root =
        |operation: Operation| operation.at_root().plain_errors().gives_other(est::CERTIFICATES_TYPE);
    let limit = DefaultBodyLimit::max(BODY_BYTES_MAX);
    Routes::of("Enrolment")
        .add(at_root(get("/.well-known/est/cacerts", "list_est_authorities", "The fleet's CAs")), authorities)
        .add_limited(
            at_root(post("/.well-known/est/simpleenroll", "enrol_device", "A device's first certificate"))
                .takes_other(est::REQUEST_TYPE)
                .may(&refused),
            enrol,
            limit,
        )
        .add_limited(
            at_root(post("/.well-known/est/simplereenroll", "renew_device", "A device's next certificate"))
                .takes_other(est::REQUEST_TYPE)
                .may(&refused),
            renew,
            limit,
        )
}

/// A problem in plain text.
struct Refusal(Problem);

impl From<app::Error> for Refusal {
    fn from(error: app::Error) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.0.status();
        let mut response = (status, format!("{}\n", self.0.detail)).into_response();
        let (name, value) = match status {
            StatusCode::UNAUTHORIZED => (header::WWW_AUTHENTICATE, CHALLENGE),
            StatusCode::TOO_MANY_REQUESTS => (header::RETRY_AFTER, "10"),
            _ => return response,
        };
        response.headers_mut().insert(name, HeaderValue::from_static(value));
        response
    }
}

/// Certificates as PEM, sent as a certs-only message.
fn certificates(pem: &str) -> Result<Response, Refusal> {
    let message = est::write_certificates(pem).map_err(|error| app::Error::Internal(app::chain(&error)))?;
    let headers =
        [(header::CONTENT_TYPE.as_str(), est::CERTIFICATES_TYPE), ("content-transfer-encoding", "base64")];
    Ok((headers, message).into_response())
}

async fn authorities(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    certificates(&app.signer().ca_pem())
}

async fn enrol(
    State(app): State<Arc<App>>,
    peer: Peer,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (device, token) = authorization.and_then(est::read_basic).ok_or_else(|| {
        let text =
            "an enrolment token is needed: HTTP Basic with the device id as user and the token as password";
        app::Error::Unauthorized(text.to_owned())
    })?;
    let request = request(&headers, &body)?;
    certificates(&app.enrol(&Credentials { device, token }, &request, peer.address).await?)
}

async fn renew(
    State(app): State<Arc<App>>,
    peer: Peer,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let certificate = peer.own_certificate()?;
    let request = request(&headers, &body)?;
    certificates(&app.renew(certificate, &request, peer.address).await?)
}

/// The certificate request of a body, as DER.
fn request(headers: &HeaderMap, body: &Bytes) -> Result<Vec<u8>, Refusal> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case(est::REQUEST_TYPE) {
        let text = format!("the body is {kind:?}; send a certificate request as {}", est::REQUEST_TYPE);
        return Err(Refusal(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text)));
    }
    Ok(est::decode(body).map_err(|error| app::Error::Invalid(error.to_string()))?)
}
