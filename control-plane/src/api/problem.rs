//! Errors as problem details (RFC 9457). The one place where an error meets an HTTP status.

use crate::app::Error;
use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, rejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

/// A problem, as `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The same for all problems of a kind.
    pub title: String,
    pub status: u16,
    /// What, where, and what to do.
    pub detail: String,
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error").to_owned();
        Self { title, status: status.as_u16(), detail: detail.into() }
    }

    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::NotFound(_) => StatusCode::NOT_FOUND,
            Error::Invalid(_) => StatusCode::BAD_REQUEST,
            Error::Conflict(_) => StatusCode::CONFLICT,
            Error::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Error::Forbidden(_) => StatusCode::FORBIDDEN,
            Error::Busy(_) => StatusCode::TOO_MANY_REQUESTS,
            Error::Full => StatusCode::INSUFFICIENT_STORAGE,
            Error::Forge(_) => StatusCode::BAD_GATEWAY,
            Error::Internal(reason) => {
                tracing::error!("a request failed: {reason}");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self::new(status, error.to_string())
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
        let mut response = (status, Json(self)).into_response();
        let kind = header::HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
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
