//! What a broker needs that is not the server's own.

use super::problem::{Body, Problem};
use crate::app::{
    App,
    external::{BrokerCertificate, NewBrokerCertificate, RevocationLists},
};
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/broker/certificate", post(certificate)).route("/broker/crl", get(lists))
}

async fn certificate(
    State(app): State<Arc<App>>,
    Body(new): Body<NewBrokerCertificate>,
) -> Result<(StatusCode, Json<BrokerCertificate>), Problem> {
    Ok((StatusCode::CREATED, Json(app.broker_certificate(new).await?)))
}

async fn lists(State(app): State<Arc<App>>) -> Result<Json<RevocationLists>, Problem> {
    Ok(Json(app.revocation_lists().await?))
}
