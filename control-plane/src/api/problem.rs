//! Errors as problem details (RFC 9457). The one place where an error meets an HTTP status.

use crate::app::Error;
use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, rejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

/// A problem, as `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Problem {
    /// The kind, as in `urn:edgewright:problem:not-found`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The same for all problems of a kind.
    pub title: String,
    #[schemars(range(min = 400, max = 599))]
    pub status: u16,
    /// What, where, and what to do.
    pub detail: String,
    /// The resource that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Seconds to wait before asking again.
    #[serde(skip)]
    pub retry_after_s: Option<u64>,
}

/// Seconds to wait where nobody knows better.
const RETRY_AFTER_S: u64 = 10;

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error").to_owned();
        let kind = format!("urn:edgewright:problem:{}", title.to_ascii_lowercase().replace(' ', "-"));
        let retry_after_s = (status == StatusCode::TOO_MANY_REQUESTS).then_some(RETRY_AFTER_S);
        Self { kind, title, status: status.as_u16(), detail: detail.into(), instance: None, retry_after_s }
    }

    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let wait_s = match &error {
            Error::Throttled { wait_ms } => Some(wait_ms.div_ceil(1000).max(1)),
            _ => None,
        };
        let status = match &error {
            Error::NotFound(_) => StatusCode::NOT_FOUND,
            Error::Invalid(_) => StatusCode::BAD_REQUEST,
            Error::Conflict(_) => StatusCode::CONFLICT,
            Error::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Error::Forbidden(_) => StatusCode::FORBIDDEN,
            Error::Busy(_) | Error::Throttled { .. } => StatusCode::TOO_MANY_REQUESTS,
            Error::Mismatch(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Error::Full => StatusCode::INSUFFICIENT_STORAGE,
            Error::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Error::Forge(_) => StatusCode::BAD_GATEWAY,
            Error::Internal(reason) => {
                tracing::error!("a request failed: {reason}");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        let problem = Self::new(status, error.to_string());
        Self { retry_after_s: wait_s.or(problem.retry_after_s), ..problem }
    }
}

impl From<rejection::JsonRejection> for Problem {
    fn from(rejected: rejection::JsonRejection) -> Self {
        let status = match rejected.status() {
            StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
            status => status,
        };
        Self::new(status, one_line(&rejected.body_text()))
    }
}

impl From<rejection::QueryRejection> for Problem {
    fn from(rejected: rejection::QueryRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, one_line(&rejected.body_text()))
    }
}

impl From<rejection::PathRejection> for Problem {
    fn from(rejected: rejection::PathRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, one_line(&rejected.body_text()))
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = (status, Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait_s) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait_s));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"edgewright\""));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Names the resource in the problem that an answer holds, if it holds one.
pub(super) fn place(response: &mut Response, path: &str) {
    let Some(mut problem) = response.extensions_mut().remove::<Problem>() else { return };
    problem.instance = Some(path.to_owned());
    if let Ok(text) = serde_json::to_vec(&problem) {
        response.headers_mut().remove(header::CONTENT_LENGTH);
        *response.body_mut() = text.into();
    }
    response.extensions_mut().insert(problem);
}

/// A JSON body; what is wrong with it becomes a problem.
#[derive(Debug, FromRequest)]
#[from_request(via(axum::Json), rejection(Problem))]
pub(super) struct Body<T>(pub T);

/// Query parameters; what is wrong with them becomes a problem.
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub(super) struct Query<T>(pub T);

/// Parts of the path; what is wrong with them becomes a problem.
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub(super) struct Path<T>(pub T);

pub(crate) async fn no_such_page() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is nothing here; the API is under /api/v1")
}

pub(super) async fn no_such_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this resource does not take that method")
}
