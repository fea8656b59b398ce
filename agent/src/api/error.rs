//! Errors of the local API: `{"error": "..."}` and the only place where their HTTP status is spelled.

use axum::{
    Json,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The request breaks a rule; the text names it.
    #[error("{0}")]
    BadRequest(String),
    /// Over the cap on bodies.
    #[error("the body is over the limit of {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
    /// The bytes of the body did not come.
    #[error("the body did not come within {limit_s} seconds")]
    TooSlow { limit_s: u64 },
    /// No slot and no model of that name, or no such version.
    #[error("{0}")]
    NotFound(String),
    /// Too many requests wait.
    #[error("too many requests wait; try again")]
    Overloaded,
    /// The model failed.
    #[error("{0}")]
    Internal(String),
    /// The outbox cannot take a record.
    #[error("the record could not be stored")]
    NotStored(#[from] crate::store::Error),
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Overloaded | Self::NotStored(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

#[derive(Serialize)]
struct Body {
    error: String,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status(), Json(Body { error: crate::chain(&self) })).into_response()
    }
}

/// A path that is not in the protocol.
pub(super) async fn no_such_path(uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::NotFound(format!("no such path {path}; see /v2"))
}

/// A path of the protocol with another method.
pub(super) async fn no_such_method(method: Method, uri: Uri) -> Response {
    let path: String = uri.path().chars().take(200).collect();
    let body = Body { error: format!("{path} does not take {method}") };
    (StatusCode::METHOD_NOT_ALLOWED, Json(body)).into_response()
}
