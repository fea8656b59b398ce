//! Enrolment: the one resource that a stranger may use, with a one-time token in the body.

use super::problem::{Body, Problem};
use crate::app::{
    App,
    enrol::{EnrolRequest, Enrolled},
};
use axum::{Json, Router, extract::State, routing::post};
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/enroll", post(enrol))
}

async fn enrol(
    State(app): State<Arc<App>>,
    Body(request): Body<EnrolRequest>,
) -> Result<Json<Enrolled>, Problem> {
    Ok(Json(app.enrol(request).await?))
}
