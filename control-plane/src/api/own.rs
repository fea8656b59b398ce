//! What a device says of itself and is told, once it has a certificate: the one resource that takes one in place of
//! the administrator's token.

use super::{
    operation::{Routes, put},
    peer::Peer,
    problem::{Body, Problem},
};
use crate::app::{
    App,
    enrol::{Registered, Registration},
};
use axum::{Json, extract::State};
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    Routes::of("Devices themselves").add(
        put("/self", "register_device", "What a device says of itself, and is told")
            .takes::<Registration>()
            .gives::<Registered>(),
        register,
    )
}

async fn register(
    State(app): State<Arc<App>>,
    peer: Peer,
    Body(registration): Body<Registration>,
) -> Result<Json<Registered>, Problem> {
    Ok(Json(app.register(peer.own_certificate()?, &registration, peer.address).await?))
}
