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
use axum::{Json, Router, extract::State, routing::put};
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/self", put(register))
}

async fn register(
    State(app): State<Arc<App>>,
    peer: Peer,
    Body(registration): Body<Registration>,
) -> Result<Json<Registered>, Problem> {
    Ok(Json(app.register(peer.own_certificate()?, &registration, peer.address).await?))
}
