//! What a device says of itself and is told, once it has a certificate: the one resource that takes one in place of
//! the administrator's token.

use super::{
    peer::Peer,
    problem::{Body, Problem},
};
use crate::app::{
    App,
    enrol::{Registered, Registration},
};
use axum::{Json, Router, extract::State, http::StatusCode, routing::put};
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/self", put(register))
}

async fn register(
    State(app): State<Arc<App>>,
    peer: Peer,
    Body(registration): Body<Registration>,
) -> Result<Json<Registered>, Problem> {
    let certificate = peer.certificate.ok_or_else(|| {
        let text = "the device's own certificate is needed as TLS client certificate";
        Problem::new(StatusCode::UNAUTHORIZED, text)
    })?;
    Ok(Json(app.register(&certificate, &registration, peer.address).await?))
}
